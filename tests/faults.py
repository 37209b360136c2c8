"""Does to a training what happens to trainings, for longer than a test may take, and prints the outcome.

python -m tests.faults [--rounds 20]: kills it at random moments, also while it saves; flips a byte in each
file of its newest checkpoint; fills its disk; sends SIGTERM while it evaluates, samples and saves; kills one
of two processes. Each time it goes on, and at the end its parameters are those of a run that nothing happened
to, bit for bit (of the last, where the layout changes, the loss). The config is configs/digits_uniform.py.
"""

import argparse
import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from d3pm_jax import show
from d3pm_jax.program.loop import metrics
from d3pm_jax.program.parts import build
from d3pm_jax.program.parts.completed import complete
from d3pm_jax.program.storage import checkpoint
from d3pm_jax.program.storage.run_folder import describe_saved, read_run

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "configs" / "digits_uniform.py"
D3PM = [sys.executable, "-m", "d3pm_jax"]
STEPS = 200


def spawn(*words):
    """Starts a command."""
    return subprocess.Popen(
        [*D3PM, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def train(workdir, steps=STEPS, every=10):
    """The words that begin a training, or go on with it."""
    if checkpoint.list_steps(workdir / "checkpoints"):
        return ["train", "--workdir", workdir, "--resume", "--train.steps", steps]
    shutil.rmtree(workdir, ignore_errors=True)
    more = ["--train.steps", steps, "--train.checkpoint-every", every, "--train.log-every", every]
    return ["train", CONFIG, "--workdir", workdir, *more]


def finish(workdir):
    """Trains to the end."""
    process = spawn(*train(workdir))
    output, _ = process.communicate()
    assert process.returncode == 0, output


def build_parts(workdir):
    """The parts of a run, without numbers."""
    run = read_run(workdir)
    return build.build(complete(run.config, describe_saved(run)))


def weights(workdir):
    """All arrays of the state at the end."""
    parts = build_parts(workdir)
    return [np.asarray(x) for x in jax.tree.leaves(build.restore_state(workdir, parts, STEPS).state)]


def same(workdir, whole):
    """Whether a run has ended as the one that nothing happened to."""
    return all(np.array_equal(a, b) for a, b in zip(weights(workdir), weights(whole), strict=True))


def unfinished(workdir):
    """The checkpoints that are being written, or were when a process was killed."""
    names = set()
    for path in checkpoint.list_folders(workdir / "checkpoints"):
        with contextlib.suppress(FileNotFoundError):  # it is finished now
            if not (path / checkpoint.MANIFEST).is_file():
                names.add((path.name, path.stat().st_ino))
    return names


def killed(folder, rounds, rng):
    """Restarts after SIGKILL, half of them at random moments and half while a checkpoint is written."""
    workdir = folder / "killed"
    while_saving = 0
    steps = []
    for i in range(rounds):
        before = unfinished(workdir)
        process = spawn(*train(workdir, every=2))
        waits_for_save = i % 2 == 1
        if waits_for_save:
            seconds = 120
        else:
            seconds = rng.uniform(0, 20)
        until = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < until:
            if waits_for_save and unfinished(workdir) - before:
                break
            time.sleep(0.001)
        process.kill()
        process.communicate()
        while_saving += bool(unfinished(workdir) - before)
        steps.append(max(checkpoint.list_steps(workdir / "checkpoints"), default=0))
    finish(workdir)
    print(f"{rounds} times killed, {while_saving} of them while a checkpoint was written, at steps {steps}")
    assert while_saving >= rounds // 2
    return workdir


def flipped(folder, whole, rng):
    """Flips a byte in each file of the newest checkpoint in turn; each time the one before it is used."""
    files = [p.relative_to(whole) for p in (whole / "checkpoints" / str(STEPS)).rglob("*") if p.is_file()]
    passed = 0
    for file in files:
        workdir = folder / "flipped"
        shutil.rmtree(workdir, ignore_errors=True)
        shutil.copytree(whole, workdir)
        content = bytearray((workdir / file).read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        (workdir / file).write_bytes(content)
        parts = build_parts(workdir)
        passed += int(build.restore_state(workdir, parts).state.step) == STEPS - 10
    finish(workdir)
    print(
        f"{len(files)} files of the newest checkpoint damaged in turn: {passed} times the one before is used"
    )
    assert passed == len(files)
    return workdir


def full(folder):
    """Trains on a file system that is too small, until it is made larger."""
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", disk]
    if subprocess.run(mount, capture_output=True).returncode:
        print("full disk: file systems cannot be mounted here")
        return None
    try:
        process = spawn(*train(disk / "run"))
        output, _ = process.communicate()
        line = output.splitlines()[-1]
        left = checkpoint.list_steps(disk / "run" / "checkpoints")
        print(f"full disk: exit {process.returncode}, checkpoints {left}: {line}")
        assert process.returncode == 1
        assert "No space left on device" in line
        subprocess.run(["mount", "-o", "remount,size=1g", disk], check=True)
        finish(disk / "run")
        shutil.copytree(disk / "run", folder / "full")
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
    return folder / "full"


def two(workdir):
    """Starts a training, or goes on with it, as two processes, and waits for two more checkpoints."""
    with socket.create_server(("", 0)) as server:
        place = ["--coordinator", f"127.0.0.1:{server.getsockname()[1]}", "--num-processes", 2]
    before = max(checkpoint.list_steps(workdir / "checkpoints"), default=0)
    words = train(workdir)
    os.environ["JAX_NUM_CPU_DEVICES"] = "1"
    processes = [spawn(*words, *place, "--process-id", i) for i in range(2)]
    del os.environ["JAX_NUM_CPU_DEVICES"]
    while max(checkpoint.list_steps(workdir / "checkpoints"), default=0) < before + 20:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.1)
    return processes


def read_losses(workdir):
    """The loss of each step that has a line of metrics."""
    return {row["step"]: row["loss"] for row in metrics.read_metrics(workdir)}


def peers(folder, whole, picture):
    """Kills one of two processes, then goes on with two and kills both, then goes on with one to the end."""
    workdir = folder / "peers"
    first, second = two(workdir)
    second.kill()
    began = time.monotonic()
    first.communicate()
    seconds = time.monotonic() - began
    print(f"a peer killed: the other was down, with {first.returncode}, after {seconds:.1f} s")
    assert first.returncode != 0
    assert seconds < 60
    for process in two(workdir):
        process.kill()
        process.communicate()
    steps = checkpoint.list_steps(workdir / "checkpoints")
    finish(workdir)
    ours = read_losses(workdir)
    theirs = read_losses(whole)
    apart = max(abs(ours[step] / theirs[step] - 1) for step in theirs)
    print(f"  both killed at step {steps[-1]}, one to the end: losses at most {apart:.1e} of them apart")
    assert apart < 1e-6  # float32; it was 0
    curves = {"one process": theirs, f"two until step {steps[-1]}, then one": ours}
    lines = {name: (list(row), {"loss": list(row.values())}) for name, row in curves.items()}
    show.save_lines(picture, lines, "step", caption="configs/digits_uniform.py, killed and gone on with")


def terminated(folder, whole):
    """Sends SIGTERM while a run evaluates, samples and saves."""
    for command, begun in (("eval", "example 0/"), ("sample", "sample 0/")):
        process = spawn(command, whole)
        for line in process.stdout or []:
            if line.startswith(begun):
                break
        time.sleep(3)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        output, _ = process.communicate()
        seconds = time.monotonic() - began
        line = output.splitlines()[-1]
        print(f"SIGTERM in {command}: exit {process.returncode} after {seconds:.1f} s: {line}")
        assert process.returncode == 130
    workdir = folder / "terminated"
    process = spawn(*train(workdir, every=2))
    while not (unfinished(workdir) and checkpoint.list_steps(workdir / "checkpoints")):
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    output, _ = process.communicate()
    seconds = time.monotonic() - began
    saved = re.search(r"stopped by SIGTERM, saved step \d+", output)
    print(f"SIGTERM in saving: exit {process.returncode} after {seconds:.1f} s: {saved and saved[0]}")
    assert process.returncode == 130
    finish(workdir)
    return workdir


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    kinds = ("killed", "flipped", "full", "terminated", "peers")
    parser.add_argument("kinds", nargs="*", default=kinds, help=f"of {', '.join(kinds)} (all)")
    parser.add_argument("--rounds", type=int, default=20, help="how often a training is killed (20)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, default=Path("resumed.png"), help="of the losses")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    os.environ["PYTHONPATH"] = str(ROOT)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = folder / "whole"
        finish(whole)
        do = {
            "killed": lambda: killed(folder, args.rounds, rng),
            "flipped": lambda: flipped(folder, whole, rng),
            "full": lambda: full(folder),
            "terminated": lambda: terminated(folder, whole),
            "peers": lambda: peers(folder, whole, args.picture),
        }
        for kind in args.kinds:
            workdir = do[kind]()
            if workdir is not None:
                assert same(workdir, whole)
                print(f"  {kind}: all arrays are those of the undisturbed run", flush=True)


if __name__ == "__main__":
    main()
