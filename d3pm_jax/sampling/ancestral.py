"""Samples ancestrally: every x_{t-1} is drawn from p(x_{t-1} | x_t)."""

from collections.abc import Callable, Sequence
from typing import Annotated

from jaxtyping import Array, Float, Int, Key

from d3pm_jax.beliefs import Belief
from d3pm_jax.checks import CATEGORIES, INDEX, NOISE, Called, at_least, declared
from d3pm_jax.processes.base import Process
from d3pm_jax.sampling.chain import Chain
from d3pm_jax.sampling.denoise import Denoise
from d3pm_jax.sampling.noise import Noise
from d3pm_jax.sampling.sampler import Sampler, run_sampler, sample_by
from d3pm_jax.sampling.transitions import OwnReverse

# What the logits make of x_{t-1}: log p(x_{t-1} | x_t).
Reverse = Annotated[
    Callable[
        [Process, Float[Array, " B *S K"], Int[Array, " B *S"], Int[Array, " B"]], Float[Array, " B *S K"]
    ],
    Called("process, logits, xt, t", "return log p(x_{t-1} | x_t) of each category, categories last"),
]


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
    return run_sampler(
        reverse_by(reverse), denoise, process, xT, lambda row, stream: noise(row), record, belief
    )


def reverse_by(reverse: Reverse | None) -> Sampler:
    """Returns the sampler that draws from a reverse step, by default from `p_logits`."""
    if reverse is None:
        return Sampler()
    return Sampler(OwnReverse(reverse))


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
    return sample_by(key, reverse_by(reverse), denoise, process, shape, start, record, belief)
