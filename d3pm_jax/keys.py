"""Makes the keys of all noise, of one kind whatever the settings of JAX say."""

import jax

# Of its draws each depends on its own key alone, also under vmap. Those of "rbg" depend on what is drawn
# beside them, so that a sample would depend on its batch.
KIND = "threefry2x32"


def make_key(seed: int) -> jax.Array:
    """Makes the key of a seed, also where JAX_DEFAULT_PRNG_IMPL asks for another kind of key."""
    return jax.random.key(seed, impl=KIND)


def convert_key(key: jax.Array) -> jax.Array:
    """Returns a key as it is, and in place of one of another kind a key that it draws."""
    if jax.random.key_impl(key) == KIND:
        return key
    # It is folded first, as nothing else may be drawn from a key that has been drawn from.
    return jax.random.wrap_key_data(jax.random.bits(jax.random.fold_in(key, 0), (2,)), impl=KIND)
