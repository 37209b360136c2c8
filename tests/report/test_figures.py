"""Figures of the page about runs: what compares, and tables of their own."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

from d3pm_jax import kinds
from d3pm_jax.data import Column, Description
from d3pm_jax.program.measure.bounds import LABELS
from d3pm_jax.program.measure.record import Record
from d3pm_jax.report import curves, figures
from tests.report.reading import Page
from tests.report.records import PROTOCOL, RUN, Known, bound, of_quality, quality, record


def test_figures_of_quality_that_do_not_compare_are_told_apart():
    a = quality("a.json", 1.5)
    fewer = quality("fewer.json", 8.0, steps=3)
    other = quality("other.json", 2.5, features="pixels")
    small = quality("small.json", 3.5, N=5)
    earlier = quality("earlier.json", 9.0, step=6, N=99)
    first = record(quality=[earlier, small, fewer, a])
    second = record("b", quality=[other, quality("b.json", 4.5)])
    cells = Page(figures.tabulate_quality([first, second])).inside["td"]
    assert [x for x in cells if x == "yes" or x.startswith("no: other")] == [
        "yes",
        *["no: other N"] * 3,
        "no: other N, features",
        "no: other N",
    ]
    alone = Page(figures.tabulate_quality([record(quality=[a, other])])).inside["td"]
    assert [x for x in alone if x in ("yes", "no: other features")] == ["yes", "no: other features"]
    selected = figures.select_best_quality([record("none"), first, second, record("c", quality=[other])])
    assert [x and x.path.name for x in selected] == [None, "a.json", "b.json", None]
    assert figures.list_main_figures(first, a)["Fréchet distance"] == (
        "1.5<small>9 samples beside split train, 5 steps, seed 3, in "
        '<span title="sums, sha256 0123456789abcdef">sums, 0123456789ab</span></small>'
    )


def test_figures_of_texts_have_a_table_of_their_own():
    row = {"n": 9, "known_words": 0.5, "distinct_1": 0.25, "distinct_2": None, "distinct_3": 1.0}
    row |= {"longest_copy": 5, "copied": "<b>\né"}
    text = of_quality("t.json", {"samples": row, "unigram": row | {"n": 3}}, PROTOCOL, "text")
    page = Page(figures.tabulate_quality([record(quality=[quality("a.json")]), record("b", quality=[text])]))
    assert len(page.inside["table"]) == 2
    at = page.inside["th"].index("known words")
    titles = ["distinct words", "2-grams", "3-grams", "longest copy", "copied"]
    assert page.inside["th"][at + 1 : at + 6] == titles
    cells = page.inside["td"][page.inside["td"].index("unigram") :]
    assert cells[:9] == ["unigram", "3", "0.5", "0.25", "too few", "1", "5", "'<b>\\né'", "no: other N"]
    said = figures.list_main_figures(record(), text)["known words"]
    assert said.startswith("0.5<small>9 samples beside split train, 5 steps, seed 3, in ")


def test_baselines_are_told_once():
    result = bound(1.0, baselines={"histogram": 2.5})
    words = Page(figures.tabulate_bounds([record(bounds=[result]), record("b", bounds=[result])])).inside["p"]
    assert words[1].startswith("In all rows: step 7, steps ")
    assert words[2:] == ["For comparison, on the same examples as a, b: histogram 2.5 bits/dim."]


def test_rows_of_tables_have_nats_first():
    columns = (Column("age", "integer", ("1..2", "3"), lows=(1.0, 3.0), highs=(2.0, 3.0)),)
    kind = kinds.make_kind(Description((1,), 2, kind="table", sizes=(2,), columns=columns))
    run = Known(**vars(RUN) | {"parts": SimpleNamespace(**vars(RUN.parts) | {"kind": kind})})
    tree = {"bits_per_dim": 1.0, "nats": 8.0, "nats_standard_error": 0.25}
    result = bound(1.0, nats=7.5, nats_standard_error=0.5, log_volume=0.25, baselines={"tree": tree})
    reported = record(run=run, bounds=[result])
    words = Page(figures.tabulate_bounds([reported])).inside["p"]
    assert words[2:] == [
        "For comparison, on the same examples as a: tree 8.00 ± 0.25 nats.",
        "a: log-volume of the bins of numbers: 0.250 nats per row, not comparable across binnings.",
    ]
    facts = figures.list_main_figures(reported, None)
    assert list(facts) == ["test nats per row", "test bits/dim"]
    assert facts["test nats per row"].startswith("7.50 ± 0.50<small>3 examples")


def test_a_classifier_has_its_accuracy_and_a_diffusion_beside_it_its_bounds():
    parts = SimpleNamespace(**vars(RUN.parts) | {"recipe": SimpleNamespace(draw=None)})
    run = Known(**vars(RUN) | {"parts": parts})
    keys = {"step": 7, "examples": 3, "seed": 0, "accuracy": 0.5, "cross_entropy": 1.25}
    keys |= {"accuracy_standard_error": 0.25, "cross_entropy_standard_error": 0.125}
    keys |= {"protocol": {"N": 3, "step": 7}}
    accuracy = Record(LABELS, keys, Path("accuracy.json"))
    measured = dataclasses.replace(record("told", run), accuracies=[accuracy])
    unknown = record("unknown", run)
    diffusion = record("drawn", bounds=[bound(0.5)])
    page = Page(figures.tabulate_accuracies([diffusion, measured, unknown]))
    assert page.inside["th"][-1] == "told"
    assert page.inside["td"][:3] == ["accuracy.json", "0.500 ± 0.250", "1.250 ± 0.125"]
    assert page.inside["code"] == ["d3pm eval runs/a --step 7"]
    assert "unknown tells the label" in " ".join(page.words)
    bounds = Page(figures.tabulate_bounds([measured, diffusion]))
    assert bounds.inside["th"][-1] == "drawn"
    assert not bounds.inside.get("code")
    assert not Page(figures.tabulate_quality([measured])).words
    assert not Page(curves.plot_terms([measured])).words
