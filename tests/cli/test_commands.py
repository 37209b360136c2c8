"""The commands as a user runs them: what they write, how they stop, and what they say when they cannot."""

import dataclasses
import hashlib
import json
import os
import re
import runpy
import shutil
import signal
import socket
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import d3pm_jax
from d3pm_jax import kinds, runs, show
from d3pm_jax.cli import eval as evaluate, sample, train
from d3pm_jax.config import io as config_io
from d3pm_jax.errors import UserError
from d3pm_jax.loop import loop, metrics, sinks as logs
from d3pm_jax.machine import signals
from d3pm_jax.measure import bounds, record
from d3pm_jax.measure.samples import evenly_spaced
from d3pm_jax.parts import begin, build, network
from d3pm_jax.runs import grids
from d3pm_jax.storage import checkpoint, lock
from d3pm_jax.storage.run_folder import read_config
from tests import tiny
from tests.cli.commands import CONFIG, error, status, train_args

pytestmark = pytest.mark.usefixtures("small_network")

SPLIT = network.split_network
RATES = ((0.001, 4), (0.002, 9))  # lr and decay_steps of a run, before and after it is resumed


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data_dir):
    """A finished run of 20 steps without interruption."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    assert status(*train_args(workdir, data_dir)) == 0
    return workdir


def restored(workdir, step):
    """The parts of a run at a checkpoint."""
    return build.restore_state(workdir, build.build(read_config(workdir), tiny.DIGITS), step)


def weights(workdir, step):
    """Every array of a checkpoint."""
    return [np.asarray(x) for x in jax.tree.leaves(restored(workdir, step).state)]


def tables(workdir, step):
    """The parameters of a checkpoint."""
    return jax.tree.leaves(restored(workdir, step).state.params)


def losses(workdir):
    return {row["step"]: row["loss"] for row in metrics.read_metrics(workdir)}


def test_train_writes_a_run(trained):
    assert checkpoint.list_steps(trained / "checkpoints") == [12, 16, 20]
    losses_by_step = losses(trained)
    assert list(losses_by_step) == [4, 5, 8, 10, 12, 15, 16, 20]
    moved = [np.abs(a - b).max() for a, b in zip(*(tables(trained, step) for step in (12, 20)), strict=True)]
    assert min(moved) > 1e-3  # eight steps of Adam
    assert (trained / "loss.png").stat().st_size > 1000
    assert any((trained / "tensorboard").iterdir())
    assert read_config(trained).process == tiny.get_config().process


def printed_after(monkeypatch, module, *paths):
    """Makes a module print only where all of these files are there: a pipe that is closed loses none."""

    def say(text, **options):
        assert [path for path in paths if not path.exists()] == [] or options  # flushed is what comes first
        print(text, **options)

    monkeypatch.setattr(module, "print", say, raising=False)


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
    assert status("eval", trained, "--batch-size", "34") == 0
    other = json.loads((trained / "eval.json").read_text())["bits_per_dim"]
    assert other == pytest.approx(parts, rel=1e-6)  # the batches do not matter

    assert status("sample", trained, "--num", "20") == 0
    samples = np.load(trained / "samples.npy")
    assert samples.shape == (20, 8, 8, 1)
    assert samples.min() >= 0
    assert samples.max() < 17
    assert (trained / "samples.png").stat().st_size > 1000
    assert (trained / "chain.png").stat().st_size > 1000
    capsys.readouterr()
    assert status("sample", trained, "--num", "5", "--batch-size", "2") == 0
    assert "samples.npy, replaces that of num 20\n" in capsys.readouterr().out
    np.testing.assert_array_equal(np.load(trained / "samples.npy"), samples[:5])

    chain = (trained / "chain.png").read_bytes()
    assert status("sample", trained, "--num", "5", "--batch-size", "2", "--gif") == 0
    assert capsys.readouterr().out.endswith(f"reverse process, moving: {trained / 'chain.gif'}\n")
    assert (trained / "chain.png").read_bytes() == chain
    with Image.open(trained / "chain.gif") as gif:
        assert gif.n_frames == 11  # t = 10..0
        gif.seek(10)
        last = np.asarray(gif.convert("RGB"))
    np.testing.assert_array_equal(last[-450::3, ::3], show.grid(show.to_rgb(samples[:5], 17), 2))


def test_a_gif_is_of_images(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tiny, "DIGITS", dataclasses.replace(tiny.DIGITS, kind="array"))
    tiny.write_run(tmp_path / "w", tiny.get_config())
    message = "--gif: a GIF is of images, the data of this run is of kind 'array'; leave it out"
    assert message in error(capsys, "sample", tmp_path / "w", "--gif")


@pytest.mark.parametrize("T", [1, 5, 10, 45, 100, 256, 1000, 4000])
def test_the_states_of_the_picture_are_among_those_of_the_gif(T):
    few = evenly_spaced(T, kinds.base.STATES)
    many = evenly_spaced(T, kinds.base.FRAMES)
    assert set(few) <= set(many)
    assert (many[0], many[-1], len(many)) == (0, T, min(T + 1, kinds.base.FRAMES))


def test_eval_and_sample_take_the_average_of_the_weights(trained, tmp_path):
    """Here an average that only knows category 3."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    state = restored(trained, 20).state
    ema = jax.tree.map(jnp.zeros_like, state.ema)
    ema["late"]["bias"] = 1e4 * jax.nn.one_hot(3, 17)
    checkpoint.save_checkpoint(tmp_path / "checkpoints", 21, dataclasses.replace(state, ema=ema), keep=1)
    assert status("sample", tmp_path, "--num", "3") == 0
    assert (np.load(tmp_path / "samples.npy") == 3).all()
    assert status("eval", tmp_path, "--limit", "3") == 0
    assert json.loads((tmp_path / "eval_limit3.json").read_text())["bits_per_dim"] > 100


