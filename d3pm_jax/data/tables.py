"""Reads tables from files, and finds out which values the categories of their columns stand for."""

import difflib
import functools
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from d3pm_jax.data.columns import Column, ColumnType, encode
from d3pm_jax.data.source import DatasetError
from d3pm_jax.errors import one_line
from d3pm_jax.extras import require

if TYPE_CHECKING:
    import pandas

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?inf(inity)?", re.IGNORECASE)
# As of codes and keys, which are no numbers.
LEADING_ZERO = re.compile(r"[+-]?0[0-9]+")
DATE = re.compile(
    r"[0-9]{4}[-/.][0-9]{1,2}[-/.][0-9]{1,2}([T ].*)?|[0-9]{1,2}[-/.][0-9]{1,2}[-/.][0-9]{2,4}( .*)?"
)
DECIMAL_COMMA = re.compile(r"[+-]?[0-9.]*,[0-9]+")
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
# Categories of a column, at most. A batch has a logit for each of them in each of its rows.
MOST_CATEGORIES = 20_000
# A column of so many different texts is none of categories where more than half of its rows have their own.
MANY_TEXTS = 100
# Between the values of a column whose order data.types has.
ORDER = " < "
# Rows that are trained on in a bin of different numbers, at least: fewer say little, and of single people.
LEAST_ROWS = 16
# Numbers with more decimals, or with more digits in all, are drawn as any numbers in a bin.
MOST_DECIMALS = 6
# A float64 keeps so many of any number.
MOST_DIGITS = 15
# Whole numbers up to this one are exact in float64.
LARGEST_WHOLE = 2.0**53


class Cells(NamedTuple):
    """Holds a column of a file: its different texts, and which of them each row has."""

    texts: list[str]
    rows: np.ndarray  # int [N], indices of texts; -1 where the value is missing


def read_cells(path: str, separator: str, encoding: str, missing: Collection[str]) -> dict[str, Cells]:
    """Reads the columns of a CSV file by their names, without the spaces around texts.

    Args:
        path: of the file, which may be compressed.
        separator: between the fields of a row.
        encoding: of the file.
        missing: texts that stand for no value.

    Raises:
        DatasetError: it cannot be read as a table.
    """
    rows = _read_rows(path, separator, encoding)  # [1 + N, columns]
    names = [str(name).strip() for name in rows.iloc[0]]
    columns = [_collect_texts(rows[number].iloc[1:], missing) for number in rows]
    _check_names(path, names, separator, columns)
    return dict(zip(names, columns, strict=True))


