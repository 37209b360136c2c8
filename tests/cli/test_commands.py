"""The commands as a user runs them: what they write, how they stop, and what they say when they cannot."""

import dataclasses
import json
import re
import shutil
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from d3pm_jax.cli import sample
from d3pm_jax.runs import build, checkpoint, metrics, network, outputs
from d3pm_jax.runs.workdir import read_config
from tests import tiny
from tests.cli.commands import CONFIG, error, status, train_args

SPLIT = network.split


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Where data sets are prepared: not in the user's folder."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module", autouse=True)
def small_network():
    """Replaces the network by a table, which compiles in no time; test_stopped.py has a real one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "split", tiny.split)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data_dir):
    """A finished run of 20 steps without interruption."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    assert status(*train_args(workdir, data_dir)) == 0
    return workdir


def restored(workdir, step):
    """The parts of a run at a checkpoint."""
    return build.restore(workdir, build.build(read_config(workdir), tiny.DIGITS, 16), step)


def weights(workdir, step):
    """Every array of a checkpoint."""
    return [np.asarray(x) for x in jax.tree.leaves(restored(workdir, step).state)]


def tables(workdir, step):
    """The parameters of a checkpoint."""
    return jax.tree.leaves(restored(workdir, step).state.params)


def losses(workdir):
    return {row["step"]: row["loss"] for row in metrics.read(workdir)}


def test_train_writes_a_run(trained):
    assert checkpoint.steps(trained / "checkpoints") == [12, 16, 20]
    found = losses(trained)
    assert list(found) == [4, 5, 8, 10, 12, 15, 16, 20]
    moved = [np.abs(a - b).max() for a, b in zip(*(tables(trained, step) for step in (12, 20)), strict=True)]
    assert min(moved) > 1e-3  # eight steps of Adam
    assert (trained / "loss.png").stat().st_size > 1000
    assert any((trained / "tensorboard").iterdir())
    assert read_config(trained).process == tiny.get_config().process


def test_eval_and_sample(trained, data_dir, capsys):
    assert status("eval", trained) == 0
    printed = capsys.readouterr().out
    found = re.search(r"test bits/dim: (\d\.\d{3}) \+- (\d\.\d{3})\n\Z", printed)
    assert found
    assert "per-pixel histogram: 2.366 bits/dim" in printed
    assert "mixture of 10 class histograms: 2.2" in printed
    result = json.loads((trained / "eval.json").read_text())
    parts = sum(result["steps"]) + result["prior"]
    assert result["bits_per_dim"] == pytest.approx(parts, rel=1e-6)
    assert f"{parts:.3f}" == found[1]
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
    assert status("sample", trained, "--num", "5", "--batch-size", "2") == 0
    np.testing.assert_array_equal(np.load(trained / "samples.npy"), samples[:5])


