"""The lock of a run: refused at once, and never left behind."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest

from d3pm_jax.errors import UserError
from d3pm_jax.program.storage import lock

HOLDS = """
import sys
from pathlib import Path
from d3pm_jax.program.storage import lock
with lock.hold_folder(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
OTHER = r"another `d3pm train` is writing to .*run: wait for it or pass another --workdir"


def test_another_process_is_refused_at_once_until_the_first_is_killed(tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-c", HOLDS, folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=OTHER), lock.hold_folder(folder):
            pytest.fail("both write to it")
        process.kill()
    assert os.listdir(folder) == ["lock"]  # which is empty, and says nothing by being there
    with lock.hold_folder(folder):
        assert (folder / "lock").read_bytes() == b""
    assert os.listdir(folder) == ["lock"]


def refuse_locks(monkeypatch, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.parametrize("name", ["ENOLCK", "ENOSYS", "EOPNOTSUPP", "EINVAL", "ENOTTY", "EIO", "EPERM"])
def test_a_file_system_without_locks_is_written_to_without_one(name, tmp_path, monkeypatch):
    refuse_locks(monkeypatch, getattr(errno, name))
    with lock.hold_folder(tmp_path), lock.hold_folder(tmp_path):
        pass
    assert os.listdir(tmp_path) == ["lock"]


def test_a_lock_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "lock").mkdir()
    message = rf"cannot write to .*: {os.strerror(errno.EISDIR)}; make room there, or pass another --workdir"
    with pytest.raises(UserError, match=message), lock.hold_folder(tmp_path):
        pass


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="cannot write to"), lock.hold_folder(tmp_path):
        pass
    assert os.listdir(tmp_path) == ["lock"]
