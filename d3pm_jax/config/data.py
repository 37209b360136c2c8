"""Describes the data sets of a config."""

import dataclasses
import functools
import hashlib
import itertools
import json
import math
import os
import zipfile
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

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
    check_value,
    undefined_method,
)
from d3pm_jax.data import (
    ArraySource,
    DatasetError,
    Description,
    Source,
    images,
    open_npy,
    open_split,
    tokenizers,
)
from d3pm_jax.data.binarize import Binarize, BinarySource, draw_binary
from d3pm_jax.data.digests import hash_array, hash_file, join_hashes
from d3pm_jax.data.prepared import Corpus, prepare_corpus
from d3pm_jax.data.source import check_source, check_split, find_idx, read_idx
from d3pm_jax.data.windows import Overlapping, Padded, Windows, random_window
from d3pm_jax.errors import UserError, locate_statement, wrong_return

NAME = Allowed("such as mnist, emnist/letters or emnist/letters:3.1.0", images.is_name)
# The shares of train, valid and test in a text that comes in one piece.
SHARES = (0.9, 0.05, 0.05)
BUNDLED = Path(__file__).parents[1] / "data" / "shakespeare.txt.xz"
# The size of text8, and of enwik8, in bytes.
STANDARD = 10**8


@dataclasses.dataclass(frozen=True)
class Data(CheckedPart):
    """Describes a data set; a class of your own defines `describe`, `open` and, if it likes, `random_map`."""

    places: ClassVar[tuple[str, ...]] = FreeFields()  # pyright: ignore[reportAssignmentType]
    """fields that say where the data lies, not what it is: they may change when a run is resumed"""
    other_splits: ClassVar[tuple[str, ...]] = ()
    """names of splits that `open` knows besides "train", "test" and "valid", for `Run.read_batch`"""
    keep_examples: ClassVar[bool] = True
    """keep test examples in the folder of a run, which reports show beside samples"""

    def check_kept(self) -> None:
        """Raises UserError where reading the data would write files or import packages.

        It is called where the fields come from the folder of a run, which may be anybody's.
        """

    def describe(self) -> Description:
        """Describes the examples, if possible without opening the data."""
        raise undefined_method(self, "describe")

    def open(self, split: str) -> Source:
        """Opens the split "train" or "test", or "valid" where `has_valid` is True.

        Returns:
            Examples {"x": integers [*S], ..} by number, and how many there are. Those of "valid" are for
            evaluation during training.
        """
        raise undefined_method(self, "open")

    def own_kind(self) -> type[Any] | None:
        """Returns the class of a kind of your own, where `describe` names one: see `d3pm_jax.kinds.Kind`."""
        return None

    @property
    def has_valid(self) -> bool:
        """Says whether there is a split "valid"."""
        return False

    def open_training(self) -> Source:
        """Opens the examples that `random_map` changes: the split "train", or a form of it for training."""
        return self.open("train")

    def random_map(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Changes a training example at random; the state of rng depends on (seed, step, index) alone."""
        return example


# These are no methods of `Data`, so that a class of a user's own may have methods of these names.
@functools.singledispatch
def list_data_paths(data: Data) -> dict[str, str]:
    """Returns the paths of files and folders among the `places` of data, by the names of their fields."""
    values = {name: getattr(data, name, None) for name in data.places}
    return {name: value for name, value in values.items() if isinstance(value, str)}


@functools.singledispatch
def hash_split(data: Data, split: str) -> str | None:
    """Returns a hash of the examples of a split; None where it is not known without reading them all."""
    return None


def check_split_of(data: Data, split: str) -> None:
    """Raises DatasetError for a split that a data set does not have."""
    splits = ["train", "test", *data.other_splits]
    if data.has_valid:
        splits.insert(1, "valid")
    check_split(split, splits)


def describe_data(data: Data) -> Description:
    """Returns the description of a data set, and checks that it is one.

    Raises:
        UserError: `describe` returns something else, or the data cannot be read.
    """
    try:
        description = data.describe()
    except DatasetError as error:
        raise DatasetError(say_where_it_lies(data, str(error), begins=True)) from error
    if not isinstance(description, Description):
        place = locate_statement(data.describe, "return")
        kind = type(description).__name__
        raise UserError(f"{place}: describe returns {kind}: return Description(shape, categories)")
    return description


def open_examples(data: Data, split: str) -> Source:
    """Opens a split of a data set, and checks that it is a sequence of examples.

    Raises:
        UserError: `open` returns something else, or the data cannot be read.
    """
    case = "" if split == "train" else f" for {split!r}"
    return _check_opened(data.open, data.open(split), case)


def open_training_examples(data: Data) -> Source:
    """Opens the examples of a data set that are trained on; see `open_examples`."""
    if type(data).open_training is Data.open_training:
        return open_examples(data, "train")
    return _check_opened(data.open_training, data.open_training())


def _check_opened(method: Callable[..., Any], source: Any, case: str = "") -> Any:
    """Returns what a method that opens a split returned, if that can be a sequence of examples."""
    try:
        check_source("source", source)
    except TypeError as error:
        raise wrong_return(method, source, "examples, as ArraySource(x)", case) from error
    # A pair of arrays, x and labels, has a length and entries too.
    if isinstance(source, tuple) and len(source) > 0 and not isinstance(source[0], Mapping):
        raise wrong_return(method, source, "examples, as ArraySource(x, labels)", case)
    return source


def describe_with_digest(data: Data) -> Description:
    """Returns the description of a data set with the hashes of its splits, for which all of it is read.

    Raises:
        UserError: as `describe_data`.
    """
    description = describe_data(data)
    splits = ["train", "test"]
    if data.has_valid:
        splits.append("valid")
    hash_by_split = {split: hash_split(data, split) for split in splits}
    known_hashes = {split: value for split, value in hash_by_split.items() if value is not None}
    if not known_hashes:
        return description
    return dataclasses.replace(description, digest=join_hashes(known_hashes))


@dataclasses.dataclass(frozen=True)
class Grey(Data):
    """Base of data of ordered levels; a class defines `describe_levels` and `open_levels`."""

    binarize: Binarize | None = dataclasses.field(default=None, kw_only=True)
    """make x 0 or 1: "threshold": 1 above half of the highest level; "dynamic": 1 with probability
    level / highest, drawn anew in every epoch of training and from a fixed seed in evaluation"""

    def describe(self) -> Description:
        description = self.describe_levels()
        if self.binarize is None:
            return description
        return dataclasses.replace(description, categories=2)

    def open(self, split: str) -> Source:
        source = self.open_levels(split)
        if self.binarize is None:
            return source
        return BinarySource(source, _count_levels(self), self.binarize, split)

    def open_training(self) -> Source:
        # `random_map` draws from the levels, so that every epoch has a draw of its own.
        if self.binarize == "dynamic":
            return self.open_levels("train")
        return self.open("train")

    def random_map(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        if self.binarize == "dynamic":
            return draw_binary(example, _count_levels(self), rng)
        return example

    def describe_levels(self) -> Description:
        """Says what examples are before x is made binary, if possible without opening the data."""
        raise undefined_method(self, "describe_levels")

    def open_levels(self, split: str) -> Source:
        """Opens a split as `open` does, with x before it is made binary."""
        raise undefined_method(self, "open_levels")


def move_data(data: Data, folder: str) -> Data:
    """Returns data that lies in a folder now: its field `dir`, or its files and folders that are there.

    A file is looked for by the longest end of its path that is in the folder: `old/train/x.npy` as
    `train/x.npy` before `x.npy`. What is not there stays where it was.

    Raises:
        UserError: the data has no field that says where it lies, nothing of it is in the folder, or two files
            would be one.
    """
    if "dir" in data.places:
        return dataclasses.replace(data, dir=folder)  # pyright: ignore[reportCallIssue]
    paths = list_data_paths(data)
    if not paths:
        raise UserError(
            f"--data.dir {folder}: the data of this run has no folder; leave it out (in Python data_dir)"
        )
    ends = {name: _find_end(path, Path(folder).expanduser()) for name, path in paths.items()}
    moved = {name: str(end) for name, end in ends.items() if end is not None}
    if not moved:
        file_names = ", ".join(dict.fromkeys(Path(path).name for path in paths.values()))
        raise UserError(
            f"--data.dir {folder}: it holds no {file_names}; name the folder where they lie (in Python by "
            f"data_dir)"
        )
    for (name, path), (other, other_path) in itertools.combinations(moved.items(), 2):
        if path == other_path and paths[name] != paths[other]:
            raise UserError(
                f"--data.dir {folder}: {paths[name]} ({name}) and {paths[other]} ({other}) would both be "
                f"{path}; name the folder in which they lie apart (in Python by data_dir)"
            )
    return dataclasses.replace(data, **moved)


def _find_end(path: str, folder: Path) -> Path | None:
    """Returns the longest end of a path that is in a folder; None where not even its name is."""
    names = [name for name in Path(path).parts if name not in (Path(path).anchor, "..")]
    for start in range(len(names)):
        candidate = folder.joinpath(*names[start:])
        if candidate.exists():
            return candidate
    return None


def say_where_it_lies(data: Data, message: str, begins: bool = False) -> str:
    """Returns the message of data that a run cannot read, with how to say where it lies.

    Args:
        data: that cannot be read.
        message: of the error.
        begins: whether the run begins, so that its data may be still to be written.
    """
    paths = list(list_data_paths(data).values())
    missing_paths = [path for path in paths if not os.path.exists(Path(path).expanduser())]
    place = ""
    if message.startswith("no file") and missing_paths:
        place = next((path for path in missing_paths if path in message), missing_paths[0])
    is_relative = "://" not in place and not Path(place).expanduser().is_absolute()

    if place and not begins:
        if is_relative:
            place = f"{place} (from {Path.cwd()})"
        return f"no file or folder {place}: --data.dir DIR says where the data lies now"
    if "--data.dir" in message or not paths:
        return message
    if not begins:
        return f"{message}; --data.dir DIR says where the data lies now"
    if not place or not is_relative or "dir" in data.places:
        return message
    tried = f"from {Path.cwd()}, nor from the folder of a config file that names it"
    return f"no file {place} ({tried}): write it, or say by --data.dir DIR where it lies"


def _hash_parts(*parts: str | None) -> str:
    """Hashes the hashes of x, labels and conditions, of which None stands for what examples do not have."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@functools.cache
def _count_levels(data: Grey) -> int:
    """Returns the number of grey levels; the cache is there because a description may open files."""
    return data.describe_levels().categories


@dataclasses.dataclass(frozen=True)
class TfdsImages(Grey):
    """Names a TFDS image data set."""

    name: Annotated[str, NAME]
    """"digits", or any TFDS image data set prepared as ArrayRecord"""
    dir: Annotated[NonEmptyStr | None, Free] = None
    """the folder of the data sets; None: that of TFDS"""
    train_split: NonEmptyStr = "train"
    """the split to train on"""
    test_split: NonEmptyStr = "test"
    """the split to evaluate on"""
    valid_split: Annotated[NonEmptyStr | None, Free] = dataclasses.field(default=None, kw_only=True)
    """the split to evaluate on during training, if there is one"""
    mirror: bool = dataclasses.field(default=False, kw_only=True)
    """swap left and right in half of the training examples, chosen anew in every epoch"""

    def check_kept(self) -> None:
        if self.dir is not None:
            images.check_stored(self.name, self.dir)

    def describe_levels(self) -> Description:
        return images.describe_data_set(self.name, self.dir)

    def open_levels(self, split: str) -> Source:
        check_split_of(self, split)
        tfds_split = {"train": self.train_split, "test": self.test_split, "valid": self.valid_split}[split]
        assert tfds_split is not None
        return open_split(self.name, tfds_split, self.dir)

    @property
    def has_valid(self) -> bool:
        return self.valid_split is not None

    def random_map(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        example = super().random_map(example, rng)
        if self.mirror and rng.random() < 0.5:
            return example | {"x": example["x"][:, ::-1]}  # [H, W, C]
        return example


@list_data_paths.register(TfdsImages)
def _list_tfds_paths(data: TfdsImages) -> dict[str, str]:
    # A `valid_split` may change too, and is no path.
    return {} if data.dir is None else {"dir": data.dir}


@dataclasses.dataclass(frozen=True)
class Digits(TfdsImages):
    """Names scikit-learn's handwritten digits: 8 x 8, 17 grey levels, 1,500 to train and 297 to test."""

    name: Annotated[str, NAME] = "digits"
    """the name of the data set in TFDS"""


@dataclasses.dataclass(frozen=True)
class Idx(Grey):
    """Names a folder with the four idx files of MNIST or Fashion-MNIST, compressed or not."""

    dir: Annotated[NonEmptyStr, Free]
    """the folder of the files"""

    def describe_levels(self) -> Description:
        x, labels = self._read("test")
        return Description((*x.shape[1:], 1), 256, int(labels.max()) + 1, "image")

    def open_levels(self, split: str) -> Source:
        check_split_of(self, split)
        x, labels = self._read(split)
        return ArraySource(x[..., None], labels, f"{self.dir}, {split}")

    def _read(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        images, labels = self._names(split)
        x, y = read_idx(self.dir, images), read_idx(self.dir, labels)  # [N, H, W], [N]
        if not len(x):
            raise DatasetError(f"{images} in {self.dir} has no examples: copy the files again")
        return x, y

    def _names(self, split: str) -> tuple[str, str]:
        """Returns the names of the files of images and of labels."""
        prefix = {"train": "train", "test": "t10k"}[split]
        return f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"


@hash_split.register(Idx)
def _hash_idx_split(data: Idx, split: str) -> str:
    def hash_idx(name: str) -> str:
        return hash_file(
            find_idx(data.dir, name), "idx", lambda: hash_array(read_idx(data.dir, name), "uint8")
        )

    images, labels = data._names(split)
    return _hash_parts(hash_idx(images), hash_idx(labels))


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
    train_conditions: Annotated[NonEmptyStr | None, Free] = dataclasses.field(default=None, kw_only=True)
    """a file of floats or integers [N, *C], a condition for each example, if there are conditions"""
    test_conditions: Annotated[NonEmptyStr | None, Free] = dataclasses.field(default=None, kw_only=True)
    """the same for the test split"""
    valid_conditions: Annotated[NonEmptyStr | None, Free] = dataclasses.field(default=None, kw_only=True)
    """its conditions, if the others have some"""
    sizes: tuple[Categories, ...] | None = dataclasses.field(default=None, kw_only=True)
    """where places have categories of their own, how many each has, row by row: place i is in
    0..sizes[i] - 1, and the largest of them is `categories`"""

    def check(self) -> None:
        if self.sizes is not None and self.binarize is not None:
            raise ValueError("data.sizes with data.binarize, which makes every size 2: leave one of them out")
        needed = {
            "labels": ["train_labels", "test_labels", "classes"],
            "conditions": ["train_conditions", "test_conditions"],
        }
        for subject, names in needed.items():
            name_of_valid = f"valid_{subject}"
            if self.valid is not None:
                names.append(name_of_valid)
            missing = [name for name in names if getattr(self, name) is None]
            if 0 < len(missing) < len(names):
                raise ValueError(f"data.{missing[0]} = None: {subject} need all of {', '.join(names)}")
            valid = getattr(self, name_of_valid)
            if self.valid is None and valid is not None:
                raise ValueError(f"data.{name_of_valid} = {valid!r} without data.valid: name both")

    def describe_levels(self) -> Description:
        shape = open_npy(self.train).shape
        if len(shape) < 2:
            # A description of no axes would be refused, and name no file.
            self.open_levels("train")
        sizes = None if self.sizes is None else self._nest_sizes(shape[1:])
        description = Description(shape[1:], self.categories, self.classes, self.kind, sizes=sizes)
        if self.train_conditions is None:
            return description
        shape, condition_type = _describe_conditions(self.train_conditions)
        return dataclasses.replace(description, condition=shape, condition_type=condition_type)

    def _nest_sizes(self, shape: tuple[int, ...]) -> tuple:
        """Returns the sizes of places as those of a description, nested as the shape of an example."""
        sizes = np.array(self.sizes)
        if sizes.size != math.prod(shape):
            raise DatasetError(
                f"data.sizes has {sizes.size} numbers, but examples of {self.train} have shape {shape}: pass "
                f"one for each of {math.prod(shape)} places"
            )
        return check_value("data.sizes", sizes.reshape(shape), tuple)

    def _files(self, split: str) -> tuple[str, str | None, str | None]:
        """Returns the files of a split: x, labels and conditions."""
        return {
            "train": (self.train, self.train_labels, self.train_conditions),
            "test": (self.test, self.test_labels, self.test_conditions),
            "valid": (self.valid or "", self.valid_labels, self.valid_conditions),
        }[split]

    def open_levels(self, split: str) -> Source:
        check_split_of(self, split)
        x_file, labels_file, conditions_file = self._files(split)
        x = open_npy(x_file)
        conditions = None if conditions_file is None else open_npy(conditions_file)
        source = ArraySource(x, None, x_file, conditions)
        if labels_file is None:
            return source
        labels = open_npy(labels_file)
        name = f"data.{split}_labels {labels_file}"
        if not np.issubdtype(labels.dtype, np.integer):
            raise DatasetError(f"{name} has dtype {labels.dtype}: labels are integers, as by y.astype(int)")
        if labels.shape != (len(x),):
            raise DatasetError(
                f"{name} has shape {labels.shape}, but {x_file} has {x.shape}: write labels of shape "
                f"{(len(x),)}, one for each example"
            )
        return ArraySource(x, labels, x_file, conditions)

    @property
    def has_valid(self) -> bool:
        return self.valid is not None


@hash_split.register(Arrays)
def _hash_arrays_split(data: Arrays, split: str) -> str:
    x_file, labels_file, conditions_file = data._files(split)
    # Numbers are hashed in the smallest type that holds those that are allowed, however they are stored.
    x_hash = _hash_npy(x_file, np.min_scalar_type(data.categories - 1).name)
    labels_hash = None if labels_file is None else _hash_npy(labels_file, "int32")
    conditions_hash = None
    if conditions_file is not None:
        _, condition_type = _describe_conditions(conditions_file)
        conditions_hash = _hash_npy(conditions_file, condition_type)
    return _hash_parts(x_hash, labels_hash, conditions_hash)


def _hash_npy(file: str, dtype: str) -> str:
    """Hashes the numbers of an .npy file in a type."""
    # A missing file, or one that is no array, is an error of `open_npy`, which names the cure.
    open_npy(file)
    return hash_file(Path(file), f"npy as {dtype}", lambda: hash_array(open_npy(file), dtype))


def _describe_conditions(path: str) -> tuple[tuple[int, ...], Literal["float32", "int32"]]:
    """Returns the shape and the type of one condition of a file of conditions [N, *C].

    Raises:
        DatasetError: they are no numbers, or there are no axes *C.
    """
    conditions = open_npy(path)
    if conditions.ndim < 2:
        raise DatasetError(
            f"{path} has shape {conditions.shape}: conditions are its rows, so it needs two axes, as [N, 1]"
        )
    shape = conditions.shape[1:]
    if np.issubdtype(conditions.dtype, np.floating):
        return shape, "float32"
    if np.issubdtype(conditions.dtype, np.integer):
        return shape, "int32"
    raise DatasetError(
        f"{path} has dtype {conditions.dtype}: conditions are floats or integers, convert them first"
    )


@dataclasses.dataclass(frozen=True)
class Tokens(Data):
    """Base of data that is text; a class defines `corpus`."""

    length: Size = dataclasses.field(default=256, kw_only=True)
    """tokens per example"""
    packing: Literal["wrapped", "padded"] = dataclasses.field(default="wrapped", kw_only=True)
    """"wrapped": windows of the text, which in training begin at random places, anew in each epoch; "padded":
    one line per example, without empty lines; longer lines are cut, shorter ones padded with weight 0"""

    def corpus(self) -> Corpus:
        """Says which text it is, and how it becomes tokens."""
        raise undefined_method(self, "corpus")

    @property
    def has_valid(self) -> bool:
        return True

    def describe(self) -> Description:
        prepared = prepare_corpus(self.corpus())
        K = len(prepared.symbols)
        if K < 2:
            raise DatasetError(
                f"the tokens of the text have {K} categories: take a text or a data.tokenizer with 2 or more"
            )
        return Description(
            shape=(self.length,),
            categories=K,
            kind="text",
            symbols=prepared.symbols,
            padded=self.packing == "padded",
            digest=prepared.digest,
        )

    def open(self, split: str) -> Source:
        tokens = prepare_corpus(self.corpus()).open(split)
        if self.packing == "padded":
            assert tokens.ends is not None
            source = Padded(tokens.x, tokens.ends, self.length)
        else:
            source = Windows(tokens.x, self.length)
        self._check_not_empty(source, split, len(tokens.x))
        return source

    def open_training(self) -> Source:
        if self.packing == "padded":
            return self.open("train")
        tokens = prepare_corpus(self.corpus()).open("train")
        source = Overlapping(tokens.x, self.length)
        self._check_not_empty(source, "train", len(tokens.x))
        return source

    def random_map(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        if self.packing == "padded":
            return example
        return random_window(example, self.length, rng)

    def _check_not_empty(self, source: Source, split: str, tokens: int) -> None:
        """Raises DatasetError where so many tokens of a split make no example."""
        if not len(source):
            least = "a line" if self.packing == "padded" else f"data.length = {self.length}"
            raise DatasetError(
                f"the {split} split has {tokens} tokens, less than {least}: take a longer text, or a smaller "
                f"length"
            )


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
    """which shares of a single text, in characters, become train, valid and test"""
    tokenizer: Annotated[NonEmptyStr, Free] = "characters"
    """"characters": all that occur in the splits, in their order; "letters27": space and a-z; "bytes"; or a
    file of the tokenizers library, applied to each line on its own"""

    def check(self) -> None:
        # In fractions of their decimals, 0.7, 0.2 and 0.1 sum to 1; in float64 they do not.
        total = sum(Fraction(str(share)) for share in self.split)
        if total != 1 or not (self.split[0] and self.split[2]):
            raise ValueError(
                f"data.split = {self.split}: the shares of train, valid and test must sum to 1, and "
                "those of train and test must be above 0"
            )
        if self.test is None and self.valid is not None:
            raise ValueError(f"data.valid = {self.valid!r} without data.test: name both, or leave it out")
        if self.test is not None and self.split != SHARES:
            raise ValueError(
                f"data.split = {self.split} with data.test: a split cuts a single text, so leave one of "
                "them out"
            )

    def corpus(self) -> Corpus:
        one_document_per_line = self.packing == "padded"
        if self.test is None:
            return Corpus(
                paths=(("all", self.train),),
                shares=self.split,
                tokenizer=self.tokenizer,
                documents=one_document_per_line,
            )
        path_by_split = {"train": self.train, "valid": self.valid, "test": self.test}
        paths = tuple((split, path) for split, path in path_by_split.items() if path is not None)
        return Corpus(paths=paths, shares=None, tokenizer=self.tokenizer, documents=one_document_per_line)

    @property
    def has_valid(self) -> bool:
        if self.test is not None:
            return self.valid is not None
        return self.split[1] > 0


@list_data_paths.register(Text)
def _list_text_paths(data: Text) -> dict[str, str]:
    files = {"train": data.train, "test": data.test, "valid": data.valid}
    if data.tokenizer not in tokenizers.NAMES:
        files["tokenizer"] = data.tokenizer
    return {name: path for name, path in files.items() if path is not None}


@dataclasses.dataclass(frozen=True)
class Shakespeare(Tokens):
    """Names the eight plays that come with the library, by characters, cut as `Text` does.

    Antony and Cleopatra, Coriolanus, Henry V, Julius Caesar, Macbeth, Measure for Measure, Othello and Timon
    of Athens; d3pm_jax/data/shakespeare.md says where they are from.
    """

    def corpus(self) -> Corpus:
        return Corpus(
            paths=(("all", str(BUNDLED)),),
            shares=SHARES,
            tokenizer="characters",
            documents=self.packing == "padded",
        )


@dataclasses.dataclass(frozen=True)
class Text8(Tokens):
    """Names the folder with text8, zipped or not: 27 letters, the first 90M to train, 5M valid, 5M test."""

    dir: Annotated[NonEmptyStr, Free]
    """the folder of the file"""

    def corpus(self) -> Corpus:
        return Corpus(
            paths=(("all", find_standard_file(self.dir, "text8", STANDARD)),),
            shares=SHARES,
            tokenizer="letters27",
            documents=self.packing == "padded",
        )


@dataclasses.dataclass(frozen=True)
class Enwik8(Tokens):
    """Names the folder with enwik8, zipped or not: bytes, the first 90M to train, 5M valid, 5M test."""

    dir: Annotated[NonEmptyStr, Free]
    """the folder of the file"""

    def corpus(self) -> Corpus:
        return Corpus(
            paths=(("all", find_standard_file(self.dir, "enwik8", STANDARD)),),
            shares=SHARES,
            tokenizer="bytes",
            documents=self.packing == "padded",
            encoding="latin-1",
        )


def find_standard_file(folder: str, name: str, size: int) -> str:
    """Returns the path of NAME or NAME.zip in a folder.

    Raises:
        DatasetError: there is neither, or it has another size.
    """
    path = Path(folder).expanduser() / name
    packed = path.with_name(f"{name}.zip")
    cure = f"download mattmahoney.net/dc/{name}.zip to this folder; it unpacks to {size:,} bytes"
    if not (path.is_file() or packed.is_file()):
        raise DatasetError(f"no file {path}, nor {packed.name}: {cure}")
    try:
        if path.is_file():
            existing = path
            num_bytes = path.stat().st_size
        else:
            existing = packed
            num_bytes = zipfile.ZipFile(packed).getinfo(name).file_size
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise DatasetError(f"{packed} is damaged: {cure}") from error
    if num_bytes != size:
        raise DatasetError(f"{existing} has {num_bytes:,} bytes, expected {size:,}: {cure}")
    return str(existing)
