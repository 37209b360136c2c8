"""The fused form of mixing processes at logits of any size and at pairs that cannot be."""

import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from tests.losses.values import fused, value_and_gradient
from tests.processes.odd import PROCESSES

pytestmark = pytest.mark.filterwarnings("ignore:x_T still depends")


def test_finite_logits_of_a_mixing_process_never_cost_infinity_where_the_move_is_possible():
    process = d3pm.uniform(d3pm.cosine(1000), 256)
    logits = jnp.full((8, 256), 1e4).at[:, 7].set(-1e4)
    xt = jnp.array([7, 8] * 4)
    t = jnp.array([1, 1, 2, 2, 500, 500, 1000, 1000])
    (kl, ce), _ = value_and_gradient(fused, process, logits, jnp.full(8, 7), xt, t)
    assert np.isfinite(kl).all()
    np.testing.assert_allclose(ce, 2e4 + np.log(255))


def test_an_impossible_pair_costs_nothing_under_either_rule():
    process = d3pm.absorbing(np.array([1.0, 0.5]), 3, 2)
    for belief in ("d3pm", "official"):
        kl = d3pm.posterior_kl(
            process, jnp.zeros((1, 3)), jnp.array([0]), jnp.array([0]), jnp.array(1), belief
        )
        np.testing.assert_array_equal(kl, 0.0)


@pytest.mark.parametrize("name", ["uniform", "absorbing", "marginal"])
def test_logits_that_are_not_numbers_do_not_become_a_certain_error(name):
    process = PROCESSES[name]()
    logits = jnp.zeros((3, process.K)).at[0, 1].set(jnp.nan).at[1, 1].set(jnp.inf)
    x0 = jnp.array([2, 2, 2])
    xt = jnp.array([3, 3, 3])
    (kl, ce), _ = value_and_gradient(fused, process, logits, x0, xt, jnp.array([5, 5, 5]))
    np.testing.assert_array_equal(np.isnan(kl), [True, True, False])
    np.testing.assert_array_equal(np.isnan(ce), [True, True, False])
