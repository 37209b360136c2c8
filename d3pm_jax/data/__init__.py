"""Data: a split of a TFDS data set as a random-access source, and Grain batches of int32 categories."""

from d3pm_jax.data.pipeline import read_all, train_batches
from d3pm_jax.data.tfds_source import DatasetError, ImageSource, open_split

__all__ = ["DatasetError", "ImageSource", "open_split", "read_all", "train_batches"]
