"""Makes examples binary by their grey levels: once and for all by a threshold, or anew in every epoch."""

from typing import Annotated, Any, Literal

import numpy as np

from d3pm_jax.checks import Categories, declared, one_of
from d3pm_jax.data.source import DatasetError, FunctionSource, Source, check_example, check_source

Binarize = Literal["dynamic", "threshold"]
SPLITS = ("train", "test", "valid")


class BinarySource(FunctionSource):
    """Makes x of every example 0 or 1: by a threshold, or by a draw that depends on (split, number) alone.

    Args:
        source: of examples with x in 0..levels - 1.
        levels: how many there are.
        how: "dynamic", or "threshold": 1 where the level is above half of the highest.
        split: which one of SPLITS it is.

    Raises:
        DatasetError: (while reading) x is no level.
    """

    @declared()
    def __init__(
        self, source: Source, levels: Categories, how: Binarize, split: Annotated[str, one_of(*SPLITS)]
    ) -> None:
        check_source("source", source)

        def read(number: int) -> dict[str, Any]:
            example = source[number]
            if how == "threshold":
                return example | {"x": (_intensity(example, levels) > 0.5).astype(np.uint8)}
            # The number of the split is a part of the seed: equal indices of two splits have their own draws.
            return draw_binary(example, levels, np.random.default_rng([SPLITS.index(split), number]))

        super().__init__(len(source), read)


def draw_binary(example: dict[str, Any], levels: int, rng: np.random.Generator) -> dict[str, Any]:
    """Returns the example with x = 1 with probability level / highest (Salakhutdinov & Murray 2008)."""
    intensity = _intensity(example, levels)
    return example | {"x": (rng.random(intensity.shape) < intensity).astype(np.uint8)}


def _intensity(example: dict[str, Any], levels: int) -> np.ndarray:
    """Returns level / highest, float64 [*S], or raises DatasetError where it is outside [0, 1]."""
    check_example(example, "an example of the source is")
    x = np.asarray(example["x"])
    if x.size and not 0 <= x.min() <= x.max() < levels:
        raise DatasetError(
            f"an example holds {x.min()}..{x.max()}, but its levels are 0..{levels - 1}: correct the "
            "data, or leave binarize out"
        )
    return x / (levels - 1)
