"""One call of a kernel, with its gradients, in PyTorch, in JAX and in compiled JAX: NumPy in, NumPy out."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch

torch.set_num_threads(1)  # arrays are tiny

Function = Callable[..., Any]
Arguments = Mapping[str, Any]
DIFFERENTIABLE = (
    "a",
    "b",
    "kl",
    "x",
    "log_p",
    "log_q",
    "logits",
    "logits_prev",
    "loc",
    "log_scale",
    "log_x",
    "logits_x0",
    "nats",
    "output",
)


class Result(NamedTuple):
    """What a call gave, and the gradient of sum(w * outputs) over the finite outputs."""

    outputs: list[np.ndarray]
    gradients: dict[str, np.ndarray]


@contextmanager
def precision(dtype: str) -> Iterator[None]:
    """Both frameworks with this default float type; float32 means that JAX has x64 off."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with jax.enable_x64(dtype == "float64"):
            yield
    finally:
        torch.set_default_dtype(before)


def weight(output: np.ndarray, i: int) -> np.ndarray:
    """The fixed w of output i of a call: zero where the output is infinite."""
    w = np.random.default_rng(i).uniform(-1.0, 1.0, output.shape).astype(np.float32)
    return np.where(np.isfinite(output), w, 0.0).astype(output.dtype)


def is_float(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.dtype.kind == "f"


def to_torch(x: Any) -> Any:
    """An array as a tensor of the default types; anything else as it is."""
    if not isinstance(x, np.ndarray):
        return x
    return torch.as_tensor(x).to(torch.get_default_dtype() if is_float(x) else torch.int64)


def in_torch(f: Function, args: Arguments) -> Result:
    """f(**args), args converted by `to_torch`."""
    leaves = {k: v.requires_grad_() for k, v in args.items() if k in DIFFERENTIABLE and torch.is_tensor(v)}
    outputs = flat(f(**args))
    values = [np.asarray(x.detach()) for x in outputs]
    smooth = [i for i, x in enumerate(outputs) if x.requires_grad]
    if not smooth:
        return Result(values, {})
    cotangents = [torch.as_tensor(weight(values[i], i)) for i in smooth]
    gradients = torch.autograd.grad(
        [outputs[i] for i in smooth], list(leaves.values()), cotangents, materialize_grads=True
    )
    return Result(values, {k: g.numpy() for k, g in zip(leaves, gradients, strict=True)})


def to_jax(x: Any) -> Any:
    """An array as a JAX array of the default types; anything else as it is."""
    if not isinstance(x, np.ndarray):
        return x
    return jnp.asarray(x) if is_float(x) else jnp.asarray(x, jnp.int32)


def in_jax(f: Function, args: Arguments, jit: bool, weights: list[np.ndarray]) -> Result:
    """f(**args), args converted by `to_jax`; an argument that is not a pytree of arrays is static."""
    static = tuple((k, v) for k, v in args.items() if not _is_traced(v))
    traced = {k: v for k, v in args.items() if _is_traced(v)}
    smooth = {k: traced.pop(k) for k in list(traced) if k in DIFFERENTIABLE}
    outputs, gradients = _value_and_gradient(f, static, jit)(smooth, traced, weights)
    return Result([np.asarray(x) for x in outputs], {k: np.asarray(g) for k, g in gradients.items()})


@cache
def _value_and_gradient(f: Function, static: tuple[tuple[str, Any], ...], jit: bool) -> Function:
    def run(smooth: dict, traced: dict, weights: list) -> tuple[list, dict]:
        outputs, pull_back = jax.vjp(lambda smooth: flat(f(**smooth, **traced, **dict(static))), smooth)
        if not smooth or not jnp.issubdtype(outputs[0].dtype, jnp.floating):
            return outputs, {}
        return outputs, pull_back([jnp.asarray(w) for w in weights])[0]

    return jax.jit(run) if jit else run


def _is_traced(x: Any) -> bool:
    return len(jax.tree.leaves(x)) > 0 and all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(x))


def flat(outputs: Any) -> list:
    """The arrays of an output, which is one array or a tuple of them."""
    return list(outputs) if isinstance(outputs, tuple) else [outputs]
