"""Whole reverse chains as one compiled program."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, Key

from d3pm_jax import drawing
from d3pm_jax.diffusion import p_logits
from d3pm_jax.noise import Noise, per_example
from d3pm_jax.transitions.base import Transition

Denoise = Callable[[Array, Array], Array]  # xt int32 [B, *S], time int32 [B] -> logits of x_0 [B, *S, K]
Reverse = Callable[[Transition, Array, Array, Array], Array]  # tr, logits, xt, t -> log p(x_{t-1} | x_t)

PRIOR_STEP = 0  # the step number whose noise draws x_T: no transition has it


class Chain(NamedTuple):
    """What a reverse chain leaves behind."""

    x0: Array  # int32 [B, *S]  its end
    states: Array  # int32 [R, B, *S]  x_t at each recorded t
    failed_at: Array  # int32 []  the first step t with nothing to draw from (NaN logits, say); 0 if none


def ancestral(
    denoise: Denoise,
    tr: Transition,
    xT: Int[Array, " B *S"],
    noise: Noise,
    record: Sequence[int] = (),
    reverse: Reverse = p_logits,
) -> Chain:
    """x_{t-1} ~ p(x_{t-1} | x_t) for t = T..1 (D3PM section 3), noise given.

    Args:
        denoise: the network, (xt, tr.time[t]) -> logits of x_0.
        tr: the forward process.
        xT: where to start.
        noise: t -> uniforms [B, *S]; called with each t in 1..T.
        record: the t in 0..T whose x_t to return.
        reverse: what the logits make of x_{t-1}: `p_logits` for logits of x_0.

    Returns:
        A `Chain`. Look at `failed_at` before using it.

    Raises:
        ValueError: a recorded t is outside 0..T.
    """
    if any(not 0 <= t <= tr.T for t in record):
        raise ValueError(f"record = {list(record)}: every t must be in 0..{tr.T}")
    wanted = jnp.asarray(record, jnp.int32).reshape((-1,) + (1,) * xT.ndim)

    def step(carry: Chain, t: Array) -> tuple[Chain, None]:
        ts = jnp.broadcast_to(t, xT.shape[:1])
        logits = denoise(carry.x0, tr.time[ts])
        x = drawing.categorical(reverse(tr, logits, carry.x0, ts), noise(t))
        failed_at = jnp.where((carry.failed_at == 0) & jnp.any(x < 0), t, carry.failed_at)
        return Chain(x, jnp.where(wanted == t - 1, x[None], carry.states), failed_at), None

    xT = xT.astype(jnp.int32)
    states = jnp.broadcast_to(xT[None], (len(record), *xT.shape))
    start = Chain(xT, states, jnp.asarray(0, jnp.int32))
    return lax.scan(step, start, jnp.arange(tr.T, 0, -1, dtype=jnp.int32))[0]


def sample(
    key: Key[Array, ""],
    denoise: Denoise,
    tr: Transition,
    shape: tuple[int, ...],
    start: int | Int[Array, ""] = 0,
    record: Sequence[int] = (),
    reverse: Reverse = p_logits,
) -> Chain:
    """Examples start, start + 1, ... of the endless sample that a key stands for.

    Under `jit`, pass the parameters and `tr` as arguments rather than closing over them.

    Args:
        key: a typed key.
        denoise: the network, (xt, tr.time[t]) -> logits of x_0.
        tr: the forward process.
        shape: (B, *S), how many examples of which shape.
        start: the number of the first example; example i is the same whatever the batch it is drawn in.
        record, reverse: as for `ancestral`.

    Returns:
        A `Chain`. Look at `failed_at` before using it.
    """
    noise = per_example(key, start + jnp.arange(shape[0], dtype=jnp.int32), shape[1:])
    xT = tr.draw_prior(noise(jnp.asarray(PRIOR_STEP, jnp.int32)))
    return ancestral(denoise, tr, xT, noise, record, reverse)