def test_eval_and_sample_with_fewer_steps(trained, capsys, monkeypatch):
    assert status("eval", trained, "--steps", "3", "--limit", "20") == 0
    result = json.loads((trained / "eval_steps3_limit20.json").read_text())
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


def test_eval_tells_each_number_of_steps_on_the_best_grid_and_from_few_calls(trained, capsys, monkeypatch):
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
    costs = grids.read(runs.open(trained)).costs
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
    assert "calls = 4: it must be in 1..3, the fewest steps asked for" in error(capsys, *calls)
    assert status("sample", trained, "--steps", "2", "--grid", "dp", "--num", "3") == 0
    assert np.load(trained / "samples_steps2_griddp.npy").shape == (3, 8, 8, 1)
    monkeypatch.setattr(evaluate, "SHORT", 1)
    assert status("eval", trained, "--steps", "2") == 0
    assert "about 1 min: 297 examples x 2 calls of the network; --limit N" in capsys.readouterr().out
    costs_file = trained / "jumps_step20.json"
    text = costs_file.read_text()
    two = ("sample", trained, "--steps", "2", "--grid", "dp")
    for damaged in (
        "[]",
        text.replace("[1, 2, ", "[1, 3, "),
        text.replace('"costs": [[', '"costs": [["x", '),
    ):
        costs_file.write_text(damaged)
        assert "delete it, d3pm eval --grid dp writes it again" in error(capsys, *two)
    for other in (text.replace('"weights": "', '"weights": "0'), None):
        costs_file.unlink() if other is None else costs_file.write_text(other)
        message = error(capsys, *two)
        assert f"d3pm eval {trained} --step 20 --steps 2 --grid dp --limit 100 finds it" in message
    assert "pass both, as --steps 20 --grid dp" in error(capsys, "sample", trained, "--grid", "dp")


