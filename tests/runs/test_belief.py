"""A run evaluates and samples with the belief it was trained with."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import config as configs, runs
from d3pm_jax.sampling.noise import EVALUATION, SAMPLING
from tests import tiny

pytestmark = pytest.mark.usefixtures("small_network")


@pytest.mark.parametrize(
    "kind", [configs.HybridLoss, pytest.param(configs.StochasticBound, marks=pytest.mark.slow)]
)
def test_the_belief_of_the_run_is_that_of_its_bound_and_samples(kind, tmp_path):
    loss = kind(belief="denoiser")
    tiny.write_run(tmp_path / "run", dataclasses.replace(tiny.get_config(), loss=loss))
    run = runs.open(tmp_path / "run")
    x0 = np.random.default_rng(0).integers(0, 17, (4, 8, 8, 1)).astype(np.int32)
    key = jax.random.key(0)

    @jax.jit
    def run_of(params, process, x0, key):
        network = partial(run.parts.recipe.diffusion.predict, params)
        by_belief = {}
        # Bounds and samples of "d3pm" are those of "leave_one_out".
        for belief in ("leave_one_out", "denoiser"):
            key_bound = jax.random.fold_in(key, EVALUATION)
            key_samples = jax.random.fold_in(key, SAMPLING)
            bound = d3pm.estimate_bound(key_bound, network, process, x0, jnp.arange(4), belief=belief).total()
            samples = d3pm.sample(key_samples, d3pm.Denoiser(process, network, belief), x0.shape).x0
            by_belief[belief] = d3pm.bits_per_dim(bound, 64).mean(), samples
        return by_belief

    with jax.debug_key_reuse(False):  # the noise of both beliefs is the same
        by_belief = run_of(run.params, run.process, jnp.asarray(x0), key)
    bits, samples = by_belief[loss.belief]
    # In batches the noise of an example is that of its number.
    assert run.evaluate_on(x0, batch_size=2)["bits_per_dim"] == pytest.approx(float(bits), rel=1e-5)
    np.testing.assert_array_equal(run.sample(key, 4, batch_size=4).x0, samples)
    assert abs(by_belief["leave_one_out"][0] - bits) > 1e-3
    assert (by_belief["leave_one_out"][1] != samples).any()
