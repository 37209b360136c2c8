"""Describes data sets that are tables in CSV files."""

import dataclasses
import functools
import sys
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np

from d3pm_jax.config.checks import Allowed, Free, Natural, NonEmptyStr, Seed, integers_from
from d3pm_jax.config.data import Data, check_split_of, hash_split
from d3pm_jax.data import ArraySource, Column, DatasetError, Description, Source
from d3pm_jax.data.columns import split_at_name
from d3pm_jax.data.digests import hash_content
from d3pm_jax.data.tables import (
    ORDER,
    Cells,
    check_names,
    count_beyond,
    encode_cells,
    make_column,
    read_cells,
)

MISSING = ("", "?", "NA", "N/A", "NaN", "nan", "NULL", "null")
TYPES = ("categorical", "ordered", "integer", "real")
TAB = r"\t"
Separator = Annotated[str, Allowed(r"of one character, or \t for a tab", lambda x: len(x) == 1 or x == TAB)]
Share = Annotated[float, Allowed("above 0, below 1", lambda x: 0 < x < 1)]


@dataclasses.dataclass(frozen=True)
class Table(Data):
    """Names a CSV file whose first line holds the names of columns, each of categories or of numbers.

    Missing values are a category of their column. Numbers are put in bins, at quantiles of the rows that are
    trained on; see `d3pm_jax.data.Column`.
    """

    path: Annotated[NonEmptyStr, Free]
    """the file; without `test` its rows are split at random"""
    test: Annotated[NonEmptyStr | None, Free] = None
    """a file with the rows to evaluate on, of the same columns"""
    types: tuple[NonEmptyStr, ...] = dataclasses.field(default=(), kw_only=True)
    """types of columns, where the guessed one will not do: "age=integer", or "real", "categorical",
    "ordered", or the values in their order, as "size=small < middle < large" """
    drop: tuple[NonEmptyStr, ...] = dataclasses.field(default=(), kw_only=True)
    """names of columns to leave out"""
    missing: tuple[str, ...] = dataclasses.field(default=MISSING, kw_only=True)
    """texts that stand for no value"""
    rare: Natural = dataclasses.field(default=0, kw_only=True)
    """join the categories of a column that fewer rows than this are trained on, and those that only the test
    file has, as "other", but for those that `types` lists; 0: none"""
    bins: Annotated[int, integers_from(2, 4096)] = dataclasses.field(default=64, kw_only=True)
    """bins of a column of numbers, at most; beside them a number that more than 1 / (2 bins) of the rows have
    is one of its own"""
    test_share: Share = dataclasses.field(default=0.2, kw_only=True)
    """which share of the rows becomes the test split, where there is no `test`"""
    seed: Seed = dataclasses.field(default=0, kw_only=True)
    """of the split, and of the order of the rows"""
    separator: Separator = dataclasses.field(default=",", kw_only=True)
    """between the fields of a row"""
    encoding: NonEmptyStr = dataclasses.field(default="utf-8", kw_only=True)
    """of the files"""
    # Other data has no such field.
    keep_examples: bool = dataclasses.field(default=True, kw_only=True)  # pyright: ignore[reportIncompatibleVariableOverride]
    """keep rows of the test split in the folder of the run, which reports show beside samples"""

    def describe(self) -> Description:
        columns = _read_table(self).columns
        sizes = tuple(column.size for column in columns)
        return Description((len(columns),), max(sizes), kind="table", sizes=sizes, columns=columns)

    def open(self, split: str) -> Source:
        check_split_of(self, split)
        table = _read_table(self)
        return ArraySource(table.train if split == "train" else table.test)


@hash_split.register(Table)
def _hash_table_split(data: Table, split: str) -> str:
    path = data.path if data.test is None or split == "train" else data.test
    return hash_content(Path(path).expanduser())


class EncodedTable(NamedTuple):
    """Holds the rows of a table as codes."""

    columns: tuple[Column, ...]
    train: np.ndarray  # int32 [N, D]
    test: np.ndarray  # int32 [M, D]


def _read_table(data: Table) -> EncodedTable:
    """Reads the table of a spec, once for as long as its files stay as they are."""
    paths = [Path(path).expanduser() for path in (data.path, data.test) if path is not None]
    # What is no file is named by whoever reads it.
    states = tuple((path.stat().st_mtime_ns, path.stat().st_size) for path in paths if path.is_file())
    return _encode_table(data, states)


