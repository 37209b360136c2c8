"""Describes the heads of a config: how the output of a network becomes logits of x_0."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array

from d3pm_jax import heads
from d3pm_jax.checks import values_in_range
from d3pm_jax.config.checks import Interval, Natural
from d3pm_jax.config.from_data import FromData, filled_field
from d3pm_jax.numerics.logspace import at_least_float32


@dataclasses.dataclass(frozen=True)
class Head:
    """Makes logits of x_0, each from one output of the network."""

    residual: bool = True
    """add onehot(x_t) to the output of the network"""
    forbid: Natural | FromData | None = None
    """an extra mask, a category that the data never contains; "data": the first above those of the data"""
    outputs: ClassVar[int | None] = None
    """numbers of the network's output for each element; None: K logits; see `models.UNet`"""

    @values_in_range()
    def logits(self, output: Array, xt: Array, K: int) -> Array:
        """Returns logits of x_0 [*S, K] from the output [*S, outputs] of a network that was given x_t."""
        if self.residual:
            output = heads.residual(output, xt)  # [*S, K]
        return self._forbid_mask(output)

    def data_categories(self, K: int) -> int:
        """Counts the categories that the data may have: K, less a last one that is an extra mask."""
        return K - (self.forbid == K - 1)

    def check(self, K: int, mask_id: int | None) -> None:
        """Refuses to forbid anything but an extra mask.

        Args:
            K: categories of the process.
            mask_id: its mask, if it has one.

        Raises:
            ValueError: naming the field.
        """
        if filled_field(self, "forbid") is not None and self.forbid != K - 1:
            raise ValueError(
                f"head.forbid = {self.forbid}: only the last category, K - 1 = {K - 1}, can be an extra mask"
            )
        if self.forbid is not None and mask_id not in (None, self.forbid):
            raise ValueError(
                f"head.forbid = {self.forbid} is not process.mask_id: forbid the mask, or nothing"
            )

    def _forbid_mask(self, logits: Array) -> Array:
        if self.forbid is None:
            return logits
        return heads.forbid(logits, filled_field(self, "forbid"))


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
        return self._forbid_mask(heads.logistic(loc, log_scale, K))

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
