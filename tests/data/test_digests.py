"""Whose data it is: digests of arrays and idx files, and what the cache of hashes takes for unchanged."""

import gzip
import json
import os
import shutil
import time

import numpy as np
import pytest

from d3pm_jax import config
from d3pm_jax.config.data import describe_with_digest
from d3pm_jax.data import digests, text
from d3pm_jax.data.digests import hash_array, split_digest
from tests.data.test_source import write_mnist

X = np.random.default_rng(0).integers(0, 3, (10, 6))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The folder of hashes, in place of the user's."""
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *name: str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "_computed_hashes", {})
    return tmp_path / "cache" / "digests"


@pytest.fixture
def settled(monkeypatch):
    """Files of this test count as old enough for their hashes to be remembered."""
    monkeypatch.setattr(digests, "SETTLED", -(10**18))


def write(folder, **arrays):
    """The data of arrays by the names of fields."""
    folder.mkdir(exist_ok=True)
    fields = {"train": X, "test": X[:4]} | arrays
    for name, x in fields.items():
        np.save(folder / f"{name}.npy", x)
    paths = {name: str(folder / f"{name}.npy") for name in fields}
    return config.Arrays(categories=3, classes=10 if "train_labels" in fields else None, **paths)


def hashes(data):
    return split_digest(describe_with_digest(data).digest)


def changed(x, index):
    x = x.copy()
    x[index] = (x[index] + 1) % 3
    return x


def test_each_part_of_each_split_is_in_its_digest(tmp_path):
    full = {
        "train_labels": np.arange(10),
        "test_labels": np.arange(4),
        "train_conditions": np.ones((10, 2), np.float32),
        "test_conditions": np.ones((4, 2), np.float32),
    }
    before = hashes(write(tmp_path, **full))
    assert list(before) == ["train", "test"]
    assert hashes(write(tmp_path / "moved", **full)) == before
    for name, x in {"train": X, "test": X[:4], **full}.items():
        split = name.partition("_")[0]
        after = hashes(write(tmp_path, **full | {name: changed(x, (1, *[0] * (x.ndim - 1)))}))
        assert [key for key in before if after[key] != before[key]] == [split]
    rolled = hashes(write(tmp_path, **full | {"test": np.roll(X[:4], 1, axis=0)}))
    assert rolled["train"] == before["train"]
    assert rolled["test"] != before["test"]
    assert list(hashes(write(tmp_path, valid=X[:2]))) == ["train", "test", "valid"]


def test_numbers_count_and_not_how_they_are_stored(tmp_path):
    before = hashes(write(tmp_path))
    for stored in (X.astype("uint8"), X.astype(">i4"), np.asfortranarray(X)):
        assert hashes(write(tmp_path, train=stored)) == before
    assert hashes(write(tmp_path, train=X.reshape(10, 3, 2)))["train"] != before["train"]
    too_large = X.copy()
    too_large[0, 0] += 256  # the same uint8
    assert hash_array(too_large, "uint8") != hash_array(X, "uint8")
    ones = np.ones((4, 2))
    assert hash_array(ones, "float32") == hash_array(ones.astype("float32"), "float32")


def test_blocks_change_nothing(monkeypatch):
    whole = hash_array(X, "uint8")
    monkeypatch.setattr(digests, "BLOCK", 100)
    assert hash_array(X, "uint8") == whole


def test_idx_files_have_one_digest_packed_or_not(tmp_path):
    write_mnist(tmp_path)
    data = config.Idx(str(tmp_path))
    before = hashes(data)
    assert list(before) == ["train", "test"]
    packed = tmp_path / "train-images-idx3-ubyte.gz"
    (tmp_path / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    assert hashes(data) == before
    assert hashes(config.Idx(str(tmp_path), binarize="threshold")) == hashes(data)
    labels = tmp_path / "t10k-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1] + b"\1")
    after = hashes(data)
    assert after["train"] == before["train"]
    assert after["test"] != before["test"]


@pytest.mark.usefixtures("settled")
def test_a_file_that_stays_as_it_is_is_read_once(tmp_path, monkeypatch, cache):
    data = write(tmp_path)
    before = hashes(data)
    assert len(list(cache.iterdir())) == 2
    digests._computed_hashes.clear()
    with monkeypatch.context() as patch:
        patch.setattr(config.data, "hash_array", lambda *args: pytest.fail("it is read"))
        assert hashes(data) == before
    for entry in cache.iterdir():
        for content in ("junk", "[]", json.dumps({"file": 1})):
            entry.write_text(content)
            digests._computed_hashes.clear()
            assert hashes(data) == before


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("replace", [shutil.copy2, os.replace])
def test_another_file_of_the_same_size_and_time_of_change_is_hashed(replace, tmp_path):
    train = tmp_path / "train.npy"
    other = tmp_path / "other.npy"
    data = write(tmp_path)
    np.save(other, changed(X, (3, 3)))
    os.utime(train, ns=(10**18, 10**18))
    os.utime(other, ns=(10**18, 10**18))
    before = hashes(data)
    time.sleep(0.02)  # longer than a tick of the clock of a file system
    replace(other, train)
    assert (train.stat().st_size, train.stat().st_mtime_ns) == (os.path.getsize(train), 10**18)
    after = hashes(data)
    assert after["train"] != before["train"]
    assert after["test"] == before["test"]


@pytest.mark.usefixtures("settled")
def test_another_text_of_the_same_size_and_time_of_change_is_hashed(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("abc")
    os.utime(file, ns=(10**18, 10**18))
    before = text.hash_text(str(file))
    time.sleep(0.02)
    file.write_text("abd")
    os.utime(file, ns=(10**18, 10**18))
    assert text.hash_text(str(file)) != before


def test_what_has_just_changed_is_not_remembered(tmp_path, cache):
    data = write(tmp_path)
    before = hashes(data)
    assert not cache.exists()
    np.save(tmp_path / "train.npy", changed(X, (0, 0)))  # perhaps within the same tick of the clock
    assert hashes(data)["train"] != before["train"]


@pytest.mark.usefixtures("settled")
def test_a_cache_that_cannot_be_written_is_done_without(tmp_path):
    (tmp_path / "cache").write_text("a file")
    assert hashes(write(tmp_path)) == hashes(write(tmp_path / "moved"))


@pytest.mark.usefixtures("settled")
def test_a_process_reads_a_file_once_where_nothing_can_be_remembered(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file")
    data = write(tmp_path)
    before = hashes(data)
    monkeypatch.setattr(config.data, "hash_array", lambda *args: pytest.fail("it is read"))
    assert hashes(data) == before


def test_a_long_hash_says_what_is_hashed(tmp_path, monkeypatch, capsys):
    file = tmp_path / "x"
    file.touch()
    assert digests.hash_file(file, "none", lambda: "hash") == "hash"
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(digests, "NOTICE_AFTER", 0.01)

    def compute():
        time.sleep(0.2)
        return "hash"

    assert digests.hash_file(file, "none", compute) == "hash"
    assert capsys.readouterr().err == f"hashing {file}, to tell later whether it has changed\n"


def test_a_digest_of_a_users_own_is_any_text():
    for digest in ("v1 data", "sha256:abc", "train:1", "train test:1"):
        assert split_digest(digest) == {"": digest}
    content_hash = hash_array(X, "uint8")
    assert split_digest(f"train:{content_hash} test:{content_hash}") == {
        "train": content_hash,
        "test": content_hash,
    }
