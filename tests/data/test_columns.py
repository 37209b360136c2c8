"""Columns: values to codes and back, and descriptions of places with categories of their own."""

import dataclasses
import json
import re

import numpy as np
import pytest

from d3pm_jax.data import ArraySource, Column, Description, columns, count_categories_by_place, read_batch
from d3pm_jax.errors import UserError
from d3pm_jax.program.storage import run_folder
from tests.data.calls import failure

SEX = Column("sex", "categorical", ("Female", "Male", "other", "missing"), missing=True, other=True)
AGE = Column(
    "age",
    "integer",
    ("17", "18..20", "21..30"),
    lows=(17.0, 18.0, 21.0),
    highs=(17.0, 20.0, 30.0),
    decimals=0,
)
PRICE = Column(
    "price",
    "real",
    ("0.5..1.5", "1.5..2", "9", "missing"),
    missing=True,
    lows=(0.5, 1.5, 9.0),
    highs=(1.5, 2.0, 9.0),
)
CARAT = Column("carat", "real", ("0.2..0.22", "0.3"), lows=(0.2, 0.3), highs=(0.22, 0.3), decimals=2)
COLUMNS = (SEX, AGE, PRICE, CARAT)


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_values_that_are_drawn_have_the_code_that_they_were_drawn_from(column):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, column.size, 2000)
    u = rng.random(2000)
    u[:4] = [0, 0, np.nextafter(1, 0), np.nextafter(1, 0)]
    values = columns.decode(column, codes, u)
    np.testing.assert_array_equal(columns.encode(column, values), codes)
    np.testing.assert_array_equal(columns.decode(column, codes, u), values)


def test_integers_of_a_bin_are_equally_likely_and_reals_uniform():
    u = (np.arange(30_000) + 0.5) / 30_000
    ages = columns.decode(AGE, np.full(30_000, 1), u)
    assert np.unique(ages, return_counts=True)[1].tolist() == [10_000] * 3
    carats = columns.decode(CARAT, np.zeros(30_000, int), u)
    assert dict(zip(*map(np.ndarray.tolist, np.unique(carats, return_counts=True)), strict=True)) == {
        0.2: 10_000,
        0.21: 10_000,
        0.22: 10_000,
    }
    np.testing.assert_allclose(columns.decode(PRICE, np.zeros(30_000, int), u), 0.5 + u, rtol=1e-15)


def test_a_number_without_a_bin_has_the_nearest_one():
    numbers = [-100.0, 16.0, 17.0, 30.0, 31.0, 1e9]
    assert columns.encode(AGE, numbers).tolist() == [0, 0, 0, 2, 2, 2]
    # 1.5 is the low end of the second bin; 5.4 is nearer to 2 than to 9, 5.6 is not.
    assert columns.encode(PRICE, [1.5, 5.4, 5.6, None, np.nan, "0.5"]).tolist() == [1, 1, 2, 3, 3, 0]


def test_a_text_without_a_code_is_other_or_refused():
    assert columns.encode(SEX, ["Male", "x", None, "Female"]).tolist() == [1, 2, 3, 0]
    plain = dataclasses.replace(SEX, labels=("Female", "Male"), missing=False, other=False)
    for values, message in [
        (["x"], "column 'sex' has no value 'x': pass one that it has"),
        ([None], "column 'sex' has no missing values: pass a value for each"),
    ]:
        with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
            columns.encode(plain, values)
    for value, message in [
        ("old", "column 'age' holds numbers: could not"),
        (np.inf, "finite numbers: inf is"),
    ]:
        with pytest.raises(UserError, match=message):
            columns.encode(AGE, [value])


def test_volumes_count_integers_and_measure_widths():
    np.testing.assert_allclose(np.exp(columns.measure_log_volumes(AGE)), [1, 3, 10])
    np.testing.assert_allclose(np.exp(columns.measure_log_volumes(PRICE)), [1, 0.5, 1, 1])
    np.testing.assert_allclose(np.exp(columns.measure_log_volumes(CARAT)), [3, 1])
    np.testing.assert_array_equal(columns.measure_log_volumes(SEX), np.zeros(4))


