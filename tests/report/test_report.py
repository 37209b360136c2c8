"""The page about runs: that it is whole, asks nothing of a network, and shows what is in their folders."""

import base64
import dataclasses
import hashlib
import json
import re
import shlex
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import d3pm_jax
from d3pm_jax import kinds, show
from d3pm_jax.config import Adam, Arrays
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError
from d3pm_jax.program.measure import sample_quality as protocol
from d3pm_jax.program.measure.bounds import EVAL
from d3pm_jax.program.storage import run_folder
from d3pm_jax.report import blocks, curves, figures, folder, samples
from d3pm_jax.runs import Draw
from d3pm_jax.runs.run import open_run
from d3pm_jax.show.images import join_tiles
from tests import tiny
from tests.cli.commands import error, status
from tests.report.reading import Page, pixels
from tests.report.records import bound, write_result

pytestmark = pytest.mark.usefixtures("small_network")

EVIL = "<script>alert(1)</script>"
UNLABELLED = dataclasses.replace(tiny.DIGITS, classes=None)
PROTOCOL = protocol.Protocol(
    9,
    "train",
    "150 examples, sha256 ab",
    "sums",
    7,
    5,
    EVIL,
    "ancestral",
    "none",
    0.9,
    "d3pm",
    "f",
    3,
)
ROWS = {
    name: {"n": 9, "frechet": x, "precision": 0.5, "recall": None}
    for name, x in (("samples", 1.25), ("test", 2.5), (EVIL, None))
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Two runs with random weights: one evaluated and with curves, of the other only what a run has."""
    home = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    files = {}
    for split, size in (("train", 20), ("test", 12)):
        files[split] = str(home / f"{split}<script>alert(1)<script>.npy")
        np.save(files[split], rng.integers(17, size=(size, 8, 8, 1)))
    config = dataclasses.replace(tiny.get_config(), data=Arrays(**files, categories=17, kind="image"))
    whole = home / EVIL.replace("/", "&")
    bare = home / "bare"
    tiny.write_run(whole, config, description=UNLABELLED)
    shutil.copytree(whole, bare)
    run_folder.write_run(bare, dataclasses.replace(config, optimizer=Adam(lr=0.25)), tiny.DIGITS)
    examples = rng.integers(17, size=(6, 8, 8, 1)).astype(np.int32)
    run_folder.write_run(whole, config, UNLABELLED, {"x": examples})
    np.save(bare / "samples.npy", rng.integers(17, size=(70, 8, 8, 1)).astype(np.int32))
    about = {"step": 7, "num": 70, "steps": 10, "grid": "even", "seed": 0, "label": None}
    write_result(bare / "samples.json", about)
    rows = [{"step": i, "loss": 2.0**-i, "grad_norm": 1.0, EVIL: 3.0} for i in range(1, 8)]
    (whole / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    protocol.write_quality(protocol.make_record(ROWS, PROTOCOL, "image"), whole)
    assert status("eval", whole, "--limit", "8") == 0
    result = json.loads((whole / "eval_limit8.json").read_text())
    fewer = {name: 2 * result[name] for name in ("bits_per_dim", "standard_error", "nats")}
    fewer |= {name: result[name][::2] for name in ("times", "steps")}
    fewer |= {"protocol": result["protocol"] | {"steps": 5, "belief": EVIL}}
    write_result(whole / "eval_steps5_limit8.json", result | fewer)
    return home


@pytest.fixture(scope="module")
def whole(home):
    return home / EVIL.replace("/", "&")


@pytest.fixture(scope="module")
def written(whole, home):
    """The text of a page about both."""
    assert status("report", whole, home / "bare") == 0
    return (whole / "report.html").read_text()


@pytest.fixture(scope="module")
def page(written):
    return Page(written)


def test_it_is_whole_and_asks_nothing_of_a_network(written, page):
    assert page.open == []
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert not re.search(r"url\(|@import|https?:|srcset|<iframe|<form", written)
    assert [attrs["href"] for tag, attrs in page.tags if tag == "link"] == ["data:,"]
    anchors = {address[1:] for address in page.addresses if address.startswith("#")}
    assert anchors == {attrs["id"] for tag, attrs in page.tags if tag == "section"}
    (policy,) = (a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    (script,) = page.inside["script"]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]


def test_what_files_say_is_text(written, page, home):
    """A name of a folder, of a metric, of a row of quality, an entry of a protocol, a text of a config."""
    assert "alert" not in page.inside["script"][0]
    assert written.count("alert(1)") == written.count("&lt;script&gt;alert(1)&lt;") >= 4
    assert EVIL in page.inside["figcaption"]  # the metric
    assert EVIL in page.inside["td"]
    assert str(home / "train<script>alert(1)<script>.npy") in page.inside["td"]


def test_figures_are_those_of_the_files(whole, page):
    cells = page.inside["td"]
    for name in ("eval_limit8.json", "eval_steps5_limit8.json"):
        result = json.loads((whole / name).read_text())
        row = cells[cells.index(name) :]
        assert row[1] == f"{result['bits_per_dim']:.3f} ± {result['standard_error']:.3f}"
        assert row[2] == f"{result['nats']:.2f} ± {result['nats_standard_error']:.2f}"
        known = result["protocol"]
        assert row[5:7] == [str(known[field]) for field in ("steps", "belief")]
        said = ", ".join(f"{field} {known[field]}" for field in ("step", "grid", "terms", "N", "split"))
        assert f"In all rows: {said}, dtype float32, ema 0.9, seed 0." in page.inside["p"]
    best = json.loads((whole / "eval_limit8.json").read_text())
    headline = f"{best['bits_per_dim']:.3f} ± {best['standard_error']:.3f}8 examples, 10 steps, seed 0"
    assert headline in cells
    assert (
        "1.259 samples beside split train, 5 steps, seed 3, in sums" in cells
    )  # the Fréchet distance, and of what
    assert cells[cells.index("samples") :][:4] == ["samples", "9", "1.25", "0.5"]


def test_missing_parts_name_the_command(home, page):
    codes = page.inside["code"]
    quoted = shlex.quote(str(home / "bare"))
    assert {
        f"d3pm eval {quoted}",
        f"d3pm eval {quoted} --samples 2000",
        f"d3pm train --workdir {quoted} --resume",
    } <= {*codes}
    assert not any(str(home) in code and "bare" not in code for code in codes)  # the other lacks nothing


def test_fields_that_differ_are_side_by_side(whole, page):
    names = page.inside["th"]
    at = names.index("field")
    assert names[at : at + 4] == ["field", whole.name, "bare", "optimizer.lr"]
    assert names[at + 4] == "field"  # of the folded table: no other field differs
    assert {"process", "process.beta", "train.steps"} <= {*names[at + 5 :]}
    assert page.inside["td"][page.inside["td"].index("0.25") - 1 :][:2] == ["0.001", "0.25"]


def test_curves_are_the_metrics(page):
    """A path for each run that has a metric, whose points go down with the logarithm of the loss."""
    paths = [attrs for _, attrs in page.tags if "curve" in attrs.get("class", "").split()]
    assert {attrs["class"] for attrs in paths} == {"curve run-0"}
    points = np.array([point.split() for point in paths[0]["d"][1:].split("L")], float)
    assert len(points) == 7
    np.testing.assert_allclose(np.diff(points, axis=0), np.diff(points, axis=0)[:1].repeat(6, 0), atol=0.11)
    assert (np.diff(points, axis=0) > 0).all()  # below is larger in an svg


def test_the_film_is_the_recorded_chain(whole, page):
    run = open_run(whole)
    film = page.having("div", "film")[0]
    times = [int(t) for t in film["data-times"].split()]
    assert times == list(range(10, -1, -1))
    columns, w, h = map(int, film["data-sheet"].split())
    drawn = run.sample(jax.random.key(0), 64, Draw(record=times))
    at = page.tags.index(("div", film))
    _, box = page.tags[at + 1]
    _, image = page.tags[at + 2]
    assert box["viewbox"] == f"{10 % columns * w} {10 // columns * h} {w} {h}"  # without a script: t = 0
    sheet = pixels(image["href"])
    assert (str(sheet.shape[1]), str(sheet.shape[0])) == (image["width"], image["height"])
    for i, state in enumerate(drawn.states):
        y = i // columns * h
        x = i % columns * w
        expected = show.grid(show.to_rgb(state[: samples.FILMED], 17), 4)
        np.testing.assert_array_equal(sheet[y : y + h, x : x + w], expected)
    np.testing.assert_array_equal(pixels(page.having("img", "pixels")[0]["src"]), grid(drawn.x0))
    np.testing.assert_array_equal(drawn.states[-1], drawn.x0)
    data = np.load(whole / "examples.npy")
    np.testing.assert_array_equal(pixels(page.having("img", "pixels")[1]["src"]), grid(data))


def test_samples_of_the_command_are_shown_in_their_order(home, page):
    stored = np.load(home / "bare" / "samples.npy")[:64]
    np.testing.assert_array_equal(pixels(page.having("img", "pixels")[2]["src"]), grid(stored))
    assert any("the first of samples.npy of d3pm sample" in words for words in page.inside["figcaption"])


def grid(x):
    return show.grid(show.to_rgb(x, 17), blocks.COLUMNS)


def reported(run, classes=None, **changes):
    """A record of a run as if its data were other."""
    recipe = dataclasses.replace(run.parts.recipe, classes=classes)
    parts = dataclasses.replace(run.parts, recipe=recipe, **changes)
    parts = dataclasses.replace(parts, kind=kinds.make_kind(parts.description))
    return folder.Reported("x", dataclasses.replace(run, parts=parts), [], [], [], None)


def test_other_kinds_of_data(whole):
    run = open_run(whole)
    rng = np.random.default_rng(0)
    x = rng.integers(3, size=(40, 5)).astype(np.int32)
    states = np.stack([x, x, x + 1])
    reverse = kinds.States(states, [0, 4, 9], 10, 17)
    drawn = samples.ShownSamples(kinds.Chains(kinds.Samples(x, 17), reverse, [0, 9], None, None), False)
    text = reported(run, description=Description((5,), 3, None, "text", ("a", "<", "b\n")))
    page = Page(samples.show_samples(text, drawn) + samples.show_chains(text, drawn))
    kind = text.run.parts.kind
    lines = kind.lines(x[: kind.lines_shown])
    assert page.inside["pre"][0].split("\n") == lines
    last = kind.lines(x[:1] + 1)[0]
    assert page.inside["pre"][1].split("\n") == [f"t = 9  {last}", f"t = 0  {lines[0]}"]
    assert [film["data-times"] for film in page.having("div", "film")] == ["9 4 0"]
    array = reported(run, description=Description((5,), 3))
    page = Page(samples.show_samples(array, drawn) + samples.show_chains(array, drawn))
    row = page.inside["th"].index("number") + 6
    assert page.inside["th"][row] == "0"
    assert page.inside["td"][:5] == [str(category) for category in x[0]]
    assert page.open == []

    x = rng.integers(17, size=(30, 8, 8, 1)).astype(np.int32)
    reverse = kinds.States(x[None], [0], 10, 17)
    drawn = samples.ShownSamples(kinds.Chains(kinds.Samples(x, 17), reverse, [0], None, None), True)
    page = Page(samples.show_samples(reported(run, classes=10), drawn))
    assert page.inside["text"] == [str(c) for c in range(10)]
    rows = np.concatenate([x[c::10] for c in range(10)])
    (image,) = (attrs for tag, attrs in page.tags if tag == "image")
    np.testing.assert_array_equal(pixels(image["href"]), show.grid(show.to_rgb(rows, 17), 3))


def test_samples_are_taken_from_the_folder_where_they_are_of_this_step(whole, tmp_path):
    run = open_run(whole)
    x = np.arange(3 * 64, dtype=np.int32).reshape(3, 8, 8, 1) % 17
    run = dataclasses.replace(run, workdir=tmp_path)
    assert folder.read_samples(run, 2) is None
    np.save(tmp_path / "samples.npy", x)
    about = {"step": 7, "num": 3, "steps": 10, "grid": "even", "seed": 0, "label": None}
    for change, is_same in (({}, True), ({"step": 6}, False), ({"num": 1}, False), ({"seed": 1}, False)):
        write_result(tmp_path / "samples.json", about | change)
        stored = folder.read_samples(run, 2)
        assert (stored is not None) == is_same
    write_result(tmp_path / "samples.json", about)
    np.testing.assert_array_equal(folder.read_samples(run, 2), x[:2])
    np.save(tmp_path / "samples.npy", x + 1)
    with pytest.raises(UserError, match=r"samples.npy or samples.json is damaged .*: delete both"):
        folder.read_samples(run, 2)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("eval.json", "{", r"eval.json is damaged .*: delete it, `d3pm eval` writes it again"),
        (
            "eval_x.json",
            bound(0.5, bits_per_dim="1"),
            "eval_x.json is damaged .*no number",
        ),
        ("eval.json", bound(0.1, times=[1, 2]), "of its terms"),
        ("eval.json", bound(0.5, examples="3"), "not how many examples"),
        ("eval.json", bound(0.5, bits_per_dim=1e200), "no number"),
        ("quality_x.json", "{}", "quality_x.json is damaged"),
        (
            "exact_x.json",
            {"protocol": {"step": 7, "N": 3}, "left to right": {}},
            "`d3pm eval --chain-rule` writes it",
        ),
        (
            "exact_x.json",
            {"protocol": {"step": 7, "N": "3"}},
            "exact_x.json is damaged .*not how many examples",
        ),
        ("metrics.jsonl", "{}\n", "line 1 is damaged"),
    ],
)
def test_damaged_files_get_one_line(name, content, message, home, tmp_path):
    shutil.copytree(home / "bare", tmp_path / "w")
    if isinstance(content, str):
        (tmp_path / "w" / name).write_text(content)
    else:
        write_result(tmp_path / "w" / name, content)
    with pytest.raises(UserError, match=message):
        d3pm_jax.report.write(tmp_path / "w")
    assert not (tmp_path / "w" / "report.html").exists()


def test_a_picture_of_quality_is_shown_or_refused(whole, tmp_path):
    quality = protocol.make_record({"samples": ROWS["samples"]}, PROTOCOL, "image")
    written = protocol.write_quality(quality, tmp_path)
    path = written.with_suffix(".png")
    record = dataclasses.replace(reported(open_run(whole)), quality=protocol.read_quality([tmp_path]))
    assert samples.show_nearest(record) == ""
    colours = np.random.default_rng(0).integers(256, size=(4, 6, 3)).astype(np.uint8)
    Image.fromarray(colours).save(path)
    page = Page(samples.show_nearest(record))
    (image,) = (attrs for tag, attrs in page.tags if tag == "img")
    assert "sample of step 7 the training" in page.inside["figcaption"][0]
    assert f"in sums ({path.name})" in page.inside["figcaption"][0]
    np.testing.assert_array_equal(pixels(image["src"]), colours)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match=r"\.png is not a picture .*: delete it, `d3pm eval --samples`"):
        samples.show_nearest(record)


def test_what_cannot_be_written(whole, tmp_path, capsys):
    assert "holds no run" in error(capsys, "report", tmp_path)
    assert "none is not a directory: make it" in error(
        capsys, "report", whole, "--out", tmp_path / "none/x.html"
    )
    with pytest.raises(UserError, match="no runs: pass at least one"):
        d3pm_jax.report.write([])


def test_infinite_bounds(whole, tmp_path):
    """Null is infinite."""
    write_result(tmp_path / "eval.json", bound(None, 0.5, seed=1, bits_per_dim=None))
    run = dataclasses.replace(open_run(whole), workdir=tmp_path)
    record = dataclasses.replace(reported(open_run(whole)), bounds=folder.read_results(run, EVAL))
    page = Page(figures.tabulate_bounds([record]))
    assert page.inside["td"][:3] == ["eval.json", "infinite", "-"]
    assert "In all rows: step 7, steps 2, " in page.inside["p"][1]
    assert figures.list_main_figures(record, None) == {
        "test bits/dim": "infinite<small>3 examples, 2 steps, seed 1</small>",
        "test nats per example": "-<small>the same 3 examples</small>",
    }


def test_the_sheet_holds_every_frame_in_order():
    frames = np.arange(11, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 3), np.uint8)
    sheet = join_tiles(frames, blocks.SHEET_COLUMNS, 0)
    assert sheet.shape == (4, 24, 3)
    np.testing.assert_array_equal(sheet[::2, ::3, 0].ravel()[:11], np.arange(11))


def test_a_curve_leaves_out_what_cannot_be_drawn():
    """Infinite terms, a 0 on a logarithmic axis, a number that is too large; nothing at all is no plot."""
    curve = curves.Curve(1, [0, 1, 2, 4], [1.0, None, 10.0**200, 8.0])
    page = Page(curves.draw_plot("y", "x", [curve, curves.Curve(0, [], [])]))
    assert len(page.having("circle", "run-1")) == 2
    assert page.having("path", "run-0") == []
    assert curves.draw_plot("y", "x", [curve._replace(y=[None] * 4)]) is None
    (path,) = Page(curves.draw_plot("y", "x", [curve], log_x=True)).having("path", "run-1")
    assert "L" not in path["d"]
    gap = curves.Curve(0, [0, 1, 2, 3, 4], [1.0, 2.0, None, 3.0, 4.0])
    (path,) = Page(curves.draw_plot("y", "x", [gap])).having("path", "run-0")
    assert [part.count("L") for part in path["d"].split("M")] == [0, 1, 1]  # not over the gap
    assert curves.draw_plot("y", "x", [curves.Curve(0, [1, 2, 3], [1e-300, 1.0, 1e99])]) is not None
    many = curves.Curve(0, list(range(9999)), [float(i) for i in range(9999)])
    (path,) = Page(curves.draw_plot("y", "x", [many])).having("path", "run-0")
    assert path["d"].count("L") == curves.POINTS - 1
    low = curves.Axis(1.0, 20.0, True, 0.0, 1.0)
    high = curves.Axis(1.0, 1e4, True, 0.0, 1.0)
    assert (low.list_ticks(), high.list_ticks()) == ([1, 2, 5, 10, 20], [1, 10, 100, 1000, 10000])
    assert high.place(100.0) == pytest.approx(0.5)
