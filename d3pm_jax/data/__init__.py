"""Data: a split of a TFDS data set as a random-access source, and Grain batches of int32 categories."""

from d3pm_jax.data.batches import read_all, train_batches
from d3pm_jax.data.images import ImageSource, open_split
from d3pm_jax.data.source import DatasetError, Source

__all__ = ["DatasetError", "ImageSource", "Source", "open_split", "read_all", "train_batches"]
