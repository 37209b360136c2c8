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

    sizes: tuple[float, float, float, float]  # absolute, relative, ULP, scaled
    numbers: str = ""  # both, where the scaled difference is largest
    note: str = ""  # what is wrong besides


class Row(NamedTuple):
    """The largest differences in one comparison."""

    pair: str
    case: str
    dtype: str
    comparison: str  # which two, and what of them: "torch = jit gradient"
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
        if not self.tolerance:
            return 0.0
        return self.scaled / self.tolerance


def make_row(
    pair: str, case: str, dtype: str, comparison: str, difference: Difference, tolerance: float
) -> Row:
    """Makes the row of one comparison."""
    return Row(
        pair, case, dtype, comparison, *difference.sizes, tolerance, difference.numbers, difference.note
    )


def without_tolerance(row: Row) -> Row:
    """The row held to no tolerance."""
    return row._replace(tolerance=np.inf)


def compare_arrays(actual: np.ndarray, expected: np.ndarray, scale: np.ndarray, dtype: str) -> Difference:
    """Measures how far an array of this dtype is from another, which may be float64."""
    mismatch = _describe_mismatch(actual, expected, dtype)
    if mismatch:
        return Difference(MISMATCH, note=mismatch)

    # Infinities are in the same places from here on, and differ by nothing.
    finite = np.isfinite(actual)
    actual = np.where(finite, actual.astype(np.float64), 0.0)
    expected = np.where(finite, expected.astype(np.float64), 0.0)

    distance = np.abs(actual - expected)
    largest = np.maximum(np.abs(actual), np.abs(expected))
    ulp = np.spacing(largest.astype(dtype)).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(distance > 0, distance / largest, 0.0)
        scaled = np.where(distance > 0, distance / scale, 0.0)
    sizes = (_max(distance), _max(relative), _max(distance / ulp), _max(scaled))
    return Difference(sizes, _describe_worst(actual, expected, scaled))


MISMATCH = (np.inf, np.inf, np.inf, np.inf)


def _describe_worst(actual: np.ndarray, expected: np.ndarray, distance: np.ndarray) -> str:
    """Names both numbers at the largest distance, and where that is."""
    if not distance.any():
        return ""
    at = np.unravel_index(np.argmax(distance), distance.shape)
    return f"{actual[at]!s} and {expected[at]!s} at {[int(i) for i in at]}"


def _describe_mismatch(actual: np.ndarray, expected: np.ndarray, dtype: str) -> str:
    """Says why no difference can be taken: shapes, types, NaN or infinities; "" where it can."""
    if actual.shape != expected.shape:
        return f"shapes {actual.shape} and {expected.shape}"
    if actual.dtype != dtype or expected.dtype not in (np.dtype(dtype), np.float64):
        return f"types {actual.dtype} and {expected.dtype}"

    actual_nan = np.isnan(actual)
    expected_nan = np.isnan(expected)
    if actual_nan.any() or expected_nan.any():
        place = _describe_worst(actual, expected, actual_nan | expected_nan)
        return f"{actual_nan.sum()} and {expected_nan.sum()} NaN, {place}"

    differ = (np.isinf(actual) | np.isinf(expected)) & (actual != expected)
    if differ.any():
        return f"{differ.sum()} infinite values differ, {_describe_worst(actual, expected, differ)}"
    return ""


def _max(x: np.ndarray) -> float:
    return float(x.max(initial=0.0))


def compare_draws(actual: np.ndarray, expected: np.ndarray, distance: np.ndarray, dtype: str) -> Difference:
    """Counts the integers that differ, and measures how far u is from a boundary where they do.

    The count stands in place of the absolute, the relative and the ULP difference.
    """
    integers = actual.dtype.kind == "i" and expected.dtype.kind == "i"
    if actual.shape != expected.shape or not integers:
        note = f"{actual.dtype}{list(actual.shape)} and {expected.dtype}{list(expected.shape)}"
        return Difference(MISMATCH, note=note)

    # At a boundary itself the distance is 0; the smallest number still says that a draw differs there.
    differ = actual != expected
    scaled = np.where(differ, np.maximum(distance, np.finfo(np.float64).tiny), 0.0)
    count = float(differ.sum())
    return Difference((count, count, count, _max(scaled)), _describe_worst(actual, expected, scaled))
