"""Batches: purity in (seed, batch number), and one clear line for what examples cannot be."""

import gc
import re
import threading
import time
from collections import Counter

import numpy as np
import pytest

from d3pm_jax.data import ArraySource, DatasetError, Description, read_all, read_batch, train_batches
from tests.data.calls import failure, take


@pytest.mark.parametrize(("n", "batch_size"), [(1, 1), (5, 1), (5, 5)])
def test_batches_of_any_size_go_on_for_ever(n, batch_size):
    source = ArraySource(np.arange(n)[:, None])
    actual = [next(train_batches(source, batch_size, 0, n, start)) for start in (0, n, 10**12)]
    assert all(batch["x"].shape == (batch_size, 1) for batch in actual)


def test_a_random_map_works_on_a_copy_and_one_weight_is_for_all():
    x = np.ones((4, 3), int)

    def raised(example, rng):
        example["x"] += rng.integers(0, 2)
        return {"x": example["x"], "weight": 0.5}

    first = next(train_batches(ArraySource(x), 4, 0, 3, random_map=raised))
    again = next(train_batches(ArraySource(x), 4, 0, 3, random_map=raised))
    np.testing.assert_array_equal(first["x"], again["x"])
    np.testing.assert_array_equal(first["weight"], np.full((4, 3), 0.5, np.float32))
    assert x.max() == 1


def rows(batches):
    """Every image of some batches, as bytes."""
    return [image.tobytes() for batch in batches for image in batch["x"]]


def assert_same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for key in batch:
            np.testing.assert_array_equal(batch[key], other[key])


