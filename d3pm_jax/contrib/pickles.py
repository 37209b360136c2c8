"""Reads files of torch.save without PyTorch, weights only: tensors become arrays, and nothing of a file runs.

Such a file is a zip archive of a pickle and of the bytes of each storage. A pickle is a program for a machine
with a stack: it makes lists, tuples and dicts, and names functions to call. `pickle.Unpickler` cannot run one
that nobody vouches for: it hashes every key of a dict, and the hash of a tuple in tuples takes all stack or
time; it makes sets and objects. So the program is run here, which `pickletools` takes apart: the instructions
that weights are written with are known and others refused, a key is looked at before its hash, and for the
functions of a short list stand-ins build arrays and plain values.
"""

import dataclasses
import pickle
import pickletools
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from d3pm_jax.errors import one_line

MAGIC = b"PK\x03\x04"  # of a zip archive
RESAVE = "take another copy, or write it again"
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
_MAX_AXES = 32  # of an array of NumPy
# Bytes that are made of a byte of the file. A tensor that is expanded is a view, but may be copied later.
_MAX_EXPANSION = 4


class Refused(ValueError):
    """Says what a pickle holds besides weights."""


def read_torch_file(path: Path) -> Any:
    """Returns what torch.save wrote, with NumPy arrays in place of tensors.

    Args:
        path: of the file.

    Raises:
        ValueError: it is damaged, none of torch.save, or holds anything but tensors, NumPy's float64 scalars
            and plain values.
        OSError: it cannot be read.
    """
    # The error of zipfile would be taken for one of a damaged file: this OSError names the file.
    path.open("rb").close()
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.count("/") == 1]
            folders = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
            if len(folders) != 1:
                raise Refused("is a zip archive without the data.pkl of torch.save")
            return _Reader(archive, folders[0], _MAX_EXPANSION * path.stat().st_size).load()
    except Refused as error:
        raise ValueError(
            f"{path} {error}: only tensors and plain values are read; save a state dict"
        ) from None
    except Exception as error:
        # A damaged archive or pickle makes zipfile, pickletools and the reader raise errors of many classes.
        reason = one_line(f"{type(error).__name__}: {error}")
        raise ValueError(f"{path} is damaged, or not a file of torch.save ({reason}): {RESAVE}") from error


def _read_entry(archive: zipfile.ZipFile, name: str) -> bytes:
    """Returns an entry of the archive.

    torch.save compresses none, so that no file makes more than its size.
    """
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    return archive.read(name)


