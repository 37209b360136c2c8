"""Rows of kernels for `accelerator.py`: ours beside the official form, checked on the CPU.

A share is of bandwidth: the bytes that must be read and written, logits and gradient once and integers, by
the time, as a part of what a copy of the logits reaches. Noise is drawn inside and costs no bytes. Of less
than 100 MB there is none: it would be of the time that a call takes.
"""

import math
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import kernels as forms
import numpy as np
from measuring import Check, Row, Rows, judged, temporaries, within

from d3pm_jax.losses import variational
from d3pm_jax.numerics import kernel_check

# Elements of an example, which repeats them: so all of a loss and its gradient is checked.
DISTINCT = 32
# Examples whose draws are checked.
EXAMPLES = 16
# Of the value, relative, and of the gradient for one element, a difference of probabilities, absolute. Ours:
# a hundred roundings of float32. The official form takes softmax(logits) @ Qbar in the default precision of
# the device, on a GPU TF32 and on a TPU bfloat16, whose logs are off by up to 2^-8, in the mean by less.
TOLERANCES = {"ours": (1e-5, 1e-5), "XLA": (1e-5, 1e-5), "official": (2e-3, 1e-2)}
Sides = Mapping[str, tuple[Callable[..., Any], tuple[Any, ...], Any]]  # with arguments, and what is right


def kernels(small: bool, _: float) -> Rows:
    """Yields the rows of all kernels, the copy first."""
    K = 256
    shape = (128, 3072)
    if small:
        K = 16
        shape = (8, 64)
    copied = [math.nan]
    yield "copy that turns the sign, bytes of the logits", lambda: _copy((*shape, K), copied)
    for name, family in forms.FAMILIES.items():
        build = cache(partial(family, K))
        for kind, find in (("hybrid loss and gradient", _loss), ("q_sample", _q_sample)):
            yield f"{kind}, {name}", lambda f=find, b=build: f(b(), shape, copied[-1])
    yield "categorical from logits", lambda: _categorical((*shape, K), copied[-1])
    # Above 1 the kernel is the faster one. Below, D3PM_JAX_PALLAS=0 turns all kernels off.
    for name, family in forms.FAMILIES.items():
        build = cache(partial(family, K))
        yield f"loss by kernels, then by XLA, {name}", lambda b=build: _loss_by_xla(b(), shape, copied[-1])
    yield "draws by a kernel, then by XLA", lambda: _categorical_by_xla((*shape, K), copied[-1])


def _copy(shape: tuple[int, ...], copied: list[float]) -> Row:
    """Measures the bandwidth that the others are held to: XLA cannot leave this out, as it can a copy."""
    x = jnp.arange(math.prod(shape), dtype=jnp.float32)
    f = jax.jit(jnp.negative).lower(x).compile()

    def speed(seconds: float) -> str:
        copied.append(2 * x.nbytes / seconds)
        return f"{copied[-1] / 1e9:,.1f} GB/s"

    return judged([Check(bool(jnp.all(f(x) + x == 0)), "x + (-x) = 0")], {"ours": lambda: f(x)}, speed)


def _beside(sides: Sides, like: Callable[..., Check], least: int, bandwidth: float) -> Row:
    """Compares ours and the official form in turn; least is the bytes that must move."""
    compiled = {name: _compile(name, f, args) for name, (f, args, _) in sides.items()}
    calls = {name: partial(compiled[name], *args) for name, (_, args, _) in sides.items()}
    checks = [like(name, calls[name](), right) for name, (*_, right) in sides.items()]

    def share(seconds: float) -> str:
        if least < 100e6:
            return ""
        return f"{least / seconds / bandwidth:.0%}"

    memory = " beside ".join(map(temporaries, compiled.values()))
    return judged(checks, calls, lambda s: f"{s * 1e3:,.3f} ms", share, memory)


