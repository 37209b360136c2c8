"""Hashes of the files of a run: of one that is killed, changed by its user, or replaced while it is read."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest

from d3pm_jax.config import io as config_io
from d3pm_jax.errors import UserError
from d3pm_jax.program.storage import manifest
from d3pm_jax.program.storage.run_folder import (
    read_examples,
    read_run,
    write_run,
)
from tests import tiny
from tests.runs import own_parts

EXAMPLES = {"x": np.zeros((3, 8, 8, 1), np.int32)}
OTHERS = {"x": EXAMPLES["x"] + 1}
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
        whole = killed_after(n, monkeypatch, workdir, NEW, tiny.DIGITS, OTHERS)
        if (workdir / "config.json").exists():
            run = read_run(workdir)
            steps_left.append(run.config.train.steps)
            assert run.description == tiny.DIGITS
            assert read_examples(workdir, tiny.DIGITS)["x"].max() in (0, 1)
        write_run(workdir, NEW, tiny.DIGITS, OTHERS)  # as resuming does
        assert read_run(workdir).config == NEW
        if whole:
            break
    assert n == 7
    if before == "nothing":
        assert steps_left == [99, 99]
    else:
        assert steps_left == [20, 20, 20, 20, 20, 20, 99, 99]
    assert {len(hashes) for hashes in manifest.read_manifest(workdir).values()} == {1}


def test_a_change_of_the_users_is_refused_until_the_manifest_is_deleted(tmp_path):
    write_run(tmp_path, OLD, tiny.DIGITS, EXAMPLES)
    (tmp_path / "config.json").write_text(config_io.dump_config(NEW))
    with pytest.raises(UserError) as raised:
        read_run(tmp_path)
    assert str(raised.value) == (
        f"{tmp_path / 'config.json'} is not what was written: restore it, or start again in a new workdir; "
        f"if you changed it yourself, delete {tmp_path / 'manifest.json'}"
    )
    (tmp_path / "manifest.json").unlink()
    assert read_run(tmp_path).config == NEW


def test_the_copy_of_the_users_file_is_covered_and_a_file_is_compared_with_its_hash(tmp_path):
    user_file = tmp_path / "own.py"
    workdir = tmp_path / "run"
    source = Path(own_parts.__file__).read_bytes()
    user_file.write_bytes(source)
    workdir.mkdir()
    config = config_io.read_config_file(user_file)
    write_run(workdir, config, config.data.describe())
    (workdir / "config.py").unlink()
    assert config_io.to_json(read_run(workdir, user_file).config) == config_io.to_json(config)
    user_file.write_bytes(source + b"# changed")
    (workdir / "config.py").write_bytes(user_file.read_bytes())
    with pytest.raises(UserError, match="is not what this run was made with"):
        read_run(workdir, user_file)


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
    assert read_run(tmp_path).config == NEW
    assert not before


BROKEN = ["", "[]", "{", '{"config.json": 3}', '{"config.json": [3]}', "\xff", "[" * 9999]


@pytest.mark.parametrize("text", BROKEN)
def test_a_damaged_manifest_is_named(text, tmp_path):
    write_run(tmp_path, OLD, tiny.DIGITS)
    (tmp_path / manifest.MANIFEST).write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"manifest.json is damaged \(.*\): restore it, or delete it if"):
        read_run(tmp_path)
