"""Makes a network and its head one pure function of parameters."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Key

from d3pm_jax.config import Config, Spec
from d3pm_jax.data import Description
from d3pm_jax.processes import Process
from d3pm_jax.training.step import Predict
from d3pm_jax.types import Params

Init = Callable[[Array], Params]  # key -> parameters


def split(config: Config, description: Description, process: Process) -> tuple[Predict, Init]:
    """Splits the network of a config into two pure functions; nothing is computed yet.

    Args:
        config: of the run.
        description: of the data.
        process: the forward process, all of its steps.

    Returns:
        predict(params, xt, t, key=None, label=None, weight=None) -> logits of x_0 [B, *S, K], with dropout
        when a key is passed; and init(key) -> params. Labels that the network ignores are left out.

    Raises:
        ValueError: the network cannot be built for such data.
    """
    K, head, classes = process.K, config.head, told_classes(config, description)
    spec = Spec(description.shape, K, head.outputs, classes, process.T)

    def build(key: Array) -> nnx.Module:
        return config.model.build(spec, nnx.Rngs(key))

    network = nnx.eval_shape(build, jax.random.key(0))
    graphdef, takes_weight = nnx.graphdef(network), "weight" in inspect.signature(network.__call__).parameters

    def predict(
        params: Params,
        xt: Array,
        t: Array,
        key: Key[Array, ""] | None = None,
        label: Array | None = None,
        weight: Array | None = None,
    ) -> Array:
        more: dict[str, Any] = {} if classes is None else {"label": label}
        if takes_weight:
            more["weight"] = weight
        return head.logits(nnx.merge(graphdef, params)(xt, t, key=key, **more), xt, K)

    return predict, lambda key: nnx.split(build(key))[1]


def told_classes(config: Config, description: Description) -> int | None:
    """Returns how many classes the network is told: `model.classes`, or without that field all there are.

    Raises:
        ValueError: it is not for as many as the data has.
    """
    wanted = getattr(config.model, "classes", description.classes)
    if wanted not in (None, description.classes):
        have = "no labels" if description.classes is None else f"{description.classes} classes"
        raise ValueError(
            f"model.classes = {wanted}, but the data has {have}: set it to {description.classes}"
        )
    return wanted


def on_mesh(predict: Predict, sharding: jax.sharding.Sharding) -> Predict:
    """Spreads x_t of predict, and so its whole computation, over the devices of a mesh."""

    def sharded(params: Params, xt: Array, *args: Any, **more: Any) -> Array:
        return predict(params, jax.lax.with_sharding_constraint(xt, sharding), *args, **more)

    return sharded
