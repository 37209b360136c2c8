"""Says what a network is to a sampler, and what may take its place."""

import abc
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from d3pm_jax.checks import Called, SelfChecked, marked_as
from d3pm_jax.processes.base import Process
from d3pm_jax.projection import Projection

CURE_OF_LOGITS = "return a float logit of each category for each element, categories last"

# What a network is told: steps, process.time[t] in 1..T, or that divided by its largest, in (0, 1].
TimeUnit = Literal["steps", "unit"]
# Of x_0, or what stands for them until they are read.
Logits = Float[Array, " B *S K"] | Projection
# A network: x_t and the time of each example, in steps -> logits of x_0.
Network = Annotated[
    Callable[[Int[Array, " B *S"], Int[Array, " B"]], Logits],
    Called("xt, time", CURE_OF_LOGITS),
]


def call_network(network: Callable[[Array, Array], Any], x: Array, time: Array) -> Logits:
    """Calls a network in the step of a loop, which then tells where it gave values out of range."""
    return marked_as(Float[Array, " B *S K"], network)(x, time)


class Guided(SelfChecked, abc.ABC):
    """Takes the place of a network: calls one, and guides the samples towards a class or condition.

    A class that changes what the network says of x_0 sets `changes_law = False`, and has no `guide`.
    """

    cure: ClassVar[str] = "guide x_0, or leave it out"
    """of a sampler that has no law of x_s to guide"""
    num_laws: ClassVar[int] = 1
    """how many laws of x_s `guide` makes one of"""
    changes_law: ClassVar[bool] = True
    """whether it is the law of x_s that it changes, and not what the network says of x_0"""

    @property
    def calls(self) -> int:
        """Returns how many calls of the network a row takes."""
        return 1

    @abc.abstractmethod
    def beliefs(self, x: Array, time: Array) -> list[Array]:
        """Returns a list of logits of x_0, each [B, *S, K]: one for each law that `guide` takes."""

    def tell_unit_time(self, process: Process) -> "Guided":
        """Returns this guidance of a network that is told times in [0, 1], as `tell_unit_time` does.

        Raises:
            TypeError: it does not say which of its functions that is.
        """
        raise TypeError(
            f"{type(self).__name__} calls a network itself, and time = 'unit' does not reach it: divide the "
            f"time by process.time[-1] there, and leave time='unit' out"
        )

    def guide(
        self, log_laws: list[Array], process: Process, x: Array, t: Array, s: Array
    ) -> Float[Array, " B *S K"]:
        """Returns the guided law of x_s given x_t, from the law that each belief implies: normalised logs."""
        (log_law,) = log_laws
        return log_law

    def __call__(self, x: Array, time: Array) -> Array:
        """Returns logits of x_0, as a network does.

        Raises:
            TypeError: it is the law of x_s that it changes, of which no logits of x_0 say anything.
        """
        if self.changes_law:
            raise TypeError(
                f"{type(self).__name__} guides the law of x_s, and is no network: pass it to a sampler as it "
                f"is, or guide x_0"
            )
        return self.beliefs(x, time)[0]


def tell_unit_time(network: Callable[..., Logits], process: Process) -> Any:
    """Makes a network that is called with steps of one that is told times in [0, 1]; also of guidance of one.

    Args:
        network: (x, time, ..) -> logits of x_0.
        process: what it was trained on, or that respaced.
    """
    if isinstance(network, Guided):
        return network.tell_unit_time(process)

    def call(x: Array, time: Array, *inputs: Any) -> Logits:
        last = jnp.asarray(process.time[-1], float)
        return network(x, jnp.asarray(time, float) / last, *inputs)

    return call
