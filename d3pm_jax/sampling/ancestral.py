"""Samples ancestrally: every x_{t-1} is drawn from p(x_{t-1} | x_t)."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from d3pm_jax import beliefs
from d3pm_jax.beliefs import Belief
from d3pm_jax.checks import CATEGORIES, INDEX, NOISE, Called, at_least, declared, marked
from d3pm_jax.numerics import inverse_cdf
from d3pm_jax.posteriors import p_sample
from d3pm_jax.processes.base import Process
from d3pm_jax.sampling import chain
from d3pm_jax.sampling.chain import Chain
from d3pm_jax.sampling.noise import Noise, per_example

CURE_OF_LOGITS = "return a float logit of each category for each element, categories last"

# A network: x_t and the time of each example -> logits of x_0.
Denoise = Annotated[
    Callable[[Int[Array, " B *S"], Int[Array, " B"]], Float[Array, " B *S K"]],
    Called("xt, time", CURE_OF_LOGITS),
]

# What the logits make of x_{t-1}: log p(x_{t-1} | x_t).
Reverse = Annotated[
    Callable[
        [Process, Float[Array, " B *S K"], Int[Array, " B *S"], Int[Array, " B"]], Float[Array, " B *S K"]
    ],
    Called("process, logits, xt, t", "return log p(x_{t-1} | x_t) of each category, categories last"),
]

PRIOR_STEP = 0  # the step number whose noise draws x_T: no step of the chain has it


@declared(xT=CATEGORIES, noise=NOISE)
def ancestral(
    denoise: Denoise,
    process: Process,
    xT: Int[Array, " B *S"],
    noise: Noise,
    record: Sequence[int] = (),
    reverse: Reverse | None = None,
    belief: Belief = "d3pm",
) -> Chain:
    """x_{t-1} ~ p(x_{t-1} | x_t) for t = T..1 (D3PM section 3), noise given.

    Args:
        denoise: the network, (xt, process.time[t]) -> logits of x_0.
        process: the forward process.
        xT: where to start.
        noise: t -> uniforms [B, *S]; called with each t in 1..T.
        record: the t in 0..T whose x_t to return.
        reverse: what the logits make of x_{t-1}; by default `p_logits`, for logits of x_0.
        belief: what the logits of x_0 are (see `beliefs`): passed on to `reverse`.

    Returns:
        A `Chain`. Look at `failed_at` before using it.

    Raises:
        ValueError: a recorded t is outside 0..T.
    """

    # `p_sample` draws from `p_logits`, and makes no array of its probabilities where it need not.
    if reverse is None:
        draw_previous = beliefs.with_belief(belief, p_sample)
    else:
        draw_previous = partial(_draw_from, beliefs.with_belief(belief, reverse))

    @marked
    def step(x: Array, t: Array) -> Int[Array, " B *S"]:
        ts = jnp.broadcast_to(t, x.shape[:1])  # [B]
        logits = denoise(x, process.time[ts])  # [B, *S, K]
        return draw_previous(process, logits, x, ts, noise(t))

    return chain.run_chain(step, process.T, xT, record)


def _draw_from(reverse: Reverse, process: Process, logits: Array, xt: Array, t: Array, u: Array) -> Array:
    """Draws x_{t-1} from what a reverse step returns."""
    log_p = reverse(process, logits, xt, t)  # [B, *S, K]
    return inverse_cdf.categorical(log_p, u)


@declared(shape=at_least(0, 2**31 - 1), start=INDEX)
def sample(
    key: Key[Array, ""],
    denoise: Denoise,
    process: Process,
    shape: tuple[int, ...],
    start: int | Int[Array, ""] = 0,
    record: Sequence[int] = (),
    reverse: Reverse | None = None,
    belief: Belief = "d3pm",
) -> Chain:
    """Draws examples start, start + 1, ... of the endless sample that a key stands for.

    Under `jit`, pass the parameters and `process` as arguments rather than closing over them.

    Samples hold whatever category the network predicts. A mask that the data never has is one of them, unless
    `heads.forbid` takes it out of the logits:

        def denoise(xt, t):
            return heads.forbid(network(xt, t), mask_id=K - 1)

        process = processes.absorbing(schedules.reciprocal(T), K, mask_id=K - 1)
        x0 = sampling.sample(key, denoise, process, shape=(16, 64)).x0  # int32 [16, 64], in 0..K - 2

    Args:
        key: a typed key.
        denoise: the network, (xt, process.time[t]) -> logits of x_0; of an extra mask -inf.
        process: the forward process.
        shape: (B, *S), how many examples of which shape.
        start: the number of the first example; example i is the same whatever the batch it is drawn in.
        record, reverse, belief: as for `ancestral`.

    Returns:
        A `Chain`. Look at `failed_at` before using it.
    """
    if not shape:
        raise ValueError("shape = (): it must be (B, *S), the number of examples and the shape of each")
    numbers = start + jnp.arange(shape[0], dtype=jnp.int32)  # [B], of the examples
    noise = per_example(key, numbers, shape[1:])
    xT = process.draw_prior(noise(jnp.asarray(PRIOR_STEP, jnp.int32)))
    return ancestral(denoise, process, xT, noise, record, reverse, belief)
