"""`d3pm train` as a user runs it: what it writes, how it stops, goes on, and what it says when it cannot."""

import dataclasses
import re
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from d3pm_jax import runs
from d3pm_jax.cli import train
from d3pm_jax.config import Argmax, ArgmaxCoupling
from d3pm_jax.errors import UserError
from d3pm_jax.program.loop import loop, metrics, sinks as logs
from d3pm_jax.program.measure.samples import Drawn
from d3pm_jax.program.parts import begin, network
from d3pm_jax.program.storage import checkpoint, lock
from d3pm_jax.program.storage.run_folder import read_run
from tests import tiny
from tests.cli import forks
from tests.cli.commands import (
    CONFIG,
    error,
    losses,
    printed_after,
    restored,
    status,
    tables,
    train_args,
    weights,
)

pytestmark = pytest.mark.usefixtures("small_network")

SPLIT = network.split_network
RATES = ((0.001, 4), (0.002, 9))  # lr and decay_steps of a run, before and after it is resumed


def test_train_writes_a_run(trained):
    assert checkpoint.list_steps(trained / "checkpoints") == [12, 16, 20]
    losses_by_step = losses(trained)
    assert list(losses_by_step) == [4, 5, 8, 10, 12, 15, 16, 20]
    moved = [np.abs(a - b).max() for a, b in zip(*(tables(trained, step) for step in (12, 20)), strict=True)]
    assert min(moved) > 1e-3  # eight steps of Adam
    assert (trained / "loss.png").stat().st_size > 1000
    assert any((trained / "tensorboard").iterdir())
    assert read_run(trained).config.process == tiny.get_config().process


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
    damaged = re.escape(str(workdir / "checkpoints" / "20"))
    assert re.fullmatch(rf"warning: checkpoint {damaged} is damaged \(.*\): step 16 is before it\n", said.err)
    (workdir / "checkpoints" / "16" / checkpoint.MANIFEST).unlink()  # as if killed while writing it
    assert status("train", "--workdir", workdir, "--resume") == 0
    assert "is damaged" in capsys.readouterr().err
    assert checkpoint.list_steps(workdir / "checkpoints") == checkpoint.list_steps(trained / "checkpoints")
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


def cosine_rates(lr, decay_steps):
    """The learning rate at each step without a warm-up."""
    return {s: lr * (1 + np.cos(np.pi * (s - 1) / decay_steps)) / 2 for s in range(1, 8)}


@pytest.mark.slow
def test_a_longer_run_goes_on_at_the_rate_that_is_asked_for(tmp_path, data_dir, capsys, monkeypatch):
    workdir = tmp_path / "longer"
    decay = ["--train.steps", "4", "--optimizer.decay-steps", "4", "--optimizer.warmup-steps", "3"]
    every = ["--train.checkpoint-every", "1", "--train.keep-checkpoints", "9"]
    longer = ["train", "--workdir", workdir, "--resume", "--train.steps", "7"]
    printed_after(monkeypatch, train, workdir / "loss.png")
    assert status(*train_args(workdir, data_dir, *decay, *every)) == 0
    cure = "train.steps = 7; pass --optimizer.decay-steps 7, or fewer steps"
    assert cure in error(capsys, *longer)
    assert read_run(workdir).config.train.steps == 4
    assert status(*longer, "--optimizer.decay-steps", "9", "--optimizer.lr", "0.002") == 0
    old = cosine_rates(*RATES[0])
    new = cosine_rates(*RATES[1])
    expected = {2: old[2] * 2 / 3, 3: old[3], 4: old[4], 5: new[5], 6: new[6], 7: new[7]}
    assert rates(workdir, range(2, 8)) == pytest.approx(expected, rel=2e-3)
    assert status("train", "--workdir", workdir, "--resume", "--optimizer.lr", "0.003") == 0  # nothing to do
    assert read_run(workdir).config.optimizer.lr == 0.003


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
    assert read_run(workdir).config.optimizer.b1 == 0.5
    assert "a run already: pass --resume alone to go on (in Python resume=True), or" in error(capsys, *args)
    assert status("train", "--workdir", workdir, "--resume") == 0
    assert checkpoint.list_steps(workdir / "checkpoints") == [0, 2]


@pytest.mark.slow
def test_a_run_that_began_from_another_is_resumed_to_the_same_bits(trained, tmp_path):
    workdir = tmp_path / "tuned"
    config = read_run(trained).config
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=2))
    whole = runs.train(config, workdir, start=runs.open(trained))
    shutil.rmtree(workdir / "checkpoints" / "2")
    assert status("train", "--workdir", workdir, "--resume") == 0
    jax.tree.map(np.testing.assert_array_equal, whole.parts.state, restored(workdir, 2).state)