@functools.lru_cache(maxsize=2)
def _encode_table(data: Table, states: tuple[tuple[int, int], ...]) -> EncodedTable:
    """Reads the table of a spec, and prints in lines what a run on it does not show.

    Args:
        data: the spec.
        states: of its files; other files of the same names are read again.
    """
    cells_by_name, test_cells_by_name, train_rows = _split_rows(data)
    all_names = list(cells_by_name)
    check_names("data.drop", data.drop, all_names)
    words_by_name = _read_types(data.types, all_names)
    columns: list[Column] = []
    train_codes = []  # of each column, int32 [N]
    test_codes = []
    notes = []
    for name in all_names:
        if name in data.drop:
            continue
        cells = cells_by_name[name]
        test_cells = test_cells_by_name[name]
        text_of_row = cells.rows[train_rows]
        counts = np.bincount(text_of_row[text_of_row >= 0], minlength=len(cells.texts))
        unseen = set(test_cells.texts) - set(cells.texts)
        column = make_column(name, cells, counts, unseen, words_by_name.get(name), data.bins, data.rare)
        if column is None:
            notes.append(f"column {name!r} has one value alone, and is left out")
            continue
        columns.append(column)
        train_codes.append(encode_cells(column, cells, data.path)[train_rows])
        test_codes.append(encode_cells(column, test_cells, data.test or data.path))
        num_beyond = count_beyond(column, test_cells)
        if num_beyond:
            notes.append(
                f"column {name!r}: {num_beyond:,} of the test rows lie below its lowest bin or above its "
                f"highest, and count as in these"
            )
    if not columns:
        raise DatasetError(f"{data.path} has no columns with two or more values: take another file")
    if not data.keep_examples:
        notes.append(
            "the run keeps no rows of the table, but its folder has the names of categories, the ends of "
            "bins (the lowest and the highest number, and all numbers of a column that has few), and with "
            "pi = 'data' how many rows have each"
        )
    for note in notes:
        print(f"note: {note}", file=sys.stderr, flush=True)
    return EncodedTable(tuple(columns), np.stack(train_codes, axis=1), np.stack(test_codes, axis=1))


def _split_rows(data: Table) -> tuple[dict[str, Cells], dict[str, Cells], np.ndarray]:
    """Reads the columns of the file to train on and those of the test rows, by name.

    Returns:
        Both, and the numbers of the rows of the file to train on, in the order in which they are read.

    Raises:
        DatasetError: a file cannot be read, or there are no rows to train or to evaluate on.
    """
    separator = "\t" if data.separator == TAB else data.separator
    cells_by_name = read_cells(data.path, separator, data.encoding, data.missing)
    num_rows = len(next(iter(cells_by_name.values())).rows)
    # The order of a file may follow a column, and the first or last rows may be all that somebody takes.
    rng = np.random.default_rng(data.seed)
    rows = rng.permutation(num_rows)
    if data.test is None:
        if num_rows < 2:
            raise DatasetError(f"{data.path} has one row: write more, some to train and some to evaluate on")
        test_cells_by_name = cells_by_name
        num_test = min(max(1, round(num_rows * data.test_share)), num_rows - 1)
        test_rows = rows[:num_test]
        train_rows = rows[num_test:]
    else:
        test_cells_by_name = read_cells(data.test, separator, data.encoding, data.missing)
        check_names(f"data.test = {data.test!r}", cells_by_name, list(test_cells_by_name))
        test_rows = rng.permutation(len(next(iter(test_cells_by_name.values())).rows))
        train_rows = rows
    shuffled_cells = {
        name: cells._replace(rows=cells.rows[test_rows]) for name, cells in test_cells_by_name.items()
    }
    return cells_by_name, shuffled_cells, train_rows


def _read_types(types: tuple[str, ...], names: list[str]) -> dict[str, str]:
    """Returns the types of columns, or their values in order, by the names of the columns.

    Raises:
        DatasetError: there is no such column or type.
    """
    words_by_name = {}
    for text in types:
        name, words = split_at_name(text, names)
        check_names("data.types", [name], names)
        if words not in TYPES and ORDER not in words:
            raise DatasetError(
                f"data.types: {text!r} is not 'column=type': write categorical, ordered, integer or real, or "
                f"all values in their order, as 'size=small < middle < large'"
            )
        words_by_name[name] = words
    return words_by_name
