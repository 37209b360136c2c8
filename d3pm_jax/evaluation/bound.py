"""Computes the bound of a network on many examples, or their exact likelihood, as numbers."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from d3pm_jax import likelihood, losses
from d3pm_jax.checks import bare
from d3pm_jax.errors import UserError
from d3pm_jax.placing import fetch, place
from d3pm_jax.processes import Process
from d3pm_jax.sampling.noise import EVALUATION, per_example

# params, process, x0 [B, *S], index [B], {"label": [B], "weight": [B, *S]} or less -> nats [.., B]
Compiled = Callable[..., Any]
Order = Callable[[jax.Array, tuple[int, ...]], jax.Array]  # index [B], *S -> numbers in [0, 1) [B, *S]


def all_terms(
    predict: Callable[..., Any], seed: int, term: likelihood.Term = losses.posterior_kl
) -> Compiled:
    """Makes the jitted (params, process, x0, index, more) -> `likelihood.estimate_bound`, for a batch.

    Args:
        predict: the network, (params, xt, time) -> logits of x_0; told label and weight where there are any.
        seed: of the noise; the terms of example i do not depend on the others.
        term: what the logits cost at a step.
    """

    return _compiled(predict, seed, partial(bare(likelihood.estimate_bound), term=term))


def few_terms(
    predict: Callable[..., Any], calls: int, seed: int, term: likelihood.Term = losses.posterior_kl
) -> Compiled:
    """Makes the same with `likelihood.stratified_bound`, of so many calls of the network per example."""

    return _compiled(predict, seed, partial(bare(likelihood.stratified_bound), n=calls, term=term))


def _compiled(predict: Callable[..., Any], seed: int, estimate: Callable[..., Any]) -> Compiled:
    """Makes the jitted function of an estimate, (key, denoise, process, x0, index, weight=None) -> nats."""

    @jax.jit
    def bound(params: Any, process: Process, x0: Any, index: Any, more: dict[str, Any]) -> Any:
        key = jax.random.fold_in(jax.random.key(seed), EVALUATION)
        denoise = partial(predict, params, **more)
        return estimate(key, denoise, process, x0, index, weight=more.get("weight"))

    return bound


def left_to_right(index: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns numbers that rise from the first element to the last."""
    n = math.prod(shape)
    return jnp.broadcast_to((jnp.arange(n) / n).reshape(1, *shape), (len(index), *shape))


def random_order(seed: int) -> Order:
    """Makes an order of its own for every example, from its number alone."""
    key = jax.random.fold_in(jax.random.key(seed), EVALUATION)
    return lambda index, shape: per_example(key, index, shape)(jnp.asarray(0, jnp.int32))


def exact_nats(predict: Callable[..., jax.Array], mask_id: int, order: Order) -> Compiled:
    """Makes the jitted (params, process, x0, index, more) -> -log p(x_0) [B] of `likelihood.chain_rule`.

    Args:
        predict: a network that sees no time, told label and weight where there are any.
        mask_id: which category the mask is.
        order: of the elements; padding is not attended to, and costs nothing.
    """

    @jax.jit
    def nats(params: Any, process: Any, x0: Any, index: Any, more: dict[str, Any]) -> jax.Array:
        fill_in = partial(predict, params, t=jnp.ones(len(x0), jnp.int32), **more)
        weight = more.get("weight", jnp.ones(x0.shape))
        each = bare(likelihood.chain_rule)(fill_in, x0, order(index, x0.shape[1:]), mask_id)
        return jnp.where(weight > 0, weight * each, 0.0).reshape(len(x0), -1).sum(1)

    return nats


