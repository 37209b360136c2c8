"""A network and its head as one pure function of parameters."""

import dataclasses
from collections.abc import Callable

import jax
from flax import nnx
from jaxtyping import Array, Key

from d3pm_jax.config import Config, UNet
from d3pm_jax.models import UNet as UNetModule
from d3pm_jax.types import Params

Predict = Callable[..., Array]  # (params, xt, t, key=None) -> logits of x_0
Init = Callable[[Array], Params]  # key -> parameters


def build_unet(
    spec: UNet, K: int, outputs: int, image: tuple[int, int, int], T: int, key: Key[Array, ""]
) -> UNetModule:
    """The U-Net of a config, for images of shape (H, W, C).

    Raises:
        ValueError: the image is not square, or does not fit the number of levels.
    """
    H, W, C = image
    if H != W:
        raise ValueError(f"images are {H} x {W}: the U-Net takes square ones")
    return UNetModule(K, C, H, T, **dataclasses.asdict(spec), outputs=outputs, rngs=nnx.Rngs(key))


def split(config: Config, image: tuple[int, int, int]) -> tuple[Predict, Init]:
    """The network of a config as two pure functions; nothing is computed yet.

    Args:
        config: of the run.
        image: (H, W, C).

    Returns:
        predict(params, xt, t, key=None) -> logits of x_0 [B, H, W, C, K], with dropout when a key is
        passed; and init(key) -> params.
    """

    K, head = config.process.K, config.head

    def build(key: Array) -> UNetModule:
        return build_unet(config.model, K, head.outputs(K), image, config.process.steps, key)

    graphdef, _ = nnx.split(nnx.eval_shape(build, jax.random.key(0)))

    def predict(params: Params, xt: Array, t: Array, key: Key[Array, ""] | None = None) -> Array:
        return head.logits(nnx.merge(graphdef, params)(xt, t, key=key), xt, K)

    return predict, lambda key: nnx.split(build(key))[1]


def on_mesh(predict: Predict, sharding: jax.sharding.Sharding) -> Predict:
    """predict with x_t, and so its whole computation, spread over the devices of a mesh."""

    def spread(params: Params, xt: Array, t: Array, key: Key[Array, ""] | None = None) -> Array:
        return predict(params, jax.lax.with_sharding_constraint(xt, sharding), t, key)

    return spread
