"""Reads --given FILE and --known MASK of d3pm sample: what samples are made from, through their kind."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from d3pm_jax.errors import UsageError
from d3pm_jax.files import describe_content
from d3pm_jax.kinds import Kind
from d3pm_jax.sampling import Known

SHOWN = 64  # samples whose givens are written beside them, at most


class MadeFrom(NamedTuple):
    """Holds what samples are made from, and how files tell it."""

    elements: Known
    strength: float | None  # of an edit; None: what is not known is drawn from noise
    content: dict[str, Any]  # of the file that describes the samples
    suffix: str  # of the names of files

    @property
    def has_known(self) -> bool:
        """Tells whether any element stays as it is."""
        return bool(np.any(self.elements.mask))

    def for_samples(self, n: int, shape: tuple[int, ...], levels: int) -> np.ndarray:
        """Returns what each of the first n samples is made from, [n, *S]; what is drawn from noise is a mask.

        Args:
            n: how many samples there are; of more than `SHOWN` the first ones count.
            shape: *S of a sample.
            levels: categories that the data may have, the first of the others is the mask.
        """
        index = np.arange(min(n, SHOWN))
        x0, known = (
            np.broadcast_to(
                array[index % len(array)] if array.ndim > len(shape) else array, (len(index), *shape)
            )
            for array in self.elements
        )
        if self.strength is not None:
            return x0.astype(np.int32)
        return np.where(known, x0, levels).astype(np.int32)


def check_options(given: Path | None, known: str | None, strength: float | None) -> None:
    """Raises UsageError for options that do not go together, or a strength that is none."""
    for option, value in (("known", known), ("strength", strength)):
        if value is not None and given is None:
            raise UsageError(f"argument --{option}: pass the examples too, as --given FILE")
    if given is not None and known is None and strength is None:
        raise UsageError(
            "argument --given: pass --known MASK too (which elements stay), or --strength 0.5 (how far "
            "to edit)"
        )
    if strength is not None and not 0 < strength <= 1:
        raise UsageError(f"argument --strength: it must be above 0, and at most 1, got {strength}")


def read_given(
    kind: Kind, given: Path, known: str | None, strength: float | None, shape: tuple[int, ...]
) -> MadeFrom:
    """Reads what samples of a shape *S are made from.

    Raises:
        UserError: a file cannot be used.
    """
    x0 = kind.read_given(given, shape)
    content: dict[str, Any] = {"given": describe_content(x0)}
    suffix = "_given"
    is_known = np.zeros(shape, bool)
    if known is not None:
        is_known = kind.parse_known(known, shape)
        is_word = not known.endswith(".npy")
        content["known"] = known if is_word else describe_content(is_known)
        suffix += f"_known{known if is_word else ''}"
    if strength is not None:
        content["strength"] = strength
    return MadeFrom(Known(x0, is_known), strength, content, suffix)