def evaluate_bound(
    compiled: Compiled,
    params: Any,
    process: Process,
    x0: np.ndarray,
    batch_size: int,
    sharding: jax.sharding.NamedSharding | None = None,
    more: Mapping[str, np.ndarray] | None = None,
    progress: Callable[[int], Any] = lambda done: None,
) -> Any:
    """Computes the bound of many examples in batches.

    Args:
        compiled: of `all_terms`, `few_terms` or `exact_nats`.
        params: of the network.
        process: the forward process.
        x0: int32 [N, *S].
        batch_size: how many at a time; rounded down to a multiple of the devices of the sharding.
        sharding: of a batch, where it is spread over devices.
        more: "label" int32 [N] for a network that takes them, and "weight" [N, *S] if there are any.
        progress: is called with the number of examples that are done, first with 0 when all is compiled.

    Returns:
        In nats per example, on the host: a `likelihood.Bound` with steps [T, N] and prior [N], or of
        `few_terms` an estimate [N], of `exact_nats` the likelihood [N].

    Raises:
        UserError: a term is NaN.
    """
    devices = 1 if sharding is None else sharding.mesh.size
    size = max(1, min(batch_size, len(x0)) // devices) * devices
    parts = []
    for start in range(0, len(x0), size):
        index = np.arange(start, start + size)
        taken = np.minimum(index, len(x0) - 1)  # the last batch is filled up, and cut below
        told = {name: values[taken] for name, values in (more or {}).items()}
        placed = place((x0[taken], index.astype(np.int32), told), sharding)
        part = compiled(params, process, *placed)
        progress(start)
        parts.append(fetch(part))
    progress(len(x0))
    found = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=-1)[..., : len(x0)], *parts)
    if any(np.isnan(leaf).any() for leaf in jax.tree.leaves(found)):
        raise UserError("the bound is NaN: the weights of this checkpoint are not finite; use another one")
    return found


def count_elements(x0: np.ndarray, weight: np.ndarray | None = None) -> int | np.ndarray:
    """Returns D: how many elements each example has, or the sums of their weights, float64 [N]."""
    return x0[0].size if weight is None else weight.reshape(len(weight), -1).sum(1, dtype=np.float64)


def summarize_bound(total: np.ndarray, D: int | np.ndarray) -> dict[str, float | None]:
    """Gives a bound as numbers, per dimension and per example, each with its standard error.

    Per dimension it is the ratio r = sum_i nats_i / sum_i D_i over N independent examples, whose error is
    sqrt(sum_i (nats_i - r D_i)^2 / (N - 1) / N) / mean D, that of a mean where all D_i are the same.

    Args:
        total: nats per example [N]; the error of one example alone, or of an infinite total, is None.
        D: the number of elements in an example, or the sum of the weights of each, [N].
    """
    nats, N = np.asarray(total, np.float64), len(total)
    each = np.broadcast_to(np.asarray(D, np.float64), N)
    ratio, known = nats.sum() / each.sum(), N > 1 and bool(np.isfinite(nats).all())
    per_element = np.array([ratio, _error(nats - ratio * each) / each.mean() if known else np.nan])
    bits, error = likelihood.bits_per_dim(per_element, 1).tolist()
    return {
        "bits_per_dim": bits,
        "standard_error": error if known else None,
        "nats": float(nats.mean()),
        "nats_standard_error": float(_error(nats - nats.mean())) if known else None,
    }


def format_with_error(value: float, error: float | None, digits: int, sign: str = "+-") -> str:
    """Writes a figure of `summary` and its standard error with so many digits behind the point."""
    return f"{value:.{digits}f} {sign} {'unknown' if error is None else f'{error:.{digits}f}'}"


def _error(centred: np.ndarray) -> np.floating:
    """Returns the standard error of a mean from what its values are beside it."""
    return np.sqrt((centred**2).sum() / (len(centred) - 1) / len(centred))


def summarize_parts(bound: likelihood.Bound, D: int | np.ndarray) -> dict[str, Any]:
    """Gives the parts of a bound in bits per dimension: reconstruction, prior, and the term of every t."""
    nats = np.asarray(bound.steps, np.float64).mean(1), np.asarray(bound.prior, np.float64).mean()
    steps, prior = (np.asarray(likelihood.bits_per_dim(x / np.mean(D), 1)) for x in nats)
    return {"reconstruction": float(steps[0]), "prior": float(prior), "steps": steps.tolist()}