def test_eval_and_sample_take_the_average_of_the_weights(trained, tmp_path):
    """Here an average that only knows category 3."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    state = restored(trained, 20).state
    ema = jax.tree.map(jnp.zeros_like, state.ema)
    ema["late"]["bias"] = 1e4 * jax.nn.one_hot(3, 17)
    checkpoint.save(tmp_path / "checkpoints", 21, dataclasses.replace(state, ema=ema), keep=1)
    assert status("sample", tmp_path, "--num", "3") == 0
    assert (np.load(tmp_path / "samples.npy") == 3).all()
    assert status("eval", tmp_path, "--limit", "3") == 0
    assert json.loads((tmp_path / "eval.json").read_text())["bits_per_dim"] > 100


def test_eval_and_sample_with_fewer_steps(trained, capsys):
    assert status("eval", trained, "--steps", "3", "--limit", "20") == 0
    result = json.loads((trained / "eval.json").read_text())
    assert result["times"] == [4, 7, 10]
    assert result["bits_per_dim"] == pytest.approx(sum(result["steps"]) + result["prior"], rel=1e-6)
    assert "sum over t = 2..3" in capsys.readouterr().out
    assert status("sample", trained, "--num", "4", "--steps", "3") == 0
    assert np.load(trained / "samples.npy").shape == (4, 8, 8, 1)
    assert "steps = 11: it must be in 1..10" in error(capsys, "eval", trained, "--steps", "11")


def test_a_damaged_checkpoint_is_refused(trained, tmp_path, capsys):
    workdir = tmp_path / "damaged"
    shutil.copytree(trained, workdir)
    largest = max(
        (workdir / "checkpoints" / "20").rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0
    )
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    assert "is damaged" in error(capsys, "eval", workdir)
    assert "delete that folder to go on from step 16" in error(
        capsys, "train", "--workdir", workdir, "--resume"
    )
    shutil.rmtree(workdir / "checkpoints" / "20")
    (workdir / "checkpoints" / "16" / checkpoint.MANIFEST).unlink()  # as if killed while writing it
    assert status("train", "--workdir", workdir, "--resume") == 0
    for a, b in zip(weights(workdir, 20), weights(trained, 20), strict=True):
        np.testing.assert_array_equal(a, b)
    assert losses(workdir) == losses(trained)


def test_a_longer_run_goes_on_from_a_finished_one(trained, tmp_path, capsys):
    workdir = tmp_path / "longer"
    shutil.copytree(trained, workdir)
    assert status("train", "--workdir", workdir, "--resume", "--train.steps", "24") == 0
    assert checkpoint.steps(workdir / "checkpoints") == [16, 20, 24]
    assert read_config(workdir).train.steps == 24
    assert losses(workdir)[20] == losses(trained)[20]


def test_a_signal_while_samples_are_drawn_loses_nothing(tmp_path, data_dir, monkeypatch, capsys):
    def interrupted(params, n, seed):
        signal.raise_signal(signal.SIGINT)
        return np.zeros((n, 8, 8, 1), np.int32), np.zeros((0, n, 8, 8, 1), np.int32)

    monkeypatch.setattr(outputs, "make_sampler", lambda *_: interrupted)
    workdir = tmp_path / "signalled"
    assert status(*train_args(workdir, data_dir, "--train.sample-every", "5")) == 130
    assert checkpoint.steps(workdir / "checkpoints") == [4, 6]
    assert "stopped by SIGINT, saved step 6" in capsys.readouterr().out


def test_checkpoints_without_a_config_are_not_taken_over(trained, tmp_path, data_dir, capsys):
    shutil.copytree(trained / "checkpoints", tmp_path / "checkpoints")
    assert "holds a run already" in error(capsys, *train_args(tmp_path, data_dir))


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
    changed = train_args(trained, data_dir, "--resume", "--optimizer.lr", "0.1")
    assert "optimizer.lr was 0.001, is 0.1" in error(capsys, *changed)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, data_dir, capsys):
    args = train_args(tmp_path / "nan", data_dir, "--optimizer.lr", "1e20")
    message = error(capsys, *args)
    assert re.search(r"is (nan|inf) at step \d+; there is no checkpoint yet: start anew", message)
    assert checkpoint.steps(tmp_path / "nan" / "checkpoints") == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (["--data.name", "digit"], "digit"),
        (["--process.stepz", "3"], "no field --process.stepz in this config: did you mean --process.steps"),
        (["--process.beta.stop", "3"], "beta = 1.13333 at t = 4 is outside (0, 1]"),
        (["--process.K", "9"], "holds 16 at [1, 4, 0], but K = 9 allows only 0..8: set K to 17"),
        (["--train.batch-size", "0"], "batch_size = 0"),
        (["--train.seed", "-1"], "train.seed = -1: it must be an integer in 0..4294967295"),
        (["--optimizer.decay-steps", "0"], "optimizer.decay_steps = 0"),
        (["--head.forbid", "3"], "only the last category, K - 1 = 16, can be an extra mask"),
        (["--train.batch-size", "2000"], "batch size 2000 exceeds the 1500 examples"),
        (["--data.dir", "/nonexistent"], "/nonexistent"),
        (["--resume"], "holds no run to resume"),
        (["stray"], "unexpected argument 'stray'"),
    ],
)
def test_bad_values_get_one_line(override, message, tmp_path, data_dir, capsys):
    assert message in error(capsys, *train_args(tmp_path / "bad", data_dir, *override))
    assert not list(tmp_path.glob("bad/checkpoints/*"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (["--model.groups", "3"], "8 channels do not divide into 3 groups"),
        (["--model.groups", "0"], "model.groups = 0: it must be an integer in 1..16777216"),
        (["--model.ch", "2"], "ch = 2"),
    ],
)
def test_a_network_that_cannot_be_gets_one_line(override, message, tmp_path, data_dir, capsys, monkeypatch):
    monkeypatch.setattr(network, "split", SPLIT)
    assert message in error(capsys, *train_args(tmp_path / "bad", data_dir, *override))


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
