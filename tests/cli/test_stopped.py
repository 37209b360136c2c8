"""Commands in processes of their own that signals stop: with a network from outside, and at chosen places."""

import json
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from d3pm_jax.loop import metrics
from d3pm_jax.parts import build, network
from d3pm_jax.storage import checkpoint
from d3pm_jax.storage.run_folder import read_config
from tests import tiny
from tests.cli.commands import D3PM, status, train_args

STOPPING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data_dir):
    """A finished run of 20 steps without interruption."""
    jax.devices()  # two, also for the commands in this process: the first could still ask for one
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    done = subprocess.run([*D3PM, *train_args(workdir, data_dir)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"checkpoint in {workdir / 'checkpoints'}" in done.stdout
    return workdir


def test_eval_and_sample_of_a_network(trained):
    bounds = []
    for size in ("7", "20"):
        assert status("eval", trained, "--limit", "20", "--batch-size", size) == 0
        bounds.append(json.loads((trained / "eval_limit20.json").read_text())["bits_per_dim"])
    assert bounds[0] == pytest.approx(bounds[1], rel=1e-5)
    assert status("sample", trained, "--num", "5") == 0
    samples = np.load(trained / "samples.npy")
    assert status("sample", trained, "--num", "3", "--batch-size", "2") == 0
    np.testing.assert_array_equal(np.load(trained / "samples.npy"), samples[:3])


def weights(workdir):
    parts = build.build(read_config(workdir), tiny.DIGITS)
    return [np.asarray(x) for x in jax.tree.leaves(build.restore_state(workdir, parts, 20).state)]


def losses(workdir):
    return {row["step"]: row["loss"] for row in metrics.read_metrics(workdir)}


def test_a_network_learns(trained):
    assert losses(trained)[20] < 0.8 * losses(trained)[4]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_resumes_to_the_same_bits(trained, tmp_path, data_dir, number):
    workdir = tmp_path / "stopped"
    process = subprocess.Popen([*D3PM, *train_args(workdir, data_dir)], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not checkpoint.list_steps(workdir / "checkpoints"):
        assert process.poll() is None, "it ended before it was stopped"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    stopped_at = checkpoint.list_steps(workdir / "checkpoints")[-1]
    assert stopped_at < 20
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert f"go on with: d3pm train --workdir {workdir} --resume" in output
    assert status("train", "--workdir", workdir, "--resume") == 0
    for a, b in zip(weights(workdir), weights(trained), strict=True):
        np.testing.assert_array_equal(a, b)
    ours = losses(workdir)
    whole = losses(trained)
    assert ours.keys() >= whole.keys() - {stopped_at}
    assert ours[20] == whole[20]
    assert list(ours) == sorted(ours)


def cases(folder, data_dir):
    """A whole run; one for each signal and place, which is gone on with; stopped evaluations of the first."""

    def case(name, args, number=None, place=None):
        return {"name": name, "args": [str(a) for a in args], "signal": number, "place": place}

    whole = folder / "whole"
    yield case("whole", train_args(whole, data_dir))
    for number in (*STOPPING, signal.SIGKILL):
        for place in ("early", "step", "save"):
            workdir = folder / f"{place}-{number.name}"
            yield case(workdir.name, train_args(workdir, data_dir), number, place)
            yield case(f"resumed-{workdir.name}", ["train", "--workdir", workdir, "--resume"])
        yield case(f"evaluation-{number.name}", ["eval", whole], number, "evaluation")
        yield case(f"sampling-{number.name}", ["sample", whole], number, "sampling")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, data_dir):
    """(folder of the runs, exit statuses) of all cases."""
    folder = tmp_path_factory.mktemp("stopped")
    (folder / "cases.json").write_text(json.dumps(list(cases(folder, data_dir))))
    subprocess.run([sys.executable, "-m", "tests.cli.forks", folder / "cases.json"], check=True)
    return folder, json.loads((folder / "statuses.json").read_text())


@pytest.mark.parametrize("number", [*STOPPING, signal.SIGKILL])
def test_a_signal_at_any_place_loses_nothing_that_is_saved(stopped, number, monkeypatch):
    monkeypatch.setattr(network, "split_network", tiny.split)
    folder, statuses = stopped
    killed = number == signal.SIGKILL
    # Checkpoints are written in the background: the one of step 4 may not be when steps 6 and 8 end.
    later = {
        "early": [],
        "step": [0, 4] if killed else [6],
        "save": [0, 4] if killed else [9, 10, 11, 12, 13],
    }
    for place, possible in later.items():
        name = f"{place}-{number.name}"
        output = (folder / f"{name}.out").read_text()
        error = (folder / f"{name}.err").read_text()
        assert statuses[name] == (-number if killed else 130)
        assert error == (f"d3pm train: stopped by {number.name}\n" if place == "early" and not killed else "")
        if not possible:
            assert not (folder / name).exists()
            continue
        (saved,) = re.findall(r"step (\d+)/20  compiling\n", (folder / f"resumed-{name}.out").read_text())
        assert int(saved) in possible
        assert statuses[f"resumed-{name}"] == 0
        for a, b in zip(weights(folder / name), weights(folder / "whole"), strict=True):
            np.testing.assert_array_equal(a, b)
        if not killed:
            cure = f"go on with: d3pm train --workdir {folder / name} --resume"
            assert output.endswith(f"stopped by {number.name}, saved step {saved}\n{cure}\n")


@pytest.mark.parametrize("number", [*STOPPING, signal.SIGKILL])
def test_a_signal_while_others_evaluate_or_sample_leaves_no_file(stopped, number):
    folder, statuses = stopped
    for place, command in (("evaluation", "eval"), ("sampling", "sample")):
        name = f"{place}-{number.name}"
        error = (folder / f"{name}.err").read_text()
        if number == signal.SIGKILL:
            assert (statuses[name], error) == (-number, "")
        else:
            assert (statuses[name], error) == (130, f"d3pm {command}: stopped by {number.name}\n")
    written = {path.name for path in (folder / "whole").iterdir()}
    assert not written & {"eval.json", "bound_terms.png", "samples.npy", "samples.png"}
    assert not [name for name in written if name.endswith(".partial")]


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_while_modules_are_imported_is_one_line(number, tmp_path, data_dir):
    late = f"import os, threading as t; t.Timer(0.3, os.kill, (os.getpid(), {int(number)})).start(); main()"
    program = [sys.executable, "-c", f"from d3pm_jax.cli.main import main; {late}"]
    ended = subprocess.run([*program, *train_args(tmp_path / "w", data_dir)], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (130, "")
    assert ended.stderr == f"d3pm train: stopped by {number.name}\n"
