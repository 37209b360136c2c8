"""d3pm train in a process of its own, with a network, stopped from outside."""

import json
import signal
import subprocess
import time

import jax
import numpy as np
import pytest

from d3pm_jax.runs import build, checkpoint, metrics
from d3pm_jax.runs.workdir import read_config
from tests import tiny
from tests.cli.commands import D3PM, status, train_args

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data_dir):
    """A finished run of 20 steps without interruption."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    done = subprocess.run([*D3PM, *train_args(workdir, data_dir)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"checkpoint in {workdir / 'checkpoints'}" in done.stdout
    return workdir


def test_eval_and_sample_of_a_network(trained):
    found = []
    for size in ("7", "20"):
        assert status("eval", trained, "--limit", "20", "--batch-size", size) == 0
        found.append(json.loads((trained / "eval_limit20.json").read_text())["bits_per_dim"])
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert status("sample", trained, "--num", "5") == 0
    samples = np.load(trained / "samples.npy")
    assert status("sample", trained, "--num", "3", "--batch-size", "2") == 0
    np.testing.assert_array_equal(np.load(trained / "samples.npy"), samples[:3])


def weights(workdir):
    parts = build.build(read_config(workdir), tiny.DIGITS, 16)
    return [np.asarray(x) for x in jax.tree.leaves(build.restore(workdir, parts, 20).state)]


def losses(workdir):
    return {row["step"]: row["loss"] for row in metrics.read(workdir)}


def test_a_network_learns(trained):
    assert losses(trained)[20] < 0.8 * losses(trained)[4]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_resumes_to_the_same_bits(trained, tmp_path, data_dir, number):
    workdir = tmp_path / "stopped"
    process = subprocess.Popen([*D3PM, *train_args(workdir, data_dir)], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not checkpoint.steps(workdir / "checkpoints"):
        assert process.poll() is None, "it ended before it was stopped"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    stopped_at = checkpoint.steps(workdir / "checkpoints")[-1]
    assert stopped_at < 20
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert f"go on with: d3pm train --workdir {workdir} --resume" in output
    assert status("train", "--workdir", workdir, "--resume") == 0
    for a, b in zip(weights(workdir), weights(trained), strict=True):
        np.testing.assert_array_equal(a, b)
    ours, whole = losses(workdir), losses(trained)
    assert ours.keys() >= whole.keys() - {stopped_at}
    assert ours[20] == whole[20]
    assert list(ours) == sorted(ours)
