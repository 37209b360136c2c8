"""The page about runs of arrays: tables of samples, and histograms beside those of the data."""

import dataclasses
import json
import re
import shlex
from types import SimpleNamespace

import numpy as np
import pytest

import d3pm_jax
from d3pm_jax import kinds
from d3pm_jax.config import Absorbing, Arrays, Config, Reciprocal, Train, Transformer
from d3pm_jax.config.head import make_logits
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError
from d3pm_jax.kinds import blocks as kind_blocks
from d3pm_jax.program.measure import bounds
from d3pm_jax.program.measure.record import write_record
from d3pm_jax.program.parts import network
from d3pm_jax.program.storage import run_folder
from d3pm_jax.report import blocks, curves, figures, folder
from d3pm_jax.runs.run import open_run
from d3pm_jax.training.diffusion import without_buffers
from tests import tiny
from tests.report.reading import Page
from tests.report.records import RUN, Known, record

L = 3
CATEGORIES = 4
MASKS = Description((L,), CATEGORIES)


def split(config, description, process, extra_mask=None):
    """In place of `network.split_network`: logits of a table."""

    def predict(params, xt, t, key=None, label=None, weight=None, condition=None):
        return make_logits(config.head, params["table"][xt], xt, process.K, extra_mask)

    def init(key):
        return {"table": np.zeros((process.K, process.K), np.float32)}

    return network.Network(predict, init, without_buffers(predict), extra_mask=extra_mask)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A run that fills in masks, with examples, and one that was imported."""
    home = tmp_path_factory.mktemp("arrays")
    config = Config(
        data=Arrays("train.npy", "test.npy", CATEGORIES),
        process=Absorbing(CATEGORIES + 1, 4, Reciprocal(), CATEGORIES),
        model=Transformer(see_time=False),
        train=Train(steps=6000),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "split_network", split)
        tiny.write_run(home / "masked", config, description=MASKS)
        tiny.write_run(home / "a b", config, step=0, description=MASKS)
        run_folder.write_run(home / "masked", config, MASKS, {"x": np.full((5, L), 2, np.int32)})
        yield home


@pytest.fixture(scope="module")
def page(home):
    run = open_run(home / "masked")
    x = np.ones((6, L), np.int32)
    result = bounds.compute_likelihood(run.parts, {"x": x}, batch_size=6, split="test")
    write_record(result, run.workdir, "_chain_rule6")
    d3pm_jax.report.write(run)
    return Page((home / "masked" / "report.html").read_text())


def test_samples_are_numbers_beside_those_of_the_data(page):
    assert page.open == []
    assert page.inside["th"].count("number") == 2  # samples, data
    assert page.inside["th"].count("state") == 2  # chains of both processes
    assert " 2" * 5 * L in " ".join(page.inside["td"])  # the examples
    captions = page.inside["figcaption"]
    assert [caption[0] for caption in captions if caption.endswith(" up to 100%")] == ["0", "1", "2"]
    assert any("in 64 samples and in the 5 examples of the test split" in caption for caption in captions)
    assert len(page.having("path", "bar")) == 2 * L


def test_an_exact_likelihood_has_its_place(home, page):
    cells = page.inside["td"]
    at = cells.index("exact_chain_rule6.json")
    result = json.loads((home / "masked" / "exact_chain_rule6.json").read_text())["left to right"]
    bits = f"{result['bits_per_dim']:.3f} ± {result['standard_error']:.3f}"
    assert cells[at : at + 3] == ["exact_chain_rule6.json", "left to right", bits]
    beginning = "In all rows: step 7, N 6, split test,"
    assert any(words.startswith(beginning) and words.endswith("seed 0.") for words in page.inside["p"])
    assert "in random orders" in cells
    assert f"{bits}6 examples, left to right" in page.inside["dd"]
    assert not any("--chain-rule" in code for code in page.inside["code"])
    bare = dataclasses.replace(folder.read_folders([open_run(home / "masked")])[0], likelihoods=())
    assert Page(figures.tabulate_likelihoods([bare])).inside["code"] == [
        f"d3pm eval {shlex.quote(str(home / 'masked'))} --chain-rule 100"
    ]


def test_examples_of_an_exact_likelihood_are_counted_when_both_orders_are_done(home):
    counted = []
    run = open_run(home / "masked")
    run.compute_likelihood({"x": np.ones((6, L), np.int32)}, batch_size=4, progress=counted.append)
    assert counted == [0, 2, 3, 3, 5, 6]


def test_what_an_exact_likelihood_is_computed_of_is_a_dict(home):
    run = open_run(home / "masked")
    with pytest.raises(UserError) as refused:
        run.compute_likelihood({"y": np.ones((6, L), np.int32)})
    assert str(refused.value) == (
        'examples = dict: pass a dict with "x" [N, *S], as run.read_batch("test", 4) gives'
    )


def test_a_run_that_was_imported_is_not_told_to_train(home):
    run = open_run(home / "a b")
    page = Page(d3pm_jax.report.page([run]))
    assert "imported weights, not trained here" in page.inside["dd"]
    workdir = shlex.quote(str(run.workdir))
    assert page.inside["code"] == [f"d3pm eval {workdir}{option}" for option in ("", " --chain-rule 100", "")]
    notes = [text for text in page.inside["p"] if "imported" in text or "weights alone" in text]
    assert notes == [
        "a b has no curves: its weights were imported, and not trained here.",
        "Examples of the data are not beside them: this run began from weights alone, and has none until it "
        "is trained.",
        "The forward process has no examples to begin from: this run began from weights alone, and has none "
        "until it is trained.",
    ]


def test_a_training_that_is_finished_is_not_told_to_go_on(home):
    finished = folder.read_folders([open_run(home / "masked")])[0]
    config = dataclasses.replace(finished.run.config, train=Train(steps=7))
    parts = dataclasses.replace(finished.run.parts, config=config)
    finished = dataclasses.replace(finished, run=dataclasses.replace(finished.run, parts=parts))
    page = Page(curves.plot_metrics([finished]))
    assert page.words == [
        "masked has no curves, as its metrics.jsonl is empty or missing, and its training is finished."
    ]


@pytest.mark.parametrize(
    ("description", "options"),
    [
        (Description((8, 8, 1), 17, 10, "image"), [" --samples 2000"]),
        (Description((8, 8, 1), 17, None, "image"), [" --samples 5000 --inception FILE"]),
        (Description((8, 8, 3), 17, 10, "image"), [" --samples 5000 --inception FILE"]),
        (Description((8, 8, 2), 17, 10, "image"), []),
        (MASKS, []),
    ],
)
def test_the_advice_on_quality_fits_the_data(description, options):
    run = Known(
        **vars(RUN) | {"parts": SimpleNamespace(kind=kinds.make_kind(description), recipe=RUN.parts.recipe)}
    )
    page = Page(figures.tabulate_quality([record(run=run)]))
    assert page.inside.get("code", []) == [f"d3pm eval runs/a --step 7{option}" for option in options]


def test_a_bar_of_samples_is_right_of_that_of_the_data():
    shares = np.array([[0.5, 0.5]])
    page = Page(blocks.draw_histograms(kind_blocks.Histograms(["0"], shares, shares[:, ::-1] * [[0, 2]], 1)))
    data, drawn = (attrs["d"] for attrs in page.having("path", "bar"))
    assert data == "M80.0 60v-60.0h40.0v60.0z"
    assert drawn == "M40.0 60v-30.0h40.0v30.0zM120.0 60v-30.0h40.0v30.0z"
    assert page.inside["li"] == ["data", "samples"]
    alone = Page(blocks.draw_histograms(kind_blocks.Histograms(["0"], shares, None, 1)))
    assert alone.inside["li"] == ["samples"]


def test_a_table_shows_at_its_edges_that_it_scrolls(page):
    """Each is in a box with a shadow at both sides, which lids that move with the content uncover."""
    assert len(page.having("div", "scroll")) == len(page.inside["table"])
    (style,) = page.inside["style"]
    (box,) = re.findall(r"\.scroll, \.strip, pre {(.*?)}", style, re.DOTALL)
    assert [box.count(f"no-repeat {moves}") for moves in ("local", "scroll")] == [2, 2]
