"""Weights to and from the PyTorch twin, by one rule on names and shapes; NumPy arrays only, no torch."""

import jax
import numpy as np

from d3pm_jax.types import Params

_TORCH_NAME = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_TO_TORCH = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}  # HWIO -> OIHW, [in, out] -> [out, in]
_FROM_TORCH = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}


def to_torch(params: Params) -> dict[str, np.ndarray]:
    """The state dict of the PyTorch twin.

    Args:
        params: the parameters of a model, `nnx.state(model, nnx.Param)`.

    Returns:
        Contiguous arrays by the twin's names: kernels as [out, in, H, W] or [out, in].
    """
    return {
        _name(path): np.ascontiguousarray(np.transpose(np.asarray(x), _TO_TORCH[x.ndim]))
        for path, x in _flat(params)
    }


def from_torch(params: Params, state_dict: dict[str, np.ndarray]) -> Params:
    """Parameters like `params`, with the values of the PyTorch twin.

    Args:
        params: the parameters of a model of the same architecture.
        state_dict: NumPy arrays by the twin's names, such as `to_torch` makes.

    Returns:
        The parameters, with the dtypes of `params`.

    Raises:
        ValueError: naming the tensors that are missing, left over or of another shape.
    """
    names = {_name(path) for path, _ in _flat(params)}
    missing, extra = sorted(names - set(state_dict)), sorted(set(state_dict) - names)
    if missing or extra:
        raise ValueError(f"the state dict does not fit this model: missing {missing}, left over {extra}")

    def convert(path, x):
        array = np.asarray(state_dict[_name(path)])
        found = np.transpose(array, _FROM_TORCH[array.ndim]) if array.ndim == x.ndim else array
        if found.shape != x.shape:
            raise ValueError(f"{_name(path)} has shape {array.shape}, which does not fit {x.shape} here")
        return jax.numpy.asarray(found, x.dtype)

    return jax.tree_util.tree_map_with_path(convert, params)


def _flat(params: Params) -> list:
    return jax.tree_util.tree_flatten_with_path(params)[0]


def _name(path: tuple) -> str:
    """("down", 0, "conv", "kernel") -> "down.0.conv.weight"; the wrapper's own last key is dropped."""
    parts = [str(getattr(p, "key", getattr(p, "idx", getattr(p, "name", p)))) for p in path]
    if parts[-1] == "value":
        parts.pop()
    return ".".join([*parts[:-1], _TORCH_NAME.get(parts[-1], parts[-1])])
