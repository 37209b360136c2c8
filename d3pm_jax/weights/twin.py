"""Converts weights to and from the PyTorch twin, by one rule on names and shapes; NumPy arrays, no torch."""

import hashlib
import io
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy

from d3pm_jax.files import parse_json, write_bytes
from d3pm_jax.types import Params

# The key of the hash in the metadata of a file.
HASH = "sha256"
# Parameters below this attribute have a first axis, of as many modules of the twin.
STACKED = "layers"
_TORCH_NAME = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
# How the axes of a parameter move, by their number: HWIO becomes OIHW, and [in, out] becomes [out, in].
_TO_TORCH = {4: (3, 2, 0, 1), 3: (2, 1, 0), 2: (1, 0), 1: (0,)}
_FROM_TORCH = {4: (2, 3, 1, 0), 3: (2, 1, 0), 2: (1, 0), 1: (0,)}
# The types of safetensors by the names that NumPy has for them.
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def to_torch(params: Params) -> dict[str, np.ndarray]:
    """Makes the state dict of the PyTorch twin.

    Args:
        params: the parameters of a model, `nnx.state(model, nnx.Param)`.

    Returns:
        Contiguous arrays by the twin's names: kernels as [out, in, H, W] or [out, in].
    """
    tensors = {}
    for path, x in _flatten(params):
        arrays = _split_stacked(path, np.asarray(x))
        for name, array in zip(_list_names(path, x), arrays, strict=True):
            axes = _axes_order(path, array.ndim, _TO_TORCH)
            tensors[name] = np.ascontiguousarray(np.transpose(array, axes))
    return tensors


def from_torch(params: Params, state_dict: dict[str, np.ndarray]) -> Params:
    """Makes parameters like `params`, with the values of the PyTorch twin.

    Args:
        params: the parameters of a model of the same architecture.
        state_dict: NumPy arrays by the twin's names, such as `to_torch` makes.

    Returns:
        The parameters, with the dtypes of `params`.

    Raises:
        ValueError: naming the tensors that are missing, left over or of another shape.
    """
    _check_names(_dtype_by_name(params), state_dict)

    def convert(path: tuple, x: Any) -> jax.Array:
        is_stacked = _is_stacked(path)
        shape = x.shape[1:] if is_stacked else x.shape
        arrays = []
        for name in _list_names(path, x):
            arrays.append(_convert_tensor(path, name, np.asarray(state_dict[name]), shape))
        if is_stacked:
            return jax.numpy.asarray(np.stack(arrays), x.dtype)
        return jax.numpy.asarray(arrays[0], x.dtype)

    return jax.tree_util.tree_map_with_path(convert, params)