def test_results_of_other_options_stay_and_what_is_replaced_is_said(tmp_path):
    assert record.file_suffix() == record.file_suffix(step=None, seed=0, label=None) == ""
    assert record.file_suffix(step=0, seed=3, label=0) == "_step0_seed3_label0"
    assert record.file_suffix(num=256) == "_num256"

    path = tmp_path / "r.json"
    first = {"step": 16, "examples": 20, "bits": 1.5}
    assert record.write_record(path, bounds.EVAL, first) == ""
    assert record.write_record(path, bounds.EVAL, first | {"bits": 2.0}) == ""
    assert json.loads(path.read_text())["bits"] == 2.0
    assert record.write_record(path, bounds.EVAL, first | {"step": 20}) == ", replaces that of step 16"
    path.write_text("{")
    assert record.write_record(path, bounds.EVAL, first) == ""


def test_a_damaged_checkpoint_is_passed_over(trained, tmp_path, capsys):
    workdir = tmp_path / "damaged"
    shutil.copytree(trained, workdir)
    largest = max(
        (workdir / "checkpoints" / "20").rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0
    )
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    assert "is damaged" in error(capsys, "eval", workdir, "--step", "20")
    assert status("eval", workdir, "--limit", "4") == 0
    said = capsys.readouterr()
    assert "checkpoint of step 16, " in said.out
    assert re.fullmatch(r"warning: checkpoint \S+/20 is damaged \(.*\): step 16 is before it\n", said.err)
    assert status("train", "--workdir", workdir, "--resume") == 0
    assert "is damaged" in capsys.readouterr().err
    assert checkpoint.list_steps(workdir / "checkpoints") == checkpoint.list_steps(trained / "checkpoints")
    shutil.rmtree(workdir / "checkpoints" / "20")
    (workdir / "checkpoints" / "16" / checkpoint.MANIFEST).unlink()  # as if killed while writing it
    assert status("train", "--workdir", workdir, "--resume") == 0
    for a, b in zip(weights(workdir, 20), weights(trained, 20), strict=True):
        np.testing.assert_array_equal(a, b)
    assert losses(workdir) == losses(trained)


def rates(workdir, steps):
    """The learning rate of each step, from what it did to the parameters and Adam's moments after it."""
    rate_by_step = {}
    states = {step: restored(workdir, step).state for step in (steps[0] - 1, *steps)}
    for step in steps:
        moved = np.asarray(states[step].params["late"]["bias"] - states[step - 1].params["late"]["bias"])
        adam = states[step].opt_state[1][0]
        mean = np.asarray(adam.mu["late"]["bias"]) / (1 - 0.9**step)
        square = np.asarray(adam.nu["late"]["bias"]) / (1 - 0.999**step)
        rate_by_step[step] = np.median(-moved * (np.sqrt(square) + 1e-8) / mean)
    return rate_by_step


def test_a_longer_run_goes_on_at_the_rate_that_is_asked_for(tmp_path, data_dir, capsys, monkeypatch):
    workdir = tmp_path / "longer"
    decay = ["--train.steps", "4", "--optimizer.decay-steps", "4", "--optimizer.warmup-steps", "3"]
    every = ["--train.checkpoint-every", "1", "--train.keep-checkpoints", "9"]
    longer = ["train", "--workdir", workdir, "--resume", "--train.steps", "7"]
    printed_after(monkeypatch, train, workdir / "loss.png")
    assert status(*train_args(workdir, data_dir, *decay, *every)) == 0
    cure = "train.steps = 7; pass --optimizer.decay-steps 7, or fewer steps"
    assert cure in error(capsys, *longer)
    assert read_config(workdir).train.steps == 4
    assert status(*longer, "--optimizer.decay-steps", "9", "--optimizer.lr", "0.002") == 0
    old, new = ({s: lr * (1 + np.cos(np.pi * (s - 1) / n)) / 2 for s in range(1, 8)} for lr, n in RATES)
    wanted = {2: old[2] * 2 / 3, 3: old[3], 4: old[4], 5: new[5], 6: new[6], 7: new[7]}
    assert rates(workdir, range(2, 8)) == pytest.approx(wanted, rel=2e-3)
    assert status("train", "--workdir", workdir, "--resume", "--optimizer.lr", "0.003") == 0  # nothing to do
    assert read_config(workdir).optimizer.lr == 0.003


