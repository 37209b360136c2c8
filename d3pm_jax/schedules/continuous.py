"""Makes schedules in continuous time: alpha(time), the probability that x_t is still x_0, time in [0, 1].

They fall from 1 at time 0, clean data, to 0 at time 1.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from d3pm_jax.checks import POSITIVE, TIME, declared


class Level(NamedTuple):
    """Says how much of x_0 is left at a time: both parts, as 1 - alpha loses the digits of a small beta."""

    alpha: Float[Array, "*T"]  # the probability that x_t is still x_0
    beta: Float[Array, "*T"]  # 1 - alpha


Schedule = Callable[[Array], Level]  # time in [0, 1], any shape


@declared(time=TIME)
def linear(time: Float[Array, "*T"]) -> Level:
    """alpha = 1 - time, as `schedules.reciprocal` has it at t = time T."""
    return Level(1 - time, time)


@declared(time=TIME)
def cosine(time: Float[Array, "*T"]) -> Level:
    """alpha = cos(time pi / 2), as `schedules.cosine` has it without offset and limit."""
    return Level(jnp.sin((1 - time) * (jnp.pi / 2)), 2 * jnp.sin(time * (jnp.pi / 4)) ** 2)


@declared(time=TIME, power=POSITIVE)
def polynomial(time: Float[Array, "*T"], power: float = 2.0) -> Level:
    """alpha = 1 - time^power (MD4, Shi et al. 2024); a power above 1 masks less at first."""
    return Level(-jnp.expm1(power * jnp.log(time)), time**power)
