"""Tables: types and bins against brute force, missing, rare and new values, and what is no table."""

import re
from pathlib import Path

import numpy as np
import pytest

from d3pm_jax import config, extras
from d3pm_jax.config import describe_with_digest, io as config_io
from d3pm_jax.data import DatasetError, columns, tables
from tests.data import made_table
from tests.data.made_table import NAMES, make_rows, write_table


@pytest.fixture(scope="module")
def rows():
    return make_rows(2000)


@pytest.fixture(scope="module")
def path(tmp_path_factory, rows):
    return write_table(tmp_path_factory.mktemp("table") / "people.csv", rows)


def columns_of(data):
    return {column.name: column for column in data.describe().columns}


def codes_of(data, split):
    source = data.open(split)
    return np.stack([source[i]["x"] for i in range(len(source))])


def test_types_are_guessed_and_every_row_is_in_one_split(path, rows):
    data = config.Table(path, seed=3)
    by_name = columns_of(data)
    assert {name: (column.type, column.missing, column.decimals) for name, column in by_name.items()} == {
        "age": ("integer", False, 0),
        "sex": ("categorical", False, None),
        "city": ("categorical", False, None),
        "size": ("categorical", False, None),
        "height": ("real", False, 1),
        "income": ("real", False, None),
        "score": ("integer", True, 0),
    }
    assert by_name["city"].labels == made_table.CITIES
    assert by_name["score"].labels == ("0", "1", "2", "3", "4", "5", "missing")
    train, test = codes_of(data, "train"), codes_of(data, "test")
    assert len(train) == 1600
    assert len(test) == 400

    # The texts of all rows, put into codes one by one, are the rows of both splits.
    expected = np.stack(
        [
            columns.encode(column, [None if row[i] == "?" else row[i] for row in rows])
            for i, column in enumerate(by_name.values())
        ],
        axis=1,
    )
    assert sorted(map(tuple, expected)) == sorted(map(tuple, np.concatenate([train, test])))
    assert not np.array_equal(test, codes_of(config.Table(path, seed=4), "test"))
    description = data.describe()
    assert description.sizes == tuple(column.size for column in by_name.values())
    assert description.kind == "table"


def test_bins_begin_at_quantiles_and_numbers_that_many_rows_have_are_their_own(path, rows):
    data = config.Table(path, bins=16)
    for name in ("age", "height", "income"):
        column = columns_of(data)[name]
        lows, highs = np.array(column.lows), np.array(column.highs)
        index = NAMES.index(name)
        numbers = np.array([float(row[index]) for row in rows])
        numbers = numbers[np.random.default_rng(0).permutation(2000)[400:]]  # those that are trained on
        assert lows[0] == numbers.min()
        assert highs[-1] == numbers.max()
        assert np.all(highs[:-1] <= lows[1:])

        distinct, counts = np.unique(numbers, return_counts=True)
        atoms = distinct[counts > 1600 / 32]
        assert set(lows[lows == highs]) >= set(atoms)
        counts_of_bins = np.bincount(columns.encode(column, numbers), minlength=column.size)
        # A bin between atoms has its share of the other rows, but for the ties of one number.
        rest = ~np.isin(lows, atoms)
        share = np.isin(numbers, atoms, invert=True).sum() / 16
        assert counts_of_bins[rest].max() <= 2 * share + counts[counts <= 50].max()
        assert rest.sum() <= 16 + len(atoms) + 1
    assert columns_of(data)["income"].labels[0] == "0.0"


def test_cuts_of_one_stretch_are_the_quantiles():
    numbers = np.random.default_rng(0).permutation(np.arange(1000) ** 2).astype(float)
    lows, highs = tables.cut_bins(numbers, 10, None)
    assert lows == [float((100 * i) ** 2) for i in range(10)]
    assert highs == [*lows[1:], 999.0**2]
    lows, highs = tables.cut_bins(numbers, 10, 0)
    assert highs == [*(low - 1 for low in lows[1:]), 999.0**2]
    # No bin has fewer rows than 16.
    assert len(tables.cut_bins(numbers[:100], 64, None)[0]) == 6


