"""Shaped logits, and what x_t says beside them."""

import jax
import jax.numpy as jnp

import d3pm_jax as d3pm
from d3pm_jax.sampling import Sampler, Shaping, sample_by

K = 4
MASK = 3


def test_what_is_unmasked_stays_though_top_p_would_not_keep_it():
    """Category 2 is by far the likeliest at first, and category 0 later: top-p keeps it alone."""
    process = d3pm.absorbing(d3pm.reciprocal(4), K, MASK)
    first = jnp.log(jnp.array([0.04, 0.06, 0.9, 0.0]))
    later = jnp.log(jnp.array([0.9, 0.06, 0.04, 0.0]))

    def denoise(x, t):
        return jnp.broadcast_to(jnp.where((t > 2)[:, None, None], first, later), (*x.shape, K))

    @jax.jit
    def draw(key):
        sampler = Sampler(shaping=Shaping(top_p=0.5))
        return sample_by(key, sampler, denoise, process, (50, 6), record=(2,), belief="leave_one_out")

    chain = draw(jax.random.key(0))
    unmasked = chain.states[0] != MASK
    assert chain.failed_at == 0
    assert 0 < unmasked.mean() < 1
    assert (chain.x0 == jnp.where(unmasked, 2, 0)).all()
