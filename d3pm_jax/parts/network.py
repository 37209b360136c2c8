"""Makes a network and its head one pure function of parameters."""

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
        when a key is passed; and init(key) -> params. Labels that the network ignores are left out.

    Raises:
        ValueError: the network cannot be built for such data.
    """
    head, classes = config.head, network_classes(config, description)
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
        more: dict[str, Any] = {} if classes is None else {"label": label}
        more |= {"weight": weight} if takes_weight else {}
        return head.logits(nnx.merge(graphdef, params)(xt, t, key=key, **more), xt, spec.K)

    # Called once without numbers, to see what it gives.
    x = jnp.zeros((1, *spec.shape), jnp.int32)
    t = jnp.ones(1, jnp.int32)
    label = None if classes is None else t
    found = jax.eval_shape(predict, shapes, x, t, jax.random.key(0), label).shape
    if found != (1, *spec.shape, spec.K):
        raise ValueError(
            f"the network and its head give logits {list(found)} for x {[1, *spec.shape]}: "
            f"expected {[1, *spec.shape, spec.K]}"
        )
    return predict, lambda key: nnx.split(build(key))[1]


def _check_padding(config: Config, description: Description, takes_weight: bool) -> None:
    """Raises ValueError for padded data and a network that cannot be told where the padding is."""
    if description.padded and not takes_weight:
        raise ValueError(
            f"the data is padded, but the network of {type(config.model).__name__} has no keyword weight to "
            f"be told where: take Transformer, or packing='wrapped'"
        )


def network_classes(config: Config, description: Description) -> int | None:
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
