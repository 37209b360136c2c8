"""Makes batches of int32 categories from a random-access source, a pure function of (seed, batch number)."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, Int32

from d3pm_jax.data.source import DatasetError, Source

Example = dict[str, Any]
Batch = dict[str, np.ndarray]
RandomMap = Callable[[Example, np.random.Generator], Example]


def train_batches(
    source: Source,
    batch_size: int,
    seed: int,
    num_categories: int,
    start: int = 0,
    random_map: RandomMap | None = None,
    classes: int | None = None,
) -> Iterator[Batch]:
    """Makes endless shuffled batches; every epoch has its own order, and a batch may span two epochs.

    Batch number i depends on (seed, i) only, so a run resumed with start = i sees what it would have seen.

    Args:
        source: the examples.
        batch_size: B, at most len(source).
        seed: 0 .. 2**32 - 1.
        num_categories: K; every value must lie in 0 .. K - 1.
        start: number of the first batch; costs nothing.
        random_map: changes each example; its generator depends on seed and place alone.
        classes: labels must lie in 0 .. classes - 1.

    Returns:
        Iterator of {"x": int32 [B, *S]}, with "label": int32 [B] and "weight": float32 [B, *S] where
        examples have them.

    Raises:
        DatasetError: batch_size exceeds the split, or (while iterating) a value is not a category.
    """
    import grain

    if batch_size > len(source):
        raise DatasetError(
            f"batch size {batch_size} exceeds the {len(source)} examples of the split: "
            f"set it to {len(source)} or less"
        )
    collate = functools.partial(_collate, num_categories=num_categories, classes=classes)
    dataset = grain.MapDataset.source(_Numbered(source)).seed(seed).shuffle().repeat()
    if random_map is not None:
        dataset = dataset.random_map(random_map)
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
    return iter(dataset.batch(batch_size, batch_fn=collate)[start:].to_iter_dataset(options))


def read_all(
    source: Source, num_categories: int, limit: int | None = None, classes: int | None = None
) -> tuple[Int32[np.ndarray, "N ..."], Int32[np.ndarray, " N"] | None]:
    """Reads every example, or the first `limit`, in order.

    Args:
        source: the examples.
        num_categories: K; every value must lie in 0 .. K - 1.
        limit: read at most this many; None reads all.
        classes: labels must lie in 0 .. classes - 1.

    Returns:
        (x int32 [N, *S], labels int32 [N], or None where the examples have no label).

    Raises:
        DatasetError: nothing to read, or a value is not a category.
    """
    size = len(source) if limit is None else min(limit, len(source))
    if size < 1:
        raise DatasetError(f"nothing to read: the split has {len(source)} examples and the limit is {limit}")
    numbered = _Numbered(source)
    batch = _collate([numbered[i] for i in range(size)], num_categories, classes)
    return batch["x"], batch.get("label")


def count_categories(source: Source, num_categories: int) -> Int[np.ndarray, " K"]:
    """Counts how often each category occurs in all examples.

    Raises:
        DatasetError: a value is not a category.
    """
    numbered, counts = _Numbered(source), np.zeros(num_categories, np.int64)
    for i in range(len(source)):
        batch = _collate([numbered[i]], num_categories)
        counts += np.bincount(batch["x"].ravel(), minlength=num_categories)
    return counts


class _Numbered:
    """Gives the examples of a source with their numbers, which errors name."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        return {**self._source[index], "number": index}


def _collate(examples: Sequence[Example], num_categories: int, classes: int | None = None) -> Batch:
    """Stacks examples into int32 arrays and checks that every value of x is a category, of labels a class."""
    number = [example["number"] for example in examples]
    x = _stack([np.asarray(example["x"]) for example in examples], number)
    _check_range(x, number, num_categories)
    batch = {"x": x}
    if "label" in examples[0]:
        batch["label"] = np.array([example["label"] for example in examples], np.int32)
        _check_labels(batch["label"], number, classes)
    if "weight" in examples[0]:
        batch["weight"] = np.stack([np.asarray(e["weight"], np.float32) for e in examples])
    return batch


def _stack(arrays: Sequence[np.ndarray], number: Sequence[int]) -> Int32[np.ndarray, "B ..."]:
    """Stacks them; floating-point numbers are refused: rounding in silence would destroy them."""
    for x, i in zip(arrays, number, strict=True):
        if not np.issubdtype(x.dtype, np.integer):
            raise DatasetError(f"x of example {i} has dtype {x.dtype}: categories are integers, convert them")
        if x.shape != arrays[0].shape:
            raise DatasetError(
                f"x of example {i} has shape {x.shape}, that of example {number[0]} {arrays[0].shape}: "
                "give all examples one shape"
            )
    return np.stack(arrays).astype(np.int32)


def _check_range(x: np.ndarray, number: Sequence[int], num_categories: int) -> None:
    low, high = int(x.min()), int(x.max())
    if low < 0:
        raise DatasetError(f"{_where(x, low, number)}, but categories start at 0: shift the data")
    if high >= num_categories:
        raise DatasetError(
            f"{_where(x, high, number)}, but K = {num_categories} allows only 0..{num_categories - 1}: "
            f"set K to {high + 1} or more (256 for 8-bit images)"
        )


def _check_labels(labels: np.ndarray, number: Sequence[int], classes: int | None) -> None:
    for label, i in zip(labels, number, strict=True):
        if classes is not None and not 0 <= label < classes:
            raise DatasetError(
                f"the label of example {i} is {label}, but classes = {classes} allows only "
                f"0..{classes - 1}: mend the label, or set classes"
            )


def _where(x: np.ndarray, value: int, number: Sequence[int]) -> str:
    at = np.argwhere(x == value)[0]
    return f"x of example {number[at[0]]} holds {value} at {[int(i) for i in at[1:]]}"
