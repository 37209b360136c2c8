"""Arrays and idx files as data: what they give, and one line for what they cannot be."""

import gzip

import numpy as np
import pytest

from d3pm_jax import config
from d3pm_jax.data import ArraySource, DatasetError, Description, read_all, train_batches

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 3)).astype(np.uint8)


LABELS = np.array([0, 1, 2, 2, 1, 0], np.uint8)


def write_idx(path, x, packed):
    content = bytes([0, 0, 8, x.ndim]) + np.array(x.shape, ">u4").tobytes() + x.tobytes()
    path.write_bytes(gzip.compress(content) if packed else content)


def write_mnist(folder):
    """The four files, two of them compressed."""
    for start, n in (("train", 6), ("t10k", 3)):
        write_idx(folder / f"{start}-images-idx3-ubyte.gz", IMAGES[:n], True)
        write_idx(folder / f"{start}-labels-idx1-ubyte", LABELS[:n], False)


def test_idx_files_are_images_with_labels(tmp_path):
    write_mnist(tmp_path)
    data = config.Idx(str(tmp_path))
    assert data.describe() == Description((4, 3, 1), 256, 3, "image")
    x, labels = read_all(data.open("train"), 256)
    np.testing.assert_array_equal(x[..., 0], IMAGES)
    np.testing.assert_array_equal(labels, LABELS)
    assert len(data.open("test")) == 3


def test_idx_files_without_examples_are_named(tmp_path):
    write_idx(tmp_path / "t10k-images-idx3-ubyte", IMAGES[:0], False)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", LABELS[:0], False)
    with pytest.raises(DatasetError, match=r"t10k-images-idx3-ubyte in .* has no examples: copy the files"):
        config.Idx(str(tmp_path)).describe()


def test_idx_files_that_are_missing_or_damaged_are_named(tmp_path):
    with pytest.raises(DatasetError, match=r"no file .*t10k-images-idx3-ubyte, nor t10k-.*gz"):
        config.Idx(str(tmp_path)).describe()
    write_mnist(tmp_path)
    path = tmp_path / "t10k-labels-idx1-ubyte"
    damaged = path.read_bytes()[:-1]
    for content, message in ((damaged, "is damaged, of 10 bytes for shape"), (b"junk", "is not an idx file")):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=message):
            config.Idx(str(tmp_path)).open("test")


@pytest.mark.parametrize(
    ("data", "splits"),
    [
        (config.Shakespeare(length=64), "train, valid or test"),
        (config.Digits(), "train or test"),
        (config.Digits(valid_split="test"), "train, valid or test"),
        (config.StyledDigits(), "train or test"),
        (config.Idx("nowhere"), "train or test"),
        (config.Arrays("x.npy", "x.npy", 3), "train or test"),
        (config.Arrays("x.npy", "x.npy", 3, valid="x.npy"), "train, valid or test"),
        (config.Plane(), "train or test"),
        (config.Mazes(), "train or test"),
    ],
)
def test_a_split_that_there_is_not_is_named_with_those_that_there_are(data, splits):
    split = "validation" if data.has_valid else "valid"
    with pytest.raises(DatasetError, match=f"^there is no split '{split}': take {splits}$"):
        data.open(split)


@pytest.fixture
def arrays(tmp_path):
    """A function that writes arrays and names them."""

    def make(train, test, categories, **more):
        files = {"train": train, "test": test, **{k: v for k, v in more.items() if k.endswith("labels")}}
        for name, x in files.items():
            np.save(tmp_path / f"{name}.npy", x)
        paths = {name: str(tmp_path / f"{name}.npy") for name in files}
        fields = {k: v for k, v in more.items() if k not in files}
        return config.Arrays(**paths, categories=categories, **fields)

    return make


def test_arrays_are_mapped_and_described(arrays):
    x = np.arange(24).reshape(4, 6) % 3
    labels = np.arange(4)
    data = arrays(x, x[:2], 3, train_labels=labels, test_labels=labels[:2], classes=4)
    assert data.describe() == Description((6,), 3, 4)
    source = data.open("train")
    assert isinstance(source[1]["x"].base, np.memmap)
    np.testing.assert_array_equal(read_all(source, 3)[0], x)
    batch = next(train_batches(source, 4, 0, 3, description=data.describe()))
    np.testing.assert_array_equal(batch["x"], x[batch["label"]])