def test_steps_without_a_rate_are_refused(tmp_path, data_dir, capsys):
    args = train_args(tmp_path / "none", data_dir, "--optimizer.decay-steps", "19")
    message = "optimizer.decay_steps = 19: the learning rate is 0 after that, but train.steps = 20"
    assert message in error(capsys, *args)
    assert not (tmp_path / "none").exists()


def test_a_run_begins_from_the_average_of_another(trained, tmp_path, data_dir, capsys, monkeypatch):
    workdir = tmp_path / "tuned"
    args = [*train_args(workdir, data_dir, "--from", trained, "--optimizer.b1", "0.5", "--train.steps", "2")]

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(logs, "open_logs", killed)
        assert status(*args) == 130
    capsys.readouterr()
    first = restored(workdir, 0).state
    old = restored(trained, 20).state
    for part in (first.params, first.ema):
        jax.tree.map(np.testing.assert_array_equal, part, old.ema)
    assert np.abs(old.ema["late"]["bias"] - old.params["late"]["bias"]).max() > 1e-4
    assert not any(np.any(x) for x in jax.tree.leaves(first.opt_state))
    assert read_config(workdir).optimizer.b1 == 0.5
    assert "holds a run already: pass --resume alone to go on" in error(capsys, *args)
    assert status("train", "--workdir", workdir, "--resume") == 0
    assert checkpoint.list_steps(workdir / "checkpoints") == [0, 2]
    whole = runs.train(read_config(workdir), tmp_path / "whole", start=runs.open(trained))
    jax.tree.map(np.testing.assert_array_equal, whole.parts.state, restored(workdir, 2).state)


def test_a_run_does_not_begin_from_what_does_not_fit(trained, tmp_path, data_dir, capsys, monkeypatch):
    args = train_args(tmp_path / "new", data_dir, "--from", trained)
    assert "are for K = 17, this run has K = 18: change" in error(capsys, *args, "--process.K", "18")
    assert "--from begins a new run, --resume goes on with one" in error(capsys, *args, "--resume")
    assert "holds no run" in error(capsys, *args[:-1], tmp_path / "none")
    weights = begin.weights_of(restored(trained, 20))
    other = weights._replace(params={**weights.params, "late": {"scale": np.zeros(17)}})
    with pytest.raises(UserError, match=r"of another network \(late.bias: none, expected \(17,\)\): change"):
        begin.match_weights(restored(trained, 20), other)
    assert not (tmp_path / "new").exists()


def test_a_signal_while_samples_are_drawn_loses_nothing(tmp_path, data_dir, monkeypatch, capsys):
    def interrupted(params, n, seed):
        signal.raise_signal(signal.SIGINT)
        return np.zeros((n, 8, 8, 1), np.int32), np.zeros((0, n, 8, 8, 1), np.int32)

    monkeypatch.setattr(loop, "make_sampler", lambda *_: interrupted)
    workdir = tmp_path / "signalled"
    assert status(*train_args(workdir, data_dir, "--train.sample-every", "5")) == 130
    assert checkpoint.list_steps(workdir / "checkpoints") == [4, 6]
    assert "stopped by SIGINT, saved step 6" in capsys.readouterr().out


def test_checkpoints_without_a_config_are_not_taken_over(trained, tmp_path, data_dir, capsys):
    shutil.copytree(trained / "checkpoints", tmp_path / "checkpoints")
    message = "holds checkpoints but no config.json: restore it, or pass another --workdir"
    assert message in error(capsys, *train_args(tmp_path, data_dir))
    assert checkpoint.list_steps(tmp_path / "checkpoints") == [12, 16, 20]


def test_a_part_that_is_no_dataclass_is_refused(tmp_path, capsys):
    source = Path(CONFIG).read_text().replace("get_config", "base")
    source += "class Gaussian(Uniform): pass\nimport dataclasses\ndef get_config():\n    c = base()\n"
    source += "    return dataclasses.replace(c, process=Gaussian(17, 10, c.process.beta))\n"
    (tmp_path / "own.py").write_text(source)
    message = error(capsys, "train", tmp_path / "own.py", "--workdir", tmp_path / "w")
    assert "class Gaussian is not a dataclass: put @dataclasses.dataclass(frozen=True) on it" in message