def test_types_that_are_told_columns_that_are_left_out_and_rare_values(path, capsys):
    data = config.Table(
        path,
        types=("size=small < middle < large", "age=real", "score=categorical"),
        drop=("income",),
        rare=60,
        missing=("?", "Lyon"),
    )
    by_name = columns_of(data)
    assert list(by_name) == [name for name in NAMES if name != "income"]
    assert by_name["size"].labels == made_table.SIZES
    assert by_name["size"].type == "ordered"
    assert by_name["age"].type == "real"
    assert by_name["score"].type == "categorical"
    assert by_name["city"].labels == ("Bergen", "Köln", "Oslo", "other", "missing")
    city = codes_of(data, "train")[:, 2]
    assert 60 < np.sum(city == 3) < 120
    assert "keeps no rows" not in capsys.readouterr().err
    config.Table(path, keep_examples=False).describe()
    note = capsys.readouterr().err
    assert note.startswith("note: the run keeps no rows of the table, but its folder has the names of")
    assert "all numbers of a column that has few), and with pi = 'data' how many rows have each" in note


def test_a_test_file_has_the_codes_of_the_file_to_train_on(tmp_path, path, rows, capsys):
    test_rows = [list(row) for row in rows[:50]]
    test_rows[0][0] = "17"
    test_rows[1][0] = "1000"
    # The order of its columns and one more of them do not matter.
    order = [6, 5, 4, 3, 2, 1, 0]
    shuffled = [[*(row[i] for i in order), "x"] for row in test_rows]
    test = write_table(tmp_path / "test.csv", shuffled, (*(NAMES[i] for i in order), "more"), ";")
    with pytest.raises(
        DatasetError, match=r"test.csv has no ',' in its first line, but 7 semicolons: pass data"
    ):
        config.Table(path, test).describe()
    test = write_table(tmp_path / "test.csv", shuffled, (*(NAMES[i] for i in order), "more"))
    data = config.Table(path, test)
    expected = [
        columns.encode(column, [test_rows[5][i]])[0] for i, column in enumerate(data.describe().columns)
    ]
    codes = codes_of(data, "test").tolist()
    assert expected in codes
    # The first rows are taken of all, whatever the order of the file.
    ages = [row[0] for row in codes]
    assert ages != [columns.encode(data.describe().columns[0], [row[0]])[0] for row in test_rows]
    assert len(data.open("train")) == 2000
    assert "note: column 'age': 2 of the test rows lie below its lowest bin or above its highest" in (
        capsys.readouterr().err
    )

    test_rows[3][2] = "Rome"
    write_table(tmp_path / "test.csv", test_rows)
    with pytest.raises(
        DatasetError, match=r"^column 'city' has a value 'Rome' in the test file that the file to"
    ):
        data.describe()
    joined = config.Table(path, test, rare=1)
    assert columns_of(joined)["city"].labels == (*made_table.CITIES, "other")
    assert np.sum(codes_of(joined, "test")[:, 2] == 6) == 1

    test_rows[4][1] = ""
    write_table(tmp_path / "test.csv", test_rows)
    with pytest.raises(
        DatasetError, match=r"^column 'sex' has missing values in .*test.csv, but none in the"
    ):
        joined.describe()
    # A test file is held to the type that the file to train on has.
    test_rows[4][1] = rows[4][1]
    for text in ("30.5", "old"):
        test_rows[2][0] = text
        write_table(tmp_path / "test.csv", test_rows)
        with pytest.raises(
            DatasetError, match=f"^column 'age' is integer, but '{text}' is not a whole number"
        ):
            joined.describe()
    write_table(tmp_path / "test.csv", [row[1:] for row in test_rows], NAMES[1:])
    with pytest.raises(DatasetError, match=r"test.csv': there is no column 'age'; there is sex, city, size,"):
        joined.describe()


def test_values_that_are_listed_are_categories_whatever_rows_have_them(tmp_path):
    path = write_table(tmp_path / "train.csv", [["low", "0"], ["high", "1"]] * 10, ("a", "b"))
    test = write_table(tmp_path / "test.csv", [["middle", "0"], ["low", "1"]], ("a", "b"))
    for rare in (0, 1, 15):
        data = config.Table(path, test, types=("a=low < middle < high",), rare=rare)
        assert columns_of(data)["a"].labels == ("low", "middle", "high")
        assert sorted(codes_of(data, "test")[:, 0]) == [0, 1]
    shorter = config.Table(path, test, types=("a=low < high",), rare=1)
    with pytest.raises(DatasetError, match=r"^column 'a' has a value 'middle' too: add it to its values in"):
        shorter.describe()


