"""Rows of kernels for `accelerator.py`: ours beside the official form, checked on the CPU.

A share is of bandwidth: the bytes that must be read and written, logits and gradient once and integers, by
the time, as a part of what a pass over as many bytes reaches. Noise is drawn inside and costs no bytes.
"""

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import kernels
import numpy as np
from measuring import Check, Row, attempted, in_turn, judged, times

from d3pm_jax.losses import variational

DISTINCT = 32  # elements of an example, which repeats them: so all of a loss and its gradient is checked
EXAMPLES = 16  # whose draws are checked
# Of the value, relative, and of the gradient for one element, a difference of probabilities, absolute. Ours:
# a hundred roundings of float32. The official form takes softmax(logits) @ Qbar in the default precision of
# the device, on a GPU TF32 and on a TPU bfloat16, whose logs are off by up to 2^-8.
OURS, OFFICIAL = 1e-5, 1e-2


class Sizes(NamedTuple):
    """How large kernels are, and how long they are timed."""

    K: int
    shape: tuple[int, int]  # examples, elements of each
    rounds: int
    seconds: float  # of one side in one round, at least


def rows(sizes: Sizes) -> Iterator[Row]:
    """All of them, the copy first."""
    copied: list[float] = []
    what = "copy that turns the sign, bytes of the logits"
    yield attempted(what, lambda: _copy(what, sizes, copied))
    bandwidth = copied[0] if copied else math.nan
    for name, family in kernels.FAMILIES.items():
        build = cache(lambda family=family: family(sizes.K))
        for kind, find in (("hybrid loss and gradient", _loss), ("q_sample", _q_sample)):
            what = f"{kind}, {name}"
            yield attempted(what, lambda f=find, w=what, b=build: f(w, b(), sizes, bandwidth))
    what = "categorical from logits"
    yield attempted(what, lambda: _categorical(what, sizes, bandwidth))


def _copy(what: str, sizes: Sizes, found: list[float]) -> Row:
    """What the others are held to: XLA cannot leave it out, as it can a copy."""
    x = jnp.arange(math.prod(sizes.shape) * sizes.K, dtype=jnp.float32)
    f = jax.jit(jnp.negative).lower(x).compile()
    right = Check(bool(jnp.all(f(x) + x == 0)), "x + (-x) = 0")

    def measure() -> Row:
        seconds = in_turn({what: lambda: f(x)}, sizes.rounds, sizes.seconds)[what]
        found.append(2 * x.nbytes / float(np.median(seconds)))
        return Row(what, f"{found[0] / 1e9:,.1f} GB/s", share="100%")

    return judged(what, [right], measure)


def _loss(what: str, process: Any, sizes: Sizes, bandwidth: float) -> Row:
    B, n = sizes.shape
    few = kernels.examples(process, (B, min(n, DISTINCT)))
    data = (*(_repeated(x, n) for x in few[:3]), few[3])
    tables = kernels.official_tables(process)
    programs = {"ours": (kernels.our_loss, (process, *data))}
    programs["official"] = (kernels.official_loss, (*tables, *data))
    compiled = {name: jax.jit(f).lower(*args).compile() for name, (f, args) in programs.items()}
    checks = [
        _like("ours", compiled["ours"](process, *data), _in_float64(definition, process, *few), OURS),
        _like(
            "official",
            compiled["official"](*tables, *data),
            _in_float64(kernels.official_loss, *tables, *few),
            OFFICIAL,
        ),
    ]
    least = 2 * data[0].nbytes + sum(x.nbytes for x in data[1:])
    calls = {name: (lambda c=c, a=programs[name][1]: c(*a)) for name, c in compiled.items()}
    return judged(what, checks, lambda: _timed(what, calls, compiled, least, sizes, bandwidth))


