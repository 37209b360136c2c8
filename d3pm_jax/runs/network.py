"""Makes a network and its head one pure function of parameters."""

from collections.abc import Callable

import jax
from flax import nnx
from jaxtyping import Array, Key

from d3pm_jax.config import Config
from d3pm_jax.training.step import Predict
from d3pm_jax.types import Params

Init = Callable[[Array], Params]  # key -> parameters


def split(config: Config, image: tuple[int, int, int]) -> tuple[Predict, Init]:
    """Splits the network of a config into two pure functions; nothing is computed yet.

    Args:
        config: of the run.
        image: (H, W, C).

    Returns:
        predict(params, xt, t, key=None) -> logits of x_0 [B, H, W, C, K], with dropout when a key is
        passed; and init(key) -> params.
    """

    K, head = config.process.K, config.head

    def build(key: Array) -> nnx.Module:
        return config.model.build(K, head.outputs, image, config.process.steps, key)

    graphdef, _ = nnx.split(nnx.eval_shape(build, jax.random.key(0)))

    def predict(params: Params, xt: Array, t: Array, key: Key[Array, ""] | None = None) -> Array:
        return head.logits(nnx.merge(graphdef, params)(xt, t, key=key), xt, K)

    return predict, lambda key: nnx.split(build(key))[1]


def on_mesh(predict: Predict, sharding: jax.sharding.Sharding) -> Predict:
    """Spreads x_t of predict, and so its whole computation, over the devices of a mesh."""

    def sharded(params: Params, xt: Array, t: Array, key: Key[Array, ""] | None = None) -> Array:
        return predict(params, jax.lax.with_sharding_constraint(xt, sharding), t, key)

    return sharded
