"""Tables: rows in the words of their columns, what a model has to beat, and how samples are judged."""

import itertools

import numpy as np
import pytest

from d3pm_jax import kinds
from d3pm_jax.data import ArraySource, Column, Description
from d3pm_jax.errors import UserError
from d3pm_jax.kinds import Samples, Split, States, array
from d3pm_jax.likelihood import bits_per_dim

COLUMNS = (
    Column("cut", "categorical", ("fair", "good", "missing"), missing=True),
    Column("age", "integer", ("17..20", "21"), lows=(17.0, 21.0), highs=(20.0, 21.0), decimals=0),
    Column(
        "price",
        "real",
        ("0.5", "0.5..1", "1..3", "missing"),
        missing=True,
        lows=(0.5, 0.5, 1.0),
        highs=(0.5, 1.0, 3.0),
    ),
)
SIZES = tuple(column.size for column in COLUMNS)


def describe(columns=COLUMNS):
    sizes = tuple(column.size for column in columns)
    return Description((len(columns),), max(sizes), kind="table", sizes=sizes, columns=columns)


KIND = kinds.make_kind(describe())


def split(rows):
    return Split(ArraySource(np.asarray(rows, np.int32)), max(SIZES), describe())


def draw_rows(seed, num):
    """Draws rows whose columns all follow the first one, but for some."""
    rng = np.random.default_rng(seed)
    first = rng.integers(3, size=num)
    other = rng.integers(SIZES, size=(num, 3))
    return np.where(rng.random((num, 3)) < 0.3, other, np.stack([first, first % 2, first], axis=1))


def test_rows_are_in_the_words_of_their_columns():
    head, rows = KIND.show_samples(Samples(np.array([[0, 1, 3], [2, 0, 1]]), 4))
    assert head == ["number", "cut", "age", "price"]
    assert rows == [["0", "fair", "21", "missing"], ["1", "missing", "17..20", "0.5..1"]]
    head, rows = KIND.show_chain(States(np.array([[[4, 4, 4]], [[1, 4, 2]]]), [3, 0], 3, 4))
    assert rows == [["t = 3", *[array.MASK] * 3], ["t = 0", "good", "mask", "1..3"]]


def test_a_column_has_the_bars_that_it_has_categories():
    samples = np.array([[0, 1, 3], [2, 1, 1]])
    histograms = KIND.show_histograms(Samples(samples, 4), None)
    assert histograms.names == ["cut", "age", "price"]
    for shares, expected in zip(histograms.samples, ([0.5, 0, 0.5], [0, 1], [0, 0.5, 0, 0.5]), strict=True):
        np.testing.assert_array_equal(shares, expected)
    assert histograms.labels == [list(column.labels) for column in COLUMNS]

    many = Column("city", "categorical", tuple(f"c{i}" for i in range(260)))
    kind = kinds.make_kind(describe((COLUMNS[1], many)))
    histograms = kind.show_histograms(Samples(np.array([[0, 259], [1, 2]]), 260), None)
    assert [len(shares) for shares in histograms.samples] == [2, 87]
    assert np.flatnonzero(histograms.samples[1]).tolist() == [0, 86]
    assert histograms.labels[1][0] == "c0 … c2"
    assert histograms.labels[1][-1] == "c258 … c259"


def test_places_of_arrays_have_their_own_bars_too():
    kind = kinds.make_kind(Description((2, 2), 200, sizes=((2, 3), (200, 2))))
    histograms = kind.show_histograms(Samples(np.array([[[1, 2], [199, 0]]]), 200), None)
    assert [len(shares) for shares in histograms.samples] == [2, 3, 50, 2]
    assert histograms.width == 4
    _, rows = kind.show_samples(Samples(np.array([[[2, 2], [199, 200]]]), 200))
    assert rows == [["0", "mask", "2", "199", "mask"]]