def test_what_arrays_cannot_be_is_one_line(arrays, tmp_path):
    x = np.arange(24).reshape(4, 6) % 3
    for train, message in (
        (x * 1.0, r"train.npy has dtype float64: categories are integers"),
        (x[0], r"train.npy has shape \(6,\): examples are its rows"),
    ):
        with pytest.raises(DatasetError, match=message):
            arrays(train, x, 3).open("train")
    with pytest.raises(DatasetError, match=r"shape \(3,\): pass one for each of 4 examples"):
        ArraySource(x, np.arange(3))
    with pytest.raises(DatasetError, match=r"x of example 0 holds 2 at \[2\], but K = 2 allows only 0..1"):
        read_all(ArraySource(x), 2)
    with pytest.raises(DatasetError, match=r"label of example 3 is 3, but classes = 3 allows only 0..2"):
        read_all(ArraySource(x, np.arange(4)), 3, description=Description((6,), 3, 3))
    with pytest.raises(DatasetError, match=r"holds 2 at \[2\], but the data is described as 0..1"):
        read_all(ArraySource(x), 3, description=Description((6,), 2))
    with pytest.raises(DatasetError, match=r"x of example 0 has shape \(6,\), expected \(5,\)"):
        read_all(ArraySource(x), 3, description=Description((5,), 3))
    with pytest.raises(DatasetError, match=r"x of example 0 holds 4294967297 at \[0\], but K = 3"):
        read_all(ArraySource(np.full((1, 2), 2**32 + 1)), 3)
    with pytest.raises(DatasetError, match=r"weight of example 0 has shape \(2,\): pass \(3,\)"):
        next(train_batches([{"x": np.zeros(3, int), "weight": np.ones(2)}], 1, 0, 3))
    with pytest.raises(DatasetError, match=r"the label of example 0 is 1.7: labels are integers"):
        read_all([{"x": np.zeros(3, int), "label": 1.7}], 3)
    with pytest.raises(DatasetError, match=r"no file none.npy \(from .*\): write it with numpy.save"):
        config.Arrays("none.npy", "none.npy", 3).describe()
    (tmp_path / "bad.npy").write_text("x")
    with pytest.raises(DatasetError, match=r"bad.npy cannot be read as .npy"):
        config.Arrays(str(tmp_path / "bad.npy"), "none.npy", 3).describe()
    np.save(tmp_path / "whole.npy", np.zeros((9, 9)))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:200])
    with pytest.raises(DatasetError, match=r"cut.npy is cut off: it is shorter than its header says"):
        config.Arrays(str(tmp_path / "cut.npy"), "none.npy", 3).describe()
    np.savez(tmp_path / "several.npz", x=x)
    with pytest.raises(DatasetError, match=r"several.npz is an .npz, which holds arrays by name"):
        config.Arrays(str(tmp_path / "several.npz"), "none.npy", 3).describe()
    with pytest.raises(ValueError, match=r"data.test_labels = None: labels need"):
        config.Arrays("a", "b", 3, train_labels="c", classes=2).check()


@pytest.fixture
def conditioned(tmp_path):
    """A function that writes arrays with conditions, one file for both splits, and names them."""

    def make(conditions, **more):
        np.save(tmp_path / "x.npy", np.arange(24).reshape(4, 6) % 3)
        np.save(tmp_path / "conditions.npy", conditions)
        x = str(tmp_path / "x.npy")
        file = str(tmp_path / "conditions.npy")
        return config.Arrays(x, x, 3, train_conditions=file, test_conditions=file, **more)

    return make


@pytest.mark.parametrize(
    ("stored", "described"),
    [("float32", "float32"), ("float64", "float32"), ("int32", "int32"), ("uint8", "int32")],
)
def test_arrays_have_conditions(conditioned, stored, described):
    conditions = np.arange(8).reshape(4, 2).astype(stored)
    data = conditioned(conditions)
    assert data.describe() == Description((6,), 3, condition=(2,), condition_type=described)
    batch = next(train_batches(data.open("train"), 4, 0, 3, description=data.describe()))
    assert batch["condition"].dtype == described
    order = np.argsort(batch["condition"][:, 0])
    np.testing.assert_array_equal(batch["condition"][order], conditions)
    np.testing.assert_array_equal(batch["x"][order], np.arange(24).reshape(4, 6) % 3)


def test_conditions_go_with_binary_levels(conditioned):
    conditions = np.ones((4, 2, 3, 1), np.float32)
    data = conditioned(conditions, binarize="dynamic")
    assert data.describe() == Description((6,), 2, condition=(2, 3, 1))
    source = data.open_training()
    batch = next(train_batches(source, 4, 0, 2, 0, data.random_map, data.describe()))
    np.testing.assert_array_equal(batch["condition"], conditions)


def test_what_conditions_cannot_be_is_one_line(conditioned):
    with pytest.raises(DatasetError, match=r"conditions.npy has shape \(4,\): .* it needs two axes"):
        conditioned(np.zeros(4)).describe()
    with pytest.raises(
        DatasetError, match=r"conditions.npy has dtype bool: conditions are floats or integers"
    ):
        conditioned(np.zeros((4, 2), bool)).describe()
    with pytest.raises(
        DatasetError, match=r"the conditions of .* have shape \(3, 2\): pass one for each of 4"
    ):
        conditioned(np.zeros((3, 2))).open("train")
    with pytest.raises(
        ValueError, match=r"data.test_conditions = None: conditions need all of train_conditions, test"
    ):
        config.Arrays("a", "b", 3, train_conditions="c").check()
    with pytest.raises(ValueError, match=r"data.valid_conditions = None: conditions need"):
        config.Arrays("a", "b", 3, valid="v", train_conditions="c", test_conditions="d").check()
    with pytest.raises(ValueError, match=r"data.valid_conditions = 'v' without data.valid: name both"):
        config.Arrays("a", "b", 3, train_conditions="c", test_conditions="d", valid_conditions="v").check()