def test_a_run_is_never_overwritten_or_mixed(trained, data_dir, capsys):
    shorter = ["train", "--workdir", trained, "--resume", "--train.steps", "10"]
    assert "the run is at step 20 already" in error(capsys, *shorter)
    assert "holds a run already: pass --resume" in error(capsys, *train_args(trained, data_dir))
    changed = train_args(trained, data_dir, "--resume", "--optimizer.b1", "0.1")
    assert "optimizer.b1 was 0.9, is 0.1" in error(capsys, *changed)


def test_another_training_in_the_folder_is_refused(trained, capsys):
    message = f"another `d3pm train` is writing to {trained}: wait for it or pass another --workdir"
    with lock.hold_folder(trained):
        assert message in error(capsys, "train", "--workdir", trained, "--resume", "--train.steps", "21")
    assert read_config(trained).train.steps == 20


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, data_dir, capsys):
    """No checkpoint of the steps that are skipped takes the place of one from before them."""
    args = train_args(tmp_path / "nan", data_dir, "--optimizer.lr", "1e20", "--train.checkpoint-every", "1")
    message = error(capsys, *args)
    assert re.search(r"is (nan|inf) at step 2; the checkpoint of step 1 is kept: start anew", message)
    assert re.search(r"grad_norm (nan|inf), .*5 steps in a row\)", message)
    assert checkpoint.list_steps(tmp_path / "nan" / "checkpoints") == [1]


def test_a_run_goes_on_over_steps_that_are_not_finite(tmp_path, data_dir, capsys):
    """Its lines of metrics are of finite steps alone, and the weights of its checkpoints are finite."""
    args = train_args(tmp_path / "w", data_dir, "--optimizer.lr", "1e20", "--train.max-nonfinite", "30")
    assert status(*args) == 0
    printed = capsys.readouterr().out
    assert "no metrics at step 8: all steps since the last were skipped" in printed
    assert "steps 2 to 8 were not finite, and skipped: no checkpoint is written" in printed
    assert "steps 2 to 20 were not finite, and skipped\n" in printed
    assert checkpoint.list_steps(tmp_path / "w" / "checkpoints") == [20]
    (row,) = metrics.read_metrics(tmp_path / "w")
    assert (row["step"], row["skipped"]) == (4, 3)
    assert all(np.isfinite(x).all() for x in tables(tmp_path / "w", 20))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (["--data.name", "digit"], "digit"),
        (["--process.stepz", "3"], "no field --process.stepz in this config: did you mean --process.steps"),
        (["--process.beta.stop", "3"], "beta = 1.13333 at t = 4 is outside (0, 1]"),
        (["--process.K", "9"], "holds 16 at [1, 4, 0], but K = 9 allows only 0..8: set K to 17"),
        (["--train.batch-size", "0"], "batch_size = 0"),
        (["--train.seed", "-1"], "train.seed = -1: it must be a whole number in 0..4294967295"),
        (["--optimizer.decay-steps", "0"], "optimizer.decay_steps = 0"),
        (["--head.forbid", "3"], "only the last category, K - 1 = 16, can be an extra mask"),
        (["--train.batch-size", "2000"], "batch size 2000 exceeds the 1500 examples"),
        (["--data.dir", "/nonexistent"], "/nonexistent"),
        (["--resume"], "holds no run to resume"),
        (["stray"], "unexpected argument 'stray'"),
        (["--train.steps", "3.5"], "--train.steps: expected a whole number in 1..2147483647, got '3.5'"),
        (["--train.steps"], "--train.steps: expected a whole number in 1..2147483647, got nothing"),
        (
            ["--train.seed", "3", "--optimizer.lr=fast"],
            "--optimizer.lr: expected a finite number of at",
        ),
        (
            ["--optimizer.decay_steps", "x"],
            "--optimizer.decay_steps: expected a whole number in 1..2147483647 or None, got 'x'",
        ),
        (
            ["--model.ch-mult", "1", "a"],
            "ch-mult: expected a tuple of at least one, each a whole number in 1..16777216, got '1 a'",
        ),
        (["--model.ch-mult"], "model.ch_mult = (): it must be a tuple of at least one, each a whole"),
        (["--model.compute", "int8"], "--model.compute: expected 'float32' or 'bfloat16', got 'int8'"),
        (["--head.residual", "False"], "takes no value: write --head.residual or --head.no-residual"),
        (["--head.no_residual=1"], "takes no value: write --head.residual or --head.no-residual"),
        (["--train.steps", "9" * 5000], f"got '{'9' * 56} ... {'9' * 17}'\n"),
    ],
)
def test_bad_values_get_one_line(override, message, tmp_path, data_dir, capsys):
    assert message in error(capsys, *train_args(tmp_path / "bad", data_dir, *override))
    assert not list(tmp_path.glob("bad/checkpoints/*"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (["--model.groups", "3"], "8 channels do not divide into 3 groups"),
        (["--model.groups", "0"], "model.groups = 0: it must be a whole number in 1..16777216"),
        (["--model.ch", "2"], "ch = 2"),
    ],
)
def test_a_network_that_cannot_be_gets_one_line(override, message, tmp_path, data_dir, capsys, monkeypatch):
    monkeypatch.setattr(network, "split_network", SPLIT)
    assert message in error(capsys, *train_args(tmp_path / "bad", data_dir, *override))


