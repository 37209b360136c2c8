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
from d3pm_jax.checks import values_in_range
from d3pm_jax.cpu import tiles
from d3pm_jax.losses.cross_entropy import cross_entropy
from d3pm_jax.processes import Process, expand_trailing, is_category

Loss = Callable[..., Array]  # (process, logits [*S, K], x0 [*S], xt [*S], t) -> nats [*S]
WithGradient = Callable[..., tuple[Array, Array]]  # the same -> nats [*S], their gradient [*S, K]

# A part whose elements share a matrix [K, K] has at least so many elements of each example, so that the
# matrix is read once for many of them.
ROWS = 128


@singledispatch
def numbers_per_element(process: Process) -> int:
    """Counts the numbers that a loss with a t for each element reads for it: by default a matrix [K, K]."""
    return process.K**2


def differentiate(loss: Loss, process: Process, logits: Array, *arguments: Array) -> tuple[Array, Array]:
    """Returns the values of any loss and their gradient by autodiff, as a `WithGradient` does."""
    value, pull = jax.vjp(lambda x: loss(process, x, *arguments), logits)
    return value, pull(jnp.ones_like(value))[0]


class Plan(NamedTuple):
    """Says what is made of a part of the elements, and how large a part is."""

    kl: Loss  # of leave-one-out logits; t is (), [B] or [B, n]
    kl_and_gradient: WithGradient
    shared: bool  # whether t is one for all elements of an example
    size: int  # numbers that an element takes in the largest array
    definition: Loss | None  # what takes the place of kl where that is NaN, and near by

    def apply_by_parts(
        self, f: Callable[..., tuple[Array, ...]], process: Process, t: Array, *rows: Array
    ) -> tuple[Array, ...]:
        """Applies f(plan, process, *rows, t) to one part after the other.

        Args:
            f: what is made of a part.
            process: the forward process.
            t: steps, (), [B] or [*S].
            rows: logits [*S, K], and arrays [*S].

        Returns:
            The outputs of f for all elements. Where its first one is NaN, and for elements near by, they are
            those of f with the definition as the loss.
        """
        by_definition = None
        if self.definition is not None:
            with_gradient = partial(differentiate, self.definition)
            plan = self._replace(kl=self.definition, kl_and_gradient=with_gradient)
            by_definition = plan._bind(f, process, t)

        # A t of each element is cut into parts as all else is. A shared one goes to every part as it is, and
        # so does the matrix that it selects, which should then be read for many elements at a time.
        least = 1
        if not self.shared:
            rows = (*rows, t)
        elif numbers_per_element(process) > process.K:
            least = ROWS
        return tiles.apply_by_parts(
            self._bind(f, process, t), *rows, floats=self.size, least=least, otherwise=by_definition
        )

    def _bind(
        self, f: Callable[..., tuple[Array, ...]], process: Process, t: Array
    ) -> Callable[..., tuple[Array, ...]]:
        """Returns f as a function of what is cut into parts."""
        if self.shared:
            return lambda *part: f(self, process, *part, t)
        return lambda *part: f(self, process, *part)

    def update_by_parts(self, f: Callable[..., Array], t: Array, array: Array, *rows: Array) -> Array:
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
    """Computes `variational.dispatch_kl_and_ce` by parts, for any belief, with a KL of leave-one-out logits.

    Args:
        kl: the KL. It is a key of jit's cache: a new function each time would be compiled anew.
        kl_and_gradient: the KL with its gradient, a key of the cache too.
        process, logits, x0, xt, t: as for `variational.hybrid`.
        belief: as for `variational.hybrid`; the rule of "official" at t = 1 is left to the caller.
        definition: takes the place of kl where that is NaN, and for elements near by, if it is given; its
            gradient is made by autodiff.
    """
    # With one t for an example its elements share what t selects, so that the largest array of an element is
    # its row [K]. With a t for each element each may read a matrix of its own.
    shared = t.ndim <= 1
    if shared:
        size = process.K
    else:
        t = jnp.broadcast_to(expand_trailing(t, x0.shape), x0.shape)  # [*S]
        size = numbers_per_element(process)

    # Leave-one-out logits become those of the denoiser for the cross entropy, which is made in the same pass.
    if belief == "leave_one_out":
        plan = Plan(kl, kl_and_gradient, shared, size, definition)
        return _kl_and_denoiser_ce(plan, process, logits, x0, xt, t)

    # Under all others the cross entropy is that of the logits.
    if belief == "denoiser":
        kl = _convert_to_denoiser(kl)
        kl_and_gradient = _convert_to_denoiser(kl_and_gradient)
        if definition is not None:
            definition = _convert_to_denoiser(definition)
    plan = Plan(kl, kl_and_gradient, shared, size, definition)
    return _kl_alone(plan, process, logits, x0, xt, t), cross_entropy(process, logits, x0)


@cache
def _convert_to_denoiser(f: Callable[..., Any]) -> Callable[..., Any]:
    """Returns f for logits of a denoiser.

    The result is a key of jit's cache. `cache` returns the same function for the same f: a new one each time
    would be compiled anew.

    What is taken off them is constant, and where x_t rules x_0 out they are -inf, p = 0: so the gradient of f
    for the difference is the one for them.
    """

    def converted(process: Process, logits: Array, x0: Array, xt: Array, t: Array) -> Any:
        return f(process, to_leave_one_out(process, logits, xt, t), x0, xt, t)

    return converted


