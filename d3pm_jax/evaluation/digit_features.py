"""Computes features of images like digits by a small classifier, to compare samples with examples.

The classifier is trained from SEED on the training split of the data itself. Every number in this file
decides its weights: whoever changes one changes RECIPE too, by which weights are stored and figures compared.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from d3pm_jax.checks import values_in_range
from d3pm_jax.keys import make_key
from d3pm_jax.models.classifier import Classifier
from d3pm_jax.types import Params

__all__ = ["classify_images", "train_classifier"]

RECIPE = "classifier 1"  # the network and its training
SEED = 0  # of weights and the order of the data
STEPS = 3000
BATCH = 128
PEAK = 2e-3  # learning rate of Adam, which falls to 0 along a cosine
SHIFT = 1  # pixels
CHUNK = 1000  # images at a time


def _make_builder(shape: tuple[int, ...], classes: int) -> Callable[[Array], Classifier]:
    """Makes the function key -> classifier with random weights."""
    # Flax is of the extra [train], which the other figures of this package do without.
    from flax import nnx

    return lambda key: Classifier(shape, classes, nnx.Rngs(key))


def network_shapes(shape: tuple[int, ...], classes: int) -> tuple[Any, Params]:
    """Returns the graph of the classifier and the shapes of its parameters.

    Args:
        shape: (H, W, 1) of an image.
        classes: how many there are.
    """
    from flax import nnx

    return nnx.split(nnx.eval_shape(_make_builder(shape, classes), make_key(SEED)))


def train_classifier(
    x: Int[np.ndarray, "N H W 1"],
    labels: Int[np.ndarray, " N"],
    classes: int,
    levels: int,
) -> Params:
    """Trains the classifier: the same data on the same machine gives the same weights, to the bit.

    Args:
        x: images in 0..levels - 1.
        labels: their classes.
        classes: how many there are.
        levels: number of grey levels.

    Returns:
        The parameters of a `Classifier`.
    """
    import optax
    from flax import nnx

    graph = network_shapes(x.shape[1:], classes)[0]
    build = jax.jit(_make_builder(x.shape[1:], classes))
    params = nnx.split(build(make_key(SEED)))[1]
    optimizer = optax.adam(optax.cosine_decay_schedule(PEAK, STEPS))

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, moments: Any, x: Array, labels: Array) -> tuple[Any, Any]:
        @values_in_range()
        def loss(params: Any) -> Array:
            network = nnx.merge(graph, params)
            logits = network.logits(network.features(x / (levels - 1)))
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        updates, moments = optimizer.update(jax.grad(loss)(params), moments)
        return optax.apply_updates(params, updates), moments

    moments = optimizer.init(params)
    rng = np.random.default_rng(SEED)
    for _ in range(STEPS):
        index = rng.integers(len(x), size=BATCH)
        images = _shift(x[index], rng)  # [BATCH, H, W, 1]
        params, moments = step(params, moments, images, labels[index])
    return params


def _shift(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shifts all images of a batch [B, H, W, 1] by the same random number of pixels, at most SHIFT."""
    top, left = rng.integers(2 * SHIFT + 1, size=2)
    padded = np.pad(x, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)))
    return padded[:, top : top + x.shape[1], left : left + x.shape[2]]


def classify_images(
    params: Params, x: Int[np.ndarray, "N H W 1"], classes: int, levels: int
) -> tuple[Float[np.ndarray, "N d"], Int[np.ndarray, " N"]]:
    """Returns the features of images, and the class that the classifier gives each.

    Args:
        params: of `train_classifier`.
        x: images in 0..levels - 1.
        classes: how many there are.
        levels: number of grey levels.
    """
    from flax import nnx

    graph = network_shapes(x.shape[1:], classes)[0]

    @jax.jit
    @values_in_range()
    def classify_chunk(params: Params, x: Array) -> tuple[Array, Array]:
        network = nnx.merge(graph, params)
        features = network.features(x / (levels - 1))
        return features, jnp.argmax(network.logits(features), -1)

    chunks = [jax.device_get(classify_chunk(params, x[i : i + CHUNK])) for i in range(0, len(x), CHUNK)]
    features, labels = zip(*chunks, strict=True)
    return np.concatenate(features), np.concatenate(labels)