def test_a_code_and_its_volume_are_the_law_of_values_as_they_are_written():
    codes = np.repeat([0, 1], [30_000, 10_000])
    u = (np.arange(len(codes)) % 10_000 + 0.5) / 10_000
    u[:30_000] = (np.arange(30_000) + 0.5) / 30_000
    values, counts = np.unique(columns.decode(CARAT, codes, u), return_counts=True)
    nats_of_codes = -np.log(np.bincount(codes) / len(codes))
    nats = nats_of_codes + columns.measure_log_volumes(CARAT)
    np.testing.assert_allclose(nats[columns.encode(CARAT, values)], -np.log(counts / len(codes)), rtol=1e-12)


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        (AGE, 19, 1),
        (AGE, "18..20", 1),
        (AGE, 18.5, "column 'age' has no value '18.5': the nearest are 18 and 19"),
        (AGE, "20.5", "column 'age' has no value '20.5': the nearest are 20 and 21"),
        (AGE, [19], "column 'age' has one value at a time: [19] are more"),
        (AGE, {}, "column 'age' has no value '{}': its bins are 17 to 21..30"),
        (CARAT, 0.215, 0),
        (CARAT, 0.25, "column 'carat' has no value '0.25': the nearest are 0.22 and 0.30"),
        # Any number is one of PRICE, whose decimals are None.
        (PRICE, 5.4, 1),
        (PRICE, 5.6, 2),
        (PRICE, None, 3),
    ],
)
def test_a_value_that_is_named_is_in_a_bin_or_refused(column, value, expected):
    if isinstance(expected, int):
        assert columns.find_code(column, value) == expected
    else:
        with pytest.raises(UserError, match=f"^{re.escape(expected)}$"):
            columns.find_code(column, value)


def test_names_may_hold_the_sign_that_values_follow():
    names = ["w", "w=h", "x"]
    for text, expected in {"w=3": ("w", "3"), "w=h=3": ("w=h", "3"), "y=a=b": ("y", "a=b")}.items():
        assert columns.split_at_name(text, names) == expected


def describe_table(**changes):
    sizes = tuple(column.size for column in COLUMNS)
    return Description(**({"shape": (4,), "categories": 4, "sizes": sizes, "columns": COLUMNS} | changes))


def test_a_description_of_places_is_read_back_from_json():
    nested = Description((2, 2), 5, sizes=((2, 3), (5, 4)))
    for description in (describe_table(), nested):
        content = json.dumps(dataclasses.asdict(description)).encode()
        assert run_folder.description_from_json(content) == description


def test_a_run_goes_on_with_the_places_and_columns_that_it_had(tmp_path):
    saved = run_folder.SavedRun(tmp_path, None, None, describe_table(), {})
    run_folder.check_description(saved, describe_table())
    other = dataclasses.replace(SEX, labels=("F", "M", "other", "missing"))
    changed = describe_table(columns=(other, *COLUMNS[1:]))
    with pytest.raises(UserError, match=r"^the data has columns = .* use the data it had$"):
        run_folder.check_description(saved, changed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"sizes": (4, 3, 4)},
            "columns have other sizes: pass sizes=tuple(column.size for column in columns)",
        ),
        (
            {"columns": None, "sizes": (4, 3)},
            "sizes are int64 [2]: pass a whole number of at least 2 for each",
        ),
        ({"columns": None, "sizes": (4, 3, 4, 1)}, "sizes are int64 [4]: pass a whole number of at least 2"),
        ({"columns": None, "sizes": (4, 3, (4, 1), 1)}, "sizes are not nested as shape = (4,): "),
        ({"categories": 5}, "categories = 5: it must be the largest of sizes, which is 4"),
    ],
)
def test_sizes_that_cannot_be_are_refused(changes, message):
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        describe_table(**changes)


def test_a_column_that_cannot_be_is_refused():
    for changes in (
        {"labels": ("a",)},
        {"labels": ("a", "a", "b")},
        {"lows": (0.0, 1.0)},
        {"type": "integer"},
    ):
        with pytest.raises(
            UserError, match=r"two or more different labels, and for numbers two ends of each bin$"
        ):
            dataclasses.replace(SEX, **changes)


def test_categories_are_counted_at_their_places_and_held_to_their_sizes():
    rng = np.random.default_rng(0)
    sizes = np.array([[2, 3], [5, 4]])
    x = rng.integers(0, sizes, (1500, 2, 2))
    expected = np.array([[[np.sum(x[:, i, j] == k) for k in range(5)] for j in (0, 1)] for i in (0, 1)])
    np.testing.assert_array_equal(count_categories_by_place(ArraySource(x), (2, 2), 5), expected)

    description = Description((2, 2), 5, sizes=((2, 3), (5, 4)))
    assert read_batch(ArraySource(x), 5, description=description)["x"].shape == (1500, 2, 2)
    x[3, 0, 1] = 3
    assert failure(read_batch, ArraySource(x), 5, description=description) == (
        "x of example 3 holds 3 at [0, 1], but the data is described as 0..2 there: correct the data, or the "
        "size"
    )
