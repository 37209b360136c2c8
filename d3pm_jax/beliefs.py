"""Converts between the two meanings of logits of x_0: the denoiser and the leave-one-out posterior.

The denoiser is p(x_0 | x_t). The leave-one-out posterior of an element is p(x_0 | x_t at all other elements):
it has not seen the element's own x_t. By Bayes' rule they differ by the evidence of that x_t,

    denoiser(x_0) ~ leave_one_out(x_0) q(x_t | x_0).

The reverse step sum_{x_0} q(x_{t-1}, x_t | x_0) p(x_0) of D3PM (eq. 4) counts that evidence itself. So it is
exact for the leave-one-out posterior, while cross entropy trains the denoiser: see docs/reverse-step.md.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from d3pm_jax import numerics
from d3pm_jax.checks import CATEGORIES, declared, steps
from d3pm_jax.processes import Process, expand_trailing, for_each_place, promote

__all__ = ["to_denoiser", "to_leave_one_out"]

# What logits of x_0 are. "d3pm" is as published: the leave-one-out posterior in the reverse step, and the
# denoiser in the cross entropy. "official" is the same with the rule of the official code at t = 1, which
# takes the prediction itself for p(x_0 | x_1). The other two are one thing in both terms.
Belief = Literal["d3pm", "official", "leave_one_out", "denoiser"]


@declared(xt=CATEGORIES, t=steps(0))
@for_each_place
def to_denoiser(
    process: Process, logits_loo: Float[Array, "*S K"], xt: Int[Array, "*S"], t: Int[Array, "..."]
) -> Float[Array, "*S K"]:
    """logits_loo + log q(x_t | x_0): the denoiser p(x_0 | x_t) of a leave-one-out posterior.

    Args:
        process: the forward process.
        logits_loo: unnormalised log p(x_0 | x_t at all other elements); entries may be -inf.
        xt: categories.
        t: steps 0..T; at 0 the denoiser is certain of x_t.

    Returns:
        Unnormalised logs in the type of the tables or wider; -inf where q(x_t | x_0) = 0. A row is all -inf,
        no distribution, where the posterior contradicts x_t. O(K) for `Mixing` and for a mask on top of it.
    """
    return promote(process, logits_loo) + process.log_q_x0(xt, t)


@declared(xt=CATEGORIES, t=steps(0))
@for_each_place
def to_leave_one_out(
    process: Process, logits_denoiser: Float[Array, "*S K"], xt: Int[Array, "*S"], t: Int[Array, "..."]
) -> Float[Array, "*S K"]:
    """logits_denoiser - log q(x_t | x_0): the leave-one-out posterior of a denoiser.

    Args:
        process: the forward process.
        logits_denoiser: unnormalised log p(x_0 | x_t); entries may be -inf.
        xt: categories.
        t: steps 0..T.

    Returns:
        Unnormalised logs in the type of the tables or wider. -inf where q(x_t | x_0) = 0: what x_t rules out
        says nothing of the others, and takes no part in a reverse step. So a row is all -inf, no
        distribution, where the denoiser allows only what x_t rules out.
    """
    evidence = process.log_q_x0(xt, t)  # [*S, K]
    impossible = evidence == -jnp.inf

    # Without this the `where` below would hide the NaN of inf - inf in the value, but not in the gradient.
    evidence = jnp.where(impossible, 0.0, evidence)
    return jnp.where(impossible, -jnp.inf, promote(process, logits_denoiser) - evidence)


@declared(xt=CATEGORIES, t=steps(0))
@for_each_place
def denoiser_of(
    process: Process,
    logits: Float[Array, "*S K"],
    xt: Int[Array, "*S"],
    t: Int[Array, "..."],
    belief: Belief,
) -> Float[Array, "*S K"]:
    """log p(x_0 | x_t), normalised, of logits with a belief.

    "d3pm" counts as leave-one-out, and so does "official" but at t = 1, where it takes the logits for
    p(x_0 | x_1) themselves.

    Args:
        process: the forward process.
        logits: of x_0.
        xt: categories.
        t: steps 0..T.
        belief: what the logits are.

    Returns:
        Normalised logs in nats; -inf where q(x_t | x_0) = 0, whatever a network says there, but for
        "official" at t = 1; all -inf where they contradict x_t.
    """
    if belief == "denoiser":
        # A network that was trained on masked places alone says anything of the others.
        is_possible = process.log_q_x0(xt, t) > -jnp.inf  # [*S, K]
        return numerics.log_normalize(jnp.where(is_possible, promote(process, logits), -jnp.inf))
    converted = to_denoiser(process, logits, xt, t)
    if belief == "official":
        converted = jnp.where(_is_first_step(t, xt.shape), promote(process, logits), converted)
    return numerics.log_normalize(converted)


@declared(xt=CATEGORIES, t=steps(0))
@for_each_place
def leave_one_out_of(
    process: Process,
    logits: Float[Array, "*S K"],
    xt: Int[Array, "*S"],
    t: Int[Array, "..."],
    belief: Belief,
) -> Float[Array, "*S K"]:
    """log p(x_0 | x_t at all other elements), unnormalised, of logits with a belief.

    Args:
        process: the forward process.
        logits: of x_0.
        xt: categories.
        t: steps 0..T.
        belief: what the logits are; `denoiser_of` says what "d3pm" and "official" count as.

    Returns:
        Unnormalised logs [*S, K] in nats.
    """
    if belief == "official":
        at_first = to_leave_one_out(process, logits, xt, t)
        return jnp.where(_is_first_step(t, xt.shape), at_first, promote(process, logits))
    return strip_evidence(process, logits, xt, t, belief)


# What logits of a belief are after `strip_evidence`; others stay what they are.
WITHOUT_EVIDENCE: dict[Belief, Belief] = {"denoiser": "leave_one_out"}


@declared(xt=CATEGORIES, t=steps(0))
@for_each_place
def strip_evidence(
    process: Process,
    logits: Float[Array, "*S K"],
    xt: Int[Array, "*S"],
    t: Int[Array, "..."],
    belief: Belief,
) -> Float[Array, "*S K"]:
    """Returns logits that do not count x_t as evidence: of a denoiser `to_leave_one_out`, others as they are.

    Args:
        process: the forward process.
        logits: of x_0.
        xt: categories.
        t: steps 0..T.
        belief: what the logits are; what they then are says `WITHOUT_EVIDENCE`.

    Returns:
        Unnormalised logs [*S, K] in nats.
    """
    if belief == "denoiser":
        return to_leave_one_out(process, logits, xt, t)
    return logits


def _is_first_step(t: Array, shape: tuple[int, ...]) -> Array:
    return expand_trailing(t, shape)[..., None] == 1


@declared()
def with_belief(belief: Belief, f: Callable[..., Any]) -> Callable[..., Any]:
    """Returns f(..., belief=belief), but f itself for "d3pm", so that a user's f needs no such keyword.

    Args:
        belief: what the logits are.
        f: a term of the bound, or a reverse step.
    """
    if belief == "d3pm":
        return f
    return partial(f, belief=belief)
