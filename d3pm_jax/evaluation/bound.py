"""Computes on many examples what a run says of them, and summarizes it.

That is the bound of a network or the exact likelihood, of a flow the log weights of which its bounds are
made, and of a classifier how well it tells the labels of noised examples.

A batch is evaluated by one compiled program, a `Compiled`, and `evaluate_bound` goes through the examples.
Noise follows from a seed and the number of an example in its data set, so that a result does not depend on
the batch size or on the number of devices.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from d3pm_jax import flows, likelihood, losses, orders
from d3pm_jax.beliefs import Belief
from d3pm_jax.checks import values_in_range
from d3pm_jax.errors import UserError
from d3pm_jax.keys import make_key
from d3pm_jax.placing import fetch, place
from d3pm_jax.posteriors import q_sample
from d3pm_jax.processes import Process
from d3pm_jax.projection import all_logits
from d3pm_jax.sampling.noise import EVALUATION, fold_in_each, per_example
from d3pm_jax.timesteps import StepNoise

__all__ = [
    "all_orders_nats",
    "all_terms",
    "evaluate_bound",
    "exact_nats",
    "few_terms",
    "left_to_right",
    "mixture_nats",
    "path_nats",
    "random_blocks",
    "random_order",
    "real_time_nats",
    "summarize_bound",
    "summarize_mixture",
]

# (params, process, x0 [B, *S], index [B], extra_inputs) -> nats [.., B]. The index is the number of each
# example in its data set; extra_inputs has "label" [B] for a network that takes labels, "weight" [B, *S]
# of padded data, and "condition" [B, *C] of data that has conditions.
Compiled = Callable[..., Any]

# (index [B], *S, number) -> numbers in [0, 1) [B, *S], one of several orders; elements are filled in from the
# lowest number to the highest.
Order = Callable[[jax.Array, tuple[int, ...], int], jax.Array]

# (params, x [B, *S], u [B, *S], normal [B, *S, D]) -> log p(v) - log q(v | x) of one v for each example, [B]
LogWeights = Callable[..., Array]


def all_terms(
    predict: Callable[..., Any], seed: int, term: likelihood.Term = losses.posterior_kl
) -> Compiled:
    """Makes the jitted function of a batch that computes all terms, by `likelihood.estimate_bound`.

    Args:
        predict: the network, (params, xt, time) -> logits of x_0, with the keywords label and weight where a
            batch has them.
        seed: of the noise; the terms of example i do not depend on the others.
        term: what the logits cost at a step.
    """
    return _compiled(predict, seed, partial(likelihood.estimate_bound, term=term))


def few_terms(
    predict: Callable[..., Any], calls: int, seed: int, term: likelihood.Term = losses.posterior_kl
) -> Compiled:
    """Makes the jitted function of a batch that estimates the bound, by `likelihood.stratified_bound`.

    Args:
        predict, seed, term: as for `all_terms`.
        calls: of the network per example: how many of the terms are computed.
    """
    return _compiled(predict, seed, partial(likelihood.stratified_bound, n=calls, term=term))


def _compiled(predict: Callable[..., Any], seed: int, estimate: Callable[..., Any]) -> Compiled:
    """Makes the jitted function of an estimate, (key, denoise, process, x0, index, weight=None) -> nats."""

    @jax.jit
    def bound(params: Any, process: Process, x0: Any, index: Any, extra_inputs: dict[str, Any]) -> Any:
        key = jax.random.fold_in(make_key(seed), EVALUATION)
        denoise = partial(predict, params, **extra_inputs)
        with values_in_range():
            return estimate(key, denoise, process, x0, index, weight=extra_inputs.get("weight"))

    return bound


def real_time_nats(
    predict: Callable[..., Any],
    compute: Callable[..., tuple[Array, Array, Array]],
    num: int,
    seed: int,
) -> Compiled:
    """Makes the jitted function of a batch that estimates a bound in continuous time from some times, [B].

    It is the mean over time, uniform in (0, T], of what an objective costs there, at a random time in each of
    as many equal parts.

    Args:
        predict: the network, (params, x_t, time T of the whole process) -> logits of x_0, with the keywords
            label and weight where a batch has them.
        compute: of an objective in continuous time, (process, network, x_0, `timesteps.StepNoise`, weight)
            -> loss, kl and ce [B, *S]; T kl is in nats per unit of time.
        num: how many times for each example, and calls.
        seed: of the noise, which depends on the number of an example alone.
    """

    def estimate(
        key: Array, denoise: Callable[..., Array], process: Process, x0: Array, index: Array, weight: Any
    ) -> Array:
        key_time, key_draw = jax.random.split(key)
        u = per_example(key_time, index, (num,))(jnp.asarray(0, jnp.int32))  # [B, num]
        noise = per_example(key_draw, index, x0.shape[1:])

        def network(x: Array, t: Array, **inputs: Any) -> Any:
            # A respaced process has times up to its own T, and the network knows those of the original.
            return denoise(x, t * (process.time[-1] / process.T), **inputs)

        def compute_part(j: Array) -> Array:
            t = (j + 1 - u[:, j]) / num * process.T  # [B]
            _, kl, _ = compute(process, network, x0, StepNoise(t, jnp.ones_like(t), noise(j)), weight)
            return _sum_elements(kl * process.T, weight)

        return jnp.mean(jax.lax.map(compute_part, jnp.arange(num, dtype=jnp.int32)), axis=0)

    return _compiled(predict, seed, estimate)


def path_nats(predict: Callable[..., Any], belief: Belief, draws: int, seed: int) -> Compiled:
    """Makes the jitted function of a batch that computes -`likelihood.trajectory_log_weight`, [draws, B].

    Args:
        predict: the network, as for `all_terms`.
        belief: what its logits are.
        draws: how many paths for each example, one after the other; of whole examples, without weights.
        seed: of the noise, which depends on the number of an example alone.
    """

    def estimate(
        key: Array, denoise: Callable[..., Array], process: Process, x0: Array, index: Array, weight: Any
    ) -> Array:
        if weight is not None:
            raise UserError("the examples have weights, but paths are of whole examples: leave weight out")

        def compute_path(draw: Array) -> Array:
            noise = per_example(jax.random.fold_in(key, draw), index, x0.shape[1:])
            return -likelihood.trajectory_log_weight(denoise, process, x0, noise, belief)

        return jax.lax.map(compute_path, jnp.arange(draws, dtype=jnp.int32))

    return _compiled(predict, seed, estimate)


def left_to_right(index: jax.Array, shape: tuple[int, ...], number: int = 0) -> jax.Array:
    """Returns the `Order` from the first element to the last, whatever its number: numbers that rise."""
    n = math.prod(shape)
    return jnp.broadcast_to((jnp.arange(n) / n).reshape(1, *shape), (len(index), *shape))


def random_order(seed: int) -> Order:
    """Makes a random `Order`, which depends on the number of the example and on its own alone."""
    key = jax.random.fold_in(make_key(seed), EVALUATION)

    def draw_order(index: jax.Array, shape: tuple[int, ...], number: int = 0) -> jax.Array:
        return per_example(key, index, shape)(jnp.asarray(0, jnp.int32), number)  # [B, *S]

    return draw_order


def random_blocks(seed: int) -> Order:
    """Makes a random `Order` of blocks, x[:, 0], x[:, 1], ..: each is filled in before the next begins."""
    key = jax.random.fold_in(make_key(seed), EVALUATION)
    key_of_blocks, key_inside = jax.random.split(key)

    def draw_order(index: jax.Array, shape: tuple[int, ...], number: int = 0) -> jax.Array:
        row = jnp.asarray(0, jnp.int32)
        blocks = per_example(key_of_blocks, index, shape[:1])(row, number)  # [B, F]
        inside = per_example(key_inside, index, shape)(row, number)  # [B, F, *R]
        return orders.by_block(blocks, inside)

    return draw_order


def exact_nats(predict: Callable[..., jax.Array], mask_id: int) -> Compiled:
    """Makes the jitted function of a batch that computes -log p(x_0) [B], by `likelihood.chain_rule`.

    The order is one of its extra inputs, so that a program serves all orders: "order" [B, *S], see
    `left_to_right`. With "given" bool [B, *S] it computes -log p(the rest | what is given), which has to come
    first in the order.

    Args:
        predict: a network that sees no time, with the keywords label and weight where a batch has them.
        mask_id: which category the mask is. Padding is not attended to, and costs nothing.
    """

    @jax.jit
    def nats(params: Any, process: Any, x0: Any, index: Any, extra_inputs: dict[str, Any]) -> jax.Array:
        inputs = dict(extra_inputs)
        order = inputs.pop("order")
        given = inputs.pop("given", False)
        # The network ignores t, but takes one.
        fill_in = partial(predict, params, t=jnp.ones(len(x0), jnp.int32), **inputs)
        weight = jnp.where(given, 0.0, inputs.get("weight", jnp.ones(x0.shape)))
        with values_in_range():
            each = likelihood.chain_rule(fill_in, x0, order, mask_id)
        return _sum_elements(each, weight)

    return nats


def _sum_elements(nats: Array, weight: Array | None) -> Array:
    """Returns the sums of nats over the elements of each example, [B]; a weight of 0 counts for nothing."""
    if weight is not None:
        nats = jnp.where(weight > 0, weight * nats, 0.0)
    return nats.reshape(len(nats), -1).sum(1)


def all_orders_nats(predict: Callable[..., jax.Array], mask_id: int) -> Compiled:
    """Makes the jitted function of a batch that computes -log p(x_0) [B] by `orders.all_orders`.

    Of the extra inputs "given" bool [B, *S] is what is known: it is always visible, and costs nothing.

    Args:
        predict: a network that sees no time, with the keyword label where a batch has it.
        mask_id: which category the mask is.
    """

    @jax.jit
    def nats(params: Any, process: Any, x0: Any, index: Any, extra_inputs: dict[str, Any]) -> jax.Array:
        inputs = dict(extra_inputs)
        given = inputs.pop("given", jnp.zeros(x0.shape, bool))
        if "weight" in inputs:
            raise UserError(
                "the examples have weights, but all orders are of whole examples: take some orders"
            )

        def fill_in(xt: Array) -> Array:
            visible = jnp.where(given, x0, xt)
            # Of examples of a few elements, whose logits may all be in memory.
            said = predict(params, visible, t=jnp.ones(len(x0), jnp.int32), **inputs)
            logits = all_logits(said)  # [B, *S, K]
            certain = jnp.log(jax.nn.one_hot(x0, logits.shape[-1]))
            return jnp.where(given[..., None], certain, logits)

        with values_in_range():
            return orders.all_orders(fill_in, x0, mask_id)

    return nats


def evaluate_bound(
    compiled: Compiled,
    params: Any,
    process: Process | None,
    x0: np.ndarray,
    batch_size: int,
    sharding: jax.sharding.NamedSharding | None = None,
    extra_inputs: Mapping[str, np.ndarray] | None = None,
    progress: Callable[[int], Any] = lambda done: None,
) -> Any:
    """Computes the bound of many examples in batches.

    Args:
        compiled: of `all_terms`, `few_terms`, `exact_nats`, `all_orders_nats`, `real_time_nats`, `path_nats`,
            `compile_log_weights` or `compile_label_terms`.
        params: of the network.
        process: the forward process; None for a flow.
        x0: int32 [N, *S].
        batch_size: how many at a time; rounded down to a multiple of the devices of the sharding.
        sharding: of a batch, where it is spread over devices.
        extra_inputs: "label" int32 [N] for a network that takes labels, and "weight" [N, *S] and
            "condition" [N, *C] if there are any.
        progress: is called with the number of examples that are done, first with 0 when all is compiled.

    Returns:
        In nats per example, on the host: a `likelihood.Bound` with steps [T, N] and prior [N], or of
        `few_terms` and `real_time_nats` an estimate [N], of `exact_nats` and `all_orders_nats` the likelihood
        [N], of `path_nats` [draws, N], of a flow what its function returns.

    Raises:
        UserError: a term is NaN.
    """
    N = len(x0)
    devices = 1
    if sharding is not None:
        devices = sharding.mesh.size
    size = max(1, min(batch_size, N) // devices) * devices
    extra_inputs = extra_inputs or {}
    results = []
    for start in range(0, N, size):
        # The last batch repeats the last example until it is as long as the others: the program is compiled
        # for one shape. What is computed of the repetitions is cut off below.
        index = np.arange(start, start + size)
        rows = np.minimum(index, N - 1)
        extra_rows = {name: values[rows] for name, values in extra_inputs.items()}
        placed = place((x0[rows], index.astype(np.int32), extra_rows), sharding)
        result = compiled(params, process, *placed)

        # The call returns when the program is compiled and started. So progress begins with 0 at the end of
        # the compilation, and its clock measures the computation alone.
        progress(start)
        results.append(fetch(result))
    progress(N)
    nats = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=-1)[..., :N], *results)  # leaves [.., N]
    if any(np.isnan(leaf).any() for leaf in jax.tree.leaves(nats)):
        raise UserError("the bound is NaN: the weights of this checkpoint are not finite; use another one")
    return nats


def count_elements(x0: np.ndarray, weight: np.ndarray | None = None) -> int | np.ndarray:
    """Returns D: the number of elements of an example, or with weights their sum in each, float64 [N]."""
    if weight is None:
        return x0[0].size
    return weight.reshape(len(weight), -1).sum(1, dtype=np.float64)


def summarize_bound(total: np.ndarray, D: int | np.ndarray) -> dict[str, float | None]:
    """Returns the mean of a bound per dimension in bits and per example in nats, with standard errors.

    Per dimension it is the ratio r = sum_i nats_i / sum_i D_i over N independent examples, whose error is
    sqrt(sum_i (nats_i - r D_i)^2 / (N - 1) / N) / mean D, that of a mean where all D_i are the same.

    Args:
        total: nats per example [N]; the error of one example alone, or of an infinite total, is None.
        D: the number of elements in an example, or the sum of the weights of each, [N].
    """
    N = len(total)
    nats = np.asarray(total, np.float64)  # [N]
    dims = np.broadcast_to(np.asarray(D, np.float64), N)  # [N]
    ratio = nats.sum() / dims.sum()  # nats per dimension

    bits_error = None
    nats_error = None
    if N > 1 and np.isfinite(nats).all():
        ratio_error = _standard_error(nats - ratio * dims) / dims.mean()
        bits_error = float(likelihood.bits_per_dim(ratio_error, 1))
        nats_error = float(_standard_error(nats - nats.mean()))
    return {
        "bits_per_dim": float(likelihood.bits_per_dim(ratio, 1)),
        "standard_error": bits_error,
        "nats": float(nats.mean()),
        "nats_standard_error": nats_error,
    }


def mixture_nats(nats: np.ndarray) -> np.ndarray:
    """Returns -log((1/M) sum_m exp(-nats_m)) of M draws [M, N]: `orders.mixture` on the host, float64 [N]."""
    return math.log(len(nats)) - np.logaddexp.reduce(-np.asarray(nats, np.float64), axis=0)


def summarize_mixture(nats: np.ndarray, D: int | np.ndarray, common: bool) -> dict[str, Any]:
    """Returns the mean of nats over orders that were drawn, and the nats of their mixture, with errors.

    The mixture is -log((1/M) sum_m p_m). A standard error over draws is that of the influence which each of
    them has on a figure, nats_m - mean and 1 - p_m / mean p (the delta method).

    Args:
        nats: in M orders, [M, N].
        D: the number of elements in an example, or the sum of the weights of each, [N].
        common: whether an order is the same for all examples. Then the errors over draws come on top of those
            over examples, where all orders are meant. The errors over examples that have orders of their own
            contain them, and none are given.

    Returns:
        "mean", "mixture" and "gain", the mean of their differences, each with the entries of
        `summarize_bound` and "nats_draws_error", the error over draws, None where there is none or one draw;
        and "effective", of how many equal draws the mixture is in the mean.
    """
    nats = np.asarray(nats, np.float64)
    mean = nats.mean(0)  # [N]
    mixture = mixture_nats(nats)
    # An example may be impossible in some draws, and its mean is infinite then.
    with np.errstate(invalid="ignore"):
        ratio = np.exp(mixture - nats)  # p_m / mean p, [M, N]
        influence_on_mean = nats - mean
        gain = mean - mixture
    effective = np.nan_to_num(len(nats) ** 2 / (ratio**2).sum(0))  # 0 of an example that is impossible in all
    result: dict[str, Any] = {"effective": float(effective.mean())}
    for name, values, influence in (
        ("mean", mean, influence_on_mean),
        ("mixture", mixture, 1 - ratio),
        ("gain", gain, influence_on_mean - (1 - ratio)),
    ):
        error = None
        if common and len(nats) > 1 and np.isfinite(influence).all():
            error = float(_standard_error(influence.mean(1)))
        result[name] = summarize_bound(values, D) | {"nats_draws_error": error}
    return result


def format_with_error(value: float, error: float | None, digits: int, sign: str = "+-") -> str:
    """Writes a figure of `summarize_bound` and its standard error with this number of decimals."""
    if error is None:
        return f"{value:.{digits}f} {sign} unknown"
    return f"{value:.{digits}f} {sign} {error:.{digits}f}"


def _standard_error(centred: np.ndarray) -> np.floating:
    """Returns the standard error of a mean from the differences of the values [N] to it."""
    return np.sqrt((centred**2).sum() / (len(centred) - 1) / len(centred))


def summarize_parts(bound: likelihood.Bound, D: int | np.ndarray) -> dict[str, Any]:
    """Returns the parts of a bound in bits per dimension: reconstruction, prior, and the term of every t."""
    mean_D = np.mean(D)
    step_nats = np.asarray(bound.steps, np.float64).mean(1)  # [T]
    prior_nats = np.asarray(bound.prior, np.float64).mean()
    steps = np.asarray(likelihood.bits_per_dim(step_nats / mean_D, 1))  # [T]
    prior = np.asarray(likelihood.bits_per_dim(prior_nats / mean_D, 1))
    return {"reconstruction": float(steps[0]), "prior": float(prior), "steps": steps.tolist()}


def compile_log_weights(log_weights: LogWeights, num_digits: int, draws: int, seed: int) -> Compiled:
    """Makes the jitted function of a batch that computes log p(v) - log q(v | x) of some v, [draws, B].

    Args:
        log_weights: of the flow.
        num_digits: D, numbers of v for each category.
        draws: how many v for each example; one after the other, so that no more than one is in memory.
        seed: of the noise, which depends on the number of an example alone.
    """

    @jax.jit
    @values_in_range()
    def compute(params: Any, process: None, x0: Any, index: Any, extra_inputs: dict[str, Any]) -> Array:
        if "weight" in extra_inputs:
            raise UserError("the examples have weights, but a flow takes whole examples: leave weight out")
        key = jax.random.fold_in(make_key(seed), EVALUATION)
        keys = fold_in_each(key, index)

        def compute_draw(draw: Array) -> Float[Array, " B"]:
            draw_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, draw)
            u, normal = draw_each(draw_keys, x0.shape[1:], num_digits)
            return log_weights(params, x0, u, normal)

        return jax.lax.map(compute_draw, jnp.arange(draws, dtype=jnp.int32))  # [draws, B]

    return compute


def draw_each(
    keys: Key[Array, " B"], shape: tuple[int, ...], num_digits: int
) -> tuple[Float[Array, " B *S"], Float[Array, "B *S D"]]:
    """Draws the noise of one v for each key.

    Args:
        keys: one for each example.
        shape: *S of an example.
        num_digits: D, numbers of v for each category.

    Returns:
        u, uniform in [0, 1), which draws codes, and standard normal noise, which draws v.
    """
    pairs = jax.vmap(jax.random.split)(keys)  # [B, 2]
    u = jax.vmap(lambda key: jax.random.uniform(key, shape))(pairs[:, 0])
    normal = jax.vmap(lambda key: jax.random.normal(key, (*shape, num_digits)))(pairs[:, 1])
    return u, normal


def elbo_and_importance_bound(log_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns minus the ELBO and minus the IWBO of each example, in nats [N], of log weights [draws, N]."""
    elbo = log_weights.mean(axis=0, dtype=np.float64)
    importance_bound = np.asarray(flows.importance_bound(jnp.asarray(log_weights)))
    return -elbo, -importance_bound


