"""Makes schedules in continuous time: alpha(time), the probability that x_t is still x_0, time in [0, 1].

They fall from 1 at time 0, clean data, to 0 at time 1.
"""

from collections.abc import Callable
from typing import Annotated, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from d3pm_jax.checks import POSITIVE, TIME, Called, declared


class Level(NamedTuple):
    """Holds how much of x_0 is left at a time, as alpha and 1 - alpha."""

    # Both are stored: near time 0 alpha is close to 1, and 1 - alpha would lose the digits of a small beta.
    alpha: Float[Array, "*T"]  # the probability that x_t is still x_0
    beta: Float[Array, "*T"]  # 1 - alpha


Schedule = Annotated[
    Callable[[Float[Array, "*T"]], Level],  # time in [0, 1]
    Called("time", "return schedules.continuous.Level(alpha, 1 - alpha), floats of the shape of time"),
]


@declared(time=TIME)
def linear(time: Float[Array, "*T"]) -> Level:
    """alpha = 1 - time, as `schedules.reciprocal` has it at t = time T."""
    return Level(1 - time, time)


@declared(time=TIME)
def cosine(time: Float[Array, "*T"]) -> Level:
    """alpha = cos(time pi / 2), as `schedules.cosine` has it without offset and limit."""
    # cos(time pi / 2) as a sine is exactly 0 at time 1; 1 - cos(a) = 2 sin(a / 2)^2 keeps the digits of beta
    # near 0.
    alpha = jnp.sin((1 - time) * (jnp.pi / 2))
    beta = 2 * jnp.sin(time * (jnp.pi / 4)) ** 2
    return Level(alpha, beta)


@declared(time=TIME, power=POSITIVE)
def polynomial(time: Float[Array, "*T"], power: float = 2.0) -> Level:
    """alpha = 1 - time^power (MD4, Shi et al. 2024); a power above 1 masks less at first."""
    # 1 - time^power, with its digits also near time 1.
    alpha = -jnp.expm1(power * jnp.log(time))
    return Level(alpha, time**power)
