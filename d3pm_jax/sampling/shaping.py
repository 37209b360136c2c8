"""Shapes what a network believes of x_0 before a sampler draws: temperature, top-k, top-p, and so on.

They act on leave-one-out logits (see `beliefs`): the denoiser counts the observed x_t as evidence, and at a
temperature it would be counted more or less than once.
"""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from d3pm_jax import heads, numerics
from d3pm_jax.checks import Count, Epsilon, Positive, declared
from d3pm_jax.numerics.logspace import at_least_float32
from d3pm_jax.sampling.fields import Slot


@declared()
def top_k(logits: Float[Array, "*S K"], k: Count) -> Float[Array, "*S K"]:
    """Keeps the k largest logits of each row, and makes the others -inf; of equal ones the first.

    Args:
        logits: unnormalised log-probabilities.
        k: how many to keep, at least 1.

    Raises:
        ValueError: k is below 1.
    """
    return _keep(logits, _rank(logits) < k)


@declared()
def top_p(logits: Float[Array, "*S K"], p: Epsilon) -> Float[Array, "*S K"]:
    """Keeps the likeliest categories of each row up to and with the one whose sum of probabilities reaches p.

    So at least p of the probability stays. This is the convention of diffusers and of most code for text;
    `top_p_below` is that of ReMDM and Duo.

    Args:
        logits: unnormalised log-probabilities.
        p: in (0, 1]; 1 changes nothing.

    Raises:
        ValueError: p is outside (0, 1].
    """
    if p == 1:  # The sum of all probabilities may be rounded to more.
        return logits
    before = _cumulative(logits, inclusive=False)
    # The first is kept where p, in their type, is 0.
    return _keep(logits, (before < p) | (before == 0))


@declared()
def top_p_below(logits: Float[Array, "*S K"], p: Epsilon) -> Float[Array, "*S K"]:
    """Keeps the likeliest categories of each row whose probabilities sum to at most p, and always the first.

    The category with which the sum would cross p is dropped, as ReMDM and Duo do.

    Args:
        logits: unnormalised log-probabilities.
        p: in (0, 1]; 1 changes nothing.

    Raises:
        ValueError: p is outside (0, 1].
    """
    if p == 1:
        return logits
    through = _cumulative(logits, inclusive=True)
    return _keep(logits, (through <= p) | (_rank(logits) == 0))


def _keep(logits: Array, is_kept: Array) -> Array:
    """Makes -inf of the others, but not of NaN: a network that broke down must be seen."""
    return jnp.where(is_kept | jnp.isnan(logits), logits, -jnp.inf)


def _rank(logits: Array) -> Array:
    """Returns how many logits of the row come before each one: the larger, and the equal that are first."""
    order = jnp.argsort(-logits, axis=-1, stable=True)
    return jnp.argsort(order, axis=-1, stable=True)


def _cumulative(logits: Array, inclusive: bool) -> Array:
    """Sums the probabilities of all categories that come before each one, and its own if inclusive."""
    p = jnp.exp(numerics.log_normalize(at_least_float32(logits)))
    order = jnp.argsort(-logits, axis=-1, stable=True)
    in_order = jnp.take_along_axis(p, order, axis=-1)
    sums = jnp.cumsum(in_order, axis=-1)
    if not inclusive:
        sums = jnp.concatenate([jnp.zeros_like(sums[..., :1]), sums[..., :-1]], axis=-1)
    return jnp.take_along_axis(sums, jnp.argsort(order, axis=-1, stable=True), axis=-1)


@dataclasses.dataclass(frozen=True)
class Shaping(Slot):
    """Says how leave-one-out logits are shaped, in the order of the fields; by default not at all."""

    temperature: Positive = 1.0
    """logits are divided by it: below 1 likely categories get likelier"""
    forbid: tuple[int, ...] = ()
    """categories that x_0 cannot be"""
    top_k: Count | None = None
    """keep so many of the likeliest categories"""
    top_p: Epsilon = 1.0
    """keep the likeliest categories up to and with the one that reaches this sum of probabilities"""
    top_p_below: Epsilon = 1.0
    """keep the likeliest categories whose probabilities sum to no more than this, and at least one"""

    @property
    def cuts_off(self) -> bool:
        """Tells whether it keeps likely categories alone, so that which ones depends on the logits."""
        return self.top_k is not None or self.top_p < 1 or self.top_p_below < 1

    def changes_nothing(self, K: int) -> bool:
        """Tells whether it leaves logits of K categories as they are."""
        keeps_all = self.top_k is None or self.top_k >= K
        return keeps_all and dataclasses.replace(self, top_k=None) == Shaping()

    def check(self, K: int) -> None:
        """Raises ValueError where a forbidden category is none of K, or all are forbidden."""
        if any(not 0 <= k < K for k in self.forbid) or len(set(self.forbid)) >= K:
            raise ValueError(f"forbid = {self.forbid}: pass some categories of 0..{K - 1}, not all")

    def apply(self, logits: Array) -> Array:
        """Returns the shaped logits [*S, K].

        Raises:
            ValueError: a forbidden category is none of K, or all are forbidden.
        """
        self.check(logits.shape[-1])
        if self.temperature != 1:
            # Less the largest, so that none becomes infinite.
            logits = at_least_float32(logits)
            top = jnp.max(logits, axis=-1, keepdims=True)
            # In their type neither the temperature nor its reciprocal is 0, where it is 1e-50 or 1e50.
            tiny = float(jnp.finfo(logits.dtype).tiny)
            temperature = min(max(self.temperature, tiny), 1 / tiny)
            logits = (logits - jnp.where(top == -jnp.inf, 0.0, top)) / temperature
        for k in self.forbid:
            logits = heads.forbid(logits, k)
        if self.top_k is not None:
            logits = top_k(logits, self.top_k)
        return top_p_below(top_p(logits, self.top_p), self.top_p_below)