def test_a_blank_line_of_one_column_is_a_missing_value(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("\n\na\n" + "1\n\n2\n" * 20 + "\n\n")
    data = config.Table(str(path), test_share=0.5)
    codes = np.concatenate([codes_of(data, "train"), codes_of(data, "test")])
    assert np.bincount(codes[:, 0]).tolist() == [20, 20, 20]
    # Of several columns it is none, whose rows have fields.
    path.write_text("\na,b\n1,2\n\n2,3\n4\n")
    with pytest.raises(DatasetError, match=r"has 1 fields in row 3, without blank lines, but 2 names of"):
        data.describe()


@pytest.mark.parametrize("scale", [1, 10**6])
def test_numbers_of_many_digits_have_the_codes_that_they_are_drawn_from(tmp_path, scale):
    """At 2^53, and at 10^11 with 6 decimals, of which a float64 holds fewer."""
    rng = np.random.default_rng(0)
    numbers = 2**53 - rng.integers(10**6, size=400) if scale == 1 else rng.integers(10**6, size=400)
    rows = [[str(number) if scale == 1 else f"{10**11 - 1}.{number:06d}"] for number in numbers]
    (column,) = config.Table(write_table(tmp_path / "table.csv", rows, ("a",))).describe().columns
    assert column.type == ("integer" if scale == 1 else "real")
    codes = rng.integers(column.size, size=4000)
    u = np.where(rng.random(4000) < 0.5, np.nextafter(1, 0), rng.random(4000))
    np.testing.assert_array_equal(columns.encode(column, columns.decode(column, codes, u)), codes)


def test_a_spec_is_read_back_from_json_and_its_digest_follows_the_file(tmp_path, path):
    spec = config.Table(path, types=("age=real",), drop=("sex",), missing=("", "-"), separator=r"\t")
    assert config_io.part_from_json(config_io.to_json(spec)) == spec
    text = Path(path).read_text(encoding="utf-8")
    digests = []
    for text_of_file in (text, text, text.replace("Oslo", "Bodø")):
        (tmp_path / "table.csv").write_text(text_of_file, encoding="utf-8")
        digests.append(describe_with_digest(config.Table(str(tmp_path / "table.csv"))).digest)
    assert digests[0] == digests[1] != digests[2]


NUMBERED = [str(i) for i in range(300)]


def column_file(values, name="x"):
    """A table with a column of values beside one of 0 and 1."""
    return "\n".join([f"{name},b", *(f"{value},{i % 2}" for i, value in enumerate(values))])


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "{path} is empty: write names of columns in its first line, and rows below"),
        ("a,b\n", {}, "{path} has no rows below its first line: write some"),
        (
            "39,Male,1.5\n40,Male,2.5\n39,Female,1.5\n",
            {},
            "{path} begins with 39, Male, 1.5, which are values: ",
        ),
        (
            "a;b;c\n1;2;3\n",
            {},
            "{path} has no ',' in its first line, but 2 semicolons: pass data.separator = ';'",
        ),
        (
            "a,b\n1,2\n3\n",
            {},
            "{path} has 1 fields in row 2, without blank lines, but 2 names of columns: write a field for ",
        ),
        (
            "a,b\n1,2\n1,2,3\n",
            {},
            "{path} cannot be read (Expected 2 fields in line 3, saw 3): write a field for ",
        ),
        (
            "a,b\né,1\nu,2\n".encode("latin-1"),
            {},
            "{path} is not utf-8 (byte 0xe9): pass its encoding, as data.",
        ),
        ("a,b\n1,2\n", {"encoding": "klingon"}, "{path} cannot be read (unknown encoding: klingon): "),
        ("a,b,a\n1,2,3\n", {}, "{path} has 2 columns named 'a': rename them"),
        (
            ",b\n0,2\n1,3\n",
            {},
            "{path} has no name for column 1: write one in its first line, or leave the column",
        ),
        (
            "x;y\n" + "1,5;a\n2;b\n" * 30,
            {"separator": ";"},
            "column 'x' holds numbers with commas, as '1,5': write points, or say 'x=categorical' in",
        ),
        (
            column_file(["2013-01-01", "2014-05-06"]),
            {},
            "column 'x' holds dates, as '2013-01-01': leave it out by ",
        ),
        (
            column_file([f"a {i}" for i in NUMBERED]),
            {},
            "column 'x' has 300 different texts in 300 rows, as names ",
        ),
        (
            column_file([*NUMBERED, "unknown"]),
            {},
            "column 'x' holds numbers, but 'unknown' is none: correct it, or add it to data.missing",
        ),
        (
            column_file(["1.5", "inf"]),
            {},
            "column 'x' is real, but 'inf' is not a finite number: correct it, ",
        ),
        (
            column_file(["1.5", "2"]),
            {"types": ("x=integer",)},
            "column 'x' is integer, but '1.5' is not a whole number of at most 2^53: correct it, add it to ",
        ),
        (
            column_file(["1", str(2**63)]),
            {"types": ("x=integer",)},
            f"column 'x' is integer, but '{2**63}' is not a whole number of at most 2^53: correct it, add",
        ),
        (
            column_file(["s", "m"]),
            {"types": ("x=s < l",)},
            "column 'x' has a value 'm' too: add it to its values in data.types, or to data.missing",
        ),
        (column_file("12"), {"drop": ("y",)}, "data.drop: there is no column 'y'; there is x, b"),
        (column_file("12"), {"types": ("z=real",)}, "data.types: there is no column 'z'; there is x, b"),
        (
            column_file("12"),
            {"types": ("x=float",)},
            "data.types: 'x=float' is not 'column=type': write categorical",
        ),
        ("a,b\n1,2\n1,2\n", {}, "{path} has no columns with two or more values: take another file"),
        (
            "a,b\n1,2\n",
            {},
            "{path} has one row: write more, some to train and some to evaluate on",
        ),
    ],
)
def test_what_is_no_table_is_refused_in_one_line(tmp_path, text, options, message):
    path = tmp_path / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DatasetError, match=f"^{re.escape(message.format(path=path))}") as caught:
        config.Table(str(path), **options).describe()
    assert "\n" not in str(caught.value)


