"""Opens and describes data sets, and makes Grain batches of int32 categories."""

from d3pm_jax.extras import require

require(__name__, "filelock", "grain", "platformdirs", "tensorflow_datasets")

from d3pm_jax.data.batches import (
    check_batch_size,
    count_categories,
    count_categories_by_place,
    read_all,
    read_batch,
    train_batches,
)
from d3pm_jax.data.columns import Column
from d3pm_jax.data.description import Description
from d3pm_jax.data.images import ImageSource, open_split
from d3pm_jax.data.source import ArraySource, DatasetError, Part, Source, open_npy

__all__ = [
    "ArraySource",
    "Column",
    "DatasetError",
    "Description",
    "ImageSource",
    "Part",
    "Source",
    "check_batch_size",
    "count_categories",
    "count_categories_by_place",
    "open_npy",
    "open_split",
    "read_all",
    "read_batch",
    "train_batches",
]
