"""Makes one pure function of parameters from a network and its head."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Key

from d3pm_jax.config import Config, Spec
from d3pm_jax.data import Description
from d3pm_jax.processes import Process
from d3pm_jax.training.step import Predict
from d3pm_jax.types import Params

Init = Callable[[Array], Params]  # key -> parameters


def split_network(config: Config, description: Description, process: Process) -> tuple[Predict, Init]:
    """Splits the network of a config into two pure functions; nothing is computed yet.

    Args:
        config: of the run.
        description: of the data.
        process: the forward process, all of its steps.

    Returns:
        predict(params, xt, t, key=None, label=None, weight=None) -> logits of x_0 [B, *S, K], with dropout
        when a key is passed; and init(key) -> params. Labels that the network ignores are not passed on.

    Raises:
        ValueError: the network cannot be built for such data.
    """
    head = config.head
    classes = network_classes(config, description)
    spec = Spec(description.shape, process.K, head.outputs, classes, process.T, config.train.remat)

    def build(key: Array) -> nnx.Module:
        return config.model.build(spec, nnx.Rngs(key))

    network = nnx.eval_shape(build, jax.random.key(0))
    if not callable(network):
        raise ValueError(f"{type(network).__name__} defines no __call__: write f(xt, t, *, label, key)")
    graphdef, shapes = nnx.split(network)
    takes_weight = "weight" in inspect.signature(network).parameters
    _check_padding(config, description, takes_weight)

    def predict(
        params: Params,
        xt: Array,
        t: Array,
        key: Key[Array, ""] | None = None,
        label: Array | None = None,
        weight: Array | None = None,
    ) -> Array:
        extra_inputs: dict[str, Any] = {}
        if classes is not None:
            extra_inputs["label"] = label
        if takes_weight:
            extra_inputs["weight"] = weight
        output = nnx.merge(graphdef, params)(xt, t, key=key, **extra_inputs)
        return head.logits(output, xt, spec.K)  # [B, *S, K]

    # It is called once on shapes without numbers, so that logits of another shape are refused before a run
    # begins, and not by whatever meets them first.
    x = jnp.zeros((1, *spec.shape), jnp.int32)
    t = jnp.ones(1, jnp.int32)
    label = None if classes is None else t
    shape = jax.eval_shape(predict, shapes, x, t, jax.random.key(0), label).shape
    if shape != (1, *spec.shape, spec.K):
        raise ValueError(
            f"the network and its head give logits {list(shape)} for x {[1, *spec.shape]}: "
            f"expected {[1, *spec.shape, spec.K]}"
        )
    return predict, lambda key: nnx.split(build(key))[1]


def _check_padding(config: Config, description: Description, takes_weight: bool) -> None:
    """Raises ValueError for padded data and a network without weights, which say where the padding is."""
    if description.padded and not takes_weight:
        raise ValueError(
            f"the data is padded, but the network of {type(config.model).__name__} has no keyword weight to "
            f"be told where: take Transformer, or packing='wrapped'"
        )


def network_classes(config: Config, description: Description) -> int | None:
    """Returns how many classes the network takes labels of, or None if it takes no labels.

    That is `model.classes`, or for a model without that field the number of classes of the data.

    Raises:
        ValueError: it is not the number of classes of the data.
    """
    classes = getattr(config.model, "classes", description.classes)
    if classes not in (None, description.classes):
        if description.classes is None:
            classes_of_data = "no labels"
        else:
            classes_of_data = f"{description.classes} classes"
        raise ValueError(
            f"model.classes = {classes}, but the data has {classes_of_data}: set it to {description.classes}"
        )
    return classes


def spread_over_mesh(predict: Predict, sharding: jax.sharding.Sharding) -> Predict:
    """Spreads x_t of predict, and so all that is computed from it, over the devices of a mesh."""

    def predict_on_mesh(params: Params, xt: Array, *args: Any, **extra_inputs: Any) -> Array:
        return predict(params, jax.lax.with_sharding_constraint(xt, sharding), *args, **extra_inputs)

    return predict_on_mesh