def _convert_tensor(path: tuple, name: str, tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns a tensor of the twin in the layout of JAX; raises ValueError where it has another shape."""
    array = tensor
    if tensor.ndim == len(shape):
        array = np.transpose(tensor, _axes_order(path, tensor.ndim, _FROM_TORCH))
    if array.shape != shape:
        expected = tuple(shape[i] for i in _axes_order(path, len(shape), _TO_TORCH))
        raise ValueError(f"{name} has shape {tensor.shape}, expected {expected} in this model")
    return array


def save(path: Path, params: Params, metadata: Mapping[str, str] | None = None) -> None:
    """Writes `to_torch(params)` to a safetensors file, for `safetensors.torch.load_file`, to the bit.

    Args:
        path: of the file; one that is there is replaced, once the new one is whole.
        params: the parameters of a model.
        metadata: texts to keep beside the tensors, for `read_metadata`; a hash of all of it is added.

    Raises:
        OSError: it cannot be written.
    """
    tensors = to_torch(params)
    # Loaders recognise tensors of PyTorch by "pt".
    texts = {"format": "pt", **(metadata or {})}
    digest = _digest(io.BytesIO(safetensors.numpy.save(tensors, texts)))
    write_bytes(path, safetensors.numpy.save(tensors, texts | {HASH: digest}))


def load(path: Path, like: Params) -> Params:
    """Reads parameters like `like` from a file of `save` or `safetensors.torch.save_file`, to the bit.

    Args:
        path: of the file.
        like: the parameters of a model of the same architecture, or their shapes and dtypes.

    Returns:
        The parameters.

    Raises:
        ValueError: the file is damaged, does not match its hash if it has one, or is none of safetensors; a
            tensor is missing, left over or of another shape; it has another dtype, so that converting it
            would lose bits or invent them; or an entry is not finite.
        OSError: it cannot be read.
    """
    dtypes = _dtype_by_name(like)
    with _opened(path) as file:
        _check_names(dtypes, file.keys())
        for name, dtype in dtypes.items():
            stored = file.get_slice(name).get_dtype()
            if _DTYPES.get(stored) != dtype:
                raise ValueError(f"{name} is {stored}, expected {dtype}: convert it before it is saved")
        tensors = {name: file.get_tensor(name) for name in dtypes}
        for name, x in tensors.items():
            if not np.isfinite(x).all():
                raise ValueError(f"{name} has entries that are not finite: use other weights")
        return from_torch(like, tensors)


def read_metadata(path: Path) -> dict[str, str]:
    """Reads the texts beside the tensors of a safetensors file.

    Raises:
        ValueError: the file is damaged or none of safetensors.
        OSError: it cannot be read.
    """
    with _opened(path) as file:
        return file.metadata() or {}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Opens a safetensors file, and adds its path to a ValueError of the block."""
    # Where there is no such file, this OSError has its path and reason as attributes.
    path.open("rb").close()
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            expected = (file.metadata() or {}).get(HASH)
            if expected is not None:
                with path.open("rb") as content:
                    digest = _digest(content)
                if digest != expected:
                    raise ValueError(
                        f"it is damaged, or was changed after it was hashed: export it again, or if you "
                        f"changed it yourself, save it without {HASH!r} in its metadata"
                    )
            yield file
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged, or no safetensors file ({error}): write it again") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _digest(file: io.BufferedIOBase) -> str:
    """Returns the SHA-256 of a safetensors file: of its sorted header, without the hash, and its tensors."""
    # A file begins with the length of the header, of eight bytes, and the header, which is JSON.
    header = parse_json(file.read(int.from_bytes(file.read(8), "little")))
    header["__metadata__"].pop(HASH, None)
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    while block := file.read(2**20):
        digest.update(block)
    return digest.hexdigest()


def _check_names(expected: Collection[str], names: Collection[str]) -> None:
    """Raises ValueError, naming what is missing and what is left over."""
    missing = sorted(set(expected) - set(names))
    extra = sorted(set(names) - set(expected))
    if missing or extra:
        raise ValueError(
            f"the state dict does not fit this model: missing {_shorten_list(missing)}, left over "
            f"{_shorten_list(extra)}"
        )


def _shorten_list(names: list[str]) -> str:
    """Returns the names as a text, or the first few and how many more there are."""
    if len(names) <= 4:
        return str(names)
    return f"{names[:3]} and {len(names) - 3} more"


def _flatten(params: Params) -> list:
    """Returns (path, array) of every parameter."""
    return jax.tree_util.tree_flatten_with_path(params)[0]


def _dtype_by_name(params: Params) -> dict[str, str]:
    """Returns the types of the parameters by the twin's names."""
    dtypes = {}
    for path, x in _flatten(params):
        for name in _list_names(path, x):
            dtypes[name] = str(x.dtype)
    return dtypes


def _list_names(path: tuple, x: Any) -> list[str]:
    """Turns ("down", 0, "conv", "kernel") into ["down.0.conv.weight"]; each stacked layer has a name."""
    keys = _keys(path)
    keys[-1] = _TORCH_NAME.get(keys[-1], keys[-1])
    if not _is_stacked(path):
        return [".".join(keys)]
    # The number of the layer comes after "layers".
    position = keys.index(STACKED) + 1
    return [".".join([*keys[:position], str(i), *keys[position:]]) for i in range(x.shape[0])]


def _split_stacked(path: tuple, x: np.ndarray) -> list[np.ndarray]:
    """Returns the arrays that `_list_names` names: of each layer where layers are stacked, or the one."""
    if _is_stacked(path):
        return list(x)
    return [x]


def _is_stacked(path: tuple) -> bool:
    """Says whether a parameter is that of stacked layers."""
    # A list of modules, which is not stacked, has a number in the path after "layers".
    keys = [*_keys(path), ""]
    return STACKED in keys and not keys[keys.index(STACKED) + 1].isdigit()


def _axes_order(path: tuple, ndim: int, table: Mapping[int, tuple[int, ...]]) -> tuple[int, ...]:
    """Returns the order of axes to transpose a parameter to; the table has it by the number of axes."""
    # An embedding is [K, width] both here and in PyTorch.
    if _keys(path)[-1] == "embedding":
        return tuple(range(ndim))
    return table[ndim]


def _keys(path: tuple) -> list[str]:
    """Returns the keys of a path as strings, without the last one of the wrapper."""
    keys = [
        str(getattr(entry, "key", getattr(entry, "idx", getattr(entry, "name", entry)))) for entry in path
    ]
    if keys[-1] == "value":
        return keys[:-1]
    return keys