def _read_rows(path: str, separator: str, encoding: str) -> "pandas.DataFrame":
    """Reads a CSV file as texts, the row of names as any other.

    Raises:
        DatasetError: it is none, or its rows are not equally long.
    """
    require(__name__, "pandas", extra="tables")
    import pandas

    if not Path(path).expanduser().is_file():
        raise DatasetError(f"no file {path} (from {Path.cwd()}): write it, or name another")
    try:
        # The engine in Python alone tells a field that is missing, which is NaN, from an empty one.
        read_file = functools.partial(
            pandas.read_csv,
            path,
            sep=separator,
            encoding=encoding,
            header=None,
            dtype=str,
            keep_default_na=False,
            skipinitialspace=True,
            engine="python",
        )
        rows = read_file()
        if rows.shape[1] == 1:
            # Between its first and its last row a blank line is a missing value.
            rows = read_file(skip_blank_lines=False, names=[0])
            of_text = np.flatnonzero(rows[0].notna())
            rows = rows.iloc[of_text[0] : of_text[-1] + 1].fillna("")
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path} is not {encoding} (byte {error.object[error.start]:#04x}): pass its encoding, as "
            f"data.encoding = 'latin-1'"
        ) from error
    except pandas.errors.EmptyDataError as error:
        raise DatasetError(
            f"{path} is empty: write names of columns in its first line, and rows below"
        ) from error
    except Exception as error:
        # What is no text, or no table, may raise anything.
        raise DatasetError(
            f"{path} cannot be read ({one_line(error)}): write a field for each name in every row, or pass "
            f"what separates them if that is not data.separator = {separator!r}"
        ) from error
    if len(rows) < 2:
        raise DatasetError(f"{path} has no rows below its first line: write some")
    is_short = rows.isna().any(axis=1).to_numpy()
    if is_short.any():
        row = int(np.argmax(is_short))
        raise DatasetError(
            f"{path} has {rows.iloc[row].count()} fields in row {row}, without blank lines, but "
            f"{rows.shape[1]} names of columns: write a field for each, empty where a value is missing"
        )
    return rows


def _collect_texts(column: "pandas.Series", missing: Collection[str]) -> Cells:
    """Returns the different texts of a column without the spaces around them, in the order of the file."""
    stripped = column.str.strip()
    text_of_row, texts = stripped.mask(stripped.isin(list(missing))).factorize()
    return Cells(list(texts), text_of_row)


def _check_names(path: str, names: list[str], separator: str, columns: Sequence[Cells]) -> None:
    """Raises DatasetError where the first line of a file holds no names of columns."""
    likely = max(SEPARATORS, key=names[0].count)
    if len(names) == 1 and likely in names[0]:
        raise DatasetError(
            f"{path} has no {separator!r} in its first line, but {names[0].count(likely)} "
            f"{SEPARATORS[likely]}: pass data.separator = {likely!r}"
        )
    like_values = [
        name for name, cells in zip(names, columns, strict=True) if name in cells.texts or _is_fraction(name)
    ]
    # A table of pandas without names has their numbers.
    if 2 * len(like_values) > len(names) and names != [str(number) for number in range(len(names))]:
        raise DatasetError(
            f"{path} begins with {one_line(', '.join(names), 60)}, which are values: write a first line with "
            f"the names of the columns"
        )
    if "" in names:
        raise DatasetError(
            f"{path} has no name for column {names.index('') + 1}: write one in its first line, or leave the "
            f"column out, as DataFrame.to_csv(index=False) does"
        )
    for name in names:
        if names.count(name) > 1:
            raise DatasetError(f"{path} has {names.count(name)} columns named {name!r}: rename them")


def _is_fraction(text: str) -> bool:
    return "." in text and NUMBER.fullmatch(text) is not None


def check_names(field: str, names: Iterable[str], known: Sequence[str]) -> None:
    """Raises DatasetError for a name that no column has, with the names that are nearly the same."""
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, cutoff=0.5) or known[:8]
            raise DatasetError(f"{field}: there is no column {name!r}; there is {one_line(', '.join(near))}")


def make_column(
    name: str,
    cells: Cells,
    counts: np.ndarray,
    unseen: Collection[str],
    words: str | None,
    bins: int,
    rare: int,
) -> Column | None:
    """Finds out which values the categories of a column stand for.

    Bins are those of the rows to train on. All rows decide over the rest: the type, which texts there are,
    how many decimals, and whether some are missing.

    Args:
        name: of the column.
        cells: of the file that is trained on.
        counts: int [texts], in how many of the rows that are trained on each text occurs.
        unseen: texts of the test file that this file does not have.
        words: its type, or its values in their order as "low < high"; None to guess it.
        bins: of a column of numbers, at most, beside those of one number.
        rare: texts with fewer training rows are joined, but for listed ones; 0 for none.

    Returns:
        The column; None where it has one value alone, which tells nothing.

    Raises:
        DatasetError: it cannot be one of categories, or has not the type that the words say.
    """
    texts = [*cells.texts, *sorted(unseen)]
    numbers = np.array([float(text) if NUMBER.fullmatch(text) else np.nan for text in texts])
    has_missing = bool(np.any(cells.rows < 0))
    is_listed = words is not None and ORDER in words
    if words is None:
        column_type = _guess_type(name, cells.texts, numbers[: len(cells.texts)])
    else:
        column_type = "ordered" if is_listed else cast(ColumnType, words)
    if column_type in ("integer", "real"):
        _check_numbers(name, column_type, texts, numbers)
        decimals = 0 if column_type == "integer" else _count_decimals(texts, numbers)
        training_numbers = np.repeat(numbers[: len(counts)], counts)
        return _make_number_column(name, column_type, training_numbers, decimals, has_missing, bins)

    if unseen and not rare and not is_listed:
        raise DatasetError(
            f"column {name!r} has a value {min(unseen)!r} in the test file that the file to train on never "
            f"has: correct it, or take data.rare = 1, which joins such values as one more category"
        )
    order = _order_texts(name, texts, numbers, words)
    count_by_text = dict(zip(texts, [*counts.tolist(), *[0] * len(unseen)], strict=True))
    categories = order
    if not is_listed:
        categories = [text for text in order if count_by_text[text] >= rare]
    has_other = len(categories) < len(order)
    if words is None:
        _check_not_free_text(name, len(categories), len(cells.rows), texts, numbers)
    if len(categories) > MOST_CATEGORIES:
        raise DatasetError(
            f"column {name!r} has {len(categories):,} different values, of which {MOST_CATEGORIES:,} can be "
            f"categories: leave it out by data.drop, or join values of few rows by data.rare"
        )
    labels = [*categories]
    labels += [_name_apart("other", categories)] * has_other
    labels += [_name_apart("missing", categories)] * has_missing
    if len(labels) < 2:
        return None
    return Column(name, column_type, tuple(labels), missing=has_missing, other=has_other)


