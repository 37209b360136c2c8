"""Describes texts as data."""

import dataclasses
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from d3pm_jax import data
from d3pm_jax.config.checks import Free, NonEmptyStr, Probability, Size, undefined
from d3pm_jax.config.data import Data
from d3pm_jax.data import DatasetError, Description, Source
from d3pm_jax.data.prepared import Corpus, Prepared, prepare
from d3pm_jax.data.windows import Overlapping, Padded, Wrapped, random_window

SHARES = (0.9, 0.05, 0.05)
BUNDLED = Path(data.__file__).with_name("shakespeare.txt.xz")
STANDARD = 10**8  # bytes of text8 and of enwik8


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
        raise undefined(self, "corpus")

    @property
    def has_valid(self) -> bool:
        return True

    def describe(self) -> Description:
        found, padded = self._prepared(), self.packing == "padded"
        K = len(found.symbols)
        if K < 2:
            raise DatasetError(
                f"the tokens of the text have {K} categories: take a text or a data.tokenizer with 2 or more"
            )
        return Description((self.length,), K, None, "text", found.symbols, padded, found.digest)

    def open(self, split: str) -> Source:
        tokens = self._prepared().open(split)
        if self.packing == "padded":
            assert tokens.ends is not None
            return self._not_empty(Padded(tokens.x, tokens.ends, self.length), split, len(tokens.x))
        return self._not_empty(Wrapped(tokens.x, self.length), split, len(tokens.x))

    def open_training(self) -> Source:
        if self.packing == "padded":
            return self.open("train")
        tokens = self._prepared().open("train")
        return self._not_empty(Overlapping(tokens.x, self.length), "train", len(tokens.x))

    def random_map(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        return example if self.packing == "padded" else random_window(example, self.length, rng)

    def _prepared(self) -> Prepared:
        return prepare(self.corpus())

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
