"""Runs of several processes: checkpoints across their number, signals, deaths and slips."""

import json
import re
import signal
import socket
import time

import numpy as np
import pytest

from d3pm_jax.program.loop import metrics
from d3pm_jax.program.storage import checkpoint
from tests.cli import joined
from tests.cli.commands import CONFIG, status

pytestmark = pytest.mark.slow

ENDLESS = ["--train.steps", "100000", "--train.log-every", "1"]
# Of those that wait for others which never come.
SHORT = ["--connect-timeout", "3"]


def free_port():
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts a command as so many processes, each with so many devices."""
    folder = tmp_path_factory.mktemp("printed")

    def start_command(count, *words, devices=2, port=None, ids=None, broken=None):
        place = ["--coordinator", f"127.0.0.1:{port or free_port()}", "--num-processes", str(count)]
        places = [[]]
        if count > 1:
            places = [[*place, "--process-id", str(i)] for i in ids or range(count)]
        return [joined.start_command([*words, *more], folder, devices, broken) for more in places]

    return start_command


def ended(processes, timeout=400):
    """(status, output, errors) of each."""
    outputs = [process.communicate(timeout=timeout) for process in processes]
    return [(p.returncode, *texts) for p, texts in zip(processes, outputs, strict=True)]


@pytest.fixture(scope="module")
def run(start):
    """Runs a command to its end; returns what the first process prints. The others print nothing."""

    def run_command(count, *words, devices=2):
        (first, *others) = ended(start(count, *words, devices=devices))
        assert [first[0], *(other[0] for other in others)] == [0] * count, (first, others)
        assert all(other[1] == "" for other in others)
        return first[1]

    return run_command


def train(workdir, *more):
    return ["train", CONFIG, "--workdir", workdir, "--process.steps", "4", "--train.log-every", "1", *more]


def resume(workdir, *more):
    return ["train", "--workdir", workdir, "--resume", *more]


def until(condition, processes, seconds=400):
    end = time.monotonic() + seconds
    while not condition():
        assert all(p.poll() is None for p in processes), ended(processes)
        assert time.monotonic() < end
        time.sleep(0.02)


def losses(workdir):
    return {row["step"]: row["loss"] for row in metrics.read_metrics(workdir)}


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """A run of 20 steps by one process of one device; what is made of it soon takes a peer for dead."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    run(1, *train(workdir, "--mesh.heartbeat", "10"), devices=1)
    return workdir


def test_two_begin_one_goes_on_and_two_end(run, whole, tmp_path):
    workdir = tmp_path / "run"
    run(2, *train(workdir, "--mesh.fsdp", "4", "--train.steps", "7"))
    assert "begins" not in run(1, *resume(workdir, "--train.steps", "13"), devices=1)
    run(2, *resume(workdir, "--train.steps", "20", "--mesh.fsdp", "2"))
    ours = losses(workdir)
    theirs = losses(whole)
    assert ours.keys() == theirs.keys() == set(range(1, 21))
    np.testing.assert_allclose([ours[i] for i in theirs], list(theirs.values()), rtol=1e-5)  # float32
    lines = [json.loads(line) for line in (workdir / "layouts.jsonl").read_text().splitlines()]
    recorded = [(line["step"], line["processes"], line["mesh"]) for line in lines]
    assert recorded == [
        (0, 2, {"data": 1, "fsdp": 4}),
        (7, 1, {"data": 1, "fsdp": 1}),
        (13, 2, {"data": 2, "fsdp": 2}),
    ]


def test_what_two_evaluate_and_sample_is_what_one_does(run, whole, small_network):
    results = []
    for count in (2, 1):
        if count == 2:
            assert "test bits/dim: " in run(2, "eval", whole, "--limit", "20")
            run(2, "sample", whole, "--num", "40")
        else:  # in this process, which has two devices too
            assert status("eval", whole, "--limit", "20") == 0
            assert status("sample", whole, "--num", "40") == 0
        bits = json.loads((whole / "eval_limit20.json").read_text())["bits_per_dim"]
        results.append((bits, np.load(whole / "samples.npy")))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    np.testing.assert_array_equal(results[0][1], results[1][1])


def start_and_wait_for_checkpoint(start, workdir, words):
    """Starts two processes, and waits until they have saved what they trained."""

    def last_step():
        return max(checkpoint.list_steps(workdir / "checkpoints"), default=-1)

    step = last_step()
    processes = start(2, *words)
    until(lambda: last_step() > step, processes)
    return processes


def test_a_signal_to_one_saves_and_stops_both_and_no_other_writes_meanwhile(start, tmp_path):
    """A run that SIGTERM has stopped goes on, and SIGINT stops it as SIGTERM does."""
    workdir = tmp_path / "run"
    processes = start_and_wait_for_checkpoint(start, workdir, train(workdir, *ENDLESS))
    for code, _, errors in ended(start(2, *resume(workdir))):
        assert code == 1
        assert re.fullmatch(r"d3pm train: error: another `d3pm train` is writing to [^\n]+\n", errors)
    for number, index in ((signal.SIGTERM, 1), (signal.SIGINT, 0)):
        if number == signal.SIGINT:
            processes = start_and_wait_for_checkpoint(start, workdir, resume(workdir))
        sent = time.monotonic()
        processes[index].send_signal(number)
        (first, second) = ended(processes)
        print(f"{number.name} to process {index}: both down after {time.monotonic() - sent:.1f} s")
        assert (first[0], second[0]) == (130, 130)
        step = int(re.search(r"stopped by SIGTERM, saved step (\d+)\n", first[1])[1])
        assert checkpoint.list_steps(workdir / "checkpoints")[-1] == step