def test_flags_of_the_parser_itself_are_no_fields(tmp_path, capsys):
    for words in (["--tyro-print-completion", "bash"], ["--tyro-write-completion", "bash", tmp_path / "x"]):
        message = error(capsys, "train", CONFIG, "--workdir", tmp_path / "w", *words)
        assert f"no field {words[0]} in this config" in message
    assert not list(tmp_path.iterdir())


def test_bad_paths_get_one_line(tmp_path, capsys):
    assert "no config file" in error(capsys, "train", tmp_path / "none.py", "--workdir", tmp_path)
    assert "no config: pass" in error(capsys, "train", "--workdir", tmp_path)
    assert "no workdir" in error(capsys, "train", CONFIG)
    assert "holds no run" in error(capsys, "eval", tmp_path / "none")
    assert "holds no run" in error(capsys, "sample", tmp_path)
    (tmp_path / "file").write_text("")
    assert "cannot write to" in error(capsys, "train", CONFIG, "--workdir", tmp_path / "file")
    (tmp_path / "broken.py").write_text("def get_config(): return 1 / 0")
    assert "ZeroDivisionError" in error(capsys, "train", tmp_path / "broken.py", "--workdir", tmp_path / "w")
    (tmp_path / "config.json").write_text("{")
    assert "is not JSON" in error(capsys, "eval", tmp_path)


def test_missing_checkpoints_are_named(trained, tmp_path, capsys):
    assert "has no checkpoint of step 7: it has 12, 16, 20" in error(capsys, "eval", trained, "--step", "7")
    shutil.copy(trained / "config.json", tmp_path)
    assert "holds no finished checkpoint" in error(capsys, "sample", tmp_path)


def test_an_option_before_the_command_is_one_line(capsys):
    assert status("--foo", "train", "x.py") == 1
    assert capsys.readouterr().err.startswith("d3pm train: error: no config")


def test_help_explains_every_command(capsys):
    for args in (["--help"], *([name, "--help"] for name in ("train", "eval", "sample", "schedule"))):
        assert status(*args) == 0
        assert "d3pm" in capsys.readouterr().out
    assert status("train", CONFIG, "--help") == 0
    assert "--process.steps" in capsys.readouterr().out
    assert status("schedule", CONFIG, "--help") == 0
    assert "--process.steps" in capsys.readouterr().out
    assert status("eval") == status("eval", "x", "--seed", 2**64) == status("sample", "x", "--seed", -1) == 2
    assert status("eval", "x", "--nonsense") == 2


