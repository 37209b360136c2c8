"""Checkpoints: which are deleted, and what is said where the disk refuses one."""

import errno
import os

import jax.numpy as jnp
import orbax.checkpoint as ocp
import pytest

from d3pm_jax.program.storage import checkpoint


def test_only_what_this_program_wrote_of_checkpoints_is_deleted(tmp_path):
    state = {"x": jnp.arange(3.0)}
    outside = tmp_path / "outside"
    (outside / "kept").mkdir(parents=True)
    folder = tmp_path / "checkpoints"
    checkpoint.save_checkpoint(folder, 1, state, keep=1)
    foreign_names = {"my_best_copy", "04", "4 copy", "²", "1.old"}
    for name in (*foreign_names, "3", "3.orbax-checkpoint-tmp"):
        (folder / name / "d").mkdir(parents=True)
    (folder / "9").symlink_to(outside)
    checkpoint.save_checkpoint(folder, 2, state, keep=1)
    assert {p.name for p in folder.iterdir()} == {*foreign_names, "2", "9"}
    assert (outside / "kept").is_dir()
    assert checkpoint.list_steps(folder) == [2]


@pytest.mark.parametrize(
    ("text", "number"),
    [("RESOURCE_EXHAUSTED: No space left on device", errno.ENOSPC), ("x\ny", errno.EIO)],
)
def test_what_orbax_raises_is_an_error_of_the_system(text, number, tmp_path, monkeypatch):
    state = {"x": jnp.arange(3.0)}
    checkpoint.save_checkpoint(tmp_path, 1, state, keep=1)

    def fail(*args):
        raise ValueError(text)

    monkeypatch.setattr(ocp.StandardCheckpointer, "save", fail)
    with pytest.raises(OSError, match=r"\A[^\n]+\Z") as raised:
        checkpoint.save_checkpoint(tmp_path, 2, state, keep=1)
    assert raised.value.errno == number
    assert raised.value.filename == str(tmp_path / "2")
    assert checkpoint.list_steps(tmp_path) == [1]


def test_room_is_looked_for_before_anything_is_written(tmp_path, monkeypatch):
    usage = os.statvfs_result((4096, 4096, 99, 9, 9, 9, 9, 9, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: usage)
    with pytest.raises(OSError, match="No space left on device"):
        checkpoint.save_checkpoint(tmp_path, 1, {"x": jnp.arange(30000.0)}, keep=1)
    assert list(tmp_path.iterdir()) == []
