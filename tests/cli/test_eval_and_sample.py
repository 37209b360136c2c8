"""`d3pm eval` and `d3pm sample` as a user runs them: figures, pictures and files."""

import dataclasses
import hashlib
import json
import re
import shlex
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from d3pm_jax import runs, show
from d3pm_jax.cli import eval as evaluate, sample
from d3pm_jax.config import io as config_io
from d3pm_jax.program.measure import step_costs
from d3pm_jax.program.storage import checkpoint
from tests import tiny
from tests.cli.commands import error, printed_after, restored, status

pytestmark = pytest.mark.usefixtures("small_network")


def test_eval_and_sample(trained, data_dir, capsys, monkeypatch):
    printed_after(monkeypatch, sample, *(trained / f"{name}.png" for name in ("samples", "chain")))
    assert status("eval", trained) == 0
    printed = capsys.readouterr().out
    match = re.search(r"test bits/dim: (\d\.\d{3}) \+- (\d\.\d{3})\n\Z", printed)
    assert match
    assert "per-pixel histogram: 2.366 bits/dim" in printed
    assert "mixture of 10 class histograms: 2.2" in printed
    result = json.loads((trained / "eval.json").read_text())
    parts = sum(result["steps"]) + result["prior"]
    assert result["bits_per_dim"] == pytest.approx(parts, rel=1e-6)
    assert f"{parts:.3f}" == match[1]
    assert result["examples"] == 297

    assert status("sample", trained, "--num", "20") == 0
    samples = np.load(trained / "samples.npy")
    assert samples.shape == (20, 8, 8, 1)
    assert samples.min() >= 0
    assert samples.max() < 17
    assert (trained / "samples.png").stat().st_size > 1000
    assert (trained / "chain.png").stat().st_size > 1000
    capsys.readouterr()
    assert status("sample", trained, "--num", "5", "--batch-size", "2", "--gif") == 0
    printed = capsys.readouterr().out
    assert "samples.npy, replaces that of num 20\n" in printed
    assert printed.endswith(f"reverse process, moving: {trained / 'chain.gif'}\n")
    np.testing.assert_array_equal(np.load(trained / "samples.npy"), samples[:5])
    with Image.open(trained / "chain.gif") as gif:
        assert gif.n_frames == 11  # t = 10..0
        gif.seek(10)
        last = np.asarray(gif.convert("RGB"))
    np.testing.assert_array_equal(last[-450::3, ::3], show.grid(show.to_rgb(samples[:5], 17), 2))


@pytest.mark.slow
def test_batches_do_not_matter_to_a_bound_nor_a_gif_to_the_picture(trained):
    bits = []
    for size in ("297", "34"):
        assert status("eval", trained, "--batch-size", size) == 0
        bits.append(json.loads((trained / "eval.json").read_text())["bits_per_dim"])
    assert bits[0] == pytest.approx(bits[1], rel=1e-6)
    sample_five = ("sample", trained, "--num", "5", "--batch-size", "2")
    assert status(*sample_five) == 0
    chain = (trained / "chain.png").read_bytes()
    assert status(*sample_five, "--gif") == 0
    assert (trained / "chain.png").read_bytes() == chain


def test_a_gif_is_of_images(tmp_path, capsys):
    arrays = dataclasses.replace(tiny.DIGITS, kind="array")
    tiny.write_run(tmp_path / "w", tiny.get_config(), description=arrays)
    message = "--gif: no GIF is made of data of kind 'array', which this run has; leave it out"
    assert message in error(capsys, "sample", tmp_path / "w", "--gif")


