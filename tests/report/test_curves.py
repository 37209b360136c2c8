"""Terms of bounds and their sums."""

import numpy as np
import pytest

from d3pm_jax.report import curves
from tests.report.reading import Page
from tests.report.records import bound, record


@pytest.fixture
def plotted(monkeypatch):
    """The curves of each plot, by the first word of its title."""
    curves_by_title = {}
    plot = curves.draw_plot

    def keep(title, xlabel, shown, log_x=False):
        curves_by_title[title.split()[0]] = shown
        return plot(title, xlabel, shown, log_x)

    monkeypatch.setattr(curves, "draw_plot", keep)
    return curves_by_title


def test_terms_and_their_sums_from_t_up(plotted):
    four = bound(1.0, 0.5, 0.25, 0.125)
    two = bound(2.0, 0.5, times=[2, 4], bits_per_dim=2.5)
    other = bound(9.0, step=6, bits_per_dim=9.0)  # of another checkpoint: none of these
    text = curves.plot_terms(
        [record(bounds=[four, two, other]), record("b", bounds=[bound(3.0, None, 4.0, 5.0)])]
    )
    assert plotted["term"] == [
        curves.Curve(0, [1, 2, 3, 4], [1.0, 0.5, 0.25, 0.125]),
        curves.Curve(1, [1, 2, 3, 4], [3.0, None, 4.0, 5.0]),
    ]
    assert plotted["sum"][0] == curves.Curve(0, [1, 2, 3, 4], [1.875, 0.875, 0.375, 0.125])
    np.testing.assert_array_equal(plotted["sum"][1].y, [np.nan, np.nan, 9.0, 5.0])
    assert plotted["bound"] == [curves.Curve(0, [2, 4], [2.5, 1.0])]
    page = Page(text)
    assert page.inside["figcaption"] == [
        "term of the bound at t [bits/dim]",
        "sum of the terms from t up to T [bits/dim]",
        "bound with fewer steps [bits/dim]",
    ]
    assert "The term of b is infinite at t = 2, and so is the sum from every t up to that." in page.words
    assert "The term of a is infinite" not in text
    assert "at t = 1, 2, 3, 4, 5 and 3 more, and" in curves.plot_terms(
        [record(bounds=[bound(*[None] * 8, 1.0)])]
    )
