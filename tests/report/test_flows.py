"""A run of a flow on the page: its samples and bounds, and nothing of chains, steps and terms."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from d3pm_jax.config import Plane
from d3pm_jax.errors import UserError
from d3pm_jax.kinds import Chains, Samples, States, make_kind
from d3pm_jax.program.measure.bounds import EVAL
from d3pm_jax.program.measure.samples import Drawn
from d3pm_jax.report import curves, figures, folder, pages, samples
from d3pm_jax.show.markup import Html
from tests import tiny
from tests.report.reading import Page
from tests.report.records import RUN, Known, KnownParts, bound, quality, record, write_result

IWBO = bound(
    seed=1,
    calls=100,
    standard_error=0.25,
    elbo_bits_per_dim=1.5,
    elbo_standard_error=0.5,
    protocol={"N": 3, "steps": 0, "terms": "IWBO(100)"},
)
ELBO = bound(seed=1, protocol={"N": 3, "steps": 0, "terms": "ELBO, 1 draw for each example"})
PARTS = KnownParts(**vars(RUN.parts), config=RUN.config)
FLOW = Known(**vars(RUN) | {"parts": PARTS, "process": None})
X = np.arange(6 * 64).reshape(6, 8, 8, 1) % 17
NO_STATES = States(np.zeros((0, 6, 8, 8, 1), np.int32), [], 0, 17)
CHAINS = Chains(Samples(X, 17), NO_STATES, [], None, Samples(X, 17))
DRAWN = samples.ShownSamples(CHAINS, False)


def reported(*bounds_of_run):
    return dataclasses.replace(record(run=FLOW, bounds=bounds_of_run), examples=X)


def test_samples_have_no_steps_and_there_are_no_chains():
    page = Page(samples.show_samples(reported(), DRAWN))
    words = page.inside["figcaption"][0]
    assert words.startswith("Samples. 6 samples of step 7, seed 0, drawn for this page.")
    assert samples.show_chains(reported(), DRAWN) is None


def test_of_points_of_the_plane_so_many_are_drawn_that_their_density_is_seen(monkeypatch):
    description = Plane().describe()
    recipe = SimpleNamespace(
        dropping=None,
        num_steps=0,
        times=np.zeros(1, np.int32),
        draw=SimpleNamespace(settle=lambda draw, settled: settled),
        classes=None,
        categories=2,
    )
    parts = KnownParts(
        description=description,
        kind=make_kind(description),
        recipe=recipe,
        config=RUN.config,
        mesh=tiny.one_device_mesh(),
    )

    class Drawing(Known):
        def sample(self, key, n, draw=None, **options):
            x = np.zeros((n, 12), np.int32)
            return Drawn(x, x[None][:0], np.ones(n, np.int32), 1)

    monkeypatch.setattr(samples, "read_examples", lambda workdir, description: {})
    monkeypatch.setattr(samples, "read_samples", lambda run, n: None)
    run = Drawing(**vars(FLOW) | {"parts": parts})
    drawn = samples.draw_run(record(run=run))
    assert drawn.chains.samples.x.shape == (4000, 12)


def test_the_page_has_no_sections_of_chains_and_terms(monkeypatch):
    monkeypatch.setattr(folder, "read_folders", lambda runs: [reported(IWBO, ELBO)])
    monkeypatch.setattr(samples, "draw_run", lambda reported: DRAWN)
    monkeypatch.setattr(pages, "_tabulate_overview", lambda runs: Html())
    page = Page(pages.page([FLOW]))
    assert page.inside["h2"] == ["Bounds", "Sample quality", "Training", "Samples", "Config"]
    assert page.inside["p"][0].endswith(" Samples are drawn from the averaged weights of the checkpoint.")


def test_bounds_tell_what_they_are_without_steps():
    facts = figures.list_main_figures(reported(IWBO), None)
    assert facts["test bits/dim"] == "1.000 ± 0.250<small>3 examples, IWBO(100), seed 1</small>"
    facts = figures.list_main_figures(reported(ELBO), None)
    words = "3 examples, ELBO, 1 draw for each example, seed 1"
    assert facts["test bits/dim"] == f"1.000 ± unknown<small>{words}</small>"
    page = Page(figures.tabulate_bounds([reported(IWBO, ELBO)]))
    cells = page.inside["td"]
    assert cells[:6] == ["eval_0.json", "1.000 ± 0.250ELBO 1.500 ± 0.500", "-", "-", "-", "IWBO(100)"]
    assert page.inside["p"][1].startswith("In all rows: step 7, N 3,")
    second = cells.index("eval_1.json")
    assert cells[second + 1] == "1.000 ± unknown"
    assert curves.plot_terms([reported(IWBO, ELBO)]) == ""


def test_quality_of_samples_is_told_without_steps():
    best = quality("a.json", steps=0)
    words = str(figures.list_main_figures(reported(), best)["Fréchet distance"])
    assert words.startswith("1<small>9 samples beside split train, seed 3, in ")
    row = Page(figures.tabulate_quality([dataclasses.replace(reported(), quality=[best])])).inside["td"]
    assert row[row.index("yes") + 1] == "-"


def test_of_bounds_on_as_many_examples_that_of_most_draws_is_first(tmp_path):
    for name, result in {"eval": ELBO, "eval_calls100": IWBO, "eval_calls9": IWBO | {"calls": 9}}.items():
        write_result(tmp_path / f"{name}.json", result)
    bounds = folder.read_results(Known(step=7, workdir=tmp_path), EVAL)
    assert [x.path.stem for x in bounds] == ["eval_calls100", "eval_calls9", "eval"]


def test_a_bound_of_a_flow_is_read_and_a_damaged_bound_without_times_is_refused(tmp_path):
    path = tmp_path / "eval.json"
    write_result(path, IWBO)
    (stored,) = folder.read_results(Known(step=7, workdir=tmp_path), EVAL)
    assert stored == IWBO
    changes = [
        (IWBO | {"protocol": {"N": 3, "step": 7, "steps": 2}}, "its times are not those of its terms"),
        (IWBO | {"steps": [0.5]}, "its times are not those of its terms"),
        (IWBO | {"elbo_bits_per_dim": "1"}, "a figure is no number"),
    ]
    for content, message in changes:
        write_result(path, content)
        with pytest.raises(UserError, match=message):
            folder.read_results(Known(step=7, workdir=tmp_path), EVAL)
