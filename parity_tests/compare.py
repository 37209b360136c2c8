"""Differences between two results, and how large they may be."""

from typing import NamedTuple

import numpy as np

# The one table of tolerances.
# "value", "gradient": of float arrays, on the scale of the terms that enter a result (scales.py).
# "draw": the distance of u from the nearest boundary of the cumulative distribution where two draws differ;
#     0 says that none may.
# "forward", "parameter": the output of a network and its gradients, on the scale of the largest entry.
# "trained": parameters and metrics after training, on the scale of the largest entry of a tensor.
# "trained text": the same of transformers. Adam divides a gradient by its size, also the rounding of one that
#     is 0 (the bias of keys), or of a rare token: 1.2e-13 was seen, where networks of images have 2e-15.
# "bound": the terms of a bound, on the scale of their sum.
# "yours": value and gradient of other people's code, which may add in another order, or probabilities.
TOLERANCES = {
    "float64": {
        "value": 1e-14,
        "gradient": 1e-15,
        "draw": 0.0,
        "forward": 3e-15,
        "parameter": 1e-13,
        "trained": 1e-13,
        "trained text": 1e-12,
        "bound": 1e-14,
        "yours": 1e-11,
    },
    "float32": {
        "value": 2e-6,
        "gradient": 2.5e-7,
        "draw": 1e-5,
        "forward": 2e-6,
        "parameter": 5e-5,
        "trained": 5e-5,
        "trained text": 5e-5,
        "bound": 2e-6,
        "yours": 2e-5,
    },
    "bfloat16": {"value": 2e-6, "gradient": 2e-3, "draw": 1e-5},  # gradients are rounded to 2^-9 of them
}


class Difference(NamedTuple):
    """Holds how two arrays differ, at most."""

    parts: tuple[float, float, float, float]  # absolute, relative, ULP, scaled
    numbers: str = ""  # both, where the scaled difference is largest
    note: str = ""  # what is wrong besides


class Row(NamedTuple):
    """The largest differences in one comparison."""

    pair: str
    case: str
    dtype: str
    what: str  # which two, and what of them
    absolute: float
    relative: float
    ulp: float
    scaled: float
    tolerance: float
    numbers: str = ""  # both, where they differ most
    note: str = ""  # why it fails whatever the differences are

    @property
    def ok(self) -> bool:
        return not self.note and self.scaled <= self.tolerance

    @property
    def used(self) -> float:
        """The part of the tolerance that is used; inf where nothing is allowed."""
        if self.note or self.scaled > self.tolerance == 0.0:
            return np.inf
        return self.scaled / self.tolerance if self.tolerance else 0.0


def row(pair: str, case: str, dtype: str, what: str, found: Difference, tolerance: float) -> Row:
    """Makes the row of one comparison."""
    return Row(pair, case, dtype, what, *found.parts, tolerance, found.numbers, found.note)


def free(row: Row) -> Row:
    """The row held to no tolerance."""
    return row._replace(tolerance=np.inf)


def arrays(a: np.ndarray, b: np.ndarray, scale: np.ndarray, dtype: str) -> Difference:
    """How far a, of this dtype, is from b, which may be float64."""
    if wrong := _wrong(a, b, dtype):
        return Difference(WRONG, note=wrong)
    a, b = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(a)
    a, b = np.where(finite, a, 0.0), np.where(finite, b, 0.0)
    d, largest = np.abs(a - b), np.maximum(np.abs(a), np.abs(b))
    ulp = np.spacing(largest.astype(dtype)).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative, scaled = np.where(d > 0, d / largest, 0.0), np.where(d > 0, d / scale, 0.0)
    return Difference((_max(d), _max(relative), _max(d / ulp), _max(scaled)), _numbers(a, b, scaled))


WRONG = (np.inf, np.inf, np.inf, np.inf)


def _numbers(a: np.ndarray, b: np.ndarray, distance: np.ndarray) -> str:
    """Names both numbers at the largest distance, and where that is."""
    if not distance.any():
        return ""
    at = np.unravel_index(np.argmax(distance), distance.shape)
    return f"{a[at]!s} and {b[at]!s} at {[int(i) for i in at]}"


def _wrong(a: np.ndarray, b: np.ndarray, dtype: str) -> str:
    if a.shape != b.shape:
        return f"shapes {a.shape} and {b.shape}"
    if a.dtype != dtype or b.dtype not in (np.dtype(dtype), np.float64):
        return f"types {a.dtype} and {b.dtype}"
    if np.isnan(a).any() or np.isnan(b).any():
        where = _numbers(a, b, np.isnan(a) | np.isnan(b))
        return f"{np.isnan(a).sum()} and {np.isnan(b).sum()} NaN, {where}"
    differ = (np.isinf(a) | np.isinf(b)) & (a != b)
    if differ.any():
        return f"{differ.sum()} infinite values differ, {_numbers(a, b, differ)}"
    return ""


def _max(x: np.ndarray) -> float:
    return float(x.max(initial=0.0))


def draws(a: np.ndarray, b: np.ndarray, distance: np.ndarray, dtype: str) -> Difference:
    """As `arrays`: how many draws differ (three times), and how far u is from a boundary where they do."""
    if a.shape != b.shape or a.dtype.kind != "i" or b.dtype.kind != "i":
        return Difference(WRONG, note=f"{a.dtype}{list(a.shape)} and {b.dtype}{list(b.shape)}")
    differ = a != b
    far = np.where(differ, np.maximum(distance, np.finfo(np.float64).tiny), 0.0)
    count = float(differ.sum())
    return Difference((count, count, count, _max(far)), _numbers(a, b, far))
