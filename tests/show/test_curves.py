"""Curves of several in one picture: what is drawn are the numbers, over t or t / T, and each has a name."""

import json

import numpy as np
import pytest
from PIL import Image

import d3pm_jax as d3pm
from d3pm_jax import show
from d3pm_jax.show import curves
from d3pm_jax.show.curves import SUM, TERM, WEIGHT

BOUND = {"steps": [1.0, 0.5, 0.25, 0.125], "times": [1, 2, 3, 4], "bits_per_dim": 1.9}
FEWER = {"steps": [2.0, 0.5], "times": [2, 4]}


@pytest.fixture
def drawn(monkeypatch):
    """What the functions hand to `save_lines`, which draws it as well."""
    calls = []

    def save(path, lines, xlabel, log=(), caption=""):
        calls.append((lines, xlabel))
        show.save_lines(path, lines, xlabel, log, caption)

    monkeypatch.setattr(curves, "save_lines", save)
    return calls


def ink(path, colour):
    """How many pixels of a picture have about this colour."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return int((np.abs(pixels - np.array(colour)).max(-1) < 30).sum())


def test_bounds_of_several_runs_are_over_their_times(drawn, tmp_path):
    path = tmp_path / "terms.png"
    show.save_bound_terms(path, {"all": BOUND, "two steps": FEWER})
    lines, xlabel = drawn.pop()
    assert xlabel == "t"
    np.testing.assert_array_equal(lines["two steps"][0], [2, 4])
    np.testing.assert_array_equal(lines["all"][1][TERM], BOUND["steps"])
    np.testing.assert_array_equal(lines["all"][1][SUM], [1.875, 0.875, 0.375, 0.125])
    assert min(ink(path, (31, 119, 180)), ink(path, (255, 127, 14))) > 300

    other = json.loads('{"steps": [null, 1.0], "times": [4, 8]}')  # as a file has it where a term is infinite
    show.save_bound_terms(path, {"all": BOUND, "other": other})
    lines, xlabel = drawn.pop()
    assert xlabel == "t / T"
    np.testing.assert_array_equal(lines["all"][0], [0.25, 0.5, 0.75, 1])
    np.testing.assert_array_equal(lines["other"][0], [0.5, 1])
    np.testing.assert_array_equal(lines["other"][1][SUM], [np.nan, 1])


def test_what_is_no_bound_is_one_line(tmp_path):
    path = tmp_path / "terms.png"
    for bounds, message in (
        ({}, "there is nothing to draw"),
        (
            {"a": {"bits_per_dim": 1.0, "times": [1]}},
            r"bound 'a' has \['bits_per_dim', 'times'\].* without --calls",
        ),
        (
            {"a": BOUND, "b": BOUND | {"times": [1, 2]}},
            r"bound 'b' has steps of shape \(4,\) and times of .*\(2,\)",
        ),
        ({"a": {"steps": [], "times": []}}, "give at least one term"),
    ):
        with pytest.raises(ValueError, match=message):
            show.save_bound_terms(path, bounds)
    with pytest.raises(ValueError, match=r"x has 2 points and curves of {'loss': 3}"):
        show.save_curves(path, [1, 2], {"loss": [1, 2, 3]}, "step")
    with pytest.raises(ValueError, match=r"b has 2 points and curves of {'y': 2}: give each of \['x'\]"):
        show.save_lines(path, {"a": ([1], {"x": [1]}), "b": ([1, 2], {"y": [1, 2]})}, "step")
    assert not path.exists()


def test_schedules_of_processes_are_over_t_of_T(drawn, tmp_path):
    """Of a mask the part that is kept is alpha_bar_t, and so is the information left."""
    mask = d3pm.absorbing(d3pm.reciprocal(6), 5, 4)
    uniform = d3pm.uniform(d3pm.cosine(3), 4)
    show.save_schedules(tmp_path / "x.png", {"mask": mask, "uniform": uniform}, {"mask": 4}, "both")
    lines, xlabel = drawn.pop()
    assert xlabel == "t / T"
    t, curves = lines["mask"]
    np.testing.assert_allclose(t, np.arange(1, 7) / 6)
    unchanged, left, weight = curves.values()
    np.testing.assert_allclose(unchanged, 1 - t, atol=1e-6)
    np.testing.assert_allclose(left, 1 - t, atol=1e-6)
    np.testing.assert_allclose(weight, 1 / np.arange(1, 7), rtol=1e-5)
    assert list(lines["uniform"][1]) == list(curves)
    assert WEIGHT in curves
    np.testing.assert_allclose(lines["uniform"][0], np.arange(1, 4) / 3)

    show.save_schedules(tmp_path / "x.png", {"mask": mask})
    lines, xlabel = drawn.pop()
    assert (xlabel, list(lines["mask"][0])) == ("t", list(range(1, 7)))


def test_what_is_no_schedule_is_one_line(tmp_path):
    process = d3pm.uniform(d3pm.cosine(10), 4)
    by_position = d3pm.autoregressive(3, 4, 3)
    for processes, levels, message in (
        ({}, {}, "there is nothing to draw"),
        (
            {"a": process},
            {"b": 3},
            r"levels of \['b'\], which is not one of the processes: name one of \['a'\]",
        ),
        ({"a": process}, {"a": 5}, r"levels = 5: data of a process with K = 4 has 2..4 categories"),
        ({"a": process}, {"a": 1}, "levels = 1"),
        ({"a": by_position}, {}, "save_schedules draws a process of elements each on its own"),
    ):
        with pytest.raises(ValueError, match=message):
            show.save_schedules(tmp_path / "x.png", processes, levels)
    assert not list(tmp_path.iterdir())


def test_names_are_no_formulas_and_none_is_left_out(tmp_path, monkeypatch):
    drawn = []
    save = curves.save_figure
    monkeypatch.setattr(
        curves, "save_figure", lambda path, figure: (drawn.append(figure), save(path, figure))
    )
    names = ["$_$", r"x$\foo$", "_hidden", "5$"]
    lines = {name: ([1, 2], {r"$\loss$": [1, 2]}) for name in names}
    show.save_lines(tmp_path / "x.png", lines, "$^$", caption="$\\bar$ \udc80")
    (legend,) = drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == [name.replace("$", r"\$") for name in names]
    states = np.zeros((1, 1, 8, 8, 3), np.uint8)
    show.save_strip(tmp_path / "y.png", states, [0], "$_$")
    show.save_beside(tmp_path / "z.png", states[0], states[0], "$_$")
