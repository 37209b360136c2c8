"""Runs the one loop of all samplers: from t = T down to 1, noise given, as one compiled program.

A sampler is a file beside `ancestral`, which says what a step does.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

from d3pm_jax.checks import INT32, NUM_STEPS, Called, declared

ReverseStep = Annotated[
    Callable[[Int[Array, " B *S"], Int[Array, ""]], Int[Array, " B *S"]],
    Called("xt, t", "return x_{t-1} as integers, -1 where there is none"),
]


class Chain(NamedTuple):
    """Holds the end of a reverse chain, the states on the way, and whether it failed."""

    x0: Int[Array, " B *S"]  # x_t at t = 0
    states: Int[Array, "R B *S"]  # x_t at each recorded t
    failed_at: Int[Array, ""]  # the first step t with nothing to draw from (NaN logits, say); 0 if none


@declared(T=NUM_STEPS, xT=INT32)
def run_chain(step: ReverseStep, T: int, xT: Int[Array, " B *S"], record: Sequence[int] = ()) -> Chain:
    """x_{t-1} = step(x_t, t) for t = T..1.

    Args:
        step: draws x_{t-1}.
        T: number of steps.
        xT: where to start.
        record: the t in 0..T whose x_t to return.

    Returns:
        A `Chain`. Look at `failed_at` before using it.

    Raises:
        ValueError: a recorded t is outside 0..T.
    """
    if any(not 0 <= t <= T for t in record):
        raise ValueError(f"record = {list(record)}: every t must be in 0..{T}")
    recorded_steps = jnp.asarray(record, jnp.int32).reshape((-1,) + (1,) * xT.ndim)  # [R, 1, ..]

    # A scan would stack the x_t of all steps. The carry holds only those that are recorded, and each step
    # writes its own place.
    def body(carry: Chain, t: Array) -> tuple[Chain, None]:
        x = step(carry.x0, t)
        failed_at = jnp.where((carry.failed_at == 0) & jnp.any(x < 0), t, carry.failed_at)
        states = jnp.where(recorded_steps == t - 1, x[None], carry.states)
        return Chain(x, states, failed_at), None

    # Every place begins as x_T, which is right for a recorded T; the others are overwritten.
    xT = xT.astype(jnp.int32)
    states = jnp.broadcast_to(xT[None], (len(record), *xT.shape))  # [R, B, *S]
    start = Chain(xT, states, jnp.asarray(0, jnp.int32))
    return lax.scan(body, start, jnp.arange(T, 0, -1, dtype=jnp.int32))[0]
