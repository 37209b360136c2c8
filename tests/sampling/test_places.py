"""How many places are revealed."""

import jax.numpy as jnp
import pytest

from d3pm_jax.sampling.places import Candidates, EntropyBound, LeastEntropy, Reveal


@pytest.mark.parametrize(
    ("bound", "expected"), [(0.0, [True, False, False]), (float("inf"), [True, True, True])]
)
def test_an_entropy_bound_may_be_0_or_infinite(bound, expected):
    p = jnp.array([[[0.9, 0.1], [0.6, 0.4], [0.5, 0.5], [0.5, 0.5]]])
    masked = jnp.array([[True, True, True, False]])
    drawn = jnp.zeros((1, 4), jnp.int32)
    candidates = Candidates(jnp.log(p), drawn, masked, jnp.array([4]), lambda: p[..., 0], jnp.asarray(1), 4)
    chosen = Reveal(LeastEntropy(), EntropyBound(bound)).choose(candidates)
    assert chosen.tolist() == [[*expected, False]]
