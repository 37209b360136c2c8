"""Data sets of images: content, preparing, and one clear line for every failure."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

import tests
from d3pm_jax.data import images as image_source, open_split, read_all
from tests.data.calls import failure, take

MNIST = Path(tests.__file__).parents[2] / "shared" / "data" / "tfds"
needs_mnist = pytest.mark.skipif(
    not (MNIST / "mnist").is_dir(), reason=f"no prepared MNIST in {MNIST} (TFDS data_dir)"
)


@pytest.fixture
def tensorflow_installed(monkeypatch):
    """Makes TensorFlow look installed."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)


def test_digits_are_those_of_scikit_learn_in_its_order(data_dir):
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1)
    for split, part in {"train": slice(0, 1500), "test": slice(1500, 1797)}.items():
        source = open_split("digits", split, data_dir)
        assert source[0]["x"].dtype == np.uint8
        got_images, got_labels = read_all(source, 17)
        assert got_images.dtype == got_labels.dtype == np.int32
        np.testing.assert_array_equal(got_images, images[part])
        np.testing.assert_array_equal(got_labels, labels[part])


def test_digits_are_prepared_once_with_one_line(tmp_path, capfd, caplog):
    open_split("digits", "test", str(tmp_path))
    out, err = capfd.readouterr()
    assert out == ""
    assert err == f"preparing data set digits in {tmp_path}/digits/1.0.0 (needed once)\n"
    open_split("digits", "train", str(tmp_path))
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_default_directory_is_that_of_tfds(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "default"))
    assert len(open_split("digits", "test")) == 297
    assert (tmp_path / "default" / "digits").is_dir()


def test_slices_and_indices(train, data_dir):
    part = open_split("digits", "train[10:20]", data_dir)
    assert len(part) == 10
    np.testing.assert_array_equal(part[0]["x"], train[10]["x"])
    np.testing.assert_array_equal(train[-1]["x"], train[1499]["x"])
    with pytest.raises(IndexError):
        train[1500]


@pytest.mark.slow
@needs_mnist
def test_mnist(capfd):
    """Sizes, and the published label counts and mean of the test images."""
    train = open_split("mnist", "train", str(MNIST))
    test = open_split("mnist", "test", str(MNIST))
    assert (len(train), len(test)) == (60_000, 10_000)
    images, labels = read_all(test, 256)
    assert images.shape == (10_000, 28, 28, 1)
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    np.testing.assert_array_equal(np.bincount(labels), counts)
    assert round(images.mean() / 255, 5) == 0.13251
    (batch,) = take(train, 1, num_categories=256)
    assert batch["x"].shape == (100, 28, 28, 1)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("split", ["validation", "train[:7000]", "train[:0]", ""])
def test_unknown_split_names_the_splits(data_dir, split):
    message = failure(open_split, "digits", split, data_dir)
    assert repr(split) in message
    assert "train (1500 images), test (297 images)" in message


def test_unknown_data_set_names_near_misses(data_dir):
    assert "cifar10" in failure(open_split, "cifar_10", "train", data_dir)
    assert "did you mean one of digits" in failure(open_split, "digts", "train", data_dir)
    assert "'qqqqqqqq'" in failure(open_split, "qqqqqqqq", "train", data_dir)


@pytest.mark.parametrize("name", ["mnist:9.9.9", "mnist/nope", "not a name", ""])
def test_bad_version_configuration_or_name(data_dir, name):
    assert repr(name) in failure(open_split, name, "train", data_dir)


def test_absent_directory(tmp_path):
    absent = tmp_path / "absent"
    assert f"{absent} does not exist" in failure(open_split, "digits", "train", str(absent))
    assert not absent.exists()


def test_data_sets_that_are_not_images_of_one_size(data_dir):
    assert 'no "image" feature (it has text, label)' in failure(open_split, "imdb_reviews", "train", data_dir)
    assert "(None, None, 3)" in failure(open_split, "cats_vs_dogs", "train", data_dir)


def test_preparing_without_tensorflow(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = failure(open_split, "mnist", "train", str(tmp_path))
    assert "pip install tensorflow" in message
    assert "tfds build mnist --file_format=array_record" in message
    assert "--data.dir" in message
    assert f"looked in {tmp_path}/mnist/3.0.1" in message


def test_preparing_without_network(tmp_path, monkeypatch, tensorflow_installed):
    asked = []
    monkeypatch.setattr(image_source, "_can_connect", asked.append)  # append returns None: no connection
    message = failure(open_split, "mnist", "train", str(tmp_path))
    assert "no network" in message
    assert f"looked in {tmp_path}/mnist/3.0.1" in message
    assert len(asked) == 1
    assert asked[0].startswith("https://")
    assert asked[0] in message


def test_preparing_fails(tmp_path, monkeypatch, tensorflow_installed):
    def prepare(builder, **kwargs):
        raise OSError("disk full\nand more")

    monkeypatch.setattr(image_source, "_can_connect", lambda url: True)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", prepare)
    message = failure(open_split, "mnist", "train", str(tmp_path))
    assert "mnist could not be prepared" in message
    assert "disk full" in message


def test_another_process_prepares_first(tmp_path, monkeypatch):
    prepare = tfds.core.DatasetBuilder.download_and_prepare

    def lose_the_race(builder, **kwargs):
        prepare(builder, **kwargs)
        raise OSError("directory not empty")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", lose_the_race)
    assert len(open_split("digits", "train", str(tmp_path))) == 1500


def test_incomplete_directory(tmp_path):
    (tmp_path / "digits" / "1.0.0").mkdir(parents=True)
    message = failure(open_split, "digits", "train", str(tmp_path))
    assert "incomplete" in message
    assert "remove" in message


def test_format_without_random_access(tmp_path):
    open_split("digits", "train", str(tmp_path))
    info = tmp_path / "digits" / "1.0.0" / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))
    message = failure(open_split, "digits", "train", str(tmp_path))
    assert "tfrecord" in message
    assert "--file_format=array_record" in message


def test_unreadable_file(tmp_path):
    open_split("digits", "train", str(tmp_path))
    for path in (tmp_path / "digits" / "1.0.0").glob("digits-train*"):
        path.write_bytes(b"not a record")
    assert "cannot read digits" in failure(open_split, "digits", "train", str(tmp_path))


def test_a_damaged_record_behind_the_first(data_dir, tmp_path):
    """It is met in a thread of Grain, or where all are read."""
    shutil.copytree(data_dir, tmp_path, dirs_exist_ok=True)
    (path,) = (tmp_path / "digits" / "1.0.0").glob("digits-train*")
    content = np.frombuffer(path.read_bytes(), np.uint8).copy()
    filled = np.flatnonzero(content)  # the rest is padding
    content[filled[len(filled) * 3 // 4]] ^= 1
    path.write_bytes(content.tobytes())
    source = open_split("digits", "train", str(tmp_path))
    place = re.escape(f"{tmp_path}/digits/1.0.0")
    for read in (lambda: read_all(source, 17), lambda: take(source, 20)):
        message = failure(read)
        assert re.match(rf"cannot read digits in {place}, record \d+ \(", message), message
        assert "remove its directory and prepare the data set again" in message


def test_a_name_that_would_import_something_is_refused(tmp_path):
    assert "a name is like mnist" in failure(open_split, "huggingface:mnist", "train", str(tmp_path))
