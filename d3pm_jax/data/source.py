"""Defines the protocol of a data source, in which examples are read by index, and sources of arrays."""

import gzip
import math
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np

from d3pm_jax.checks import AnyPath, Natural, NonEmptyStr, declared, describe
from d3pm_jax.errors import UserError, one_line

# The code of a type in the header of an idx file.
UINT8 = 0x08


class DatasetError(UserError):
    """A data set cannot be used; the message is one line that names the cause and the cure."""


@runtime_checkable
class Source(Protocol):
    """Gives random access to examples: {"x": integers [*S]}, and if any "label", "weight", "condition"."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


class FunctionSource:
    """Gives random access to examples that a function reads.

    Args:
        size: how many there are.
        read: from the number of an example, 0..size - 1, to the example.
    """

    def __init__(self, size: int, read: Callable[[int], dict[str, Any]]) -> None:
        self._numbers = range(size)
        self._read = read

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> dict[str, Any]:
        # A range refuses an index that is out of range, and counts a negative one from the end.
        return self._read(self._numbers[index])


class Part(FunctionSource):
    """Gives access to the examples start, .., stop - 1 of another source.

    Raises:
        ValueError: the other source has no such examples.
    """

    @declared()
    def __init__(self, source: Source, start: Natural, stop: Natural) -> None:
        check_source("source", source)
        if not start <= stop <= len(source):
            raise ValueError(
                f"start = {start}, stop = {stop}: the source has {len(source)} examples, and start must not "
                f"exceed stop"
            )
        super().__init__(stop - start, lambda number: source[start + number])


def check_source(name: str, source: Any) -> None:
    """Raises TypeError for what gives no examples, also if it has a length and entries, as an array has."""
    is_sequence = hasattr(source, "__len__") and hasattr(source, "__getitem__")
    has_no_examples = isinstance(source, str | bytes | Mapping | type) or hasattr(source, "dtype")
    if has_no_examples or not is_sequence:
        raise TypeError(
            f"{name} is {describe(source)}, expected a sequence of examples: wrap an array as ArraySource(x)"
        )


def check_split(split: str, splits: Collection[str]) -> None:
    """Raises DatasetError for a split that is not among those of a data set, which are two or more."""
    if split not in splits:
        *others, last = splits
        raise DatasetError(f"there is no split {split!r}: take {', '.join(others)} or {last}")


def check_example(example: Any, subject: str) -> None:
    """Raises DatasetError unless it is a dict with "x"; the subject, such as "example 3 is", begins it."""
    if not isinstance(example, Mapping):
        raise DatasetError(f'{subject} {describe(example)}: an example is a dict with "x"')
    if "x" not in example:
        raise DatasetError(
            f'{subject} a dict of {", ".join(map(repr, example)) or "nothing"}: an example is a dict with "x"'
        )


class ArraySource(FunctionSource):
    """Gives random access to x [N, *S], and to labels [N] and conditions [N, ..] if there are any.

    Nothing is copied.

    Args:
        x: integers.
        labels: integers, one for each example.
        name: of x, in messages.
        conditions: numbers, an array for each example.

    Raises:
        DatasetError: x or labels are not integers, conditions are no numbers, or there are not as many labels
            or conditions as examples.
    """

    def __init__(
        self,
        x: np.ndarray,
        labels: np.ndarray | None = None,
        name: str = "x",
        conditions: np.ndarray | None = None,
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name is {describe(name)}, expected a string")
        _check_integers(x, name)
        if x.ndim < 2:
            raise DatasetError(
                f"{name} has shape {x.shape}: examples are its rows, so it needs two axes, as x[:, None]"
            )
        if len(x) == 0:
            raise DatasetError(
                f"{name} has shape {x.shape}, so it holds no examples: pass an array with some"
            )
        if labels is not None:
            _check_integers(labels, f"the labels of {name}", "labels")
            if labels.shape != (len(x),):
                raise DatasetError(
                    f"the labels of {name} have shape {labels.shape}: pass one for each of {len(x)} examples"
                )
        if conditions is not None and not _has_dtype(conditions, np.integer, np.floating):
            raise DatasetError(
                f"the conditions of {name} are {describe(conditions)}, expected an array of numbers"
            )
        if conditions is not None and conditions.shape[:1] != (len(x),):
            raise DatasetError(
                f"the conditions of {name} have shape {conditions.shape}: pass one for each of {len(x)} "
                f"examples"
            )

        def read(number: int) -> dict[str, Any]:
            example: dict[str, Any] = {"x": x[number]}
            if labels is not None:
                example["label"] = int(labels[number])
            if conditions is not None:
                example["condition"] = conditions[number]
            return example

        super().__init__(len(x), read)


@declared()
def open_npy(path: AnyPath) -> np.ndarray:
    """Maps an .npy file into memory.

    Raises:
        DatasetError: there is no such file, or it is no .npy file.
    """
    if str(path).startswith("~/"):
        path = Path(path).expanduser()
    if not Path(path).is_file():
        raise DatasetError(f"no file {path} (from {Path.cwd()}): write it with numpy.save, or name another")
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except Exception as error:
        if zipfile.is_zipfile(path):
            raise DatasetError(
                f"{path} is an .npz, which holds arrays by name: write each by numpy.save"
            ) from error
        if "Python objects" in str(error):
            raise DatasetError(
                f"{path} holds objects of Python: make its rows equally long, and write integers by "
                f"numpy.save"
            ) from error
        if "mmap length" in str(error):
            raise DatasetError(
                f"{path} is cut off: it is shorter than its header says; copy it again, or write it again by "
                f"numpy.save"
            ) from error
        # NumPy reads a header with the parser of Python, so that a damaged one may raise anything.
        raise DatasetError(
            f"{path} cannot be read as .npy ({one_line(error)}): write it with numpy.save"
        ) from error


def find_idx(folder: AnyPath, name: str) -> Path:
    """Returns the path of an idx file, or where there is none of its compressed form, NAME.gz.

    Raises:
        DatasetError: there is neither.
    """
    path = Path(folder).expanduser() / name
    packed = path.with_name(f"{name}.gz")
    if path.is_file():
        return path
    if packed.is_file():
        return packed
    raise DatasetError(f"no file {path}, nor {packed.name}: put the four idx files of the data set there")


@declared()
def read_idx(folder: AnyPath, name: NonEmptyStr) -> np.ndarray:
    """Reads the array uint8 of an idx file, compressed (name.gz) or not.

    Raises:
        DatasetError: there is no such file, or it is damaged.
    """
    path = find_idx(folder, name)
    try:
        content = path.read_bytes()
        if path.name != name:
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{path} is damaged ({error}): download it again") from error
    if len(content) < 4 or content[:3] != bytes([0, 0, UINT8]):
        raise DatasetError(
            f"{path} is not an idx file of bytes: put the four idx files of the data set there"
        )

    # The header is four bytes, of which the last is the number of axes, and the sizes of the axes, of four
    # bytes each. In a damaged file there may be fewer sizes than axes.
    axes = content[3]
    sizes_stored = min(axes, (len(content) - 4) // 4)
    shape = tuple(np.frombuffer(content, ">u4", count=sizes_stored, offset=4).tolist())
    if len(shape) != axes or len(content) != 4 + 4 * axes + math.prod(shape):
        raise DatasetError(f"{path} is damaged, of {len(content)} bytes for shape {shape}: download it again")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _check_integers(x: Any, name: str, meaning: str = "categories") -> None:
    if not hasattr(x, "dtype"):
        raise DatasetError(f"{name} is {describe(x)}: {meaning} are an array of integers")
    if not _has_dtype(x, np.integer):
        raise DatasetError(f"{name} has dtype {x.dtype}: {meaning} are integers, convert it first")


def _has_dtype(x: Any, *wider: Any) -> bool:
    """Says whether x is an array of a case of these types."""
    if not hasattr(x, "dtype"):
        return False
    return any(jnp.issubdtype(x.dtype, dtype) for dtype in wider)
