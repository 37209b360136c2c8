"""Checks of every process where it is built: what is refused, and chains that remember x_0."""

import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import processes


def i32(*x):
    return jnp.asarray(x, jnp.int32)


@pytest.mark.parametrize("build", [lambda b: d3pm.uniform(b, 5), lambda b: d3pm.gaussian(b, 5)])
def test_a_chain_that_still_remembers_warns(build):
    with pytest.warns(UserWarning, match=r"prior KL is up to .* bits per dimension"):
        build(np.full(10, 0.1))


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match=r"the chain is the identity.*raise beta"):
        d3pm.gaussian(d3pm.linear(1000), 3)
    with pytest.raises(ValueError, match=r"beta = 1\.2 at t = 1 is outside"):
        d3pm.uniform(np.array([1.2]), 5)
    with pytest.raises(ValueError, match=r"mask_id = 5, outside 0\.\.4"):
        d3pm.absorbing(d3pm.reciprocal(3), 5, 5)
    with pytest.raises(ValueError, match="K = 1"):
        d3pm.uniform(np.array([1.0]), 1)
    with pytest.raises(ValueError, match=r"not row-stochastic.*transpose"):
        d3pm.dense([np.array([[0.5, 0.4], [0.5, 0.6]])])
    with pytest.raises(ValueError, match="pi must be 2 probabilities that sum to 1"):
        d3pm.marginal(np.array([1.0]), np.array([0.5, 0.4]))
    with pytest.raises(ValueError, match="prior must be 2 probabilities"):
        d3pm.dense([np.full((2, 2), 0.5)], prior=np.ones(3) / 3)
    with pytest.raises(ValueError, match="Q is empty"):
        d3pm.dense([])


def test_a_chain_that_is_the_identity_is_made_where_it_is_allowed():
    slow = np.full(3, 1e-9)
    made = []
    with pytest.warns(UserWarning, match="x_T still depends on x_0"), processes.allow_identity():
        made += [d3pm.uniform(slow, 4), d3pm.dense(np.tile(np.eye(4), (3, 1, 1)))]
    for process in made:
        np.testing.assert_allclose(process.Qbar(i32(3))[0], np.eye(4), atol=4e-9)
    with pytest.raises(KeyError), processes.allow_identity():
        raise KeyError
    with pytest.raises(ValueError, match=r"the chain is the identity.*processes\.allow_identity\(\)"):
        d3pm.uniform(slow, 4)