def _repeated(x: jax.Array, n: int) -> jax.Array:
    """[B, n, ...] of [B, DISTINCT, ...], over and over."""
    return jnp.tile(x, (1, -(-n // x.shape[1]), *(1,) * (x.ndim - 2)))[:, :n]


def definition(process: Any, logits: jax.Array, x0: jax.Array, xt: jax.Array, t: jax.Array) -> Any:
    """The loss and its gradient by the definitions of their two terms."""

    def value(logits: jax.Array) -> jax.Array:
        kl = variational.posterior_kl_definition(process, logits, x0, xt, t)
        log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), x0[..., None], axis=-1)[..., 0]
        return jnp.mean(kl - kernels.CE_WEIGHT * log_p)

    return jax.value_and_grad(value)(logits)


def _in_float64(f: Callable[..., Any], *args: Any) -> Any:
    """What f gives on the CPU, of float64 all through."""
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        wide = jax.tree.map(lambda x: np.asarray(x, np.float64 if x.dtype == np.float32 else None), args)
        return jax.tree.map(np.asarray, jax.jit(f)(*jax.tree.map(jnp.asarray, wide)))


def _like(name: str, found: Any, right: Any, tolerance: float) -> Check:
    """Compares a mean and its gradient with those of DISTINCT elements, which found repeats."""
    (value, gradient), (right_value, right_gradient) = found, right
    each = _repeated(
        jnp.asarray(right_gradient * right_gradient[..., 0].size, jnp.float32), gradient.shape[1]
    )
    error = float(jnp.max(jnp.abs(gradient * gradient[..., 0].size - each)))
    relative = abs(float(value) / float(right_value) - 1)
    ok = relative <= tolerance and error <= tolerance  # NaN is not
    return Check(ok, f"{name} {relative:.0e} in value, {error:.0e} in gradient ({tolerance:.0e})")


def _q_sample(what: str, process: Any, sizes: Sizes, bandwidth: float) -> Row:
    key, (B, _) = jax.random.key(0), sizes.shape
    x0 = kernels.random_integers(0, process.K - 1, sizes.shape)
    t = kernels.random_integers(1, process.T + 1, (B,))
    programs = {
        "ours": (kernels.our_q_sample, (key, process, x0, t)),
        "official": (kernels.official_q_sample, (key, kernels.official_tables(process)[0], x0, t)),
    }
    compiled = {name: jax.jit(f).lower(*args).compile() for name, (f, args) in programs.items()}
    calls = {name: (lambda c=c, a=programs[name][1]: c(*a)) for name, c in compiled.items()}
    checks = []
    for name, (f, (_, tables, *_)) in programs.items():
        right = _on_cpu(f, key, tables, x0[:EXAMPLES], t[:EXAMPLES])
        checks.append(_same(name, calls[name](), right, process.K))
    least = 2 * x0.nbytes + t.nbytes
    return judged(what, checks, lambda: _timed(what, calls, compiled, least, sizes, bandwidth))


def _categorical(what: str, sizes: Sizes, bandwidth: float) -> Row:
    key = jax.random.key(0)
    logits = jax.random.normal(jax.random.key(1), (*sizes.shape, sizes.K)) * 2
    programs = {"ours": kernels.inverse, "official": kernels.gumbel}
    compiled = {name: jax.jit(f).lower(key, logits).compile() for name, f in programs.items()}
    calls = {name: (lambda c=c: c(key, logits)) for name, c in compiled.items()}
    some = np.asarray(logits[:EXAMPLES])
    u = jax.random.uniform(key, sizes.shape)[:EXAMPLES]
    checks = [
        _same("ours", calls["ours"](), _by_definition(some, np.asarray(u)), sizes.K),
        _same("official", calls["official"](), _on_cpu(kernels.gumbel, key, some), sizes.K),
    ]
    least = logits.nbytes + math.prod(sizes.shape) * 4
    return judged(what, checks, lambda: _timed(what, calls, compiled, least, sizes, bandwidth))


def _by_definition(logits: np.ndarray, u: np.ndarray) -> np.ndarray:
    """The first k with p_0 + ... + p_k > u (p_0 + ... + p_{K-1}), in float64."""
    ends = np.cumsum(np.exp(logits.astype(np.float64)), axis=-1)
    return np.sum(ends <= u[..., None] * ends[..., -1:], axis=-1)


def _on_cpu(f: Callable[..., Any], *args: Any) -> np.ndarray:
    """What f draws on the CPU: the noise of the first examples is the same, however many follow."""
    return np.asarray(jax.jit(f)(*jax.device_put(args, jax.devices("cpu")[0])))


def _same(name: str, found: jax.Array, right: np.ndarray, K: int) -> Check:
    """Compares draws of the first examples with right ones.

    exp and log differ by some 2^-23 between devices, and so does each of the K ends of categories: of n draws
    some K n 2^-23 have their noise between the two, if all are moved as far, and by chance one more.
    """
    differ = int(np.sum(np.asarray(found)[: len(right)] != right))
    allowed = 1 + right.size * K // 2**23
    return Check(differ <= allowed, f"{name} {differ} of {right.size:,} draws differ ({allowed})")


def _timed(what: str, calls: Any, compiled: Any, least: int, sizes: Sizes, bandwidth: float) -> Row:
    """Ours and the official form in turn."""
    seconds = in_turn(calls, sizes.rounds, sizes.seconds)
    ours, other = (f"{np.median(seconds[name]) * 1e3:,.3f} ms" for name in ("ours", "official"))
    share = least / float(np.median(seconds["ours"])) / bandwidth
    sides = [f"{c.memory_analysis().temp_size_in_bytes / 1e6:,.1f} MB" for c in compiled.values()]
    memory = " beside ".join(sides)
    return Row(what, ours, other, times(seconds["official"] / seconds["ours"]), f"{share:.0%}", memory)
