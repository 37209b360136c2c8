"""Edits examples: noises them part of the way, and draws the way back."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from d3pm_jax.beliefs import Belief
from d3pm_jax.checks import CATEGORIES, INDEX, NOISE, declared
from d3pm_jax.processes.base import Process
from d3pm_jax.sampling.chain import Chain, Row
from d3pm_jax.sampling.denoise import Denoise
from d3pm_jax.sampling.noise import DRAW, Streams, per_example
from d3pm_jax.sampling.places import FirstHitting
from d3pm_jax.sampling.sampler import PRIOR_STEP, Plan, Sampler, make_plan, read_plan, run_sampler


@declared(x0=CATEGORIES, noise=NOISE)
def run_edit(
    sampler: Sampler,
    denoise: Denoise,
    process: Process,
    x0: Int[Array, " B *S"],
    strength: float,
    noise: Streams,
    record: Sequence[int] = (),
    belief: Belief = "d3pm",
    known: Bool[Array, " B *S"] | None = None,
    plan: Plan | None = None,
) -> Chain:
    """Draws x_t ~ q(x_t | x_0) at t = round(strength T), and from there x_0 by a sampler (2108.01073).

    Args:
        sampler: its slots; none that draws blocks.
        denoise: the network, (x, process.time[t]) -> logits of x_0.
        process: the forward process.
        x0: the examples.
        strength: in (0, 1]: how much of the process they go through, at least one step. At 1 they begin from
            q(x_T | x_0), where next to nothing is left of them.
        noise: (row, stream) -> uniforms [B, *S]; that of row 0 draws x_t.
        record, belief: as for `run_sampler`.
        known: which places stay as they are in x0; none by default.
        plan: the rows of the sampler from T to 0, of `make_plan` by default; `rows_of_edit` are taken.

    Returns:
        A `Chain`. Look at `failed_at` before using it.

    Raises:
        ValueError: strength is outside (0, 1], or the sampler begins with all places masked.
    """
    whole_plan = make_plan(sampler, process, x0.shape[1:]) if plan is None else read_plan(plan)
    rows = rows_of_edit(sampler, whole_plan, strength, process.T)
    # Rows that reveal begin at T, each of them: they go by what is masked.
    level = rows[0].t if sampler.reveal is None else find_level(strength, process.T)
    xt = process.draw_q(x0, jnp.asarray(level, jnp.int32), noise(jnp.asarray(PRIOR_STEP, jnp.int32), DRAW))
    clean = None if known is None else x0
    return run_sampler(sampler, denoise, process, xt, noise, record, belief, clean, known, rows)


@declared(x0=CATEGORIES, start=INDEX)
def edit(
    key: Key[Array, ""],
    sampler: Sampler,
    denoise: Denoise,
    process: Process,
    x0: Int[Array, " B *S"],
    strength: float,
    start: int | Int[Array, ""] = 0,
    record: Sequence[int] = (),
    belief: Belief = "d3pm",
    known: Bool[Array, " B *S"] | None = None,
    plan: Plan | None = None,
) -> Chain:
    """Runs `run_edit` with the noise of `sample_by`.

    Args:
        key: a typed key.
        sampler: its slots, or one of `sampling.named`.
        denoise, process, x0, strength, record, belief, known, plan: as for `run_edit`.
        start: the number of the first example; the noise of example i is the same in any batch.

    Returns:
        A `Chain`. Look at `failed_at` before using it.
    """
    noise = per_example(key, start + jnp.arange(len(x0), dtype=jnp.int32), x0.shape[1:])
    return run_edit(sampler, denoise, process, x0, strength, noise, record, belief, known, plan)


def find_level(strength: float, T: int) -> int:
    """round(strength T), at least 1: the step that an edit begins at.

    Args:
        strength: in (0, 1].
        T: number of steps.

    Raises:
        ValueError: strength is outside (0, 1].
    """
    if not 0 < strength <= 1:
        raise ValueError(f"strength = {strength}: it must be above 0, and at most 1")
    return max(1, round(strength * T))


def rows_of_edit(sampler: Sampler, plan: Sequence[Row], strength: float, T: int) -> tuple[Row, ...]:
    """Returns the rows of a plan that an edit takes: from the first on whose t is nearest to its level.

    Args:
        sampler: that the plan is of. One that reveals goes by what is masked, and takes all of its rows.
        plan: from T to 0.
        strength: in (0, 1].
        T: number of steps.

    Raises:
        ValueError: strength is outside (0, 1], the plan has no rows that go down, or the sampler begins with
            all places masked.
    """
    level = find_level(strength, T)
    if sampler.block is not None:
        raise ValueError(
            f"block = {sampler.block}: a block is drawn while all after it are masked, and an edit masks a "
            f"part of each; leave out block"
        )
    if isinstance(sampler.reveal, FirstHitting):
        raise ValueError(
            "FirstHitting begins where all places are masked, and an edit masks a part: take `random_order`"
        )
    if sampler.reveal is not None:
        return tuple(plan)
    # A row that goes back up belongs to one above it.
    distances = {i: abs(row.t - level) for i, row in enumerate(plan) if row.s <= row.t}
    if not distances:
        raise ValueError("the plan has no rows that go down: pass what make_plan returns")
    first = min(distances, key=lambda i: distances[i])
    return tuple(plan[first:])
