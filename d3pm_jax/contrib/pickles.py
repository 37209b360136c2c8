"""Reads files of torch.save without PyTorch, weights only: tensors become arrays, and nothing of a file runs.

Such a file is a zip archive of a pickle and of the bytes of each storage. A pickle names functions to call: a
name that is not in a short list is refused here, and for those in it stand-ins build arrays and plain values.
"""

import io
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

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
_MOST_AXES = 32  # of an array of NumPy
_MOST = 4  # bytes that are made of a byte of the file
_REFUSED = (
    *(pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET),
    *(pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2, pickle.EXT4),
    *(pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
)


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
    path.open("rb").close()  # an OSError that names it
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.count("/") == 1]
            folders = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
            if len(folders) != 1:
                raise Refused("is a zip archive without the data.pkl of torch.save")
            return _Reader(archive, folders[0], _MOST * path.stat().st_size).load()
    except Refused as error:
        raise ValueError(
            f"{path} {error}: only tensors and plain values are read; save a state dict"
        ) from None
    except Exception as error:  # whatever a damaged archive or pickle does to zipfile and pickle
        why = one_line(f"{type(error).__name__}: {error}")
        raise ValueError(f"{path} is damaged, or none of torch.save ({why}): {RESAVE}") from error


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    """Returns an entry of the archive, which torch.save never compresses: no file is more than its size."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    return archive.read(name)


def _refuse(reader: Any) -> None:
    """Stands for the opcodes of sets, whose entries are hashed, and of others that no weights need."""
    raise Refused("holds a set or an object")


def _fill(found: Any, items: list[Any]) -> None:
    """Puts keys and values into a dict; no tuple as a key is hashed, which may take all stack or time."""
    if not isinstance(found, dict):
        raise ValueError("entries of what is no dict")
    for key, x in zip(items[::2], items[1::2], strict=True):
        if type(key) is not str and not (type(key) is int and abs(key) < 2**63):
            raise Refused("has a dict whose keys are neither names nor numbers")
        found[key] = x


def _set_item(reader: Any) -> None:
    x, key = reader.stack.pop(), reader.stack.pop()
    _fill(reader.stack[-1], [key, x])


def _set_items(reader: Any) -> None:
    items = reader.pop_mark()
    _fill(reader.stack[-1], items)


def _dict(reader: Any) -> None:
    found, items = {}, reader.pop_mark()
    _fill(found, items)
    reader.append(found)


def _build(reader: Any) -> None:
    state = reader.stack.pop()
    if not isinstance(reader.stack[-1], _Dict | _Float64):
        raise Refused("holds an object")
    reader.stack[-1].__setstate__(state)


class _Reader(pickle._Unpickler):  # that in Python: the one in C does not let a key be seen before its hash
    """Unpickles data.pkl of an archive, with stand-ins in place of every function and class."""

    dispatch: ClassVar = {
        **pickle._Unpickler.dispatch,
        **{code[0]: _refuse for code in _REFUSED},
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
        pickle.DICT[0]: _dict,
        pickle.BUILD[0]: _build,
    }

    def __init__(self, archive: zipfile.ZipFile, folder: str, most: int):
        super().__init__(io.BytesIO(_entry(archive, f"{folder}data.pkl")))
        self.archive, self.folder, self.left, self.storages = archive, folder, most, {}
        byteorder = f"{folder}byteorder"
        big = byteorder in archive.namelist() and _entry(archive, byteorder) == b"big"
        self.swapped = big != (sys.byteorder == "big")

    def find_class(self, module: str, name: str) -> Any:
        """Returns the stand-in of a name.

        Raises:
            Refused: there is none.
        """
        if module == "torch" and name in _STORAGES:
            return _Token(name)
        found = _STAND_INS.get((module, name))
        if found is None:
            raise Refused(f"holds {one_line(f'{module}.{name}')}, which is not loaded")
        return found if found is _parameter else lambda *args: self._spend(found(*args))

    def _spend(self, made: Any) -> Any:
        """Returns what was made; counts it where it may be large, a view as if it were copied.

        Raises:
            ValueError: it is more, in all, than a file of this size has.
        """
        self.left -= made.nbytes if isinstance(made, np.ndarray) else len(made) if type(made) is bytes else 0
        if self.left < 0:
            raise ValueError(f"its tensors are more than {_MOST} times the size of the file")
        return made

    def persistent_load(self, pid: Any) -> np.ndarray:
        """Returns a storage as an array of one axis."""
        kind, token, key, _, size = pid
        if kind != "storage" or not isinstance(token, _Token) or not isinstance(key, str):
            raise ValueError("a tensor without a storage")
        if key not in self.storages:
            content = _entry(self.archive, f"{self.folder}data/{key}")
            storage = np.frombuffer(content, jnp.dtype(_STORAGES[token.name]))
            self.storages[key] = self._spend(storage.byteswap() if self.swapped else storage)
        if len(self.storages[key]) != size:
            raise ValueError(f"storage {key} has {len(self.storages[key])} entries, expected {size}")
        return self.storages[key]


class _Token:
    """Stands for the class of a storage; it cannot be called."""

    def __init__(self, name: str):
        self.name = name


class _Dict(dict):
    """Stands for OrderedDict; attributes, such as the _metadata of a state dict, are left out."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


class _Float64:
    """Stands for numpy.dtype("f8"), and takes the state that NumPy gives it."""

    def __setstate__(self, state: Any) -> None:
        if type(state) is not tuple or state[:2] != (3, "<"):
            raise Refused("holds a NumPy dtype other than float64")


def _dtype(name: Any, *flags: Any) -> _Float64:
    if not isinstance(name, str) or name != "f8":
        raise Refused("holds a NumPy dtype other than float64")
    return _Float64()


def _scalar(dtype: Any, content: Any = None) -> float:
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
    if type(size) is not tuple or type(stride) is not tuple or not len(size) == len(stride) <= _MOST_AXES:
        raise ValueError("a tensor without a shape")
    if not all(type(n) is int and 0 <= n < 2**63 for n in (offset, *size, *stride)):
        raise ValueError("a tensor whose sizes are no whole numbers")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and last >= len(storage):
        raise ValueError(f"a tensor of shape {size} is larger than its storage")
    if 0 in size:
        return np.zeros(size, storage.dtype)
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
