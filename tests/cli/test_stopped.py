"""Commands in processes of their own that signals stop: with a network from outside, and at chosen places."""

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from functools import partial

import jax
import numpy as np
import pytest

from d3pm_jax.cli.main import main
from d3pm_jax.program.loop import metrics
from d3pm_jax.program.parts import build, network
from d3pm_jax.program.parts.completed import complete
from d3pm_jax.program.storage import checkpoint
from d3pm_jax.program.storage.run_folder import read_run
from tests import tiny
from tests.cli import forks
from tests.cli.commands import train_args
from tests.forked import Fork

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Calls a function in a process of its own, of two devices as this one."""
    return partial(Fork, tmp_path_factory.mktemp("printed"), JAX_NUM_CPU_DEVICES=2)


@pytest.fixture(scope="module")
def run(start):
    """Runs a command, and returns what it prints."""

    def run_command(*words):
        process = start(main, [str(word) for word in words])
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        return output

    return run_command


@pytest.fixture(scope="module")
def trained(run, tmp_path_factory, data_dir):
    """A finished run of 20 steps without interruption."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    assert f"checkpoint in {workdir / 'checkpoints'}" in run(*train_args(workdir, data_dir))
    return workdir


def test_eval_and_sample_of_a_network(run, trained):
    run("eval", trained, "--limit", "20", "--batch-size", "7")
    assert 0 < json.loads((trained / "eval_limit20.json").read_text())["bits_per_dim"] < np.log2(17)
    run("sample", trained, "--num", "5")
    samples = np.load(trained / "samples.npy")
    run("sample", trained, "--num", "3", "--batch-size", "2")
    np.testing.assert_array_equal(np.load(trained / "samples.npy"), samples[:3])


def assert_same_weights(*workdirs):
    """Runs of one config end with the same bits."""
    parts = build.build(complete(read_run(workdirs[0]).config, tiny.DIGITS))
    ours, theirs = (build.restore_state(workdir, parts, 20).state for workdir in workdirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def losses(workdir):
    return {row["step"]: row["loss"] for row in metrics.read_metrics(workdir)}


def test_a_network_learns(trained):
    assert losses(trained)[20] < 0.8 * losses(trained)[4]


def test_a_stopped_run_resumes_to_the_same_bits(start, run, trained, tmp_path, data_dir):
    workdir = tmp_path / "stopped"
    process = start(main, train_args(workdir, data_dir))
    deadline = time.monotonic() + 120
    while not checkpoint.list_steps(workdir / "checkpoints"):
        assert process.poll() is None, "it ended before it was stopped"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    stopped_at = checkpoint.list_steps(workdir / "checkpoints")[-1]
    assert stopped_at < 20
    assert process.returncode == 130
    assert f"go on with: d3pm train --workdir {shlex.quote(str(workdir))} --resume" in output
    run("train", "--workdir", workdir, "--resume")
    assert_same_weights(workdir, trained)
    ours = losses(workdir)
    whole = losses(trained)
    assert ours.keys() >= whole.keys() - {stopped_at}
    assert ours[20] == whole[20]
    assert list(ours) == sorted(ours)


@pytest.fixture(scope="module")
def stopped(start, tmp_path_factory, data_dir):
    """(folder of runs, name -> (exit status, output, errors)): a whole run; for two signals one that gets it
    at each place, and what goes on with it; evaluations of the whole one that get it."""
    folder = tmp_path_factory.mktemp("stopped")
    whole = folder / "whole"
    ended = {}

    def end(name, words, number=None, place=None):
        process = start(forks.run_command, words, number, place)
        texts = process.communicate(timeout=120)
        ended[name] = (process.returncode, *texts)

    end("whole", train_args(whole, data_dir))
    for number in (signal.SIGTERM, signal.SIGKILL):
        for place in ("early", "step", "save"):
            workdir = folder / f"{place}-{number.name}"
            end(workdir.name, train_args(workdir, data_dir), number, place)
            if workdir.exists():
                end(f"resumed-{workdir.name}", ["train", "--workdir", workdir, "--resume"])
        end(f"evaluation-{number.name}", ["eval", whole], number, "evaluation")
        end(f"sampling-{number.name}", ["sample", whole], number, "sampling")
    return folder, ended


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_at_any_place_loses_nothing_that_is_saved(stopped, number, monkeypatch):
    monkeypatch.setattr(network, "split_network", tiny.split)
    folder, ended = stopped
    killed = number == signal.SIGKILL
    # Checkpoints are written in the background: the one of step 4 may not be when steps 6 and 8 end.
    later = {
        "early": [],
        "step": [0, 4] if killed else [6],
        "save": [0, 4] if killed else [9, 10, 11, 12, 13],
    }
    for place, possible in later.items():
        name = f"{place}-{number.name}"
        code, output, errors = ended[name]
        assert code == (-number if killed else 130)
        assert errors == (
            f"d3pm train: stopped by {number.name}\n" if place == "early" and not killed else ""
        )
        if not possible:
            assert not (folder / name).exists()
            continue
        code_of_resumed, output_of_resumed, _ = ended[f"resumed-{name}"]
        (saved,) = re.findall(r"step (\d+)/20  compiling\n", output_of_resumed)
        assert int(saved) in possible
        assert code_of_resumed == 0
        assert_same_weights(folder / name, folder / "whole")
        if not killed:
            cure = f"go on with: d3pm train --workdir {shlex.quote(str(folder / name))} --resume"
            assert output.endswith(f"stopped by {number.name}, saved step {saved}\n{cure}\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_while_others_evaluate_or_sample_leaves_no_file(stopped, number):
    folder, ended = stopped
    for place, command in (("evaluation", "eval"), ("sampling", "sample")):
        code, _, errors = ended[f"{place}-{number.name}"]
        if number == signal.SIGKILL:
            assert (code, errors) == (-number, "")
        else:
            assert (code, errors) == (130, f"d3pm {command}: stopped by {number.name}\n")
    written = {path.name for path in (folder / "whole").iterdir()}
    assert not written & {"eval.json", "bound_terms.png", "samples.npy", "samples.png"}
    assert not [name for name in written if name.endswith(".partial")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_modules_are_imported_is_one_line(number, tmp_path, data_dir):
    late = f"import os, threading as t; t.Timer(0.3, os.kill, (os.getpid(), {int(number)})).start(); main()"
    program = [sys.executable, "-c", f"from d3pm_jax.cli.main import main; {late}"]
    ended = subprocess.run([*program, *train_args(tmp_path / "w", data_dir)], capture_output=True, text=True)
    # An import that takes any exception for a missing module swallows the interrupt. The process is ended a
    # second later then, when it may have printed the config.
    assert (ended.returncode, ended.stderr) == (130, f"d3pm train: stopped by {number.name}\n")