def test_a_peer_that_dies_takes_the_others_along(start, run, tmp_path):
    workdir = tmp_path / "run"
    words = train(workdir, *ENDLESS, "--mesh.heartbeat", "10")
    for index in (0, 1):
        processes = start_and_wait_for_checkpoint(start, workdir, words)
        processes[index].kill()
        killed = time.monotonic()
        other = processes[1 - index]
        other.communicate(timeout=60)
        seconds = time.monotonic() - killed
        print(f"process {index} killed: the other ended with {other.returncode} after {seconds:.1f} s")
        ended(processes)
        assert other.returncode not in (0, 130)
        words = resume(workdir)
    step = checkpoint.list_steps(workdir / "checkpoints")[-1]
    assert f"trained to step {step + 2}" in run(1, *resume(workdir, "--train.steps", step + 2))


def test_two_begin_with_the_weights_of_another_run(run, whole, tmp_path):
    text = run(2, *train(tmp_path / "run", "--from", whole, "--train.steps", "3"))
    assert "begins with the averaged weights of step 20" in text
    assert checkpoint.list_steps(tmp_path / "run" / "checkpoints") == [0, 3]


def test_two_find_the_best_grid(run, whole):
    text = run(2, "eval", whole, "--steps", "3", "--grid", "dp", "--limit", "4")
    assert "test bits/dim: " in text


@pytest.fixture(scope="module")
def folder_of_failing(tmp_path_factory):
    """Where each command that fails has its folder, by name."""
    return tmp_path_factory.mktemp("failing")


def terminate_second_once_it_computes(processes):
    """Sends SIGTERM to the second process of each command when the first one says that it has begun."""
    left = list(processes)
    deadline = time.monotonic() + 400
    while left:
        for pair in list(left):
            first, second = pair
            assert first.poll() is None
            if re.search(r"^(example|sample) 0/", first.printed()[0], re.M):
                second.send_signal(signal.SIGTERM)
                left.remove(pair)
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def failing(start, whole, folder_of_failing):
    """Name -> the processes of a command that fails. All run at once: for most of their time they wait."""
    others = {command: start(2, command, whole) for command in ("eval", "sample")}
    terminate_second_once_it_computes(others.values())

    def start_training(name, count, *more, **options):
        return start(count, *train(folder_of_failing / name, *more), **options)

    port = free_port()
    return others | {
        "no cluster": start_training("no cluster", 1, "--coordinator", "auto"),
        "nobody answers": start_training("nobody answers", 2, *SHORT, ids=[1]),
        "peers stay away": start_training("peers stay away", 2, *SHORT, ids=[0]),
        "other devices": [
            *start_training("other devices", 2, port=port, ids=[0]),
            *start_training("other devices", 2, port=port, ids=[1], devices=3),
        ],
        "batch": start_training("batch", 2, "--train.batch-size", "6"),
        "logs": start_training("logs", 2, broken="logs"),
        "standard output": start_training("standard output", 2, broken="standard output"),
    }


@pytest.mark.parametrize("where", ["logs", "standard output"])
def test_any_error_of_one_process_ends_all(failing, where):
    """Not only those that are one line."""
    statuses_and_texts = ended(failing[where])
    assert 0 not in [code for code, _, _ in statuses_and_texts]
    assert ("ValueError: broken" in statuses_and_texts[0][2]) == (where == "logs")


def test_no_cluster(failing):
    ((code, _, errors),) = ended(failing["no cluster"])
    assert code == 1
    assert re.fullmatch(r"d3pm train: error: --coordinator auto: JAX finds no SLURM, [^\n]+\n", errors)


def test_processes_with_other_numbers_of_devices(failing):
    for code, _, errors in ended(failing["other devices"]):
        assert code == 1
        assert "the processes have [2, 3] devices: give each the same number" in errors


def test_a_coordinator_that_nobody_answers_at(failing):
    ((code, _, errors),) = ended(failing["nobody answers"], timeout=100)
    assert code == 1
    assert re.fullmatch(r"d3pm train: error: nobody answers at 127.0.0.1:\d+ within 3 s [^\n]+\n", errors)


def test_peers_that_stay_away(failing):
    ((code, _, errors),) = ended(failing["peers stay away"])
    assert code != 0
    assert "DEADLINE_EXCEEDED" in errors


def test_what_devices_cannot_be_cut_into_is_one_line(failing, folder_of_failing):
    message = "train.batch_size = 6 does not divide over 4 devices of 2 processes"
    for code, _, errors in ended(failing["batch"]):
        assert code == 1
        assert re.fullmatch(rf"d3pm train: error: {re.escape(message)}[^\n]*\n", errors), errors
    assert not (folder_of_failing / "batch").exists()


def test_sigterm_ends_those_that_evaluate_or_sample(failing):
    for command in ("eval", "sample"):
        first, second = (code for code, _, _ in ended(failing[command]))
        assert second == 130
        assert first not in (0, 130)