def test_the_version_is_that_of_the_library(capsys):
    assert status("--version") == 0
    assert capsys.readouterr().out == f"d3pm_jax {d3pm_jax.__version__}\n"


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--limit", "0", "a whole number in 1..2147483647"),
        ("--batch-size", "all", "a whole number in 1..2147483647"),
        ("--step", "-1", "a whole number in 0..2147483647"),
        ("--steps", "2,x", "a whole number in 1..2147483647"),
        ("--seed", "4294967296", "a whole number in 0..4294967295"),
    ],
)
def test_an_option_says_what_it_expects(option, value, expected, capsys):
    assert status("eval", "x", option, value) == 2
    wrong = value.split(",")[-1]  # of a list of numbers
    message = f"d3pm eval: error: argument {option}: expected {expected}, got '{wrong}'\n"
    assert capsys.readouterr().err.endswith(message)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train", CONFIG, "--workdir", "w", "--resume=3"], "--resume: expected no value, got '3'"),
        (["train", "--workdir", "w", "--dry_run=yes"], "--dry_run: expected no value, got 'yes'"),
        (
            ["import", "a.pt", "--size", "3", "0"],
            "--size: expected a whole number in 1..2147483647 and a whole number in 1..2147483647, got '3 0'",
        ),
        (
            ["import", "a.pt", "--input-range", "0", "x"],
            "--input-range: expected a finite number and a finite number, got '0 x'",
        ),
    ],
)
def test_switches_take_no_value_and_pairs_say_both(words, expected, capsys):
    assert status(*words) == 2
    assert capsys.readouterr().err == f"d3pm {words[0]}: error: argument {expected}\n"


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (OSError("5120 requested and 0 written"), "error: 5120 requested and 0 written\n"),
        (
            OSError(28, "No space left on device"),
            "No space left on device; make room and run it again",
        ),
        (OSError(13, "Permission denied", "x"), "error: Permission denied: x\n"),
        (MemoryError("Unable to allocate 64 TiB"), "Unable to allocate 64 TiB; take smaller batches"),
        (
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory\nmore"),
            "RESOURCE_EXHAUSTED: Out of memory more",
        ),
    ],
)
def test_what_the_system_says_is_one_line(raised, message, capsys, monkeypatch):
    def fail(*args):
        raise raised

    monkeypatch.setattr(sample, "execute", fail)
    assert message in error(capsys, "sample", "x")


def test_the_config_is_shown_within_the_width_of_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    lines = train._format_config(tiny.get_config()).splitlines()
    assert max(map(len, lines)) <= 60
    shown = " ".join(line.strip() for line in lines)
    for part in ("process", "model", "train"):
        assert f"{part} = {getattr(tiny.get_config(), part)}" in shown


def test_modules_run_as_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["d3pm", "--version"])
    with pytest.raises(SystemExit):
        runpy.run_module("d3pm_jax", run_name="__main__")
    assert capsys.readouterr().out == f"d3pm_jax {d3pm_jax.__version__}\n"


def test_a_signal_ends_a_process_without_a_standard_output(monkeypatch):
    ended = []
    signal_names = []
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(signals.os, "_exit", ended.append)
    read, write = socket.socketpair()
    with write:
        write.send(bytes([signal.SIGTERM, signal.SIGTERM]))
        signals._watch(read, signal_names.append)
    assert (ended, signal_names) == ([130], ["SIGTERM"])


def test_an_export_elsewhere_leaves_a_run_that_cannot_be_written(trained, tmp_path, capsys, monkeypatch):
    out = tmp_path / "w.safetensors"
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != trained and access(path, mode))
    assert status("export", trained, "--to", "torch", "--out", out) == 0
    assert out.exists()
    message = f"{trained} cannot be written to, where the results go: change its permissions"
    assert message in error(capsys, "export", trained, "--to", "torch")
