"""Makes batches of int32 categories from a random-access source, a pure function of (seed, batch number)."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32

from d3pm_jax.data.source import DatasetError, Source

Batch = dict[str, Int32[np.ndarray, "B ..."]]


def train_batches(
    source: Source, batch_size: int, seed: int, num_categories: int, start: int = 0
) -> Iterator[Batch]:
    """Makes endless shuffled batches; every epoch has its own order, and a batch may span two epochs.

    Batch number i depends on (seed, i) only, so a run resumed with start = i sees what it would have seen.

    Args:
        source: the records.
        batch_size: B, at most len(source).
        seed: 0 .. 2**32 - 1.
        num_categories: K; every value must lie in 0 .. K - 1.
        start: number of the first batch; costs nothing.

    Returns:
        Iterator of {"image": int32 [B, H, W, C], "label": int32 [B] if the records have one}.

    Raises:
        DatasetError: batch_size exceeds the split, or (while iterating) a value is not a category.
    """
    import grain

    if batch_size > len(source):
        raise DatasetError(
            f"batch size {batch_size} exceeds the {len(source)} images of the split: "
            f"set it to {len(source)} or less"
        )
    collate = functools.partial(_collate, num_categories=num_categories)
    dataset = (
        grain.MapDataset.source(source).seed(seed).shuffle().repeat().batch(batch_size, batch_fn=collate)
    )
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
    return iter(dataset[start:].to_iter_dataset(options))


def read_all(
    source: Source, num_categories: int, limit: int | None = None
) -> tuple[Int32[np.ndarray, "N H W C"], Int32[np.ndarray, " N"] | None]:
    """Reads every record, or the first `limit`, in order.

    Args:
        source: the records.
        num_categories: K; every value must lie in 0 .. K - 1.
        limit: read at most this many; None reads all.

    Returns:
        (images int32 [N, H, W, C], labels int32 [N], or None where the records have no label).

    Raises:
        DatasetError: nothing to read, or a value is not a category.
    """
    size = len(source) if limit is None else min(limit, len(source))
    if size < 1:
        raise DatasetError(f"nothing to read: the split has {len(source)} images and the limit is {limit}")
    batch = _collate([source[i] for i in range(size)], num_categories)
    return batch["image"], batch.get("label")


def _collate(records: Sequence[dict[str, Any]], num_categories: int) -> Batch:
    """Stacks records into int32 arrays and checks that every value of the images is a category.

    Floating-point images are refused (TypeError): rounding them in silence would destroy them.
    """
    batch = {}
    for key in records[0]:
        batch[key] = np.array([record[key] for record in records]).astype(np.int32, casting="same_kind")
    low, high = int(batch["image"].min()), int(batch["image"].max())
    if low < 0:
        raise DatasetError(f"the images hold {low}, but categories start at 0: shift the data")
    if high >= num_categories:
        raise DatasetError(
            f"the images hold {high}, but K = {num_categories} allows only 0..{num_categories - 1}: "
            f"set K to {high + 1} or more (256 for 8-bit images)"
        )
    return batch
