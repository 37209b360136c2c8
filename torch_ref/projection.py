"""Stands for the logits that hidden states and a kernel make: here always all of them at once."""

import dataclasses
from collections.abc import Callable

from torch import Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Projection:
    """Stands for the logits finish(hidden @ kernel + bias, xt), [*S, K].

    Fields as in `d3pm_jax.projection.Projection`.
    """

    hidden: Tensor
    kernel: Tensor
    bias: Tensor | None
    xt: Tensor
    finish: Callable[[Tensor, Tensor], Tensor]
    tied: bool = False

    def logits(self) -> Tensor:
        """Makes all logits."""
        output = self.hidden @ (self.kernel.T if self.tied else self.kernel)
        if self.bias is not None:
            output = output + self.bias
        return self.finish(output, self.xt)
