"""Hashes of the files of a run that is killed; what is deleted of checkpoints; curves of TensorBoard."""

import dataclasses
import errno
import itertools
import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from d3pm_jax.config import io as config_io
from d3pm_jax.errors import UserError
from d3pm_jax.loop.sinks import Board
from d3pm_jax.storage import checkpoint, manifest
from d3pm_jax.storage.run_folder import (
    check_description,
    read_config,
    read_description,
    read_examples,
    write_run,
)
from tests import tiny
from tests.runs import own_parts

EXAMPLES = np.zeros((3, 8, 8, 1), np.int32)
OLD = tiny.get_config()
NEW = dataclasses.replace(OLD, train=dataclasses.replace(OLD.train, steps=99))


class Killed(BaseException):
    pass


def killed_after(n, monkeypatch, *args):
    """Writes a run, killed before write n + 1; says whether it got to its end."""
    left = iter(range(n))
    write = manifest.write_bytes

    def count(path, content):
        if next(left, None) is None:
            raise Killed
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "write_bytes", count)
        try:
            write_run(*args)
        except Killed:
            return False
    return True


@pytest.mark.parametrize("before", ["nothing", "a run", "a run without a manifest"])
def test_a_kill_at_any_point_leaves_a_run_that_opens_or_none(before, tmp_path, monkeypatch):
    steps_left = []
    for n in itertools.count():
        workdir = tmp_path / str(n)
        workdir.mkdir()
        if before != "nothing":
            write_run(workdir, OLD, tiny.DIGITS, EXAMPLES)
        if before == "a run without a manifest":
            (workdir / manifest.MANIFEST).unlink()
        whole = killed_after(n, monkeypatch, workdir, NEW, tiny.DIGITS, EXAMPLES + 1)
        if (workdir / "config.json").exists():
            steps_left.append(read_config(workdir).train.steps)
            check_description(workdir, tiny.DIGITS)
            assert read_description(workdir) == tiny.DIGITS
            assert read_examples(workdir, tiny.DIGITS).max() in (0, 1)
        write_run(workdir, NEW, tiny.DIGITS, EXAMPLES + 1)  # as resuming does
        assert read_config(workdir) == NEW
        if whole:
            break
    assert n == 5
    if before == "nothing":
        assert steps_left == [99, 99]
    else:
        assert steps_left == [20, 20, 20, 20, 99, 99]
    assert {len(hashes) for hashes in manifest.read_manifest(workdir).values()} == {1}


def test_a_change_of_the_users_is_refused_until_the_manifest_is_deleted(tmp_path):
    write_run(tmp_path, OLD, tiny.DIGITS, EXAMPLES)
    (tmp_path / "config.json").write_text(config_io.dump_config(NEW))
    with pytest.raises(UserError) as raised:
        read_config(tmp_path)
    assert str(raised.value) == (
        f"{tmp_path / 'config.json'} is not what was written: restore it, or start again in a new workdir; "
        f"if you changed it yourself, delete {tmp_path / 'manifest.json'}"
    )
    (tmp_path / "manifest.json").unlink()
    assert read_config(tmp_path) == NEW


def test_the_copy_of_the_users_file_is_covered_and_a_file_is_compared_with_its_hash(tmp_path):
    user_file = tmp_path / "own.py"
    workdir = tmp_path / "run"
    source = Path(own_parts.__file__).read_bytes()
    user_file.write_bytes(source)
    workdir.mkdir()
    config = config_io.read_config_file(user_file)
    write_run(workdir, config, config.data.describe())
    (workdir / "config.py").unlink()
    assert config_io.to_json(read_config(workdir, user_file)) == config_io.to_json(config)
    user_file.write_bytes(source + b"# changed")
    (workdir / "config.py").write_bytes(user_file.read_bytes())
    with pytest.raises(UserError, match="is not what this run was made with"):
        read_config(workdir, user_file)


def test_a_file_that_is_replaced_after_its_manifest_was_read_is_no_damage(tmp_path, monkeypatch):
    write_run(tmp_path, OLD, tiny.DIGITS)
    read = manifest.read_manifest
    before = [manifest.read_manifest(tmp_path)]
    write_run(tmp_path, NEW, tiny.DIGITS)

    def read_before_once(workdir):
        if before:
            return before.pop()
        return read(workdir)

    monkeypatch.setattr(manifest, "read_manifest", read_before_once)
    assert read_config(tmp_path) == NEW
    assert not before


BROKEN = ["", "[]", "{", '{"config.json": 3}', '{"config.json": [3]}', "\xff", "[" * 9999]


@pytest.mark.parametrize("text", BROKEN)
def test_a_damaged_manifest_is_named(text, tmp_path):
    write_run(tmp_path, OLD, tiny.DIGITS)
    (tmp_path / manifest.MANIFEST).write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"manifest.json is damaged \(.*\): restore it, or delete it if"):
        read_config(tmp_path)


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


def test_curves_are_read_by_what_tensorboard_reads(tmp_path):
    from tensorboardX.proto import event_pb2

    board = Board(tmp_path / "board", 5)
    board.log(6, {"loss": 0.5})
    board.close()
    (file,) = (tmp_path / "board").iterdir()
    content = file.read_bytes()
    events = []
    while content:
        size = int.from_bytes(content[:8], "little")
        events.append(event_pb2.Event.FromString(content[12 : 12 + size]))
        content = content[16 + size :]
    assert "tfevents" in file.name
    assert events[0].file_version == "brain.Event:2"
    assert (events[1].step, events[1].session_log.status) == (5, event_pb2.SessionLog.START)
    assert (events[2].step, events[2].summary.value[0].tag) == (6, "loss")
    assert events[2].summary.value[0].simple_value == 0.5
