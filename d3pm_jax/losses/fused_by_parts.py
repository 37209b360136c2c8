"""Makes a loss of many elements together with its gradient, part by part.

A loss of an element depends on the logits of that element alone, so that its gradient can be made together
with its value, while the numbers in between are still in the cache (`cpu.tiles`).
"""

from collections.abc import Callable
from functools import cache, partial, singledispatch
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from d3pm_jax.beliefs import Belief, to_denoiser, to_leave_one_out
from d3pm_jax.cpu import tiles
from d3pm_jax.losses.cross_entropy import cross_entropy
from d3pm_jax.processes.base import Process
from d3pm_jax.processes.tables import expand_trailing, is_category

Loss = Callable[..., Array]  # (process, logits [*S, K], x0 [*S], xt [*S], t) -> nats [*S]
WithGradient = Callable[..., tuple[Array, Array]]  # the same -> nats [*S], their gradient [*S, K]
ROWS = 128  # of an example that a matrix is read for, at least


@singledispatch
def numbers_per_element(process: Process) -> int:
    """Counts the numbers that a loss with a t for each element reads for it: by default a matrix [K, K]."""
    return process.K**2


def by_autodiff(loss: Loss, process: Process, logits: Array, *rest: Array) -> tuple[Array, Array]:
    """Returns any loss and its gradient, as a `WithGradient` does."""
    value, pull = jax.vjp(lambda x: loss(process, x, *rest), logits)
    return value, pull(jnp.ones_like(value))[0]


class Plan(NamedTuple):
    """Says what is made of a part of the elements, and how large a part is."""

    kl: Loss  # of leave-one-out logits; t is (), [B] or [B, n]
    kl_and_gradient: WithGradient
    shared: bool  # whether t is one for all elements of an example
    size: int  # numbers that an element takes in the largest array
    definition: Loss | None  # what takes the place of kl where that is NaN, and near by

    def over_parts(
        self, f: Callable[..., tuple[Array, ...]], process: Process, t: Array, *rows: Array
    ) -> tuple[Array, ...]:
        """Applies f(plan, process, *rows, t) to one part after the other; to some with the definition."""

        def of(plan: Plan) -> Callable[..., tuple[Array, ...]]:
            return lambda *part: f(plan, process, *part, *([t] if self.shared else []))

        otherwise = None
        if (kl := self.definition) is not None:
            otherwise = of(self._replace(kl=kl, kl_and_gradient=partial(by_autodiff, kl)))
        rows = rows if self.shared else (*rows, t)
        matrix = self.shared and numbers_per_element(process) > process.K
        least = ROWS if matrix else 1
        return tiles.apply_by_parts(of(self), *rows, floats=self.size, least=least, otherwise=otherwise)

    def update(self, f: Callable[..., Array], t: Array, array: Array, *rows: Array) -> Array:
        """Replaces array by f(array, *rows, t), one part after the other."""
        if not self.shared:
            return tiles.update_by_parts(f, array, *rows, t, floats=self.size)
        return tiles.update_by_parts(lambda *part: f(*part, t), array, *rows, floats=self.size)


def kl_and_ce(
    kl: Loss,
    kl_and_gradient: WithGradient,
    process: Process,
    logits: Array,
    x0: Array,
    xt: Array,
    t: Array,
    belief: Belief,
    definition: Loss | None = None,
) -> tuple[Array, Array]:
    """Makes `variational.dispatch_kl_and_ce` of the KL for leave-one-out logits, by parts, for any belief.

    Args:
        kl: the loss; like the next argument, the same function each time, for what was compiled of it.
        kl_and_gradient: the same with its gradient.
        process, logits, x0, xt, t, belief: as for `variational.hybrid`.
        definition: the loss, with its gradient by autodiff, where kl is NaN and near by.
    """
    shared = t.ndim <= 1
    if not shared:
        t = jnp.broadcast_to(expand_trailing(t, x0.shape), x0.shape)
    size = process.K if shared else numbers_per_element(process)
    if belief == "leave_one_out":
        return _both(Plan(kl, kl_and_gradient, shared, size, definition), process, logits, x0, xt, t)
    if belief == "denoiser":
        kl, kl_and_gradient = _of_denoiser(kl), _of_denoiser(kl_and_gradient)
        definition = None if definition is None else _of_denoiser(definition)
    found = _alone(Plan(kl, kl_and_gradient, shared, size, definition), process, logits, x0, xt, t)
    return found, cross_entropy(process, logits, x0)