@pytest.mark.parametrize("parts", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_parts_of_batches_are_the_batches(train, parts):
    """Each process reads a part: also after some batches, beyond an epoch, with a random map."""

    def noisy(example, rng):
        return example | {"x": (example["x"] + rng.integers(0, 17, example["x"].shape)) % 17}

    for start, random_map in ((0, None), (13, noisy)):
        options = {"start": start, "random_map": random_map}
        cut = [take(train, 18, part=i, parts=parts, **options) for i in range(parts)]
        joined = [
            {k: np.concatenate([b[k] for b in same]) for k in same[0]} for same in zip(*cut, strict=True)
        ]
        assert_same(joined, take(train, 18, **options))


def test_read_all_limit(train):
    images, labels = read_all(train, 17, limit=5)
    assert images.shape == (5, 8, 8, 1)
    assert labels.shape == (5,)
    assert len(read_all(train, 17, limit=10**6)[0]) == 1500


def test_records_without_label():
    source = [{"x": np.full((2, 2, 1), i, np.uint8)} for i in range(4)]
    images, labels = read_all(source, 4)
    assert labels is None
    np.testing.assert_array_equal(images[:, 0, 0, 0], range(4))
    assert take(source, 1, batch_size=2)[0].keys() == {"x"}


def test_batches_are_int32_and_keep_image_and_label_together(train):
    label_of = {train[i]["x"].tobytes(): train[i]["label"] for i in range(len(train))}
    for batch in take(train, 3):
        assert batch["x"].dtype == batch["label"].dtype == np.int32
        assert batch["x"].shape == (100, 8, 8, 1)
        expected = [label_of[image.astype(np.uint8).tobytes()] for image in batch["x"]]
        np.testing.assert_array_equal(batch["label"], expected)


def test_start_continues_the_run(train):
    whole = take(train, 40)  # 15 batches are an epoch
    assert_same(take(train, 5, start=35), whole[35:])
    assert_same(take(train, 40), whole)


def test_start_far_away_costs_nothing(train):
    began = time.monotonic()
    assert_same(take(train, 2, start=10**9 + 3), take(train, 5, start=10**9)[3:])
    assert time.monotonic() - began < 5


def test_seed_changes_the_order(train):
    assert rows(take(train, 1, seed=0)) != rows(take(train, 1, seed=1))


def test_every_epoch_has_every_image_once_in_an_order_of_its_own(train):
    everything = Counter(rows([{"x": read_all(train, 17)[0]}]))
    first = rows(take(train, 15, start=0))
    second = rows(take(train, 15, start=15))
    assert Counter(first) == Counter(second) == everything
    assert first != second


def test_batches_span_epochs_without_loss(train):
    """15 batches of 400 are exactly 4 epochs."""
    everything = Counter(rows([{"x": read_all(train, 17)[0]}]))
    assert Counter(rows(take(train, 15, batch_size=400))) == Counter(
        {k: 4 * n for k, n in everything.items()}
    )


def test_dropped_iterator_ends_its_threads(train):
    def readers():
        return [t for t in threading.enumerate() if t.name.startswith("grain-prefetch")]

    iterator = train_batches(train, 100, 0, 17)
    next(iterator)
    assert readers()
    del iterator
    gc.collect()
    deadline = time.monotonic() + 5
    while readers() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not readers()


def test_a_source_is_asked_for_one_example_at_a_time():
    """It may be a file, whose place is moved before it is read."""

    class File:
        place = None

        def __len__(self):
            return 40

        def __getitem__(self, i):
            self.place = i
            time.sleep(1e-4)
            return {"x": np.array([self.place])}

    batches = train_batches(File(), 40, 0, 40)
    for _ in range(5):
        assert sorted(next(batches)["x"][:, 0]) == list(range(40))


def test_labels_and_weights_that_the_data_is_described_with_are_asked_for():
    source = [{"x": np.zeros((2, 2, 1), int)}]
    with_classes = Description((2, 2, 1), 3, 10, kind="image")
    message = "example 0 has no label, but the data is described with 10 classes: add label to the examples"
    assert failure(read_batch, source, 3, None, with_classes).startswith(message)
    padded = Description((2, 2, 1), 3, kind="image", padded=True)
    message = "example 0 has no weight, but the data is described as padded: add weight to the examples"
    assert failure(read_batch, source, 3, None, padded).startswith(message)


def test_values_outside_the_categories(train):
    message = failure(lambda: take(train, 1, num_categories=16))
    assert re.match(r"x of example \d+ holds 16 at \[\d, \d, 0\], but K = 16", message)
    assert "set K to 17" in message
    assert "set K to" in failure(read_all, train, 10)
    negative = [{"x": np.full((2, 2, 1), -1, np.int16)}]
    assert "x of example 0 holds -1 at [0, 0, 0]" in failure(read_all, negative, 10)


@pytest.mark.parametrize(
    ("values", "categories", "cure"),
    [
        ((1, 7), 7, "set its categories, and with them K, to 8 or more, or subtract 1 from the data"),
        ((0, 7), 7, "set its categories, and with them K, to 8 or more$"),
        (
            (1, 7),
            9,
            r"set K to 8 or more \(256 for 8-bit images, one more with an extra mask\), or subtract 1",
        ),
        ((1, 8), 9, "set K to 9 or more [^,]*, one more with an extra mask\\)$"),
    ],
)
def test_categories_that_count_from_one(values, categories, cure):
    """K = 7: where 7 is in the data and 0 is not, it may be the data that is wrong."""
    with pytest.raises(DatasetError, match=cure):
        read_batch([{"x": np.array(values)}], 7, None, Description((2,), categories))


@pytest.mark.parametrize(("labels", "is_shifted"), [((1, 3, 2), True), ((0, 3), False), ((1, 4), False)])
def test_labels_that_count_from_one(labels, is_shifted):
    examples = [{"x": np.zeros(2, int), "label": label} for label in labels]
    with pytest.raises(DatasetError, match=r"3 allows only 0\.\.2: correct the label, or set") as raised:
        read_batch(examples, 7, None, Description((2,), 7, 3))
    assert str(raised.value).endswith("or subtract 1 from all where they count from 1") == is_shifted


def test_a_split_without_examples_is_told(train):
    with pytest.raises(DatasetError, match="the source has no examples: name a split that has some"):
        train_batches([], 4, 0, 17)
    with pytest.raises(DatasetError, match="nothing to read: the split has no examples, name one that has"):
        read_batch([], 17, 64)


def test_floating_point_images_are_refused():
    assert "x of example 0 has dtype float64" in failure(read_all, [{"x": np.full((2, 2, 1), 0.5)}], 10)


def test_examples_of_different_shapes_are_refused():
    examples = [{"x": np.zeros(n, int)} for n in (2, 3)]
    assert "x of example 1 has shape (3,), expected (2,)" in failure(read_all, examples, 10)


def test_batch_larger_than_the_split(train):
    message = failure(train_batches, train, 1501, 0, 17)
    assert "1501" in message
    assert "1500" in message


def test_nothing_to_read(train):
    assert "limit is 0" in failure(read_all, train, 17, limit=0)
