"""Describes the data sets of a config."""

import dataclasses
import functools
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np

from d3pm_jax import data
from d3pm_jax.config.checks import Allowed, Categories, Count, Free, FreeFields, NonEmptyStr, Part, undefined
from d3pm_jax.data import Description, Source, arrays, images
from d3pm_jax.data.binarize import Binarize, BinarySource, at_random

if TYPE_CHECKING:
    from d3pm_jax.kinds import Kind

NAME = Allowed("such as mnist, emnist/letters or emnist/letters:3.1.0", images.is_name)


@dataclasses.dataclass(frozen=True)
class Data(Part):
    """Describes a data set; one of your own defines `describe` and `open`, and `random_map` if it likes."""

    places: ClassVar[tuple[str, ...]] = FreeFields()  # pyright: ignore[reportAssignmentType]
    """fields that say where the data lies, not what it is: they may change when a run is resumed"""

    def check_kept(self) -> None:
        """Raises UserError where reading the data would write or import; of fields from a run's folder."""

    def describe(self) -> Description:
        """Says what examples are, if possible without opening the data."""
        raise undefined(self, "describe")

    def open(self, split: str) -> Source:
        """Opens the split "train" or "test": len(source), and source[i] = {"x": integers [*S], ..}.

        And "valid", to evaluate on during training, where `has_valid` says so.
        """
        raise undefined(self, "open")

    def own_kind(self) -> "type[Kind] | None":
        """Returns the class of a kind of your own, where `describe` names one: see `d3pm_jax.kinds.Kind`."""
        return None

    @property
    def has_valid(self) -> bool:
        """Says whether there is a split "valid"."""
        return False

    def open_training(self) -> Source:
        """Opens what `random_map` changes, where that is not the split "train" as it is evaluated."""
        return self.open("train")

    def random_map(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Changes an example of the training at random; rng depends on (seed, step, index) alone."""
        return example


@dataclasses.dataclass(frozen=True)
class Grey(Data):
    """Holds what data of ordered levels share. A class defines `describe_levels` and `open_levels`."""

    binarize: Binarize | None = dataclasses.field(default=None, kw_only=True)
    """make x 0 or 1: by a "threshold" at half of the highest level, or "dynamic": drawn with probability
    level / highest, anew in every epoch of the training and from a fixed seed for evaluation"""

    def describe(self) -> Description:
        found = self.describe_levels()
        return found if self.binarize is None else dataclasses.replace(found, categories=2)

    def open(self, split: str) -> Source:
        found = self.open_levels(split)
        return found if self.binarize is None else BinarySource(found, _levels(self), self.binarize, split)

    def open_training(self) -> Source:
        return self.open_levels("train") if self.binarize == "dynamic" else self.open("train")

    def random_map(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        return at_random(example, _levels(self), rng) if self.binarize == "dynamic" else example

    def describe_levels(self) -> Description:
        """Does what `describe` does, of x before it is made binary."""
        raise undefined(self, "describe_levels")

    def open_levels(self, split: str) -> Source:
        """Does what `open` does, of x before it is made binary."""
        raise undefined(self, "open_levels")


@functools.cache
def _levels(data: Grey) -> int:
    """Counts the grey levels, once: a description may open files."""
    return data.describe_levels().categories


@dataclasses.dataclass(frozen=True)
class TfdsImages(Grey):
    """Names a TFDS image data set."""

    name: Annotated[str, NAME]
    """"digits", or any TFDS image data set prepared as ArrayRecord"""
    dir: Annotated[NonEmptyStr | None, Free] = None
    """where data sets lie; by default the directory of TFDS"""
    train_split: NonEmptyStr = "train"
    """what to train on"""
    test_split: NonEmptyStr = "test"
    """what to evaluate on"""
    valid_split: Annotated[NonEmptyStr | None, Free] = dataclasses.field(default=None, kw_only=True)
    """what to evaluate on during training, if there is such a split"""
    mirror: bool = dataclasses.field(default=False, kw_only=True)
    """exchange left and right in half of the examples, anew in every epoch of the training"""

    def check_kept(self) -> None:
        if self.dir is not None:
            images.check_stored(self.name, self.dir)

    def describe_levels(self) -> Description:
        return images.describe(self.name, self.dir)

    def open_levels(self, split: str) -> Source:
        named = {"train": self.train_split, "test": self.test_split, "valid": self.valid_split}[split]
        assert named is not None
        return data.open_split(self.name, named, self.dir)

    @property
    def has_valid(self) -> bool:
        return self.valid_split is not None

    def random_map(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        drawn = super().random_map(example, rng)
        return drawn | {"x": drawn["x"][:, ::-1]} if self.mirror and rng.random() < 0.5 else drawn


@dataclasses.dataclass(frozen=True)
class Digits(TfdsImages):
    """Names scikit-learn's handwritten digits: 8 x 8, 17 grey levels, 1,500 to train and 297 to test."""

    name: Annotated[str, NAME] = "digits"
    """the name that TFDS is told"""


@dataclasses.dataclass(frozen=True)
class Idx(Grey):
    """Names a folder with the four idx files of MNIST or Fashion-MNIST, compressed or not."""

    dir: Annotated[NonEmptyStr, Free]
    """the folder"""

    def describe_levels(self) -> Description:
        x, labels = self._read("test")
        return Description((*x.shape[1:], 1), 256, int(labels.max()) + 1, "image")

    def open_levels(self, split: str) -> Source:
        x, labels = self._read(split)
        return data.ArraySource(x[..., None], labels, f"{self.dir}, {split}")

    def _read(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        start = {"train": "train", "test": "t10k"}[split]
        x, labels = (
            arrays.read_idx(self.dir, f"{start}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")
        )
        return x, labels


@dataclasses.dataclass(frozen=True)
class Arrays(Grey):
    """Names .npy files of integers [N, *S], which are read from disk as they are needed."""

    train: Annotated[NonEmptyStr, Free]
    """the file to train on"""
    test: Annotated[NonEmptyStr, Free]
    """the file to evaluate on"""
    categories: Categories
    """every number is in 0..categories - 1"""
    kind: Literal["array", "image"] = "array"
    """how samples are shown; images are [N, H, W, C]"""
    train_labels: Annotated[NonEmptyStr | None, Free] = None
    """a file of integers [N], if there are labels"""
    test_labels: Annotated[NonEmptyStr | None, Free] = None
    """the same for the test split"""
    classes: Count | None = None
    """labels are in 0..classes - 1"""
    valid: Annotated[NonEmptyStr | None, Free] = dataclasses.field(default=None, kw_only=True)
    """a file to evaluate on during training, if there is one"""
    valid_labels: Annotated[NonEmptyStr | None, Free] = dataclasses.field(default=None, kw_only=True)
    """its labels, if the others have some"""

    def check(self) -> None:
        labels = {"train_labels": self.train_labels, "test_labels": self.test_labels, "classes": self.classes}
        labels |= {} if self.valid is None else {"valid_labels": self.valid_labels}
        missing = [name for name, value in labels.items() if value is None]
        if 0 < len(missing) < len(labels):
            raise ValueError(f"data.{missing[0]} = None: labels need {', '.join(labels)} together")
        if self.valid is None and self.valid_labels is not None:
            raise ValueError(f"data.valid_labels = {self.valid_labels!r} without data.valid: name both")

    def describe_levels(self) -> Description:
        shape = data.open_npy(self.train).shape
        return Description(shape[1:], self.categories, self.classes, self.kind)

    def open_levels(self, split: str) -> Source:
        files = {"train": (self.train, self.train_labels), "test": (self.test, self.test_labels)}
        files["valid"] = (self.valid or "", self.valid_labels)
        x, labels = files[split]
        found = None if labels is None else data.open_npy(labels)
        return data.ArraySource(data.open_npy(x), found, x)

    @property
    def has_valid(self) -> bool:
        return self.valid is not None
