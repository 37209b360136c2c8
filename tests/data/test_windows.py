"""Windows and pieces of texts: where they begin, and what pads them."""

import numpy as np

from d3pm_jax import config
from d3pm_jax.data import read_batch, train_batches
from d3pm_jax.data.windows import Overlapping, Padded, Windows, random_window
from tests.data.texts import write


def test_windows_follow_each_other_and_the_rest_is_left_out():
    source = Windows(np.arange(11, dtype=np.uint8), 3)
    np.testing.assert_array_equal(read_batch(source, 11)["x"], np.arange(9).reshape(3, 3))


def test_windows_of_the_training_begin_everywhere_and_see_nothing_later():
    source = Overlapping(np.arange(14), 4)
    starts = set()
    for epoch in range(60):
        for i in range(len(source)):
            x = random_window(source[i], 4, np.random.default_rng([epoch, i]))["x"]
            np.testing.assert_array_equal(np.diff(x), 1)
            assert x[-1] < 4 * (i + 1)
            starts.add(int(x[0]))
    assert starts == set(range(9))


def test_every_epoch_has_windows_of_its_own(tmp_path):
    data = config.Text(write(tmp_path, "abcdefghijklmnopqrstuvwxyz" * 8), length=10)
    batches = train_batches(
        data.open_training(), 6, 0, 26, random_map=data.random_map, description=data.describe()
    )
    actual = np.concatenate([next(batches)["x"][:, 0] for _ in range(30)])
    assert set(actual.tolist()) == set(range(26))


def test_documents_are_lines_in_pieces_with_weights(tmp_path, small_parts):
    path = write(tmp_path, "abcdefg\n\nhi\nabcd\nx")
    data = config.Text(path, path, length=4, packing="padded")
    assert data.describe().padded
    assert data.describe().symbols == tuple("abcdefghix")
    batch = read_batch(data.open("test"), 10, description=data.describe())
    np.testing.assert_array_equal(batch["weight"].sum(1), [4, 3, 2, 4, 1])
    rows = zip(batch["x"], batch["weight"], strict=True)
    assert [data.describe().text(x[w > 0]) for x, w in rows] == ["abcd", "efg", "hi", "abcd", "x"]
    assert not batch["x"][batch["weight"] == 0].any()
    assert len(data.open_training()) == 5


def test_documents_of_many_lengths_lose_no_token():
    lengths = np.random.default_rng(0).integers(0, 9, 50)
    source = Padded(np.arange(lengths.sum(), dtype=np.uint16), np.cumsum(lengths), 3)
    rows = [source[i] for i in range(len(source))]
    np.testing.assert_array_equal(
        np.concatenate([r["x"][r["weight"] > 0] for r in rows]), range(lengths.sum())
    )
    pieces = [-(-n // 3) for n in lengths]
    assert len(rows) == sum(pieces)
    last = [i for i in range(len(source)) if source.ends_document(i)]
    assert last == [stop - 1 for stop, n in zip(np.cumsum(pieces), pieces, strict=True) if n]
