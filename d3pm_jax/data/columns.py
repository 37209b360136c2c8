"""Describes the columns of tables, whose values are categories, and converts values to codes and back."""

import bisect
import dataclasses
import difflib
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from d3pm_jax.checks import NonEmptyStr, check_value
from d3pm_jax.errors import UserError, as_user_error, one_line

ColumnType = Literal["categorical", "ordered", "integer", "real"]


@dataclasses.dataclass(frozen=True)
class Column:
    """Says which values of a column each of its categories, the codes 0..size - 1, stands for.

    Raises:
        UserError: the fields do not fit together.
    """

    name: NonEmptyStr
    """as the first line of the file has it"""
    type: ColumnType
    """"categorical", or "ordered" where the order means something; "integer" and "real": numbers in bins"""
    labels: tuple[str, ...]
    """a text for each code: the value, the ends of a bin as in "25..28", or "missing", which comes last"""
    missing: bool = False
    """the last code stands for missing values"""
    other: bool = False
    """the last code but that stands for all values without a code of their own"""
    lows: tuple[float, ...] | None = None
    """of numbers: the lowest value of each bin, increasing"""
    highs: tuple[float, ...] | None = None
    """the highest value of each bin; a bin with equal ends is one value"""
    decimals: int | None = None
    """how many the numbers of a bin have, 0 for integers: a bin then holds both of its ends; None: any number
    from its low end to its high end, which belongs to the next bin if that begins there"""

    def __post_init__(self) -> None:
        # There may be as many labels as there are different values, which are checked below.
        with as_user_error():
            check_value("the name of a column", self.name, NonEmptyStr)
            check_value(f"type of column {self.name!r}", self.type, ColumnType)
        is_number = self.type in ("integer", "real")
        num_bins = self.size - self.missing
        ends = [len(values) for values in (self.lows, self.highs) if values is not None]
        if self.size < 2 or len(set(self.labels)) != self.size or ends != [num_bins] * (2 * is_number):
            raise UserError(
                f"column {self.name!r} has {self.size} labels and {ends} ends of bins: pass two or more "
                f"different labels, and for numbers two ends of each bin"
            )

    @property
    def size(self) -> int:
        """How many categories the column has, the one of missing values among them."""
        return len(self.labels)


def encode(column: Column, values: Sequence[Any] | np.ndarray) -> np.ndarray:
    """Returns the codes int32 [N] of values [N], of which None and NaN are missing.

    A number that is in no bin has the code of the nearest one.

    Raises:
        UserError: a value has no code.
    """
    values = np.asarray(values, object)  # [N]
    is_missing = np.array([value is None or value != value for value in values], bool)
    if is_missing.any() and not column.missing:
        raise UserError(f"column {column.name!r} has no missing values: pass a value for each")
    codes = np.full(len(values), column.size - 1, np.int32)
    encode_present = _encode_texts if column.lows is None else _encode_numbers
    codes[~is_missing] = encode_present(column, values[~is_missing])
    return codes


def _encode_texts(column: Column, values: np.ndarray) -> list[int]:
    """Returns the codes of values that are not missing, by their texts."""
    labels = column.labels[: column.size - column.missing]
    code_by_label = {label: code for code, label in enumerate(labels)}
    other = len(labels) - 1 if column.other else None
    codes = []
    for value in values:
        code = code_by_label.get(str(value), other)
        if code is None:
            raise UserError(f"column {column.name!r} has no value {str(value)!r}: pass one that it has")
        codes.append(code)
    return codes


def _encode_numbers(column: Column, values: np.ndarray) -> np.ndarray:
    """Returns the codes int [N] of numbers [N] that are not missing: of their bins, or of the nearest."""
    assert column.lows is not None
    assert column.highs is not None
    with as_user_error(f"column {column.name!r} holds numbers: "):
        numbers = values.astype(float)
    if not np.isfinite(numbers).all():
        raise UserError(
            f"column {column.name!r} holds finite numbers: {values[~np.isfinite(numbers)][0]} is none"
        )
    lows = np.array(column.lows)
    highs = np.array(column.highs)
    below = np.maximum(np.searchsorted(lows, numbers, side="right") - 1, 0)
    above = np.minimum(below + 1, len(lows) - 1)
    is_nearer_above = lows[above] - numbers < numbers - highs[below]
    return np.where(is_nearer_above, above, below)


