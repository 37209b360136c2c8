"""Builds scikit-learn's handwritten digits for TFDS: real data without network and without TensorFlow."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

TRAIN_SIZE = 1500
Example = dict[str, Any]


class LocalInfo(tfds.core.DatasetInfo):
    """Describes a data set that no server has."""

    def initialize_from_bucket(self) -> None:
        """Asks no server: TFDS would, and leaves an empty temporary folder each time."""


class Builder(tfds.core.GeneratorBasedBuilder):
    """Builds 1,797 images of 8x8 pixels with 17 grey levels: the first 1,500 train, the last 297 test.

    TFDS takes the name "digits" from the module's name.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return LocalInfo(
            builder=self,
            description="Handwritten digits, 8x8 pixels with values 0..16, in scikit-learn's order.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            homepage="https://archive.ics.uci.edu/dataset/80",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # the data ships with scikit-learn
        return {
            "train": self._generate_examples(slice(None, TRAIN_SIZE)),
            "test": self._generate_examples(slice(TRAIN_SIZE, None)),
        }

    def _generate_examples(self, rows: slice) -> Iterator[tuple[int, Example]]:
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        images = images.reshape(-1, 8, 8, 1).astype(np.uint8)
        for key, (image, label) in enumerate(zip(images[rows], labels[rows], strict=True)):
            yield key, {"image": image, "label": label}