def _compile(name: str, f: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Compiles a side; that of XLA without kernels, which no function in the cache of jit may bring in."""
    if name != "XLA":
        return jax.jit(f).lower(*args).compile()
    jax.clear_caches()
    with mock.patch.object(kernel_check, "ALLOWED", False):
        compiled = jax.jit(lambda *args: f(*args)).lower(*args).compile()
    jax.clear_caches()
    return compiled


def _loss(process: Any, shape: tuple[int, int], bandwidth: float) -> Row:
    distinct = forms.examples(process, (shape[0], DISTINCT))
    tables = forms.official_tables(process)
    logits, x0, xt, t = distinct
    data = (_repeated(logits, shape[1]), _repeated(x0, shape[1]), _repeated(xt, shape[1]), t)
    right = _in_float64(definition, process, *distinct)
    official_right = _in_float64(forms.official_loss, *tables, *distinct)
    sides = {
        "ours": (forms.our_loss, (process, *data), right),
        "official": (forms.official_loss, (*tables, *data), official_right),
    }
    # The logits are read and their gradient is written.
    least = 2 * data[0].nbytes + sum(x.nbytes for x in data[1:])
    return _beside(sides, _like, least, bandwidth)


def _loss_by_xla(process: Any, shape: tuple[int, int], bandwidth: float) -> Row:
    logits, x0, xt, t = forms.examples(process, (shape[0], DISTINCT))
    data = (_repeated(logits, shape[1]), _repeated(x0, shape[1]), _repeated(xt, shape[1]), t)
    right = _in_float64(definition, process, logits, x0, xt, t)
    side = (forms.our_loss, (process, *data), right)
    least = 2 * data[0].nbytes + sum(x.nbytes for x in data[1:])
    return _beside({"ours": side, "XLA": side}, _like, least, bandwidth)


def _repeated(x: jax.Array, n: int) -> jax.Array:
    """Repeats elements [B, DISTINCT, ...] over and over: [B, n, ...]."""
    return jnp.tile(x, (1, n // DISTINCT, *(1,) * (x.ndim - 2)))


def definition(process: Any, logits: jax.Array, x0: jax.Array, xt: jax.Array, t: jax.Array) -> Any:
    """The loss and its gradient by the definitions of their two terms."""

    def value(logits: jax.Array) -> jax.Array:
        kl = variational.posterior_kl_definition(process, logits, x0, xt, t)
        log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), x0[..., None], axis=-1)[..., 0]
        return jnp.mean(kl - forms.CE_WEIGHT * log_p)

    return jax.value_and_grad(value)(logits)


def _in_float64(f: Callable[..., Any], *args: Any) -> Any:
    """Computes f on the CPU, in float64 all through."""

    def widened(x: Any) -> np.ndarray:
        if x.dtype == np.float32:
            return np.asarray(x, np.float64)
        return np.asarray(x)

    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        wide = jax.tree.map(widened, args)
        return jax.tree.map(np.asarray, jax.jit(f)(*jax.tree.map(jnp.asarray, wide)))


def _like(name: str, result: Any, right: Any) -> Check:
    """Compares a mean and its gradient with those of DISTINCT elements, which the result repeats."""
    value, gradient = result  # [], [B, n, K]
    right_value, right_gradient = right  # [], [B, DISTINCT, K]
    # Of a mean each gradient is as much smaller as there are elements.
    of_an_element = jnp.asarray(right_gradient * right_gradient[..., 0].size, jnp.float32)
    error = jnp.abs(gradient * gradient[..., 0].size - _repeated(of_an_element, gradient.shape[1]))
    value_error = abs(float(value) / float(right_value) - 1)
    value_tolerance, gradient_tolerance = TOLERANCES[name]
    return within(
        name, value=(value_error, value_tolerance), gradient=(float(jnp.max(error)), gradient_tolerance)
    )


def _q_sample(process: Any, shape: tuple[int, int], bandwidth: float) -> Row:
    key = jax.random.key(0)
    x0 = forms.random_integers(0, process.K - 1, shape)
    t = forms.random_integers(1, process.T + 1, shape[:1])
    sides = {}
    for name, f, tables in (
        ("ours", forms.our_q_sample, process),
        ("official", forms.official_q_sample, forms.official_tables(process)[0]),
    ):
        right = _on_cpu(f, key, tables, x0[:EXAMPLES], t[:EXAMPLES])
        sides[name] = (f, (key, tables, x0, t), right)
    return _beside(sides, _same, 2 * x0.nbytes + t.nbytes, bandwidth)


def _categorical(shape: tuple[int, int, int], bandwidth: float) -> Row:
    key = jax.random.key(0)
    logits = jax.random.normal(jax.random.key(1), shape) * 2
    first_logits = np.asarray(logits[:EXAMPLES])
    u = np.asarray(jax.random.uniform(key, shape[:2])[:EXAMPLES])
    sides = {
        "ours": (forms.inverse, (key, logits), _by_definition(first_logits, u)),
        "official": (forms.gumbel, (key, logits), _on_cpu(forms.gumbel, key, first_logits)),
    }
    return _beside(sides, _same, logits.nbytes + math.prod(shape[:2]) * 4, bandwidth)


def _categorical_by_xla(shape: tuple[int, int, int], bandwidth: float) -> Row:
    key = jax.random.key(0)
    logits = jax.random.normal(jax.random.key(1), shape) * 2
    u = np.asarray(jax.random.uniform(key, shape[:2])[:EXAMPLES])
    side = (forms.inverse, (key, logits), _by_definition(np.asarray(logits[:EXAMPLES]), u))
    return _beside({"ours": side, "XLA": side}, _same, logits.nbytes + math.prod(shape[:2]) * 4, bandwidth)


def _by_definition(logits: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Returns the first k with p_0 + ... + p_k > u (p_0 + ... + p_{K-1}), in float64."""
    ends = np.cumsum(np.exp(logits.astype(np.float64)), axis=-1)
    return np.sum(ends <= u[..., None] * ends[..., -1:], axis=-1)


def _on_cpu(f: Callable[..., Any], *args: Any) -> np.ndarray:
    """Draws on the CPU: the noise of the first examples is the same, however many follow."""
    return np.asarray(jax.jit(f)(*jax.device_put(args, jax.devices("cpu")[0])))


def _same(name: str, draws: jax.Array, right: np.ndarray) -> Check:
    """Compares draws of the first examples with right ones.

    exp and log differ by some 2^-23 between devices, and so does each of the 256 ends of categories: of n
    draws some 256 n 2^-23 have their noise between the two, if all are moved as far, and by chance one more.
    """
    differ = int(np.sum(np.asarray(draws)[: len(right)] != right))
    allowed = 1 + right.size // 2**15
    return Check(differ <= allowed, f"{name} {differ} of {right.size:,} draws differ ({allowed})")
