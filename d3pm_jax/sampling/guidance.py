"""Guides samplers: towards a condition by a network with and without it, or towards a class by a classifier.

    labels = jnp.full(16, 7)
    guided = guidance.classifier_free(network, labels, jnp.full(16, null), gamma=2.0)
    chain = sampling.sample(key, Denoiser(process, guided), shape=(16, 8, 8, 1))

What comes back takes the place of the network of a `Denoiser`.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from d3pm_jax import numerics
from d3pm_jax.checks import (
    CATEGORIES,
    FINITE,
    INDEX,
    LOG_PROBABILITY,
    NUM_CATEGORIES,
    Called,
    declared,
    is_known,
    marked_as,
    promote_types,
    values_in_range,
)
from d3pm_jax.processes import Process, expand_trailing
from d3pm_jax.projection import require_array
from d3pm_jax.sampling.network import (
    CURE_OF_LOGITS,
    Guided,
    Logits,
    Network,
    call_network,
    tell_unit_time,
)

# A network that is told more than x_t and the time: labels, conditions, or a tree of these, each [B, ..].
Conditioned = Annotated[
    Callable[[Int[Array, " B *S"], Int[Array, " B"], Any], Logits],
    Called("xt, time, inputs", CURE_OF_LOGITS),
]
# A classifier that sees noise: x_t as one-hots, or anything between them, and the time; 0 is that of data.
LogProb = Annotated[
    Callable[[Float[Array, " N *S K"], Int[Array, " N"]], Float[Array, " N"]],
    Called("one_hots, time", "return log p(y | x) of each example"),
]
Place = Literal["x_s", "x_0"]


# ---- Without a classifier ----


@declared(gamma=FINITE, late=INDEX)
def classifier_free(
    network: Conditioned,
    inputs: Any,
    null: Any,
    gamma: float,
    on: Place = "x_s",
    late: int | None = None,
) -> Network:
    """log p = gamma log p(. | inputs) + (1 - gamma) log p(. | null), normalised (2412.10193, eq. 8).

    With gamma above 1 samples are more like the condition, and like each other. p is the law of x_s, for
    noise that may be revised, or that of x_0, for masks: there the guided law of x_s would unmask earlier.
    gamma = 1 and 0 are the network with the one or the other, and cost one call a row; any other costs a call
    of twice the batch.

    Args:
        network: (x, process.time[t], inputs) -> logits of x_0; of one told times in [0, 1] the `Denoiser`
            says so.
        inputs: what it is told: labels, a condition, or a tree of such arrays [B, ..].
        null: what it was told in training where that was dropped, of the same shapes.
        gamma: any finite number.
        on: the law that is guided.
        late: guide at times up to this one, in steps; above it gamma is 1. By default at all times.

    Raises:
        TypeError: inputs or null hold something else than numbers, or only one of them floats.
        ValueError: gamma is not finite, late is negative, inputs and null differ in shape, or have no axis
            of examples; when it is called, they are of another number of examples than x.
    """
    if jax.tree.structure(inputs) != jax.tree.structure(null):
        raise ValueError("null is another tree of arrays than inputs are: make both alike")
    jax.tree.map(_check_alike, inputs, null)
    # A gamma that only a program knows is any number.
    if is_known(gamma) and gamma == 1:
        return _bind_inputs(network, inputs)
    if is_known(gamma) and gamma == 0 and late is None:
        return _bind_inputs(network, null)
    guided = ClassifierFree if on == "x_s" else ClassifierFreeX0
    return guided(_bind_inputs(network, inputs, null), gamma, late)


def _bind_inputs(
    network: Callable[[Array, Array, Any], Logits], *inputs: Any
) -> Callable[[Array, Array], Logits]:
    """Returns a network that is told its inputs: those of one batch, or of two, one behind the other."""
    bound_inputs = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *inputs)

    def call(x: Array, time: Array) -> Logits:
        for leaf in jax.tree.leaves(bound_inputs):
            if len(leaf) != len(x):
                raise ValueError(
                    f"inputs are of {len(leaf) // len(inputs)} examples, but x is of "
                    f"{len(x) // len(inputs)}: pass those of each example"
                )
        return network(x, time, bound_inputs)

    return call


# Within `classifier_free` nothing would be checked.
@values_in_range()
@declared()
def _check_alike(inputs: Shaped[Array, " B *S"], null: Shaped[Array, " B *S"]) -> None:
    """Raises TypeError, ValueError unless a part of null is made as that of the inputs is."""
    if jnp.issubdtype(inputs.dtype, jnp.floating) != jnp.issubdtype(null.dtype, jnp.floating):
        raise TypeError(f"inputs are {inputs.dtype}, but null is {null.dtype}: pass numbers of one type")


@dataclasses.dataclass(frozen=True, eq=False)
class WithAndWithout(Guided):
    """Calls a network with the condition and without it, both in one batch."""

    network: Callable[[Array, Array], Logits]
    """called with two batches, one behind the other: with the condition, and without it"""
    gamma: float
    late: int | None

    @property
    def calls(self) -> int:
        return 2

    def call_both(self, x: Array, time: Array) -> list[Array]:
        """Returns logits of x_0, with the condition and without it, [B, *S, K] each."""
        twice_x = jnp.concatenate([x, x])
        twice_time = jnp.concatenate([time, time])
        logits = call_network(self.network, twice_x, twice_time)
        return jnp.split(require_array(logits, "guidance"), 2)

    def tell_unit_time(self, process: Process) -> "WithAndWithout":
        return dataclasses.replace(self, network=tell_unit_time(self.network, process))

    def gamma_at(self, time: Array) -> float | Float[Array, " B"]:
        """Returns gamma at the time of each example."""
        if self.late is None:
            return self.gamma
        return jnp.where(time <= self.late, self.gamma, 1.0)


class ClassifierFree(WithAndWithout):
    """Guides the law of x_s towards a condition: see `classifier_free`."""

    num_laws = 2

    def beliefs(self, x: Array, time: Array) -> list[Array]:
        return self.call_both(x, time)

    def guide(self, log_laws: list[Array], process: Process, x: Array, t: Array, s: Array) -> Array:
        log_p, log_null = log_laws
        return combine_logits(log_p, log_null, self.gamma_at(process.time[t]))


class ClassifierFreeX0(WithAndWithout):
    """Guides the law of x_0 towards a condition: see `classifier_free`."""

    changes_law = False

    def beliefs(self, x: Array, time: Array) -> list[Array]:
        logits, null_logits = self.call_both(x, time)
        return [combine_logits(logits, null_logits, self.gamma_at(time))]


@declared(gamma=FINITE)
def combine_logits(
    logits: Float[Array, " B *S K"], null_logits: Float[Array, " B *S K"], gamma: float | Float[Array, " B"]
) -> Float[Array, " B *S K"]:
    """gamma logits + (1 - gamma) null_logits, normalised: -inf where either is, but at gamma = 0 and 1.

    Args:
        logits: of a law, with the condition.
        null_logits: of the law without it.
        gamma: of each example, or of all.

    Returns:
        Normalised logs, in float32 at least. At gamma = 0 and 1 they are those of the one law alone, with
        what the other rules out; else -inf everywhere where no category is possible in both.
    """
    # A large gamma takes the difference of two numbers many times: bfloat16 has no digits left for that.
    dtype = promote_types(logits.dtype, null_logits.dtype, jnp.float32)
    logits = logits.astype(dtype)
    null_logits = null_logits.astype(dtype)
    gamma = jnp.asarray(gamma, dtype)
    gamma = expand_trailing(gamma, logits.shape)  # [B, 1, .., 1]
    combined = _add_where_possible(gamma, logits, 1 - gamma, null_logits)
    combined = jnp.where(gamma == 1, logits, jnp.where(gamma == 0, null_logits, combined))
    return numerics.log_normalize(combined)


def _add_where_possible(a: Any, log_p: Array, b: Any, log_q: Array) -> Array:
    """Returns a log_p + b log_q, and -inf where either of the logs is -inf, whatever a and b are."""
    is_impossible = (log_p == -jnp.inf) | (log_q == -jnp.inf)
    # What is no number stays none beside -inf, so that a chain stops at it.
    is_impossible &= ~(jnp.isnan(log_p) | jnp.isnan(log_q))
    total = a * jnp.where(is_impossible, 0.0, log_p) + b * jnp.where(is_impossible, 0.0, log_q)
    # A score of +inf would be one of -inf where its factor is negative.
    total = jnp.where((log_p == jnp.inf) | (log_q == jnp.inf), jnp.nan, total)
    return jnp.where(is_impossible, -jnp.inf, total)


# ---- By a classifier ----


@declared(log_prob=LOG_PROBABILITY, gamma=FINITE)
def by_classifier(network: Network, log_prob: LogProb, gamma: float = 1.0, exact: bool = False) -> Network:
    """p(x_s | x_t) p(y | x_s)^gamma, normalised for each element on its own (2412.10193, eq. 11).

    p(y | x_s) is that of x_t with the one element changed. By default its logarithm is taken to first order
    around x_t, which costs one forward and one backward pass of the classifier a row; `exact` calls it with
    every change, as many times as x has elements times K: for small examples.

    Args:
        network: (x, process.time[t]) -> logits of x_0; it may be guided itself, on x_0.
        log_prob: (one_hots [B, *S, K], process.time[s]) -> log p(y | x_s), for what is asked for; time 0 is
            that of data. For `exact` it gets K B rows, of which those with the numbers i, i + B, .. are of
            example i.
        gamma: any finite number; 0 leaves the network as it is.
        exact: whether all changes are tried.

    Raises:
        ValueError: gamma is not finite.
    """
    if is_known(gamma) and gamma == 0:
        return network
    return ByClassifier(network, log_prob, gamma, exact)


@dataclasses.dataclass(frozen=True, eq=False)
class ByClassifier(Guided):
    """Guides the law of x_s towards a class: see `by_classifier`."""

    network: Callable[[Array, Array], Logits]
    log_prob: Callable[[Array, Array], Array]
    gamma: float
    exact: bool
    cure = "take another sampler, or leave the classifier out"

    @property
    def calls(self) -> int:
        return self.network.calls if isinstance(self.network, Guided) else 1

    def beliefs(self, x: Array, time: Array) -> list[Array]:
        return [require_array(call_network(self.network, x, time), "guidance")]

    def tell_unit_time(self, process: Process) -> "ByClassifier":
        return dataclasses.replace(self, network=tell_unit_time(self.network, process))

    def guide(self, log_laws: list[Array], process: Process, x: Array, t: Array, s: Array) -> Array:
        (log_p,) = log_laws
        changes = all_changes if self.exact else first_order_changes
        return tilt_logits(log_p, changes(self.log_prob, x, process.time[s], process.K), self.gamma)


@declared(gamma=FINITE)
def tilt_logits(
    log_p: Float[Array, "*S K"], log_likelihood: Float[Array, "*S K"], gamma: float
) -> Float[Array, "*S K"]:
    """log_p + gamma log_likelihood, normalised: -inf where either is."""
    return numerics.log_normalize(_add_where_possible(1.0, log_p, gamma, log_likelihood))


@declared(log_prob=LOG_PROBABILITY, x=CATEGORIES, time=INDEX, K=NUM_CATEGORIES)
def first_order_changes(
    log_prob: LogProb, x: Int[Array, " B *S"], time: Int[Array, " B"], K: int
) -> Float[Array, " B *S K"]:
    """log p(y | x) + g_k - g_x with g its gradient in the one-hots of x: each element changed to each k.

    Args:
        log_prob: (one_hots [B, *S, K], time) -> log p(y | x).
        x: categories.
        time: that of x.
        K: number of categories.
    """
    one_hots = jax.nn.one_hot(x, K)

    def total(one_hots: Array) -> tuple[Array, Array]:
        log_p = marked_as(Float[Array, " N"], log_prob)(one_hots, time)
        return jnp.sum(log_p), log_p

    gradient, log_p = jax.grad(total, has_aux=True)(one_hots)
    at_x = jnp.sum(gradient * one_hots, axis=-1, keepdims=True)
    return expand_trailing(log_p, gradient.shape) + gradient - at_x


@declared(log_prob=LOG_PROBABILITY, x=CATEGORIES, time=INDEX, K=NUM_CATEGORIES)
def all_changes(
    log_prob: LogProb, x: Int[Array, " B *S"], time: Int[Array, " B"], K: int
) -> Float[Array, " B *S K"]:
    """log p(y | x with an element changed to k), for each element and each k.

    Args:
        log_prob: (one_hots [B, *S, K], time) -> log p(y | x), called K times for each place.
        x: categories.
        time: that of x.
        K: number of categories.
    """
    num_places = math.prod(x.shape[1:])
    one_hots = jax.nn.one_hot(x, K).reshape(len(x), num_places, K)
    every_k = jnp.eye(K, dtype=one_hots.dtype)

    # A place at a time: all of its changes are one call, of K times the batch.
    def change(place: Array) -> Array:
        changed = jnp.broadcast_to(one_hots, (K, *one_hots.shape))  # [K, B, L, K]
        row = jnp.broadcast_to(every_k[:, None], (K, len(x), K))
        changed = changed.at[:, :, place].set(row)
        rows = changed.reshape(K * len(x), *x.shape[1:], K)
        return marked_as(Float[Array, " N"], log_prob)(rows, jnp.tile(time, K)).reshape(K, len(x))

    if num_places == 0:
        return jnp.zeros((*x.shape, K))
    log_p = jax.lax.map(change, jnp.arange(num_places))  # [L, K, B]
    return jnp.moveaxis(log_p, -1, 0).reshape(*x.shape, K)