class _Reader:
    """Runs data.pkl of an archive, with stand-ins in place of every function and class.

    Args:
        archive: of torch.save.
        folder: in the archive, with a slash.
        max_bytes: of all tensors together.
    """

    def __init__(self, archive: zipfile.ZipFile, folder: str, max_bytes: int):
        self._archive = archive
        self._folder = folder
        self._bytes_left = max_bytes
        self._storages: dict[str, np.ndarray] = {}
        self._is_swapped = self._is_big_endian() != (sys.byteorder == "big")

        # What was made since the last mark, and what was made before each mark that is open.
        self._stack: list[Any] = []
        self._outer_stacks: list[list[Any]] = []
        # Values that the pickle refers to again, by number.
        self._memo: dict[int, Any] = {}

    def load(self) -> Any:
        """Returns what the pickle makes.

        Raises:
            Refused: it holds more than weights.
            Exception: of many classes, where it is damaged.
        """
        content = _read_entry(self._archive, f"{self._folder}data.pkl")
        for opcode, argument, _ in pickletools.genops(content):
            self._execute(opcode.name, argument)
        return self._stack.pop()

    def _execute(self, name: str, argument: Any) -> None:
        """Executes an instruction: its name and argument are those of the table in `pickletools`."""
        stack = self._stack
        match name:
            # Plain values.
            case (
                "BININT" | "BININT1" | "BININT2" | "INT" | "LONG" | "LONG1" | "LONG4" | "FLOAT" | "BINFLOAT"
                | "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8" | "UNICODE"
                | "BINSTRING" | "SHORT_BINSTRING" | "STRING"
                | "BINBYTES" | "SHORT_BINBYTES" | "BINBYTES8"
            ):  # fmt: skip
                stack.append(argument)
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(name == "NEWTRUE")

            # Values that are stored for later references.
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                self._memo[argument] = stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(self._memo[argument])

            # The stack itself.
            case "MARK":
                self._outer_stacks.append(stack)
                self._stack = []
            case "POP" if stack:
                stack.pop()
            case "POP" | "POP_MARK":
                self._pop_to_mark()
            case "DUP":
                stack.append(stack[-1])

            # Tuples, lists and dicts.
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1":
                stack[-1:] = [(stack[-1],)]
            case "TUPLE2":
                stack[-2:] = [(stack[-2], stack[-1])]
            case "TUPLE3":
                stack[-3:] = [(stack[-3], stack[-2], stack[-1])]
            case "TUPLE":
                items = self._pop_to_mark()
                self._stack.append(tuple(items))
            case "EMPTY_LIST":
                stack.append([])
            case "LIST":
                items = self._pop_to_mark()
                self._stack.append(items)
            case "APPEND":
                item = stack.pop()
                _extend_list(stack[-1], [item])
            case "APPENDS":
                items = self._pop_to_mark()
                _extend_list(self._stack[-1], items)
            case "EMPTY_DICT":
                stack.append({})
            case "DICT":
                items = self._pop_to_mark()
                self._stack.append({})
                _fill_dict(self._stack[-1], items)
            case "SETITEM":
                value = stack.pop()
                key = stack.pop()
                _fill_dict(stack[-1], [key, value])
            case "SETITEMS":
                items = self._pop_to_mark()
                _fill_dict(self._stack[-1], items)

            # Functions, and what they make.
            case "GLOBAL":
                module, function = argument.split(" ", 1)
                stack.append(self._find_stand_in(module, function))
            case "STACK_GLOBAL":
                function = stack.pop()
                module = stack.pop()
                stack.append(self._find_stand_in(module, function))
            case "REDUCE":
                arguments = stack.pop()
                stack[-1] = stack[-1](*arguments)
            case "BUILD":
                state = stack.pop()
                if not isinstance(stack[-1], _Dict | _Float64):
                    raise Refused("holds an object")
                stack[-1].set_state(state)
            case "BINPERSID":
                stack[-1] = self._load_storage(stack[-1])

            case "PROTO" if argument > pickle.HIGHEST_PROTOCOL:
                raise ValueError(f"unsupported pickle protocol: {argument}")
            case "FRAME" if argument > sys.maxsize:
                raise ValueError(f"frame size > sys.maxsize: {argument}")
            case "PROTO" | "FRAME" | "STOP":
                pass
            case _:
                # Entries of sets are hashed, and objects are of classes: weights need neither.
                raise Refused("holds a set or an object")

    def _pop_to_mark(self) -> list[Any]:
        """Returns what was made since the last mark, and takes it off the stack."""
        items = self._stack
        self._stack = self._outer_stacks.pop()
        return items

    def _find_stand_in(self, module: Any, name: Any) -> Any:
        """Returns the stand-in of a function or class.

        Args:
            module: of it; text, unless the file is made to harm.
            name: of it in the module, as `module`.

        Raises:
            ValueError: a name is no text.
            Refused: there is none.
        """
        # A name of STACK_GLOBAL may be any value. The hash of tuples in tuples takes all stack or time.
        if type(module) is not str or type(name) is not str:
            raise ValueError("a name that is no text")
        if module == "torch" and name in _STORAGES:
            return _Token(name)
        stand_in = _STAND_INS.get((module, name))
        if stand_in is None:
            raise Refused(f"holds {one_line(f'{module}.{name}')}, which is not loaded")
        if stand_in is _parameter:
            # `_rebuild_parameter` returns the tensor that it is called with, whose bytes are counted already.
            return stand_in
        return lambda *arguments: self._count_bytes(stand_in(*arguments))

    def _count_bytes(self, value: Any) -> Any:
        """Returns a value, and counts its bytes where it may be large, those of a view as if it were copied.

        Raises:
            ValueError: it is more, in all, than a file of this size has.
        """
        if isinstance(value, np.ndarray):
            self._bytes_left -= value.nbytes
        elif type(value) is bytes:
            self._bytes_left -= len(value)
        if self._bytes_left < 0:
            raise ValueError(f"its tensors are more than {_MAX_EXPANSION} times the size of the file")
        return value

    def _load_storage(self, persistent_id: Any) -> np.ndarray:
        """Returns a storage as an array of one axis."""
        kind, token, key, _, size = persistent_id
        is_storage = kind == "storage" and isinstance(token, _Token) and isinstance(key, str)
        # The message below would write out another size: that of tuples in tuples has no end.
        if not is_storage or type(size) is not int:
            raise ValueError("a tensor without a storage")
        if key not in self._storages:
            content = _read_entry(self._archive, f"{self._folder}data/{key}")
            storage = np.frombuffer(content, jnp.dtype(_STORAGES[token.name]))
            if self._is_swapped:
                storage = storage.byteswap()
            self._storages[key] = self._count_bytes(storage)
        storage = self._storages[key]
        if len(storage) != size:
            raise ValueError(f"storage {key} has {len(storage)} entries, expected {size}")
        return storage

    def _is_big_endian(self) -> bool:
        """Says whether storages are big-endian; those of a file that does not say are little-endian."""
        name = f"{self._folder}byteorder"
        return name in self._archive.namelist() and _read_entry(self._archive, name) == b"big"