def test_a_million_categories_are_refused_and_four_thousand_taken(tmp_path, monkeypatch):
    values = [f"N{i % 4000}" for i in range(9000)]
    path = tmp_path / "table.csv"
    path.write_text(column_file(values))
    assert columns_of(config.Table(str(path)))["x"].size == 4000
    monkeypatch.setattr(tables, "MOST_CATEGORIES", 3999)
    with pytest.raises(
        DatasetError, match=r"^column 'x' has 4,000 different values, of which 3,999 can be categories"
    ):
        config.Table(str(path), seed=1).describe()
    assert columns_of(config.Table(str(path), rare=100, types=("b=categorical",))).keys() == {"b"}


def test_codes_with_leading_zeros_are_no_numbers(tmp_path):
    path = write_table(
        tmp_path / "table.csv", [["01234", "-1"], ["12345", "0"], ["0", "0.5"]] * 10, ("zip", "b")
    )
    by_name = columns_of(config.Table(path))
    assert by_name["zip"].labels == ("0", "01234", "12345")
    assert by_name["b"].labels == ("-1.0", "0.0", "0.5")


def test_columns_of_one_value_or_none_are_left_out_with_a_line(tmp_path, capsys):
    path = write_table(tmp_path / "table.csv", [["a", "", "x"], ["a", "", ""]] * 10, ("one", "none", "two"))
    assert columns_of(config.Table(path))["two"].labels == ("x", "missing")
    assert capsys.readouterr().err == (
        "note: column 'one' has one value alone, and is left out\n"
        "note: column 'none' has one value alone, and is left out\n"
    )


def test_without_pandas_it_is_said_what_to_install(path, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(extras.MissingExtra, match=r"^d3pm_jax.data.tables needs pandas: .*\[tables\]"):
        config.Table(path, seed=99).describe()


def test_a_value_may_be_called_as_ours_are():
    cells = tables.Cells(["missing", "other", "x"], np.array([0, 0, 1, 1, 2, -1]))
    column = tables.make_column("a", cells, np.array([2, 2, 1]), set(), None, 64, 2)
    assert column.labels == ("missing", "other", "(other)", "(missing)")
    assert tables.encode_cells(column, cells, "").tolist() == [0, 0, 1, 1, 2, 3]
