"""Describes the heads of a config: how the output of a network becomes logits of x_0."""

import dataclasses
from typing import Annotated, Any, ClassVar, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from d3pm_jax import heads
from d3pm_jax.checks import values_in_range
from d3pm_jax.config.checks import Free, Interval
from d3pm_jax.data import Description
from d3pm_jax.numerics.logspace import at_least_float32

# Logits of x_0, or the log of p_t(y) / p_t(x_t), where y has another category at one place.
HeadGives = Literal["logits", "log scores"]


@dataclasses.dataclass(frozen=True)
class Head:
    """Makes logits of x_0, each from one output of the network; an extra mask is taken out of them."""

    residual: bool = True
    """add onehot(x_t) to the output of the network"""
    projected: Annotated[bool, Free] = dataclasses.field(default=False, kw_only=True)
    """make logits of some places at a time, where they are read: for many categories, see `Projection`; the
    metric ce counts 0 at places whose logits the loss does not look at"""
    outputs: ClassVar[int | None] = None
    """numbers of the network's output for each element; None: K logits; see `models.UNet`"""
    gives: ClassVar[HeadGives] = "logits"
    """what it makes of the output; the objective has to be for the same"""
    by_rows: ClassVar[bool] = True
    """whether logits of a place are of its output and x_t alone, as `projected` needs; a class with `logits`
    or `without_mask` of its own says so itself, whatever it derives from"""

    @values_in_range()
    def logits(self, output: Array, xt: Array, K: int) -> Array:
        """Returns logits of x_0 [*S, K] from the output [*S, outputs] of a network that was given x_t."""
        if self.residual:
            return heads.residual(output, xt)
        return output

    def without_mask(self, output: Array, xt: Array, K: int, mask: int) -> Array:
        """Returns what `logits` does of a process with an extra mask, -inf there, as x_0 never is it."""
        return heads.forbid(self.logits(output, xt, K), mask)


@dataclasses.dataclass(frozen=True)
class LogisticHead(Head):
    """Makes logits of a truncated logistic distribution for ordinal data, by its location and log-scale."""

    residual: bool = True
    """add x_t, scaled to [-1, 1], to the location, inside a tanh"""
    input_range: Interval | None = dataclasses.field(default=None, kw_only=True)
    """the x_t that are scaled to -1 and 1; None: 0 and K - 1"""
    outputs: ClassVar[int | None] = 2

    @values_in_range()
    def logits(self, output: Array, xt: Array, K: int) -> Array:
        loc, log_scale = self.parameters(output, xt, K)
        return heads.logistic(loc, log_scale, K)

    def parameters(self, output: Array, xt: Array, K: int) -> tuple[Array, Array]:
        """Returns loc and log_scale of `heads.logistic`, [*S] each."""
        # The place of x_t, of K many, needs more than the digits of bfloat16.
        output = at_least_float32(output)
        loc = output[..., 0]
        if self.residual and self.input_range is not None:
            # As in `heads.residual_logistic`, but x_t is scaled by a range that is not 0..K - 1.
            least, greatest = self.input_range
            scaled = (xt - least) * (2.0 / (greatest - least)) - 1.0  # [*S], in [-1, 1]
            loc = loc + scaled.astype(output.dtype)
        elif self.residual:
            loc = loc + xt * (2.0 / (K - 1)) - 1.0
        return jnp.tanh(loc), output[..., 1]


@dataclasses.dataclass(frozen=True)
class ScoreHead(Head):
    """Makes log scores of K outputs, 0 at x_t; with an extra mask less log(K - 1), as SEDD does."""

    residual: ClassVar[bool] = False  # pyright: ignore
    gives: ClassVar[HeadGives] = "log scores"
    by_rows = True

    @values_in_range()
    def logits(self, output: Array, xt: Array, K: int) -> Array:
        return heads.log_scores(output, xt)

    @values_in_range()
    def without_mask(self, output: Array, xt: Array, K: int, mask: int) -> Array:
        return heads.absorbing_log_scores(output, xt)


def make_logits(
    head: Head,
    output: Any,
    xt: Array,
    K: int,
    extra_mask: int | None,
    description: Description | None = None,
) -> Array:
    """Makes logits of x_0 [*S, K] by a head, -inf at what x_0 cannot be.

    That is an extra mask, categories between those of the data and this mask, and what one place has not.

    Of a head that gives log scores these are such, in the place of logits.

    Args:
        head: of the config.
        output: of the network.
        xt: what the network was given.
        K: number of categories.
        extra_mask: a mask that the data never has; None where there is none.
        description: of the data; None: it has all categories but the mask.
    """
    if extra_mask is None:
        logits = head.logits(output, xt, K)
    else:
        logits = head.without_mask(output, xt, K, extra_mask)
    if description is None:
        return logits
    if description.sizes is not None:
        return heads.forbid_beyond(logits, np.array(description.sizes))
    if extra_mask is None or description.categories == extra_mask:
        return logits
    k = jnp.arange(K).reshape((1,) * xt.ndim + (K,))
    return jnp.where((k < description.categories) | (k == extra_mask), logits, -jnp.inf)
