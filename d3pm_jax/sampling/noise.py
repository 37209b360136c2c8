"""Draws uniform noise that belongs to an example and a row, so that no result depends on batching."""

from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from d3pm_jax.checks import INDEX, Called, at_least, declared, is_known
from d3pm_jax.keys import convert_key

# Numbers that are folded into the key of a seed, one for each use, so that commands with the same seed share
# no noise: "eval" and "samp" in ASCII.
EVALUATION = 0x6576616C
SAMPLING = 0x73616D70

# The streams of noise of a sampler: what is drawn, which places come first, and the phases of events. A
# corrector has two for each of its moves, from CORRECTOR on. Drafts, which go with no corrector, have two in
# their place: which of them are accepted, and what stands for one that is not. Steering has two behind all of
# these: the x_0 that is scored, and which particles go on.
DRAW = 0
ORDER = 1
PHASE = 2
CORRECTOR = 3
ACCEPT = CORRECTOR
REPLACE = CORRECTOR + 1
CLEAN = 2**30
SELECT = 2**30 + 1
FIRST_STREAM = 2**31  # folded in before a row is, where no row has its number

Noise = Annotated[
    Callable[[Int[Array, ""]], Float[Array, " B *S"]],
    Called("t", "return a uniform of [0, 1) for each element, as per_example does"),
]
# Streams are numbered by ints, those of a corrector's moves by what a program counts.
Streams = Annotated[
    Callable[[Int[Array, ""], int | Array], Float[Array, " B *S"]],
    Called("row, stream", "return a uniform of [0, 1) for each element, as per_example does"),
]


@declared(index=INDEX, shape=at_least(0, 2**31 - 1))
def per_example(key: Key[Array, ""], index: Int[Array, " B"], shape: tuple[int, ...]) -> Callable[..., Array]:
    """Makes a function (row, stream=0) -> u [B, *shape] of values that (key, index_b, row, stream) decide.

    Args:
        key: a typed key.
        index: the number of each example in the whole data set or sample.
        shape: of one example.

    Returns:
        The function; equal arguments give equal noise. In a chain of T steps a row is t.
    """
    keys = fold_in_each(key, index)

    @declared(row=INDEX, stream=INDEX)
    def draw(row: Int[Array, ""], stream: int | Int[Array, ""] = DRAW) -> Float[Array, " B *S"]:
        return jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, row), shape))(choose(stream))

    # Stream 0 is the key itself: it has been the noise of chains since there was one stream.
    def choose(stream: int | Array) -> Array:
        if is_known(stream) and stream == DRAW:
            return keys
        # As uint32: the number is above the largest int32.
        number = jnp.asarray(stream, jnp.uint32) + jnp.uint32(FIRST_STREAM)
        return jax.vmap(jax.random.fold_in, (0, None))(keys, number)

    return draw


def fold_in_each(key: Key[Array, ""], index: Int[Array, " B"]) -> Key[Array, " B"]:
    """Makes a key for each example or sample from its number; what it draws depends on no other's."""
    return jax.vmap(jax.random.fold_in, (None, 0))(convert_key(key), index)