def test_a_run_does_not_begin_from_what_does_not_fit(trained, tmp_path, data_dir, capsys, monkeypatch):
    args = train_args(tmp_path / "new", data_dir, "--from", trained)
    assert "are for K = 17, this run has K = 18: change" in error(capsys, *args, "--process.K", "18")
    assert "--from begins a new run, but --resume continues one" in error(capsys, *args, "--resume")
    assert "holds no run" in error(capsys, *args[:-1], tmp_path / "none")
    weights = begin.weights_of(restored(trained, 20))
    other = weights._replace(params={**weights.params, "late": {"scale": np.zeros(17)}})
    with pytest.raises(UserError, match=r"of another network \(late.bias: none, expected \(17,\)\): change"):
        begin.match_weights(restored(trained, 20), other)
    assert not (tmp_path / "new").exists()


def test_a_signal_while_samples_are_drawn_loses_nothing(tmp_path, data_dir, monkeypatch, capsys):
    def interrupted(parts, key, n, draw, batch_size):
        signal.raise_signal(signal.SIGINT)
        x0 = np.zeros((n, 8, 8, 1), np.int32)
        return Drawn(x0, x0[None, :0], np.ones(n, np.int32), 1)

    monkeypatch.setattr(loop, "draw_samples", interrupted)
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


@pytest.mark.slow  # what a signal does has tests in tests/machine
def test_a_training_under_nohup_goes_on_when_its_terminal_is_closed(tmp_path, data_dir, monkeypatch):
    """SIGHUP comes in the sixth of its 20 steps, and was ignored from the start."""
    monkeypatch.setattr(metrics.Window, "add", forks.signalled(metrics.Window.add, signal.SIGHUP, 6))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert status(*train_args(tmp_path / "run", data_dir)) == 0
    finally:
        signal.signal(signal.SIGHUP, before)
    assert checkpoint.list_steps(tmp_path / "run" / "checkpoints") == [12, 16, 20]


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
    assert read_run(trained).config.train.steps == 20


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
        (["--process.K", "9"], "process.K = 9, but the data has 17 categories: set it to at least 17"),
        (
            ["--train.batch-size", "0"],
            "--train.batch-size: expected a whole number in 1..2147483647, got '0'",
        ),
        (["--train.seed", "-1"], "--train.seed: expected a whole number in 0..4294967295, got '-1'"),
        (["--optimizer.decay-steps", "0"], "in 1..2147483647 or None, got '0'"),
        (["--head.forbid", "3"], "no field --head.forbid in this config"),
        (["--train.batch-size", "2000"], "batch size 2000 exceeds the 1500 examples"),
        (["--data.dir", "none/here"], "data directory none/here does not exist: create it"),
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
        (
            ["--model.ch-mult"],
            "expected a tuple of at least one, each a whole number in 1..16777216, got nothing",
        ),
        (["--model.compute", "int8"], "--model.compute: expected 'float32' or 'bfloat16', got 'int8'"),
        (["--head.residual", "False"], "takes no value: write --head.residual or --head.no-residual"),
        (["--head.no_residual=1"], "takes no value: write --head.residual or --head.no-residual"),
        (["--train.steps", "9" * 5000], f"got '{'9' * 56} ... {'9' * 17}'\n"),
    ],
)
def test_bad_values_get_one_line(override, message, tmp_path, data_dir, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in error(capsys, *train_args(tmp_path / "bad", data_dir, *override))
    assert not list(tmp_path.glob("bad/checkpoints/*"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (["--model.groups", "3"], "8 channels do not divide into 3 groups"),
        (["--model.groups", "0"], "--model.groups: expected a whole number in 1..16777216, got '0'"),
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


def test_the_config_is_shown_within_the_width_of_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    lines = train._format_config(tiny.get_config()).splitlines()
    assert max(map(len, lines)) <= 60
    shown = " ".join(line.strip() for line in lines)
    for part in ("process", "model", "train"):
        assert f"{part} = {getattr(tiny.get_config(), part)}" in shown


def test_the_config_of_a_flow_is_shown_without_the_parts_of_a_diffusion():
    config = dataclasses.replace(tiny.get_config(), process=Argmax(), model=ArgmaxCoupling())
    names = [line.partition("=")[0].strip() for line in train._format_config(config).splitlines()]
    assert {"data", "process", "model", "train", "optimizer", "mesh"} <= {*names}
    assert not {"head", "loss", "timesteps"} & {*names}