class LabelTerms(NamedTuple):
    """Holds what a classifier says of the label of each example, at each of some steps."""

    nats: Float[Array, "n B"]  # -log p(label | x_t, t)
    is_right: Float[Array, "n B"]  # 1 where the label is the most probable, else 0


def compile_label_terms(classify: Callable[..., Array], steps: Sequence[int], seed: int) -> Compiled:
    """Makes the jitted function of a batch that computes its `LabelTerms`, each at one x_t ~ q(x_t | x_0).

    Args:
        classify: the classifier, (params, x_t [B, *S], time [B]) -> log p(label | x_t, t) of every label,
            [B, classes].
        steps: t in 0..T; no more than one has its x_t in memory.
        seed: of the noise; the terms of example i do not depend on the others.
    """

    @jax.jit
    @values_in_range()
    def compute(params: Any, process: Process, x0: Any, index: Any, extra_inputs: dict[str, Any]) -> Any:
        key = jax.random.fold_in(make_key(seed), EVALUATION)
        noise = per_example(key, index, x0.shape[1:])
        label = extra_inputs["label"]

        def compute_step(t: Array) -> LabelTerms:
            ts = jnp.broadcast_to(t, x0.shape[:1])  # [B]
            xt = q_sample(process, x0, ts, noise(t))  # [B, *S]
            log_p = classify(params, xt, process.time[ts])  # [B, classes]
            nats = -jnp.take_along_axis(log_p, label[:, None], axis=1)[:, 0]
            is_right = (jnp.argmax(log_p, axis=1) == label).astype(nats.dtype)
            return LabelTerms(nats, is_right)

        return jax.lax.map(compute_step, jnp.asarray(steps, jnp.int32))  # leaves [n, B]

    return compute


def summarize_labels(terms: LabelTerms) -> dict[str, Any]:
    """Returns the means over steps and examples with standard errors, and the mean at each step.

    The error of one example alone is None.
    """
    figures: dict[str, Any] = {}
    by_name = {"cross_entropy": terms.nats, "accuracy": terms.is_right}
    for name, values in by_name.items():
        values = np.asarray(values, np.float64)  # [n, N]
        mean_of_example = values.mean(axis=0)  # [N]
        figures[name] = float(mean_of_example.mean())
        error = None
        if len(mean_of_example) > 1:
            error = float(mean_of_example.std(ddof=1) / math.sqrt(len(mean_of_example)))
        figures[f"{name}_standard_error"] = error
        figures[f"{name}_by_step"] = values.mean(axis=1).tolist()
    return figures
