"""Makes examples binary by their grey levels: once and for all by a threshold, or anew in every epoch."""

from typing import Any, Literal

import numpy as np

from d3pm_jax.data.source import DatasetError, Source

Binarize = Literal["dynamic", "threshold"]
SEED = 0  # of what is evaluated


class BinarySource:
    """Gives the examples of a source with x in {0, 1}.

    "threshold": x = 1 where the level is above half of the highest. "dynamic": x = 1 with probability
    level / highest (Salakhutdinov & Murray 2008), drawn from a fixed seed and the number of the example; the
    level is kept as "level", from which `redraw` draws x anew.

    Args:
        source: of examples with x in 0..levels - 1.
        levels: how many there are.
        how: "dynamic" or "threshold".

    Raises:
        DatasetError: (while reading) x is no level.
    """

    def __init__(self, source: Source, levels: int, how: Binarize) -> None:
        self._source, self._highest, self._how = source, levels - 1, how

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = range(len(self))[index]
        example = self._source[index]
        level = np.asarray(example["x"])
        if level.size and not 0 <= level.min() <= level.max() <= self._highest:
            raise DatasetError(
                f"x of example {index} holds {level.min()}..{level.max()}, but its levels are "
                f"0..{self._highest}: mend the data, or leave binarize out"
            )
        if self._how == "threshold":
            return example | {"x": (2 * level.astype(np.int64) > self._highest).astype(np.uint8)}
        grey = example | {"level": level / self._highest}
        return grey | redraw(grey, np.random.default_rng([SEED, index]))


def redraw(example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Draws x anew where the example has its grey "level", the probability of 1; others stay as they are."""
    rest = dict(example)
    level = rest.pop("level", None)
    return rest if level is None else rest | {"x": (rng.random(level.shape) < level).astype(np.uint8)}
