"""A disk that is full: one line, nothing saved is lost, and the run goes on when there is room again."""

import errno
import os
import shutil
import subprocess
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from d3pm_jax.program.parts import build
from d3pm_jax.program.parts.completed import complete
from d3pm_jax.program.storage import checkpoint
from d3pm_jax.program.storage.run_folder import read_run
from d3pm_jax.weights import twin
from tests import tiny
from tests.cli.commands import CONFIG, error, status, train_args

pytestmark = pytest.mark.usefixtures("small_network")

SIZE = 2**20


@pytest.fixture(scope="module")
def begun(tmp_path_factory, data_dir):
    """A run of 8 of its 20 steps."""
    workdir = tmp_path_factory.mktemp("runs") / "begun"
    assert status(*train_args(workdir, data_dir, "--train.steps", "8")) == 0
    return workdir


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data_dir):
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    assert status(*train_args(workdir, data_dir)) == 0
    return workdir


@pytest.fixture
def disk(tmp_path):
    """A file system of its own of 1 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", place], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("file systems cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(place, left):
    """Leaves so many bytes free, rounded to pages."""
    free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
    (place / "filler").write_bytes(b"x" * max(0, free - left))


def weights(workdir, step):
    parts = build.build(complete(read_run(workdir).config, tiny.DIGITS))
    return [np.asarray(x) for x in jax.tree.leaves(build.restore_state(workdir, parts, step).state)]


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


FULL = [
    (shutil, "disk_usage", lambda path: SimpleNamespace(free=2**10)),  # seen before anything is written
    (os, "fsync", full),  # once the arrays are
]


def test_a_run_begins_when_there_is_room_again(tmp_path, monkeypatch, capsys):
    zeros = np.zeros((17, 17), np.float32)
    twin.save(tmp_path / "w.safetensors", {"table": {"kernel": zeros}, "late": {"bias": zeros[0]}})
    command = ["import", tmp_path / "w.safetensors", CONFIG, "--workdir", tmp_path / "run"]
    for lack in FULL:
        with monkeypatch.context() as patch:
            patch.setattr(*lack)
            assert "No space left on device" in error(capsys, *command)
        assert checkpoint.list_steps(tmp_path / "run" / "checkpoints") == []
        assert not list(tmp_path.rglob("*.partial"))
    assert status(*command) == 0
    assert checkpoint.list_steps(tmp_path / "run" / "checkpoints") == [0]


@pytest.mark.slow
def test_training_goes_on_where_it_stopped(disk, begun, whole, capsys):
    """Each time with more room, until there is enough."""
    workdir = disk / "run"
    shutil.copytree(begun, workdir)
    resume = ["train", "--workdir", workdir, "--resume", "--train.steps", "20"]
    for kib in (0, 4, 16, 24, 48, 96):
        fill(disk, kib * 1024)
        message = error(capsys, *resume)
        print(f"{kib} KiB left: {message}", end="")
        assert "No space left on device" in message
        left = checkpoint.list_steps(workdir / "checkpoints")
        assert 8 in left
        for step in left:
            weights(workdir, step)
        (disk / "filler").unlink()
    assert status(*resume) == 0
    for a, b in zip(weights(workdir, 20), weights(whole, 20), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [("sample", "--num", "40"), ("eval", "--limit", "20"), ("export", "--to", "torch")]
)
def test_results_are_whole_or_not_there(command, disk, begun, capsys):
    workdir = disk / "run"
    shutil.copytree(begun, workdir)
    name, *options = command
    before = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()}
    fill(disk, 0)
    message = error(capsys, name, workdir, *options)
    print(message, end="")
    assert "No space left on device" in message
    assert {p: p.read_bytes() for p in before} == before
    (disk / "filler").unlink()
    assert status(name, workdir, *options) == 0
