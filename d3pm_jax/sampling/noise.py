"""Draws uniform noise that belongs to an example and a step, so that no result depends on batching."""

from collections.abc import Callable
from typing import Annotated

import jax
from jaxtyping import Array, Float, Int, Key

from d3pm_jax.checks import INDEX, Called, at_least, declared

# Numbers that are folded into the key of a seed, one for each use, so that commands with the same seed share
# no noise: "eval" and "samp" in ASCII.
EVALUATION = 0x6576616C
SAMPLING = 0x73616D70

Noise = Annotated[
    Callable[[Int[Array, ""]], Float[Array, " B *S"]],
    Called("t", "return a uniform of [0, 1) for each element, as per_example does"),
]


@declared(index=INDEX, shape=at_least(0, 2**31 - 1))
def per_example(key: Key[Array, ""], index: Int[Array, " B"], shape: tuple[int, ...]) -> Noise:
    """Makes a function t -> u [B, *shape] whose values depend on (key, index_b, t) alone.

    Args:
        key: a typed key.
        index: the number of each example in the whole data set or sample.
        shape: of one example.

    Returns:
        The function; equal arguments give equal noise.
    """
    keys = fold_in_each(key, index)

    def draw(t: Array) -> Array:
        return jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, t), shape))(keys)

    return draw


def fold_in_each(key: Key[Array, ""], index: Int[Array, " B"]) -> Key[Array, " B"]:
    """Makes a key for each example or sample from its number."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, index)