def _order_texts(name: str, texts: Sequence[str], numbers: np.ndarray, words: str | None) -> list[str]:
    """Returns the texts of a column in the order that words have, or else in that of numbers or letters.

    Raises:
        DatasetError: a text is not among those that the words list.
    """
    if words is None or ORDER not in words:
        return sorted(texts) if np.isnan(numbers).any() else sorted(texts, key=float)
    order = [text.strip() for text in words.split(ORDER)]
    for text in texts:
        if text not in order:
            raise DatasetError(
                f"column {name!r} has a value {text!r} too: add it to its values in data.types, or to "
                f"data.missing"
            )
    return order


def _guess_type(name: str, texts: Sequence[str], numbers: np.ndarray) -> ColumnType:
    """Returns the type of a column of texts, with their numbers, NaN where they are none.

    Raises:
        DatasetError: they are dates, or numbers with commas.
    """
    are_numbers = len(texts) > 0 and not np.isnan(numbers).any()
    if are_numbers and not any(map(LEADING_ZERO.fullmatch, texts)):
        is_whole = (np.abs(numbers) <= LARGEST_WHOLE) & (numbers == np.round(numbers))
        return "integer" if is_whole.all() else "real"
    if len(texts) > 0 and all(map(DATE.fullmatch, texts)):
        raise DatasetError(
            f"column {name!r} holds dates, as {texts[0]!r}: leave it out by data.drop, write numbers such as "
            f"days in their place, or say '{name}=categorical' in data.types"
        )
    with_comma = [text for text in texts if DECIMAL_COMMA.fullmatch(text)]
    if with_comma and len(with_comma) + np.sum(~np.isnan(numbers)) == len(texts):
        raise DatasetError(
            f"column {name!r} holds numbers with commas, as {with_comma[0]!r}: write points, or say "
            f"'{name}=categorical' in data.types"
        )
    return "categorical"


def _check_numbers(name: str, column_type: str, texts: Sequence[str], numbers: np.ndarray) -> None:
    """Raises DatasetError for a text that is no number of its type."""
    is_allowed = np.isfinite(numbers)
    if column_type == "integer":
        is_allowed &= (numbers == np.round(numbers)) & (np.abs(numbers) <= LARGEST_WHOLE)
    if not is_allowed.all():
        word = "a whole number of at most 2^53" if column_type == "integer" else "a finite number"
        raise DatasetError(
            f"column {name!r} is {column_type}, but {texts[int(np.argmin(is_allowed))]!r} is not {word}: "
            f"correct it, add it to data.missing, or say another type in data.types"
        )


def _check_not_free_text(
    name: str, num_categories: int, num_rows: int, texts: Sequence[str], numbers: np.ndarray
) -> None:
    """Raises DatasetError where most rows have a text of their own."""
    if num_categories <= MANY_TEXTS or 2 * num_categories <= num_rows:
        return
    is_number = ~np.isnan(numbers)
    if 2 * is_number.sum() > len(texts):
        other = texts[int(np.argmin(is_number))]
        raise DatasetError(
            f"column {name!r} holds numbers, but {other!r} is none: correct it, or add it to data.missing"
        )
    raise DatasetError(
        f"column {name!r} has {num_categories:,} different texts in {num_rows:,} rows, as names and free "
        f"text do: leave it out by data.drop, or join texts of few rows by data.rare"
    )


