"""Opens a split of a TFDS data set for random access, and makes Grain batches of int32 categories."""

from d3pm_jax.extras import require

require(__name__, "grain", "tensorflow_datasets")

from d3pm_jax.data.batches import read_all, train_batches
from d3pm_jax.data.description import Description
from d3pm_jax.data.images import ImageSource, open_split
from d3pm_jax.data.source import DatasetError, Source

__all__ = ["DatasetError", "Description", "ImageSource", "Source", "open_split", "read_all", "train_batches"]