@cache
def _of_denoiser(f: Callable[..., Any]) -> Callable[..., Any]:
    """Returns f for logits of a denoiser.

    What is taken off them is constant, and where x_t rules x_0 out they are -inf, p = 0: so the gradient of f
    for the difference is the one for them.
    """

    def converted(process: Process, logits: Array, x0: Array, xt: Array, t: Array) -> Any:
        return f(process, to_leave_one_out(process, logits, xt, t), x0, xt, t)

    return converted


def _finite_gradient(plan: Plan, process: Process, *part: Array) -> tuple[Array, Array]:
    """Returns the KL of a part and its gradient, 0 where the KL is infinite."""
    value, gradient = plan.kl_and_gradient(process, *part)
    return value, jnp.where(jnp.isinf(value)[..., None], 0.0, gradient)


def _kl(plan: Plan, process: Process, logits: Array, x0: Array, xt: Array, t: Array) -> Array:
    def value(plan: Plan, process: Process, *part: Array) -> tuple[Array]:
        return (plan.kl(process, *part),)

    return plan.over_parts(value, process, t, logits, x0, xt)[0]


def _kl_forward(plan: Plan, process: Process, logits: Array, x0: Array, xt: Array, t: Array):
    return plan.over_parts(_finite_gradient, process, t, logits, x0, xt)


def _kl_backward(plan: Plan, gradient: Array, g: Array):
    return None, g[..., None] * gradient, None, None, None


def _pair(plan: Plan, process: Process, logits: Array, x0: Array, xt: Array, t: Array):
    """Returns the KL, and the cross entropy of `to_denoiser`."""

    def values(plan: Plan, process: Process, *part: Array) -> tuple[Array, Array]:
        return plan.kl(process, *part), _ce_and_gradient(process, *part)[0]

    return plan.over_parts(values, process, t, logits, x0, xt)


def _pair_forward(plan: Plan, process: Process, logits: Array, x0: Array, xt: Array, t: Array):
    def values(plan: Plan, process: Process, *part: Array) -> tuple[Array, Array, Array]:
        kl, gradient = _finite_gradient(plan, process, *part)
        return kl, _ce_and_gradient(process, *part)[0], gradient

    kl, ce, gradient = plan.over_parts(values, process, t, logits, x0, xt)
    return (kl, ce), (process, logits, gradient, x0, xt, t)


def _pair_backward(plan: Plan, residuals, g: tuple[Array, Array]):
    """Makes the gradient of the cross entropy anew, and adds it to that of the KL where that is."""
    process, logits, gradient, x0, xt, t = residuals

    def total(of_kl: Array, logits: Array, x0: Array, xt: Array, g_kl: Array, g_ce: Array, t: Array) -> Array:
        of_ce = _ce_and_gradient(process, logits, x0, xt, t)[1]
        return g_kl[..., None] * of_kl + g_ce[..., None] * of_ce

    return None, plan.update(total, t, gradient, logits, x0, xt, *g), None, None, None


def _ce_and_gradient(process: Process, logits: Array, x0: Array, xt: Array, t: Array) -> tuple[Array, Array]:
    """Computes `cross_entropy` of `to_denoiser`, and its gradient: 0 where it is infinite.

    Both in one pass over a part; the gradient is made anew in the backward pass, rather than kept.
    """
    denoiser = to_denoiser(process, logits, xt, t)
    top = jnp.max(denoiser, axis=-1, keepdims=True)
    weights = jnp.exp(denoiser - jnp.where(top == -jnp.inf, 0.0, top))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    at_x0 = jnp.take_along_axis(denoiser, x0[..., None], axis=-1)
    impossible = at_x0 == -jnp.inf
    gradient = jnp.where(impossible, 0.0, weights * (1 / total) - is_category(x0, process.K))
    return jnp.where(impossible, jnp.inf, jnp.log(total) + top - at_x0)[..., 0], gradient


Rule = Callable[..., Any]


def _compiled(f: Rule, forward: Rule, backward: Rule) -> Rule:
    """Returns f with a gradient by hand; its plan is static."""
    custom = jax.custom_vjp(f, nondiff_argnums=(0,))
    custom.defvjp(forward, backward)
    return jax.jit(custom, static_argnums=0)


_alone = _compiled(_kl, _kl_forward, _kl_backward)
_both = _compiled(_pair, _pair_forward, _pair_backward)