def _name_apart(word: str, labels: Sequence[str]) -> str:
    """Returns a word as a label that is not among others."""
    while word in labels:
        word = f"({word})"
    return word


def _count_decimals(texts: Sequence[str], numbers: np.ndarray) -> int | None:
    """Returns how many decimals numbers have; None where digits are many, or a text has an exponent."""
    decimals = 0
    for text in texts:
        if "e" in text.lower():
            return None
        decimals = max(decimals, len(text.partition(".")[2]))
    if decimals > MOST_DECIMALS or np.any(np.abs(numbers) * 10.0**decimals >= 10.0**MOST_DIGITS):
        return None
    return decimals


def _make_number_column(
    name: str,
    column_type: ColumnType,
    numbers: np.ndarray,
    decimals: int | None,
    has_missing: bool,
    bins: int,
) -> Column | None:
    """Returns a column of numbers in bins, from those of the rows to train on; None for one number alone."""
    lows, highs = cut_bins(numbers, bins, decimals)
    if len(lows) + has_missing < 2:
        return None
    write = (lambda number: str(int(number))) if column_type == "integer" else str
    # An atom has one end.
    labels = ["..".join(map(write, sorted({*ends}))) for ends in zip(lows, highs, strict=True)]
    labels += ["missing"] * has_missing
    return Column(
        name, column_type, tuple(labels), has_missing, lows=tuple(lows), highs=tuple(highs), decimals=decimals
    )


def cut_bins(numbers: np.ndarray, bins: int, decimals: int | None) -> tuple[list[float], list[float]]:
    """Returns the low and the high ends of bins of numbers [N].

    Where there are no more different numbers than bins, each has its own, and so has a number that more than
    1 / (2 bins) of them are. The bins of the others begin at quantiles, and none holds such a number.

    Args:
        numbers: of rows.
        bins: how many, at most, beside those of one number, and those that single neighbours of these need.
        decimals: as of a `Column`.
    """
    distinct, counts = np.unique(numbers, return_counts=True)
    if len(distinct) <= bins:
        return distinct.tolist(), distinct.tolist()
    is_atom = 2 * counts > max(LEAST_ROWS, len(numbers) / bins)
    # An atom and the numbers above it, up to the next atom, have the same count.
    atoms_below = np.cumsum(is_atom)
    rows_of_bin = max(LEAST_ROWS, counts[~is_atom].sum() / bins)
    lows: list[float] = []
    highs: list[float] = []
    for number_of_atoms in np.unique(atoms_below):
        is_here = atoms_below == number_of_atoms
        atom = distinct[is_here & is_atom].tolist()
        lows += atom
        highs += atom
        between = np.repeat(distinct[is_here & ~is_atom], counts[is_here & ~is_atom])  # sorted
        if len(between) == 0:
            continue
        parts = max(1, int(len(between) / rows_of_bin))
        starts = np.unique(between[len(between) * np.arange(parts) // parts])
        ends = starts[1:]
        if decimals is not None:
            ends = np.round(ends - 10.0**-decimals, decimals)
        lows += starts.tolist()
        highs += [*ends.tolist(), float(between[-1])]
    return lows, highs


def encode_cells(column: Column, cells: Cells, path: str) -> np.ndarray:
    """Returns the codes int32 [N] of the rows of a column of a file.

    Raises:
        DatasetError: it has a value that has no code.
    """
    if not column.missing and np.any(cells.rows < 0):
        raise DatasetError(
            f"column {column.name!r} has missing values in {path}, but none in the file to train on: fill "
            f"them in, or leave the column out by data.drop"
        )
    of_missing = [column.size - 1]
    return np.concatenate([encode(column, cells.texts), of_missing]).astype(np.int32)[cells.rows]


def count_beyond(column: Column, cells: Cells) -> int:
    """Counts the rows whose numbers lie below the lowest bin of a column, or above the highest."""
    if column.lows is None or column.highs is None:
        return 0
    numbers = np.array([*map(float, cells.texts), np.nan])[cells.rows]  # [N]
    return int(np.sum((numbers < column.lows[0]) | (numbers > column.highs[-1])))
