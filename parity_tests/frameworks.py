"""One call of a kernel, with its gradients, in PyTorch, in JAX and in compiled JAX: NumPy in, NumPy out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
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
BFLOAT16 = np.dtype(jnp.bfloat16)
DIFFERENTIABLE = (
    "a",
    "b",
    "kl",
    "x",
    "log_denoiser",
    "log_p",
    "log_q",
    "log_rate",
    "logits",
    "logits_loo",
    "logits_prev",
    "loc",
    "log_scale",
    "log_x",
    "logits_x0",
    "nats",
    "output",
)


class Result(NamedTuple):
    """The outputs of a call, and the gradient of sum(w * outputs) over the finite outputs."""

    outputs: list[np.ndarray]
    gradients: dict[str, np.ndarray]


def working(dtype: str) -> str:
    """The float type of everything but the logits: kernels take bfloat16 logits and work in float32."""
    if dtype == "bfloat16":
        return "float32"
    return dtype


@contextmanager
def precision(dtype: str) -> Iterator[None]:
    """Both frameworks with the default float type `working(dtype)`; float32 means that JAX has x64 off."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, working(dtype)))
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
    return isinstance(x, np.ndarray) and jnp.issubdtype(x.dtype, jnp.floating)


def to_torch(x: Any) -> Any:
    """Makes a tensor of the default types of an array, bfloat16 where the default is float32.

    Anything else is returned as it is.
    """
    if not isinstance(x, np.ndarray):
        return x
    if not is_float(x):
        return torch.tensor(x, dtype=torch.int64)
    dtype = torch.get_default_dtype()
    if x.dtype == BFLOAT16 and dtype == torch.float32:
        dtype = torch.bfloat16
    return torch.tensor(x.astype(np.float64), dtype=dtype)


def call_torch(f: Function, args: Arguments, differentiable: Sequence[str]) -> Result:
    """Calls f(**args), args converted by `to_torch`, and differentiates it by those of these names."""
    leaves = {}
    for name, x in args.items():
        if name in differentiable and torch.is_tensor(x):
            leaves[name] = x.requires_grad_()

    outputs = flat(f(**args))
    values = [np.asarray(x.detach()) for x in outputs]
    smooth = [i for i, x in enumerate(outputs) if x.requires_grad]
    if not smooth:
        return Result(values, {})

    cotangents = [torch.as_tensor(weight(values[i], i)) for i in smooth]
    gradients = torch.autograd.grad(
        [outputs[i] for i in smooth], list(leaves.values()), cotangents, materialize_grads=True
    )
    return Result(values, {k: _to_numpy(g) for k, g in zip(leaves, gradients, strict=True)})


def _to_numpy(x: torch.Tensor) -> np.ndarray:
    # NumPy has no bfloat16 that PyTorch knows: float32 holds each exactly on the way.
    if x.dtype == torch.bfloat16:
        return x.float().numpy().astype(BFLOAT16)
    return x.numpy()


def to_jax(x: Any) -> Any:
    """Makes a JAX array of the default types of an array, bfloat16 where the default is float32.

    Anything else is returned as it is.
    """
    if not isinstance(x, np.ndarray):
        return x
    if not is_float(x):
        return jnp.asarray(x, jnp.int32)
    if x.dtype == BFLOAT16 and jax.dtypes.canonicalize_dtype(float) == np.float32:
        return jnp.asarray(x, x.dtype)
    return jnp.asarray(x, float)


def call_jax(
    f: Function, args: Arguments, differentiable: Sequence[str], jit: bool, weights: list[np.ndarray]
) -> Result:
    """Calls f(**args), args converted by `to_jax`, and differentiates it with these weights of the outputs.

    By the arguments of these names. One that is not a pytree of arrays is static.
    """
    static = tuple((k, v) for k, v in args.items() if not _is_traced(v))
    traced = {k: v for k, v in args.items() if _is_traced(v)}
    smooth = {k: traced.pop(k) for k in list(traced) if k in differentiable}
    outputs, gradients = _value_and_gradient(f, static, jit)(smooth, traced, weights)
    return Result([np.asarray(x) for x in outputs], {k: np.asarray(g) for k, g in gradients.items()})


# The same function object for the same static arguments, so that jit compiles a program of them once.
@cache
def _value_and_gradient(f: Function, static: tuple[tuple[str, Any], ...], jit: bool) -> Function:
    def evaluate(smooth: dict, traced: dict, weights: list) -> tuple[list, dict]:
        outputs, pull_back = jax.vjp(lambda smooth: flat(f(**smooth, **traced, **dict(static))), smooth)
        if not smooth or not jnp.issubdtype(outputs[0].dtype, jnp.floating):
            return outputs, {}
        return outputs, pull_back([jnp.asarray(w) for w in weights])[0]

    if jit:
        return jax.jit(evaluate)
    return evaluate


def _is_traced(x: Any) -> bool:
    leaves = jax.tree.leaves(x)
    return bool(leaves) and all(isinstance(leaf, jax.Array) for leaf in leaves)


def flat(outputs: Any) -> list:
    """The arrays of an output, which is one array or a tuple of them."""
    if isinstance(outputs, tuple):
        return list(outputs)
    return [outputs]