def _extend_list(target: Any, items: list[Any]) -> None:
    """Puts items at the end of a list."""
    if type(target) is not list:
        raise ValueError("items of what is no list")
    target.extend(items)


def _fill_dict(target: Any, items: list[Any]) -> None:
    """Puts keys and values, one after the other, into a dict.

    A key that is a tuple is not even hashed: its hash visits all that is in it, as often as it is in it.
    """
    if not isinstance(target, dict):
        raise ValueError("entries of what is no dict")
    for key, value in zip(items[::2], items[1::2], strict=True):
        is_number = type(key) is int and abs(key) < 2**63
        if type(key) is not str and not is_number:
            raise Refused("has a dict whose keys are neither names nor numbers")
        target[key] = value


@dataclasses.dataclass(frozen=True)
class _Token:
    """Stands for the class of a storage, which has this name; it cannot be called."""

    name: str


class _Dict(dict):
    """Stands for OrderedDict; attributes, such as the _metadata of a state dict, are left out."""

    __slots__ = ()

    def set_state(self, state: Any) -> None:
        pass


class _Float64:
    """Stands for numpy.dtype("f8"), and takes the state that NumPy gives it."""

    def set_state(self, state: Any) -> None:
        if type(state) is not tuple or state[:2] != (3, "<"):
            raise Refused("holds a NumPy dtype other than float64")


def _dtype(name: Any, *flags: Any) -> _Float64:
    """Stands for numpy.dtype."""
    if not isinstance(name, str) or name != "f8":
        raise Refused("holds a NumPy dtype other than float64")
    return _Float64()


def _scalar(dtype: Any, content: Any = None) -> float:
    """Stands for the function with which NumPy writes a scalar."""
    if not isinstance(dtype, _Float64) or not isinstance(content, bytes) or len(content) != 8:
        raise Refused("holds a NumPy scalar other than float64")
    return float(np.frombuffer(content, "<f8")[0])


def _encode(text: Any, encoding: Any = None) -> bytes:
    """Stands for _codecs.encode, with which old protocols write bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise Refused("calls _codecs.encode on no bytes")
    return text.encode("latin1")


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *more: Any) -> np.ndarray:
    """Stands for torch._utils._rebuild_tensor_v2; the array is a view that cannot be written to."""
    if not isinstance(storage, np.ndarray) or storage.ndim != 1:
        raise ValueError("a tensor without a storage")
    if type(size) is not tuple or type(stride) is not tuple or not len(size) == len(stride) <= _MAX_AXES:
        raise ValueError("a tensor without a shape")
    if not all(type(n) is int and 0 <= n < 2**63 for n in (offset, *size, *stride)):
        raise ValueError("a tensor whose sizes are no whole numbers")
    if 0 in size:
        return np.zeros(size, storage.dtype)

    # as_strided checks nothing: the last entry has to lie in the storage.
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if last >= len(storage):
        raise ValueError(f"a tensor of shape {size} is larger than its storage")
    strides = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides, writeable=False)


def _size(entries: Any) -> tuple[Any, ...]:
    """Stands for torch.Size."""
    if type(entries) is not tuple:
        raise ValueError("a shape that is no tuple")
    return entries


def _parameter(data: Any, *more: Any) -> Any:
    """Stands for torch._utils._rebuild_parameter."""
    return data


_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): lambda: _Dict(),
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "Size"): _size,
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
}
