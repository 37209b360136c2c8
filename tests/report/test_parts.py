"""Parts of the page about runs, of numbers written out: nothing is drawn, and no network is called."""

import dataclasses
import json
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import d3pm_jax
from d3pm_jax import kinds
from d3pm_jax.config import io as config_io
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError
from d3pm_jax.measure import bounds, record as measured, sample_quality as protocol
from d3pm_jax.parts import build
from d3pm_jax.report import curves, figures, folder, pages as shown, samples
from d3pm_jax.runs.run import Run
from d3pm_jax.show import markup
from d3pm_jax.storage import checkpoint, names
from tests.report.reading import Page

EVAL = bounds.EVAL
DIGITS = Description((8, 8, 1), 17, 10, "image")


class KnownParts(build.Parts):
    """Parts of which only so much is known."""

    process = classes = categories = None

    def __init__(self, **known):
        vars(self).update(known)


class Known(Run):
    """A run of which only so much is known."""

    step = process = config = None

    def __init__(self, **known):
        vars(self).update(known)


RUN = Known(
    step=7,
    workdir=Path("runs/a"),
    config=config_io.read_config_file(Path("configs/digits_absorbing.py")),
    process=SimpleNamespace(T=4),
    parts=SimpleNamespace(description=DIGITS, kind=kinds.make_kind(DIGITS)),
)
PROTOCOL = protocol.Protocol(
    N=9,
    split="train",
    reference="150 examples, sha256 ab",
    features="sums, sha256 0123456789abcdef",
    step=7,
    steps=5,
    grid="even",
    sampler="ancestral",
    classes="none",
    ema=0.9,
    belief="d3pm",
    dtype="float32",
    seed=3,
)


def record(name="a", run=RUN, bounds=(), quality=()):
    bound_records = [
        measured.parse_record(EVAL, Path(f"eval_{i}.json"), result) for i, result in enumerate(bounds)
    ]
    return folder.Reported(name, run, [], bound_records, list(quality), None)


def bound(*terms, **entries):
    """What a file of `d3pm eval` holds."""
    times = list(range(1, len(terms) + 1))
    return {"step": 7, "examples": 3, "times": times, "steps": list(terms), "bits_per_dim": 1.0} | entries


def quality(name, frechet=1.0, **changes):
    row = {"n": changes.get("N", 9), "frechet": frechet, "precision": 0.5, "recall": None}
    return of_quality(name, {"samples": row}, dataclasses.replace(PROTOCOL, **changes))


def of_quality(name, rows, known):
    content = {"protocol": dataclasses.asdict(known), "figures": rows}
    return measured.parse_record(protocol.QUALITY, Path(name), content)


def test_fields_are_the_same_where_they_are():
    """Of every ordered pair of the configs here: a field that one lacks differs, also where it is None."""
    paths = sorted(Path("configs").glob("*.py"))
    configs = {path.stem: config_io.read_config_file(path) for path in paths}
    assert len(configs) > 9
    for a, b in permutations(map(shown.flatten_config, configs.values()), 2):
        differ, others = shown.compare_configs([a, b])
        same = {name for name in a.keys() & b.keys() if a[name] == b[name]}
        assert {*others} == same
        assert {*differ} == (a.keys() | b.keys()) - same
    pair = [record(x, Known(config=configs[x])) for x in ("bin_mnist_absorbing", "bin_mnist_uniform")]
    for records in (pair, pair[::-1]):  # a field of the first is None, and the second has none of that name
        page = Page(shown.tabulate_configs(records))
        at = page.inside["th"].index("model.channels_per_group")
        assert at < page.inside["th"].index("value")  # among those that differ


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


def test_bounds_begin_with_this_step_most_steps_all_terms_most_examples(tmp_path):
    files = {
        "eval_a": bound(1.0, 1.0, 1.0, step=6),
        "eval_b": bound(1.0),
        "eval_c": bound(times=[1, 2], examples=99),
        "eval_d": bound(1.0, 1.0, examples=4),
        "eval_e": bound(1.0, 1.0, examples=5),
    }
    for name, tree in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(tree))
    records_read = folder.read_bounds(Known(step=7, workdir=tmp_path))
    assert [x.path.stem[-1] for x in records_read] == ["e", "d", "c", "b", "a"]


def test_no_two_runs_have_one_name():
    def run(path, step=7, T=4):
        return Known(workdir=Path(path), step=step, process=SimpleNamespace(T=T))

    assert folder.name_runs([run("runs/a"), run("runs/b")]) == ["a", "b"]
    assert folder.name_runs([run("a"), run("x/a"), run("a", T=2), run("a", step=6), run("a")]) == [
        "a, step 7, 4 steps (1)",
        "x/a, step 7, 4 steps",
        "a, step 7, 2 steps",
        "a, step 6, 4 steps",
        "a, step 7, 4 steps (2)",
    ]
    with pytest.raises(UserError, match="9 runs: a page has 8 colours, write several pages"):
        d3pm_jax.report.page([RUN] * 9)


def test_the_command_names_a_step_that_is_not_the_last(tmp_path):
    run = Known(**vars(RUN) | {"workdir": tmp_path})
    assert record(run=run).evaluate() == f"d3pm eval {tmp_path} --step 7"  # training has deleted them
    for step, option in ((7, ""), (9, " --step 7")):
        manifest = tmp_path / names.CHECKPOINTS / str(step) / checkpoint.MANIFEST
        manifest.parent.mkdir(parents=True)
        manifest.touch()
        assert record(run=run).evaluate(" --x") == f"d3pm eval {tmp_path}{option} --x"


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
    text = of_quality("t.json", {"samples": row, "unigram": row | {"n": 3}}, PROTOCOL)
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
    assert words[1:] == ["For comparison, on the same examples as a, b: histogram 2.5 bits/dim."]


def test_chains_tell_the_t_of_the_whole_process(tmp_path):
    process = build.with_steps(d3pm_jax.uniform(d3pm_jax.cosine(10), 4), [2, 3, 10])

    def sample(key, n, batch_size, record, chains):
        assert (record, chains) == ([0, 1, 2, 3], 16)
        return np.zeros((n, 2), np.int32), np.zeros((4, 16, 2), np.int32)

    run = Known(
        step=7,
        workdir=tmp_path,
        process=process,
        sample=sample,
        parts=KnownParts(classes=None, process=process, categories=4),
    )
    drawn = samples.draw_run(record(run=run))
    assert (drawn.chains.times, drawn.chains.strip) == ([0, 2, 3, 10], [0, 2, 3, 10])


def test_text_that_is_no_utf_8_is_written():
    assert markup.tag("p", "a\udc80<", title="\udc80b").encode() == b'<p title="?b">a?&lt;</p>'
