"""Converts weights to and from the PyTorch twin, by one rule on names and shapes; NumPy arrays, no torch."""

import hashlib
import io
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import nnx

from d3pm_jax.checks import declared, describe
from d3pm_jax.errors import one_line
from d3pm_jax.files import parse_json, write_bytes
from d3pm_jax.types import Params

# The key of the hash in the metadata of a file.
HASH = "sha256"
# Parameters below this attribute have a first axis, of as many modules of the twin.
STACKED = "layers"
_TORCH_NAME = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
# Batch statistics have these names in PyTorch, and beside them the number of batches, which ours lack.
_TORCH_STATISTIC = {"mean": "running_mean", "var": "running_var"}
_BATCHES_SEEN = "num_batches_tracked"
# The types of safetensors by the names that NumPy has for them.
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
}


class _Leaf(NamedTuple):
    """Holds an array of a model, or its shape and dtype, with what its name in PyTorch follows from."""

    keys: list[str]  # of its path, such as ["down", "0", "conv", "kernel"]
    array: Any
    as_param: bool  # whether it is named and laid out as a parameter
    is_statistic: bool


def to_torch(params: Params) -> dict[str, np.ndarray]:
    """Makes the state dict of the PyTorch twin.

    Buffers keep their names and axes, but that batch statistics `mean` and `var` are `running_mean` and
    `running_var`, beside a `num_batches_tracked` of 0.

    Args:
        params: the parameters of a model, and its buffers: `nnx.state(model, nnx.Not(nnx.RngState))`.

    Returns:
        Contiguous arrays by the twin's names: kernels as [out, in, H, W] or [out, in].

    Raises:
        TypeError, ValueError: params hold no arrays, or something else; two arrays would have one name.
    """
    tensors = {}
    for leaf in _flatten("params", params):
        # An array of stacked layers is one array for each of them.
        arrays = np.asarray(leaf.array)
        if not _is_stacked(leaf):
            arrays = arrays[None]
        for name, array in zip(_list_names(leaf), arrays, strict=True):
            if name in tensors:
                raise ValueError(f"two arrays of the network are {name} in PyTorch: rename one of them")
            axes = _axes_to_torch(leaf, array.ndim)
            tensors[name] = np.asarray(np.transpose(array, axes), order="C")
            if name.endswith(".running_var") and leaf.is_statistic:
                tensors.setdefault(name.removesuffix("running_var") + _BATCHES_SEEN, np.zeros((), np.int64))
    return tensors


def from_torch(params: Params, state_dict: dict[str, np.ndarray]) -> Params:
    """Makes parameters like `params`, with the values of the PyTorch twin.

    Args:
        params: the parameters of a model of the same architecture, and its buffers.
        state_dict: NumPy arrays by the twin's names, such as `to_torch` makes; counts of batches are ignored.

    Returns:
        The parameters, with the dtypes of `params`.

    Raises:
        TypeError: params hold no arrays, or state_dict is no dict.
        ValueError: naming the tensors that are missing, left over, of another shape, no real numbers or not
            finite.
    """
    leaves = _flatten("params", params)
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"state_dict is {describe(state_dict)}, expected a dict of NumPy arrays by name")
    _check_names(_dtype_by_name(leaves), state_dict)
    converted = []
    for leaf in leaves:
        shape = leaf.array.shape
        if _is_stacked(leaf):
            shape = shape[1:]
        arrays = [
            _convert_tensor(leaf, name, _read_tensor(leaf, name, state_dict[name]), shape)
            for name in _list_names(leaf)
        ]
        array = np.stack(arrays) if _is_stacked(leaf) else arrays[0]
        converted.append(jax.numpy.asarray(array, leaf.array.dtype))
    return jax.tree.unflatten(jax.tree.structure(params), converted)


def _read_tensor(leaf: _Leaf, name: str, tensor: Any) -> np.ndarray:
    """Returns a tensor as an array of NumPy; raises ValueError where it is none of finite, real numbers."""
    try:
        array = np.asarray(tensor)
    except (TypeError, ValueError, RuntimeError) as error:
        # PyTorch has no array of a tensor that is on another device, or that has a gradient.
        raise ValueError(
            f"{name} is not an array ({one_line(error)}): pass tensor.detach().cpu().numpy()"
        ) from error
    is_real = any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))
    if not is_real and array.dtype != leaf.array.dtype:
        raise ValueError(f"{name} is {describe(array)}, expected {leaf.array.dtype}: pass real numbers")
    # A constant may be infinite, as a mask is that is added to logits.
    is_trained = leaf.as_param or leaf.is_statistic
    if is_trained and not np.isfinite(array).all():
        raise ValueError(f"{name} has entries that are not finite: use other weights")
    return array