def test_associations_are_of_samples_beside_the_data():
    associations = KIND.show_associations(Samples(draw_rows(0, 500), 4), Samples(draw_rows(1, 400), 4))
    assert associations.names == ["cut", "age", "price"]
    assert associations.samples.shape == associations.data.shape == (3, 3)
    np.testing.assert_allclose(associations.samples, associations.data, atol=0.15)
    assert associations.data[0, 2] > 0.5
    assert KIND.show_associations(Samples(draw_rows(0, 9), 4), None).data is None


def test_the_volume_of_bins_is_that_of_integers_and_widths():
    x = np.array([[0, 0, 2], [0, 1, 0], [1, 0, 3]])
    expected = (np.log(4) + np.log(2) + 0 + 0 + np.log(4) + 0) / 3
    figures = KIND.extra_figures({"nats": 1.0}, {"x": x})
    assert figures == {"log_volume": pytest.approx(expected)}
    assert kinds.make_kind(describe(COLUMNS[:1])).extra_figures({"nats": 1.0}, {"x": x[:, :1]}) == {}


def test_baselines_are_nats_per_row_with_their_errors():
    train, test = draw_rows(0, 2000), draw_rows(1, 500)
    reached = KIND.baselines(split(train), {"x": test}, print)
    assert list(reached) == ["independent columns", "Chow-Liu tree"]
    alone, tree = reached.values()
    assert tree["nats"] + 5 * tree["nats_standard_error"] < alone["nats"]
    counts = [np.bincount(train[:, i], minlength=size) for i, size in enumerate(SIZES)]
    shares = [(n + 0.5) / (len(train) + len(n) / 2) for n in counts]
    nats = -sum(np.log(shares[i])[test[:, i]] for i in range(3))
    np.testing.assert_allclose(alone["nats"], nats.mean(), rtol=1e-12)
    np.testing.assert_allclose(alone["nats_standard_error"], nats.std(ddof=1) / np.sqrt(500), rtol=1e-12)
    assert alone["bits_per_dim"] == pytest.approx(bits_per_dim(alone["nats"] / 3, 1))


def test_samples_are_judged_beside_test_rows():
    train, test = draw_rows(0, 3000), draw_rows(1, 3000)
    # The first rows of a file in order are not like all of them.
    test = test[np.lexsort(test.T)]
    KIND.check_quality(1000, None)
    reference = KIND.prepare_quality(split(train), split(test), 1000)
    assert set(reference.figures) == {"test", "independent"}
    of_test, independent = reference.figures["test"], reference.figures["independent"]
    samples = reference.measure(draw_rows(2, 1000)).figures
    for name, tolerance in {"ks": 0.05, "tv": 0.05, "correlation": 0.1, "contingency": 0.08}.items():
        assert samples[name] == pytest.approx(of_test[name], abs=tolerance)
    assert of_test["ks"] > 0.95
    assert independent["ks"] > 0.95
    assert independent["contingency"] < of_test["contingency"] - 0.1
    assert independent["association"] > of_test["association"] + 0.1
    # Of so few different rows all are in the training split.
    assert (of_test["copies"], of_test["distance"]) == (1, 0)
    every_row = np.array(list(itertools.product(*map(range, SIZES))))
    few = KIND.prepare_quality(split([[0, 0, 0]] * 2), split(test), 10).measure(every_row).figures
    assert few["distance"] == pytest.approx(np.mean([np.mean(row != 0) for row in every_row]))
    assert few["copies"] == pytest.approx(1 / 24)
    assert set(KIND.quality.columns) <= set(few)


def test_a_column_alone_has_no_pairs():
    kind = kinds.make_kind(describe(COLUMNS[:1]))
    rows = np.array([[0], [1], [2]], np.int32)
    one = Split(ArraySource(rows), 3, kind.description)
    figures = kind.prepare_quality(one, one, 3).figures["test"]
    assert (figures["association"], figures["trends"], figures["ks"]) == (None, None, None)
    assert figures["tv"] == 1
    assert list(kind.baselines(one, {"x": rows}, print)) == ["independent columns", "Chow-Liu tree"]


def test_a_table_has_columns():
    with pytest.raises(UserError, match=r"columns = None: a table has some; .* or take kind='array'"):
        kinds.make_kind(Description((2,), 3, kind="table"))