def split_at_name(text: str, names: Sequence[str]) -> tuple[str, str]:
    """Returns the name and the value of a text "name=value", both of which may hold the sign too.

    The name is the longest of `names` that it begins with, or what is in front of the first sign.
    """
    fitting = [name for name in names if text.startswith(f"{name}=")]
    name = max(fitting, key=len, default=text.partition("=")[0])
    return name, text[len(name) + 1 :]


def find_code(column: Column, value: Any) -> int:
    """Returns the code of a value that a user names: a label, a number in a bin, or None if missing.

    A number between two bins has the code of the nearer one where the column has numbers of any decimals.

    Raises:
        UserError: the column has no such value.
    """
    if np.ndim(value) > 0:
        raise UserError(f"column {column.name!r} has one value at a time: {one_line(repr(value))} are more")
    if value is None or value != value:
        return int(encode(column, [value])[0])
    text = str(value)
    if text in column.labels:
        return column.labels.index(text)
    if column.lows is None or column.highs is None:
        near = difflib.get_close_matches(text, column.labels, n=8, cutoff=0.5) or column.labels[:8]
        raise UserError(f"column {column.name!r} has no value {text!r}; it has {one_line(', '.join(near))}")
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    # The comparison is written so that NaN fails it.
    if not column.lows[0] <= number <= column.highs[-1]:
        raise UserError(
            f"column {column.name!r} has no value {text!r}: its bins are {column.labels[0]} to "
            f"{column.labels[len(column.lows) - 1]}"
        )
    below = bisect.bisect_right(column.lows, number) - 1
    is_in_bin = number <= column.highs[below]
    is_broken = column.type == "integer" and not number.is_integer()
    if column.decimals is not None and (is_broken or not is_in_bin):
        near = (math.floor(number), math.ceil(number))
        if not is_in_bin:
            near = (column.highs[below], column.lows[below + 1])
        raise UserError(
            f"column {column.name!r} has no value {text!r}: the nearest are {near[0]:.{column.decimals}f} "
            f"and {near[1]:.{column.decimals}f}"
        )
    return int(encode(column, [number])[0])


def decode(column: Column, codes: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Returns the values [N] of codes int [N]: numbers are drawn uniformly from their bins.

    Args:
        column: of the codes.
        codes: in 0..size - 1.
        u: uniform noise in [0, 1) [N], which numbers alone depend on.

    Returns:
        Numbers as floats, NaN where they are missing; or texts as objects, None where they are missing.
    """
    if column.lows is None or column.highs is None:
        labels: list[str | None] = [*column.labels]
        if column.missing:
            labels[-1] = None
        return np.array(labels, object)[codes]
    of_missing = [np.nan] * column.missing
    low = np.array([*column.lows, *of_missing])[codes]  # [N]
    high = np.array([*column.highs, *of_missing])[codes]
    if column.decimals is None:
        # The high end belongs to the next bin, and a sum that is rounded may reach it.
        return np.minimum(low + u * (high - low), np.nextafter(high, low))
    index = np.floor(u * _count_values(low, high, column.decimals))  # among the values of the bin
    return np.round(low + index * 10.0**-column.decimals, column.decimals)


def _count_values(low: np.ndarray, high: np.ndarray, decimals: int) -> np.ndarray:
    """Counts the numbers of so many decimals from low ends to high ends, both among them."""
    return np.round((high - low) * 10.0**decimals) + 1


def measure_log_volumes(column: Column) -> np.ndarray:
    """Returns the log of the volume of each code, float64 [size]: how many values it stands for.

    Of numbers of any decimals it is the width of a bin, and of one number alone 1. Added to -log p of a code
    it gives -log p of a value as it is written, or where decimals are None minus the log of its density.
    """
    log_volumes = np.zeros(column.size)
    if column.lows is None or column.highs is None:
        return log_volumes
    low = np.array(column.lows)
    high = np.array(column.highs)
    if column.decimals is None:
        volumes = np.where(high > low, high - low, 1.0)
    else:
        volumes = _count_values(low, high, column.decimals)
    log_volumes[: len(volumes)] = np.log(volumes)
    return log_volumes
