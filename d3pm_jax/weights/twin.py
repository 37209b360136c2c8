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

HASH = "sha256"  # in the metadata
_TORCH_NAME = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
STACKED = "layers"  # parameters below this attribute have a first axis, of modules of the twin
_TO_TORCH = {4: (3, 2, 0, 1), 3: (2, 1, 0), 2: (1, 0), 1: (0,)}  # HWIO -> OIHW, [in, out] -> [out, in]
_FROM_TORCH = {4: (2, 3, 1, 0), 3: (2, 1, 0), 2: (1, 0), 1: (0,)}
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # in safetensors


def to_torch(params: Params) -> dict[str, np.ndarray]:
    """Makes the state dict of the PyTorch twin.

    Args:
        params: the parameters of a model, `nnx.state(model, nnx.Param)`.

    Returns:
        Contiguous arrays by the twin's names: kernels as [out, in, H, W] or [out, in].
    """
    return {
        name: np.ascontiguousarray(np.transpose(part, _axes(path, part.ndim, _TO_TORCH)))
        for path, x in _flat(params)
        for name, part in zip(_names(path, x), _parts(path, np.asarray(x)), strict=True)
    }


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
    _check_names([name for path, x in _flat(params) for name in _names(path, x)], state_dict)

    def convert(path: tuple, x: Any) -> jax.Array:
        shape = x.shape[1:] if _stacked(path) else x.shape
        found = [_converted(path, name, np.asarray(state_dict[name]), shape) for name in _names(path, x)]
        return jax.numpy.asarray(np.stack(found) if _stacked(path) else found[0], x.dtype)

    return jax.tree_util.tree_map_with_path(convert, params)


def _converted(path: tuple, name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns a tensor of the twin in the layout of JAX; raises ValueError where it has another shape."""
    same = array.ndim == len(shape)
    found = np.transpose(array, _axes(path, array.ndim, _FROM_TORCH)) if same else array
    if found.shape != shape:
        expected = tuple(shape[i] for i in _axes(path, len(shape), _TO_TORCH))
        raise ValueError(f"{name} has shape {array.shape}, expected {expected} in this model")
    return found


def save(path: Path, params: Params, metadata: Mapping[str, str] | None = None) -> None:
    """Writes `to_torch(params)` to a safetensors file, for `safetensors.torch.load_file`, to the bit.

    Args:
        path: of the file; one that is there is replaced, once the new one is whole.
        params: the parameters of a model.
        metadata: texts to keep beside the tensors, for `read_metadata`; a hash of all of it is added.

    Raises:
        OSError: it cannot be written.
    """
    tensors, texts = to_torch(params), {"format": "pt", **(metadata or {})}
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
            tensor is missing, left over or of another
            shape; it has another dtype, so that converting it would lose bits or invent them; or an entry is
            not finite.
        OSError: it cannot be read.
    """
    dtypes = {name: str(x.dtype) for path, x in _flat(like) for name in _names(path, x)}
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
    """Opens a safetensors file; what is wrong in the block is said with its path."""
    path.open("rb").close()  # an OSError that names it
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
    """Returns the SHA-256 of a safetensors file: its header, sorted and without the hash, and the rest."""
    header = parse_json(file.read(int.from_bytes(file.read(8), "little")))
    header["__metadata__"].pop(HASH, None)
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    while block := file.read(2**20):
        digest.update(block)
    return digest.hexdigest()


def _check_names(expected: Collection[str], found: Collection[str]) -> None:
    """Raises ValueError, naming what is missing and what is left over."""
    missing, extra = (sorted(set(a) - set(b)) for a, b in ((expected, found), (found, expected)))
    if missing or extra:
        raise ValueError(
            f"the state dict does not fit this model: missing {_listed(missing)}, left over {_listed(extra)}"
        )


def _listed(names: list[str]) -> str:
    """Lists the first few of them, and how many more."""
    return str(names) if len(names) <= 4 else f"{names[:3]} and {len(names) - 3} more"


def _flat(params: Params) -> list:
    return jax.tree_util.tree_flatten_with_path(params)[0]


def _names(path: tuple, x: Any) -> list[str]:
    """Turns ("down", 0, "conv", "kernel") into ["down.0.conv.weight"]; each stacked layer has its own."""
    parts = _keys(path)
    parts[-1] = _TORCH_NAME.get(parts[-1], parts[-1])
    if not _stacked(path):
        return [".".join(parts)]
    at = parts.index(STACKED) + 1
    return [".".join([*parts[:at], str(i), *parts[at:]]) for i in range(x.shape[0])]


def _parts(path: tuple, x: np.ndarray) -> list[np.ndarray]:
    """Returns what `_names` names."""
    return list(x) if _stacked(path) else [x]


def _stacked(path: tuple) -> bool:
    """Says whether a parameter is that of stacked layers: a list of modules has a number there."""
    keys = [*_keys(path), ""]
    return STACKED in keys and not keys[keys.index(STACKED) + 1].isdigit()


def _axes(path: tuple, ndim: int, table: Mapping[int, tuple[int, ...]]) -> tuple[int, ...]:
    """Returns how axes move: by their number, but an embedding has the layout [K, width] in both."""
    return tuple(range(ndim)) if _keys(path)[-1] == "embedding" else table[ndim]


def _keys(path: tuple) -> list[str]:
    """Returns the keys of a path as strings, without the last one of the wrapper."""
    parts = [str(getattr(p, "key", getattr(p, "idx", getattr(p, "name", p)))) for p in path]
    return parts[:-1] if parts[-1] == "value" else parts
