"""Defines a small convolutional classifier of grey images, whose last hidden layer measures samples."""

from typing import Annotated

import jax
from flax import nnx
from jaxtyping import Array, Float

from d3pm_jax.checks import FINITE, Allowed, Count, Size, declared

HEIGHT_WIDTH_CHANNELS = Allowed("(H, W, C)", lambda x: len(x) == 3)
# Width of the last hidden layer.
FEATURES = 64


class Classifier(nnx.Module):
    """Maps grey images in [0, 1] to 64 features, and these to logits of classes.

    Args:
        shape: (H, W, 1) of an image.
        classes: number of them.
        rngs: of the weights.
    """

    @declared()
    def __init__(
        self, shape: Annotated[tuple[Size, ...], HEIGHT_WIDTH_CHANNELS], classes: Count, rngs: nnx.Rngs
    ):
        H, W, channels = shape
        self.shape = shape
        self.first = nnx.Conv(channels, 16, (5, 5), strides=2, rngs=rngs)
        self.second = nnx.Conv(16, 32, (3, 3), strides=2, rngs=rngs)
        self.third = nnx.Conv(32, 32, (3, 3), rngs=rngs)
        self.hidden = nnx.Linear(32 * -(-H // 4) * -(-W // 4), FEATURES, rngs=rngs)
        self.last = nnx.Linear(FEATURES, classes, rngs=rngs)

    @declared(images=FINITE)
    def features(self, images: Float[Array, "N H W C"]) -> Float[Array, "N 64"]:
        """Returns the last hidden layer before its nonlinearity, which would leave some of it constant."""
        if images.shape[1:] != self.shape:
            raise ValueError(
                f"images has shape {images.shape}, expected [N, {', '.join(map(str, self.shape))}]"
            )
        h = images
        for conv in (self.first, self.second, self.third):
            h = jax.nn.relu(conv(h))
        return self.hidden(h.reshape(len(h), -1))

    @declared(features=FINITE)
    def logits(self, features: Float[Array, "N 64"]) -> Float[Array, "N classes"]:
        """Returns the logits of the classes for features of images."""
        return self.last(jax.nn.relu(features))
