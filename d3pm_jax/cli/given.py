"""Reads --given FILE and --known MASK of d3pm sample: what samples are made from, through their kind."""

from pathlib import Path

import numpy as np

from d3pm_jax.kinds import Kind
from d3pm_jax.measure.samples import rows_of_batch
from d3pm_jax.sampling import Known

SHOWN = 64  # samples whose givens are written beside them, at most


def read_elements(kind: Kind, given: Path, known: str | None, shape: tuple[int, ...]) -> Known:
    """Reads what samples of a shape *S are made from, of which without a mask nothing stays.

    Raises:
        UserError: a file cannot be used.
    """
    x0 = kind.read_given(given, shape)
    if known is None:
        return Known(x0, np.zeros(shape, bool))
    return Known(x0, kind.parse_known(known, shape))


def show_elements(
    elements: Known, strength: float | None, n: int, shape: tuple[int, ...], levels: int
) -> np.ndarray:
    """Returns what each of the first n samples is made from, [n, *S]; what is drawn from noise is a mask.

    Args:
        elements: of `read_elements`.
        strength: of an edit, which noises what it is given; None: what is not known is drawn from noise.
        n: how many samples there are; of more than `SHOWN` the first ones count.
        shape: *S of a sample.
        levels: categories that the data may have, the first of the others is the mask.
    """
    index = np.arange(min(n, SHOWN))
    rows = (rows_of_batch(np.asarray(array), index, shape) for array in elements)
    x0, is_known = (np.broadcast_to(array, (len(index), *shape)) for array in rows)
    if strength is not None:
        return x0.astype(np.int32)
    return np.where(is_known, x0, levels).astype(np.int32)
