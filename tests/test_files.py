"""Files that are either whole or not there, and JSON that may be damaged."""

import os
import subprocess
import sys

import pytest

from d3pm_jax import files
from d3pm_jax.files import parse_json, replacing, write_text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expecting value"),
        (b"\xff", "can't decode byte"),
        (b'{"a": 1, "a": 2}', "names a field twice"),
        (b"[NaN]", "holds NaN"),
        (b"[-Infinity]", "holds -Infinity"),
        (b"[" * 51 + b"]" * 51, "nested more than 50 deep"),
        (b"[" * 100_000, "nested more than 50 deep"),
        (b"9" * 10_000, "Exceeds the limit"),
    ],
)
def test_damaged_json_is_a_value_error(content, message):
    with pytest.raises(ValueError, match=message):
        parse_json(content)
    assert parse_json(b'{"a": [1, {"b": null}]}') == {"a": [1, {"b": None}]}


def test_links_are_replaced_and_not_written_through(tmp_path):
    (tmp_path / "outside").write_text("kept")
    (tmp_path / "file").symlink_to(tmp_path / "outside")
    write_text(tmp_path / "file", "new")
    assert (tmp_path / "outside").read_text() == "kept"
    assert (tmp_path / "file").read_text() == "new"
    assert not (tmp_path / "file").is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["file", "outside"]


def test_what_cannot_be_written_is_named_itself(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "x", tmp_path / "none" / "x"):
        with pytest.raises((NotADirectoryError, FileNotFoundError)) as raised:
            write_text(path, "new")
        assert raised.value.filename == str(path)


def test_two_writers_of_a_file_do_not_meet(tmp_path):
    path = tmp_path / "file"
    with replacing(path) as first, replacing(path) as second:
        assert [p.name.startswith("file.") and p.suffix == ".partial" for p in (first, second)] == [
            True,
            True,
        ]
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # its block ends last
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert sorted(os.listdir(tmp_path)) == ["file", "plain"]


def test_what_killed_processes_leave_is_deleted_and_what_is_written_stays(tmp_path):
    left = tmp_path / "other.0123456789abcdef.partial"
    foreign = tmp_path / "notes.partial"
    for path in (left, foreign):
        path.touch()
    with replacing(tmp_path / "first") as writing:  # has deleted what was left
        assert not left.exists()
        write_text(tmp_path / "second", "new")
        assert writing.exists()
        writing.write_text("new")
    assert sorted(os.listdir(tmp_path)) == ["first", "notes.partial", "second"]


def test_what_a_killed_process_has_left_is_deleted(tmp_path):
    program = f"""
import os, signal, pathlib
from d3pm_jax.files import replacing
with replacing(pathlib.Path({str(tmp_path / "file")!r})):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", program])
    assert len(list(tmp_path.glob("file.*.partial"))) == 1
    write_text(tmp_path / "file", "new")
    assert os.listdir(tmp_path) == ["file"]


def test_what_fails_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "file", "old")

    def fail():
        with replacing(tmp_path / "file") as partial:
            partial.write_text("new")
            raise OSError("nothing left")

    with pytest.raises(OSError, match=r"nothing left: .*file"):
        fail()
    assert (tmp_path / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_what_another_process_writes_is_not_replaced(tmp_path, monkeypatch):
    files.write_text(tmp_path / "one", "before")
    monkeypatch.setattr(files, "folder_of_another_process", tmp_path.resolve())
    for name in ("one", "two"):
        files.write_text(tmp_path / name, "after")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("one", "before")]