# ---- The KL alone ----
#
# The gradient is made in the forward pass, with the value, while the part is in the cache. It is all that is
# kept for the backward pass, which multiplies it by what comes back.


def _finite_gradient(plan: Plan, process: Process, *part: Array) -> tuple[Array, Array]:
    """Returns the KL of a part and its gradient, 0 where the KL is infinite."""
    value, gradient = plan.kl_and_gradient(process, *part)

    # An infinite loss has no direction to go: a small change of the logits leaves it infinite. What the
    # formulas give there may be NaN, of inf - inf, and one NaN would spoil the gradient of all parameters.
    return value, jnp.where(jnp.isinf(value)[..., None], 0.0, gradient)


def _kl(plan: Plan, process: Process, logits: Array, x0: Array, xt: Array, t: Array) -> Array:
    def value(plan: Plan, process: Process, *part: Array) -> tuple[Array]:
        return (plan.kl(process, *part),)

    return plan.apply_by_parts(value, process, t, logits, x0, xt)[0]


def _kl_forward(plan: Plan, process: Process, logits: Array, x0: Array, xt: Array, t: Array):
    # The output, and what `custom_vjp` saves for the backward pass.
    return plan.apply_by_parts(_finite_gradient, process, t, logits, x0, xt)


def _kl_backward(plan: Plan, gradient: Array, g: Array):
    return None, g[..., None] * gradient, None, None, None


# ---- The KL and the cross entropy of the denoiser ----


def _pair(plan: Plan, process: Process, logits: Array, x0: Array, xt: Array, t: Array):
    """Returns the KL, and the cross entropy of `to_denoiser`."""

    def values(plan: Plan, process: Process, *part: Array) -> tuple[Array, Array]:
        return plan.kl(process, *part), _ce_and_gradient(process, *part)[0]

    return plan.apply_by_parts(values, process, t, logits, x0, xt)


def _pair_forward(plan: Plan, process: Process, logits: Array, x0: Array, xt: Array, t: Array):
    def values(plan: Plan, process: Process, *part: Array) -> tuple[Array, Array, Array]:
        kl, gradient = _finite_gradient(plan, process, *part)
        return kl, _ce_and_gradient(process, *part)[0], gradient

    kl, ce, gradient = plan.apply_by_parts(values, process, t, logits, x0, xt)
    return (kl, ce), (process, logits, gradient, x0, xt, t)


def _pair_backward(plan: Plan, residuals, g: tuple[Array, Array]):
    """Makes the gradient of the cross entropy anew, and adds it to that of the KL where that is."""
    process, logits, gradient, x0, xt, t = residuals

    # It takes the memory of the gradient of the KL, part by part: no second array of that size is made.
    def total(of_kl: Array, logits: Array, x0: Array, xt: Array, g_kl: Array, g_ce: Array, t: Array) -> Array:
        # The kernel has returned when JAX traces this, so nothing says any more that its arguments were
        # checked, and that their marks are in g already.
        with values_in_range():
            of_ce = _ce_and_gradient(process, logits, x0, xt, t)[1]
        return g_kl[..., None] * of_kl + g_ce[..., None] * of_ce

    return None, plan.update_by_parts(total, t, gradient, logits, x0, xt, *g), None, None, None


def _ce_and_gradient(process: Process, logits: Array, x0: Array, xt: Array, t: Array) -> tuple[Array, Array]:
    """Computes `cross_entropy` of `to_denoiser`, and its gradient: 0 where it is infinite.

    Both in one pass over a part; the gradient is made anew in the backward pass, rather than kept.
    """
    denoiser = to_denoiser(process, logits, xt, t)  # [*S, K]
    top = jnp.max(denoiser, axis=-1, keepdims=True)  # [*S, 1]
    weights = jnp.exp(denoiser - jnp.where(top == -jnp.inf, 0.0, top))  # [*S, K]
    total = jnp.sum(weights, axis=-1, keepdims=True)  # [*S, 1]
    at_x0 = jnp.take_along_axis(denoiser, x0[..., None], axis=-1)  # [*S, 1]
    impossible = at_x0 == -jnp.inf

    # softmax - onehot(x_0), with one division for each element: one of K numbers takes far longer.
    at_category = is_category(x0, process.K).astype(weights.dtype)  # [*S, K]
    gradient = jnp.where(impossible, 0.0, weights * (1 / total) - at_category)
    return jnp.where(impossible, jnp.inf, jnp.log(total) + top - at_x0)[..., 0], gradient


Rule = Callable[..., Any]


def _compiled(f: Rule, forward: Rule, backward: Rule) -> Rule:
    """Returns f, compiled and with the rules of its gradient; its plan is static."""
    custom = jax.custom_vjp(f, nondiff_argnums=(0,))
    custom.defvjp(forward, backward)
    return jax.jit(custom, static_argnums=0)


_kl_alone = _compiled(_kl, _kl_forward, _kl_backward)
_kl_and_denoiser_ce = _compiled(_pair, _pair_forward, _pair_backward)
