"""Arrays in a report: their numbers, and how often each place has each of them."""

import numpy as np

from d3pm_jax import kinds
from d3pm_jax.data import Description
from d3pm_jax.kinds import Samples, States, array


def kind_of(shape, categories):
    return kinds.make_kind(Description(shape, categories))


def test_a_table_has_a_row_for_each_sample():
    x = np.array([[0, 3], [-1, 2]])
    head, rows = kind_of((2,), 3).show_samples(Samples(x, 3))
    assert (head, rows) == (["number", "0", "1"], [["0", "0", array.MASK], ["1", "", "2"]])
    head, rows = kind_of((2, 40), 9).show_samples(Samples(np.zeros((9, 2, 40), int), 9))
    assert len(rows) == 9
    assert head[-2:] == ["0, 31", "and 48 more"]
    assert len(rows[0]) == 1 + array.PLACES


def test_a_chain_has_a_row_for_each_state():
    states = np.array([[[3, 3], [1, 1]], [[0, 3], [1, 1]]])  # [R, N, L]
    head, rows = kind_of((2,), 3).show_chain(States(states, [4, 0], 4, 3))
    assert (head, rows) == (["state", "0", "1"], [["t = 4", "mask", "mask"], ["t = 0", "0", "mask"]])


def test_histograms_are_of_places():
    samples = np.array([[0, 1], [0, 2], [1, 2], [0, 3]])
    examples = np.array([[2, -1], [2, 1]])
    histograms = kind_of((2,), 3).show_histograms(Samples(samples, 3), Samples(examples, 3))
    assert histograms.names == ["0", "1"]
    np.testing.assert_allclose(histograms.samples, [[3 / 4, 1 / 4, 0], [0, 1 / 3, 2 / 3]])
    np.testing.assert_array_equal(histograms.data, [[0, 0, 1], [0, 1, 0]])
    wide = kind_of((1,), 200).show_histograms(Samples(np.array([[0], [3], [4], [199]]), 200), None)
    assert (wide.width, np.shape(wide.samples), wide.data) == (4, (1, 50), None)
    np.testing.assert_array_equal(np.flatnonzero(wide.samples), [0, 1, 49])
