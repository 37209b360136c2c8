"""Says what a network is to a sampler."""

from collections.abc import Callable
from typing import Annotated

from jaxtyping import Array, Float, Int

from d3pm_jax.checks import Called, marked

CURE_OF_LOGITS = "return a float logit of each category for each element, categories last"

# A network: x_t and the time of each example -> logits of x_0.
Denoise = Annotated[
    Callable[[Int[Array, " B *S"], Int[Array, " B"]], Float[Array, " B *S K"]],
    Called("xt, time", CURE_OF_LOGITS),
]


def call_network(denoise: Callable[[Array, Array], Array], x: Array, time: Array) -> Float[Array, " B *S K"]:
    """Calls a network in the step of a loop, which then tells where it gave values out of range."""

    @marked
    def call(x: Array, time: Array) -> Float[Array, " B *S K"]:
        return denoise(x, time)

    return call(x, time)