def _convert_tensor(leaf: _Leaf, name: str, tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns a tensor of the twin in the layout of JAX; raises ValueError where it has another shape."""
    array = tensor
    if tensor.ndim == len(shape):
        array = np.transpose(tensor, np.argsort(_axes_to_torch(leaf, tensor.ndim)))
    if array.shape != shape:
        expected = tuple(shape[i] for i in _axes_to_torch(leaf, len(shape)))
        raise ValueError(f"{name} has shape {tensor.shape}, expected {expected} in this model")
    return array


@declared()
def save(path: Path, params: Params, metadata: Mapping[str, str] | None = None) -> None:
    """Writes `to_torch(params)` to a safetensors file, for `safetensors.torch.load_file`, to the bit.

    Args:
        path: of the file; one that is there is replaced, once the new one is whole.
        params: the parameters of a model.
        metadata: texts to keep beside the tensors, for `read_metadata`; a hash of all of it is added.

    Raises:
        TypeError, ValueError: an argument is not what it has to be; two arrays would have one name.
        OSError: it cannot be written.
    """
    tensors = to_torch(params)
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata is {describe(metadata)}, expected a dict of texts")
    for key, value in metadata.items():
        if not (isinstance(key, str) and isinstance(value, str)):
            raise TypeError(f"metadata has {key!r}: {value!r}, expected texts: write str(...)")
    # Loaders recognise tensors of PyTorch by "pt".
    texts = {"format": "pt", **metadata}
    digest = _digest(io.BytesIO(safetensors.numpy.save(tensors, texts)))
    write_bytes(path, safetensors.numpy.save(tensors, texts | {HASH: digest}))


@declared()
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
    dtypes = _dtype_by_name(_flatten("like", like))
    with _opened(path) as file:
        _check_names(dtypes, file.keys())
        for name, dtype in dtypes.items():
            stored = file.get_slice(name).get_dtype()
            if _DTYPES.get(stored) != dtype:
                raise ValueError(f"{name} is {stored}, expected {dtype}: convert it before it is saved")
        return from_torch(like, {name: file.get_tensor(name) for name in dtypes})


@declared()
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
        raise ValueError(f"{path} is damaged, or not a safetensors file ({error}): write it again") from error
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
    extra = sorted(name for name in set(names) - set(expected) if name.split(".")[-1] != _BATCHES_SEEN)
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


def _flatten(argument: str, params: Params) -> list[_Leaf]:
    """Lists the arrays of a model in the order of its leaves.

    Raises:
        TypeError: there are none, or what is no array; it names the argument that the params are.
    """
    # A variable of Flax is one leaf here: its class says what it is. Elsewhere all arrays are parameters.
    leaves = []
    is_state = isinstance(params, nnx.State)
    for path, x in jax.tree_util.tree_flatten_with_path(params, lambda x: isinstance(x, nnx.Variable))[0]:
        keys = _name_keys(path)
        if isinstance(x, nnx.Variable):
            # A part that was frozen, its kernel an `nnx.Variable`, is laid out as it was.
            as_param = isinstance(x, nnx.Param) or keys[-1] in ("kernel", "embedding")
            is_statistic = isinstance(x, nnx.BatchStat)
            # Its value is an array, or a pytree of arrays.
            for inner, array in jax.tree_util.tree_flatten_with_path(x.get_raw_value())[0]:
                leaves.append(_Leaf([*keys, *_name_keys(inner)], array, as_param, is_statistic))
        else:
            leaves.append(_Leaf(keys, x, not is_state, False))
    cure = "pass nnx.state(model, nnx.Not(nnx.RngState))"
    if not leaves:
        raise TypeError(f"{argument} is {describe(params)}, which holds no arrays: {cure}")
    for leaf in leaves:
        if not leaf.keys:
            raise TypeError(f"{argument} is {describe(params)}, expected a tree of arrays: {cure}")
        if not hasattr(leaf.array, "dtype"):
            raise TypeError(f"{argument} holds {describe(leaf.array)}, expected arrays: {cure}")
    return leaves


def _name_keys(path: tuple) -> list[str]:
    """Names the keys of a path of JAX."""
    return [str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path]


def _dtype_by_name(leaves: list[_Leaf]) -> dict[str, str]:
    """Returns the types of the arrays by the twin's names."""
    return {name: str(leaf.array.dtype) for leaf in leaves for name in _list_names(leaf)}


def _list_names(leaf: _Leaf) -> list[str]:
    """Turns ["down", "0", "conv", "kernel"] into ["down.0.conv.weight"]; each stacked layer has a name."""
    *modules, last = leaf.keys
    if leaf.as_param:
        last = _TORCH_NAME.get(last, last)
    if leaf.is_statistic:
        last = _TORCH_STATISTIC.get(last, last)
    keys = [*modules, last]
    if not _is_stacked(leaf):
        return [".".join(keys)]
    # The number of the layer comes after "layers".
    position = keys.index(STACKED) + 1
    return [".".join([*keys[:position], str(i), *keys[position:]]) for i in range(leaf.array.shape[0])]


def _is_stacked(leaf: _Leaf) -> bool:
    """Says whether an array is that of stacked layers."""
    # A list of modules, which is not stacked, has a number in the path after "layers".
    keys = [*leaf.keys, ""]
    is_below = STACKED in keys and not keys[keys.index(STACKED) + 1].isdigit()
    return is_below and len(leaf.array.shape) > 0


def _axes_to_torch(leaf: _Leaf, ndim: int) -> tuple[int, ...]:
    """Returns the order of axes in PyTorch: HWIO becomes OIHW, and [in, out] becomes [out, in]."""
    # A buffer is what it is, and an embedding is [K, width], both here and in PyTorch.
    if not leaf.as_param or leaf.keys[-1] == "embedding" or ndim < 2:
        return tuple(range(ndim))
    return (ndim - 1, ndim - 2, *range(ndim - 2))
