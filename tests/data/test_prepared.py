"""Texts are prepared once: after a kill, beside other processes, and where files are damaged."""

import errno
import fcntl
import json
import subprocess
import sys
import threading
import time

import filelock
import pytest

from d3pm_jax import config
from d3pm_jax.data import DatasetError, prepared
from tests.data.texts import write

DUMPS = json.dumps


def test_a_text_is_prepared_once_wherever_it_lies(tmp_path, cache, monkeypatch):
    data = config.Text(write(tmp_path, "hello " * 20), length=4)
    before = data.describe()
    (folder,) = (x for x in cache.iterdir() if x.is_dir())
    monkeypatch.setattr(prepared, "_write_folder", None)
    moved = config.Text(write(tmp_path / "there", "hello " * 20, "b.txt"), length=4)
    assert moved.describe() == before
    assert before.digest.startswith(folder.name)
    other = config.Text(write(tmp_path, "hallo " * 20), length=4)
    with pytest.raises(TypeError):
        other.describe()


def killed(x):
    """json.dumps, which is killed where all tokens are written."""
    if "counts" in x:
        raise KeyboardInterrupt
    return DUMPS(x)


def test_a_killed_preparation_is_not_taken_for_whole_and_is_cleaned_up(tmp_path, cache, monkeypatch):
    data = config.Text(write(tmp_path, "hello " * 20), length=4)
    with monkeypatch.context() as patch:
        patch.setattr(prepared.json, "dumps", killed)
        patch.setattr(prepared.shutil, "rmtree", lambda *args, **options: None)  # a kill cleans nothing up
        with pytest.raises(KeyboardInterrupt):
            prepared.prepare_corpus(data.corpus())
    (left,) = (x for x in cache.iterdir() if x.is_dir())
    assert left.name.endswith(".partial")
    assert (left / "test.tokens").stat().st_size
    assert len(data.open("train")) == 27
    assert not left.exists()


def test_a_second_process_waits_for_the_first(tmp_path, cache):
    data = config.Text(write(tmp_path, "hello " * 20), length=4)
    name = prepared._digest(data.corpus())[:32]
    actual = []
    cache.mkdir(parents=True)
    with (cache / f"{name}.lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        thread = threading.Thread(target=lambda: actual.append(data.describe()))
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
    thread.join()
    assert actual[0].categories == 5


PREPARING = """
import sys
import time

from d3pm_jax.data import prepared

write_folder = prepared._write_folder


def write_slowly(corpus, folder):
    print("writing", flush=True)
    time.sleep(0.5)
    write_folder(corpus, folder)


prepared._write_folder = write_slowly
corpus = prepared.Corpus((("all", sys.argv[1]),), (0.9, 0.05, 0.05), "characters")
print("ready", flush=True)
print(len(prepared.prepare_corpus(corpus).open("train").x))
"""


@pytest.mark.slow  # what a thread waits for, in processes
def test_of_two_processes_one_prepares_a_text_and_both_read_it(tmp_path, monkeypatch):
    """Both wait for a third, which is this one: so the text is prepared by none before both have asked."""
    path = write(tmp_path, "hello " * 20)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    cache = tmp_path / "home" / "d3pm_jax" / "text"
    cache.mkdir(parents=True)
    corpus = prepared.Corpus((("all", path),), (0.9, 0.05, 0.05), "characters")
    command = [sys.executable, "-c", PREPARING, path]
    with filelock.FileLock(cache / f"{prepared._digest(corpus)[:32]}.lock"):
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        assert [process.stdout.readline() for process in processes] == ["ready\n", "ready\n"]
        time.sleep(0.3)
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert sorted(outputs) == ["108\n", "writing\n108\n"]
    assert [path.name for path in cache.iterdir() if path.name.endswith(".partial")] == []


def test_a_file_system_without_locks_prepares_without(tmp_path, cache, monkeypatch):
    def refuse(*args):
        raise OSError(errno.ENOTSUP, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert config.Text(write(tmp_path, "hello " * 20), length=4).describe().categories == 5


def test_the_cache_is_where_the_user_says(tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    config.Text(write(tmp_path, "hello " * 20), length=4).describe()
    assert list((tmp_path / "mine" / "d3pm_jax" / "text").iterdir())


def test_damaged_tokens_are_refused(tmp_path, cache):
    data = config.Text(write(tmp_path, "hello " * 20), length=4)
    data.describe()
    for path in cache.glob("*/train.tokens"):
        path.write_bytes(b"abc")
    with pytest.raises(DatasetError, match="is damaged: delete it"):
        data.open("train")
