"""Reads inputs of a network that a user passes: x_t, t, labels, conditions and weights."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from d3pm_jax.checks.arrays import describe
from d3pm_jax.data import Description
from d3pm_jax.data.description import convert_conditions
from d3pm_jax.errors import UserError, as_user_error
from d3pm_jax.training.dropping import Dropping


def to_array(name: str, values: Any, cure: str) -> Any:
    """Returns an array of NumPy, or what JAX traces as it is. Raises UserError for what is no array."""
    if isinstance(values, Tracer):
        return values
    try:
        return np.asarray(values)
    except (TypeError, ValueError, OverflowError) as error:  # a TypeError for keys of JAX
        raise UserError(f"{name} is {describe(values)}: {cure}") from error


def read_integers(name: str, values: Any, largest: int, least: int = 0) -> Array:
    """Returns integers in least..largest as an array. Raises UserError where they are none.

    Of what JAX traces, as in a score, the values are not known, and the type is checked alone.
    """
    cure = f"pass integers in {least}..{largest}"
    array = to_array(name, values, cure)
    if not np.issubdtype(array.dtype, np.integer):
        raise UserError(f"{name} is {describe(array)}: {cure}")
    if not isinstance(array, Tracer) and np.any((array < least) | (array > largest)):
        raise UserError(f"{name} holds {array.min()}..{array.max()}: {cure}")
    return jnp.asarray(array, jnp.int32)


def read_examples(xt: Any, t: Any, description: Description, K: int, T: int) -> tuple[Array, Array]:
    """Returns x_t [B, *S] and t [B], int32.

    Args:
        xt: categories; of data whose examples have lengths, shorter ones too.
        t: steps of the whole process, 0 of clean examples.
        description: of the data.
        K, T: of the whole process.

    Raises:
        UserError: they are something else.
    """
    xt = read_integers("xt", xt, K - 1)
    shape = description.shape
    is_shorter = description.has_lengths and xt.ndim == 2 and 0 < xt.shape[1] < shape[0]
    if xt.shape[1:] != shape and not is_shorter:
        sizes = ", ".join(map(str, shape))
        raise UserError(f"xt has shape {list(xt.shape)}: pass [N, {sizes}], as the data has")
    t = read_integers("t", t, T)
    if t.shape != xt.shape[:1]:
        raise UserError(f"t has shape {list(t.shape)}: pass {list(xt.shape[:1])}, a step for each of xt")
    return xt, t


def read_label(label: Any, num_labels: int | None, B: int) -> Array | None:
    """Returns labels int32 [B]; None for none.

    Args:
        label: of each example.
        num_labels: that the network takes, the null label among them; None: it takes none.
        B: how many examples there are.

    Raises:
        UserError: they are something else, or the network takes none.
    """
    if label is None:
        return None
    if num_labels is None:
        raise UserError("label is passed, but the network of this run takes no labels: leave it out")
    label = read_integers("label", label, num_labels - 1)
    if label.shape != (B,):
        raise UserError(f"label has shape {list(label.shape)}: pass {[B]}, one for each example")
    return label


def read_condition(
    condition: Any, description: Description, dropping: Dropping | None, num: int | None = None
) -> Any:
    """Returns conditions [N, *C] in the type that the network takes; None where it takes none.

    Args:
        condition: anything that NumPy makes such an array of, or null conditions of `dropping`.
        description: of the data.
        dropping: of labels and conditions in training.
        num: N, where it has to be so many.

    Raises:
        UserError: the network takes none, or others.
    """
    if description.condition is None:
        if condition is not None:
            raise UserError("a condition is passed, but the network of this run takes none: leave it out")
        return None

    axes = ", ".join(map(str, ("N" if num is None else num, *description.condition)))
    cure = f"pass condition (d3pm sample --condition FILE.npy), {description.condition_type} [{axes}]"
    if condition is None:
        raise UserError(f"the network of this run takes a condition: {cure}")
    condition = to_array("condition", condition, cure)
    shapes = {description.condition, None if dropping is None else dropping.extended_condition}
    has_length = condition.ndim > 0 and len(condition) > 0 and num in (None, len(condition))
    if not has_length or condition.shape[1:] not in shapes:
        raise UserError(f"the condition has shape {list(condition.shape)}: {cure}")
    if isinstance(condition, Tracer):
        return condition
    with as_user_error("the condition "):
        return convert_conditions(condition, description.condition_type)


def read_weight(weight: Any, shape: tuple[int, ...]) -> Any:
    """Returns weights of the elements of examples, or what JAX traces as it is.

    Raises:
        UserError: they have another shape, one is negative or not finite, or all are 0.
    """
    weight = to_array("weight", weight, "pass floats")
    is_real = np.dtype(weight.dtype).kind in "biuf" or weight.dtype == jnp.bfloat16
    if weight.shape != shape or not is_real:
        raise UserError(f"the weight is {describe(weight)}: pass floats {list(shape)}, as the examples")
    # The comparisons are written so that NaN fails them.
    if not isinstance(weight, Tracer) and not (np.all((weight >= 0) & (weight < np.inf)) and weight.any()):
        raise UserError(
            f"the weight holds {weight.min():g}..{weight.max():g}: pass finite numbers of at least 0, one of "
            f"them above 0"
        )
    return weight
