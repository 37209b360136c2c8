"""Describes the data sets of a config."""

import dataclasses
import functools
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np

from d3pm_jax import data
from d3pm_jax.config.checks import (
    Allowed,
    Categories,
    CheckedPart,
    Count,
    Free,
    FreeFields,
    NonEmptyStr,
    Probability,
    Size,
    undefined_method,
)
from d3pm_jax.data import DatasetError, Description, Source, images
from d3pm_jax.data.binarize import Binarize, BinarySource, draw_binary
from d3pm_jax.data.prepared import Corpus, prepare_corpus
from d3pm_jax.data.source import read_idx
from d3pm_jax.data.windows import Overlapping, Padded, Wrapped, random_window

if TYPE_CHECKING:
    from d3pm_jax.kinds import Kind

NAME = Allowed("such as mnist, emnist/letters or emnist/letters:3.1.0", images.is_name)
SHARES = (0.9, 0.05, 0.05)
BUNDLED = Path(data.__file__).with_name("shakespeare.txt.xz")
STANDARD = 10**8  # bytes of text8 and of enwik8


@dataclasses.dataclass(frozen=True)
class Data(CheckedPart):
    """Describes a data set; one of your own defines `describe` and `open`, and `random_map` if it likes."""

    places: ClassVar[tuple[str, ...]] = FreeFields()  # pyright: ignore[reportAssignmentType]
    """fields that say where the data lies, not what it is: they may change when a run is resumed"""

    def check_kept(self) -> None:
        """Raises UserError where reading the data would write or import; of fields from a run's folder."""

    def describe(self) -> Description:
        """Says what examples are, if possible without opening the data."""
        raise undefined_method(self, "describe")

    def open(self, split: str) -> Source:
        """Opens the split "train" or "test": len(source), and source[i] = {"x": integers [*S], ..}.

        And "valid", to evaluate on during training, where `has_valid` says so.
        """
        raise undefined_method(self, "open")

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
        return draw_binary(example, _levels(self), rng) if self.binarize == "dynamic" else example

    def describe_levels(self) -> Description:
        """Does what `describe` does, of x before it is made binary."""
        raise undefined_method(self, "describe_levels")

    def open_levels(self, split: str) -> Source:
        """Does what `open` does, of x before it is made binary."""
        raise undefined_method(self, "open_levels")


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
        return images.describe_data_set(self.name, self.dir)

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
        x, labels = (read_idx(self.dir, f"{start}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
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


@dataclasses.dataclass(frozen=True)
class Tokens(Data):
    """Holds what texts share. A class defines `corpus`."""

    length: Size = dataclasses.field(default=256, kw_only=True)
    """tokens of an example"""
    packing: Literal["wrapped", "padded"] = dataclasses.field(default="wrapped", kw_only=True)
    """"wrapped": windows of the text, in training from a random place anew in each epoch; "padded": each line
    that is not empty, cut where it is longer, with weight 0 on the padding where it is shorter"""

    def corpus(self) -> Corpus:
        """Says which text it is, and how it becomes tokens."""
        raise undefined_method(self, "corpus")

    @property
    def has_valid(self) -> bool:
        return True

    def describe(self) -> Description:
        found = prepare_corpus(self.corpus())
        K = len(found.symbols)
        if K < 2:
            raise DatasetError(
                f"the tokens of the text have {K} categories: take a text or a data.tokenizer with 2 or more"
            )
        padded = self.packing == "padded"
        return Description((self.length,), K, None, "text", found.symbols, padded, found.digest)

    def open(self, split: str) -> Source:
        tokens = prepare_corpus(self.corpus()).open(split)
        if self.packing == "padded":
            assert tokens.ends is not None
            return self._not_empty(Padded(tokens.x, tokens.ends, self.length), split, len(tokens.x))
        return self._not_empty(Wrapped(tokens.x, self.length), split, len(tokens.x))

    def open_training(self) -> Source:
        if self.packing == "padded":
            return self.open("train")
        tokens = prepare_corpus(self.corpus()).open("train")
        return self._not_empty(Overlapping(tokens.x, self.length), "train", len(tokens.x))

    def random_map(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        return example if self.packing == "padded" else random_window(example, self.length, rng)

    def _not_empty(self, source: Source, split: str, tokens: int) -> Source:
        if not len(source):
            least = "a line" if self.packing == "padded" else f"data.length = {self.length}"
            raise DatasetError(
                f"the {split} split has {tokens} tokens, less than {least}: take a longer text, or a smaller "
                f"length"
            )
        return source


@dataclasses.dataclass(frozen=True)
class Text(Tokens):
    """Names texts in UTF-8: files, or folders, whose *.txt are joined by name with a line break between."""

    train: Annotated[NonEmptyStr, Free]
    """the text to train on; without `test` it is cut into train, valid and test, in this order"""
    test: Annotated[NonEmptyStr | None, Free] = None
    """the text to evaluate on"""
    valid: Annotated[NonEmptyStr | None, Free] = None
    """a text to evaluate on during training, beside a `test`"""
    split: tuple[Probability, Probability, Probability] = SHARES
    """shares of train, valid and test in the characters of the one text, which is cut where they end"""
    tokenizer: Annotated[NonEmptyStr, Free] = "characters"
    """"characters": all that occur in the splits, in their order; "letters27": space and a-z; "bytes"; or a
    file of the tokenizers library, applied to each line on its own"""

    def check(self) -> None:
        if sum(Fraction(str(share)) for share in self.split) != 1 or not (self.split[0] and self.split[2]):
            raise ValueError(
                f"data.split = {self.split}: train, valid and test are shares that sum to 1, and train and "
                f"test not 0"
            )
        if self.test is None and self.valid is not None:
            raise ValueError(f"data.valid = {self.valid!r} without data.test: name both, or leave it out")
        if self.test is not None and self.split != SHARES:
            raise ValueError(f"data.split = {self.split} with data.test: nothing is cut then, leave one out")

    def corpus(self) -> Corpus:
        documents = self.packing == "padded"
        if self.test is None:
            return Corpus((("all", self.train),), self.split, self.tokenizer, documents)
        named = {"train": self.train, "valid": self.valid, "test": self.test}
        paths = tuple((split, path) for split, path in named.items() if path is not None)
        return Corpus(paths, None, self.tokenizer, documents)

    @property
    def has_valid(self) -> bool:
        return self.valid is not None if self.test is not None else self.split[1] > 0


@dataclasses.dataclass(frozen=True)
class Shakespeare(Tokens):
    """Names the eight plays that come with the library, by characters, cut as `Text` does.

    Antony and Cleopatra, Coriolanus, Henry V, Julius Caesar, Macbeth, Measure for Measure, Othello and Timon
    of Athens; d3pm_jax/data/shakespeare.md says where they are from.
    """

    def corpus(self) -> Corpus:
        return Corpus((("all", str(BUNDLED)),), SHARES, "characters", self.packing == "padded")


@dataclasses.dataclass(frozen=True)
class Text8(Tokens):
    """Names the folder with text8, zipped or not: 27 letters, the first 90M to train, 5M valid, 5M test."""

    dir: Annotated[NonEmptyStr, Free]
    """the folder"""

    def corpus(self) -> Corpus:
        path = standard_file(self.dir, "text8", STANDARD)
        return Corpus((("all", path),), SHARES, "letters27", self.packing == "padded")


@dataclasses.dataclass(frozen=True)
class Enwik8(Tokens):
    """Names the folder with enwik8, zipped or not: bytes, the first 90M to train, 5M valid, 5M test."""

    dir: Annotated[NonEmptyStr, Free]
    """the folder"""

    def corpus(self) -> Corpus:
        path = standard_file(self.dir, "enwik8", STANDARD)
        return Corpus((("all", path),), SHARES, "bytes", self.packing == "padded", "latin-1")


def standard_file(folder: str, name: str, size: int) -> str:
    """Returns the path of NAME or NAME.zip in a folder.

    Raises:
        DatasetError: there is neither, or it has another size.
    """
    path = Path(folder).expanduser() / name
    packed = path.with_name(f"{name}.zip")
    cure = f"download mattmahoney.net/dc/{name}.zip there, with {size:,} bytes in it"
    if not (path.is_file() or packed.is_file()):
        raise DatasetError(f"no file {path}, nor {packed.name}: {cure}")
    found = path if path.is_file() else packed
    try:
        has = path.stat().st_size if found == path else zipfile.ZipFile(packed).getinfo(name).file_size
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise DatasetError(f"{packed} is damaged: {cure}") from error
    if has != size:
        raise DatasetError(f"{found} has {has:,} bytes, expected {size:,}: {cure}")
    return str(found)
