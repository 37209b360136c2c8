"""Holds the state of a training in one pytree."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from d3pm_jax.models.variables import split_variables
from d3pm_jax.timesteps import LossHistory
from d3pm_jax.types import Leaf, Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Holds all that training changes: with the data and the key of a run it determines all later states.

    A network may have buffers beside its parameters, such as batch statistics. They stand with the parameters
    in `params`, and their average in `ema`, so that the state of a network without any is what it always was.
    """

    step: Leaf  # int32 []  steps done, skipped ones among them
    params: Params
    ema: Params
    opt_state: optax.OptState  # of the parameters alone
    history: Any = None  # what the timesteps learn: a LossHistory or nothing


def init_state(
    params: Params, optimizer: optax.GradientTransformation, history: LossHistory | None = None
) -> TrainState:
    """Makes the state before the first step, whose average is the parameters and buffers themselves."""
    # A copy, since a step takes over the memory of every array of the state, and may take it over only once.
    ema = jax.tree.map(jnp.copy, params)
    opt_state = optimizer.init(split_variables(params)[0])
    return TrainState(jnp.asarray(0, jnp.int32), params, ema, opt_state, history)