def test_eval_and_sample_take_the_average_of_the_weights(trained, tmp_path):
    """Here an average that only knows category 3."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    state = restored(trained, 20).state
    ema = jax.tree.map(jnp.zeros_like, state.ema)
    ema["late"]["bias"] = 1e4 * jax.nn.one_hot(3, 17)
    checkpoint.save_checkpoint(tmp_path / "checkpoints", 21, dataclasses.replace(state, ema=ema), keep=1)
    assert status("sample", tmp_path, "--num", "4", "--batch-size", "2") == 0
    assert (np.load(tmp_path / "samples.npy") == 3).all()
    assert status("eval", tmp_path, "--limit", "40") == 0
    assert json.loads((tmp_path / "eval_limit40.json").read_text())["bits_per_dim"] > 100


def test_eval_and_sample_with_fewer_steps(trained, capsys, monkeypatch):
    assert status("eval", trained, "--steps", "3", "--limit", "40") == 0
    result = json.loads((trained / "eval_steps3_limit40.json").read_text())
    assert result["times"] == [4, 7, 10]
    assert result["bits_per_dim"] == pytest.approx(sum(result["steps"]) + result["prior"], rel=1e-6)
    assert f"3 steps: {result['bits_per_dim']:.3f} +- " in capsys.readouterr().out
    times_shown = {}
    for name in ("save_chain", "save_gif"):
        save = getattr(show, name)
        monkeypatch.setattr(
            show, name, lambda *args, n=name, s=save: (times_shown.update({n: args[3]}), s(*args))
        )
    assert status("sample", trained, "--num", "4", "--steps", "3", "--gif") == 0
    assert times_shown == {
        "save_chain": [0, 4, 7, 10],
        "save_gif": [10, 7, 4, 0],
    }  # of all steps, as in the report
    assert np.load(trained / "samples_steps3.npy").shape == (4, 8, 8, 1)
    assert (trained / "chain_steps3.png").stat().st_size > 1000
    caption = runs.open(trained, steps=3).caption
    assert caption == "whole: Uniform, K = 17, 3 of T = 10 steps; weights of step 20"
    assert "steps = 11: it must be in 1..10" in error(capsys, "eval", trained, "--steps", "11")


KEPT_OF_DATA = ("class", "name", "train_split", "test_split", "binarize", "mirror")  # no places


@pytest.mark.slow
def test_eval_tells_each_number_of_steps_on_the_best_grid_and_from_few_calls(trained, capsys, monkeypatch):
    monkeypatch.setattr(step_costs, "EXAMPLES", 40)
    assert status("eval", trained, "--steps", "2,3,10", "--grid", "dp", "--limit", "40") == 0
    printed = capsys.readouterr().out
    results = [json.loads((trained / f"eval_steps{n}_griddp_limit40.json").read_text()) for n in (2, 3, 10)]
    for result in results:
        assert result["times"][-1] == 10
        nats = result["bits_per_dim"] * 64 * np.log(2)
        assert result["nats"] == pytest.approx(nats, rel=1e-6)
        line = (
            f"  {len(result['times'])} steps: {result['bits_per_dim']:.3f} +- {result['standard_error']:.3f}"
        )
        assert f"{line} bits/dim, {nats:.2f} +- {result['nats_standard_error']:.2f} nats" in printed
    assert printed.endswith(
        f"test bits/dim: {results[-1]['bits_per_dim']:.3f} +- {results[-1]['standard_error']:.3f}\n"
    )
    run = runs.open(trained)
    costs = step_costs.read_costs(run.parts, run.workdir).costs
    sums = [costs[0, s] + costs[s, 10] for s in range(1, 10)]
    assert results[1]["protocol"] == {
        "N": 40,
        "split": "test",
        "step": 20,
        "ema": 0.9,
        "steps": 3,
        "grid": f"{results[1]['times']} of 10" if results[1]["times"] != [4, 7, 10] else "even, of 10",
        "data": {k: v for k, v in config_io.to_json(tiny.get_config().data).items() if k in KEPT_OF_DATA},
        "examples": f"sha256 {hashlib.sha256(runs.open(trained).read_split('test', 40)[0]).hexdigest()}",
        "terms": "all",
        "belief": "leave_one_out",
        "dtype": "float32",
        "seed": 0,
    }
    assert results[0]["times"] == [1 + int(np.argmin(sums)), 10]
    assert results[2]["times"] == list(range(1, 11))
    whole = runs.open(trained).evaluate(40)
    assert whole["bits_per_dim"] == pytest.approx(results[2]["bits_per_dim"], rel=1e-6)
    assert status("eval", trained, "--calls", "9", "--limit", "40") == 0
    few = json.loads((trained / "eval_calls9_limit40.json").read_text())
    assert abs(few["bits_per_dim"] - whole["bits_per_dim"]) < 4 * few["standard_error"]
    assert few["bits_per_dim"] != whole["bits_per_dim"]
    assert "9 of them for each example" in capsys.readouterr().out
    calls = ("eval", trained, "--calls", "4", "--steps", "5,3")
    assert "calls = 4: it must be in 1..3, the smallest number of --steps" in error(capsys, *calls)
    message = "calls = 11: it must be in 1..10, the steps of the process"
    assert message in error(capsys, "eval", trained, "--calls", "11")
    assert status("sample", trained, "--steps", "3", "--grid", "dp", "--num", "4") == 0
    assert np.load(trained / "samples_steps3_griddp.npy").shape == (4, 8, 8, 1)
    monkeypatch.setattr(evaluate, "SHORT", 1)
    assert status("eval", trained, "--steps", "2", "--batch-size", "40") == 0
    assert "about 1 min: 297 examples x 2 calls of the network; --limit N" in capsys.readouterr().out
    costs_file = trained / "jumps_step20.json"
    text = costs_file.read_text()
    two = ("sample", trained, "--steps", "2", "--grid", "dp")
    tree = json.loads(text)
    for damaged in (
        "[]",
        json.dumps(tree | {"times": [1, 3, *tree["times"][2:]]}),
        json.dumps(tree | {"costs": [["x"], *tree["costs"][1:]]}),
        json.dumps(tree | {"costs": tree["costs"][1:]}),
    ):
        costs_file.write_text(damaged)
        assert "delete it, d3pm eval --grid dp writes it again" in error(capsys, *two)
    for other in (text.replace('"weights": "', '"weights": "0'), None):
        costs_file.unlink() if other is None else costs_file.write_text(other)
        message = error(capsys, *two)
        command = f"d3pm eval {shlex.quote(str(trained))} --step 20 --steps 2 --grid dp --limit 100"
        assert f"find it from the data of the run by {command}\n" in message
    assert "pass both, as --steps 20 --grid dp" in error(capsys, "sample", trained, "--grid", "dp")


def test_missing_checkpoints_are_named(trained, tmp_path, capsys):
    assert "has no checkpoint of step 7: it has 12, 16, 20" in error(capsys, "eval", trained, "--step", "7")
    shutil.copytree(trained, tmp_path, ignore=shutil.ignore_patterns("checkpoints"), dirs_exist_ok=True)
    assert "holds no finished checkpoint" in error(capsys, "sample", tmp_path)
