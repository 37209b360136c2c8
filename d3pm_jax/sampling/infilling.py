"""Samples the unknown elements of examples: known ones stay as they are in every step of the chain."""

from collections.abc import Sequence

from jaxtyping import Array, Bool, Int, Key

from d3pm_jax.beliefs import Belief
from d3pm_jax.checks import CATEGORIES, INDEX, NOISE, declared
from d3pm_jax.processes.base import Process
from d3pm_jax.sampling.ancestral import Reverse, reverse_by
from d3pm_jax.sampling.chain import Chain
from d3pm_jax.sampling.denoise import Denoise
from d3pm_jax.sampling.noise import Noise
from d3pm_jax.sampling.sampler import run_sampler, sample_by


@declared(x0=CATEGORIES, xT=CATEGORIES, noise=NOISE)
def infill(
    denoise: Denoise,
    process: Process,
    x0: Int[Array, " B *S"],
    known: Bool[Array, " B *S"],
    xT: Int[Array, " B *S"],
    noise: Noise,
    record: Sequence[int] = (),
    reverse: Reverse | None = None,
    belief: Belief = "d3pm",
) -> Chain:
    """x_{t-1} ~ p(x_{t-1} | x_t) for t = T..1 as in `ancestral`, with known elements set to x_0 at every t.

    Exact for an absorbing process with an extra mask and a network that sees no time: such a chain fills in
    what is masked, given what is not, whatever came first. A network of another process, or one that sees
    time, was never shown clean elements among noised ones: `docs/control.md` says how far off it is.

    Args:
        denoise: the network, (xt, process.time[t]) -> logits of x_0.
        process: the forward process.
        x0: the known elements; any category elsewhere.
        known: which they are.
        xT: where to start; known elements are replaced.
        noise, record, reverse, belief: as for `ancestral`.

    Returns:
        A `Chain`. Look at `failed_at` before using it.

    Raises:
        ValueError: a recorded t is outside 0..T.
    """
    return run_sampler(
        reverse_by(reverse),
        denoise,
        process,
        xT,
        lambda row, stream: noise(row),
        record,
        belief,
        x0=x0,
        known=known,
    )


@declared(x0=CATEGORIES, start=INDEX)
def sample_infill(
    key: Key[Array, ""],
    denoise: Denoise,
    process: Process,
    x0: Int[Array, " B *S"],
    known: Bool[Array, " B *S"],
    start: int | Int[Array, ""] = 0,
    record: Sequence[int] = (),
    reverse: Reverse | None = None,
    belief: Belief = "d3pm",
) -> Chain:
    """Runs `infill` with the noise of `sample`: unknown elements start from the same x_T.

    Args:
        key: a typed key.
        denoise, process, x0, known, record, reverse, belief: as for `infill`.
        start: the number of the first example; the noise of example i is the same in any batch.

    Returns:
        A `Chain`. Look at `failed_at` before using it.
    """
    return sample_by(key, reverse_by(reverse), denoise, process, x0.shape, start, record, belief, x0, known)
