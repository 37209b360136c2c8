"""Runs of networks that fill in block after block, or in any order, from config to samples."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from d3pm_jax import runs
from d3pm_jax.config import (
    Absorbing,
    AnyOrder,
    Arrays,
    Blocks,
    Config,
    GeneralizedKL,
    RealTimes,
    Reciprocal,
    Train,
    Transformer,
    Uniform,
)
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError
from d3pm_jax.program.measure import certificate
from d3pm_jax.runs import Draw
from tests import tiny

L = 4
DATA = Description((L,), 3)
MASKS = Absorbing(4, 8, Reciprocal(), 3)
X = np.random.default_rng(0).integers(0, 3, (512, L)).astype(np.int32)
pytestmark = pytest.mark.slow


def open_run(folder, loss, process=MASKS, network_of_zeros=True):
    """A run, by default of a network whose output is 0: no x_0 is likelier than another."""
    config = Config(
        data=Arrays("train.npy", "test.npy", 3),
        process=process,
        model=Transformer(width=8, num_layers=1, num_heads=1, see_time=False),
        loss=loss,
        timesteps=RealTimes(),
        train=Train(steps=10, batch_size=8, log_every=5),
    )
    tiny.write_run(folder, config, description=DATA)
    opened = runs.open(folder, batch_size=512)
    if not network_of_zeros:
        rng = np.random.default_rng(1)
        draw = lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype)  # noqa: E731
    else:
        draw = jnp.zeros_like
    state = dataclasses.replace(opened.parts.state, ema=jax.tree.map(draw, opened.params))
    return dataclasses.replace(opened, parts=opened.parts.with_state(state))


@pytest.mark.parametrize("loss", [Blocks(block=2), Blocks(block=2, low=0.3, high=0.8), AnyOrder()])
def test_the_bound_of_a_network_that_says_nothing_is_that_of_any_category(loss, tmp_path):
    run = open_run(tmp_path / "run", loss)
    bound = run.evaluate_on(X, batch_size=512)
    assert abs(bound["nats"] - L * math.log(3)) < 5 * bound["nats_standard_error"] < 1
    drawn = run.sample(jax.random.key(0), 64, batch_size=64)
    assert set(np.unique(drawn.x0)) == {0, 1, 2}


def test_a_network_of_blocks_looks_at_what_is_before_a_block_alone(tmp_path):
    run = open_run(tmp_path / "run", Blocks(block=2), network_of_zeros=False)
    other = X[:2].copy()
    other[:, 2:] = (other[:, 2:] + 1) % 3
    t = np.ones(2, np.int32)
    logits, of_other = (np.asarray(run.predict(x, t))[..., :3] for x in (X[:2], other))
    np.testing.assert_array_equal(logits[:, :2], of_other[:, :2])
    assert np.abs(logits[:, 2:] - of_other[:, 2:]).max() > 1e-2

    x0 = X[0]
    key = jax.random.key(0)
    first = np.array([True, True, True, False])
    drawn = run.sample(key, 4, Draw(known=(x0, first)), batch_size=4)
    np.testing.assert_array_equal(drawn.x0[:, :3], np.tile(x0[:3], (4, 1)))
    for ask, words in (
        (lambda: run.sample(key, 4, Draw(known=(x0, ~first))), "a known place is in a later block than an"),
        (lambda: run.sample(key, 4, Draw(sampler="ancestral")), "sampler.block = None, and loss = Blocks"),
        (lambda: run.log_prob(X), "the network of loss = Blocks does not fill in masks in any order"),
        (lambda: certificate.compute_certificate(run.parts, {"x": X}), "loss = Blocks has one bound"),
    ):
        with pytest.raises(UserError, match=words) as error:
            ask()
        assert "\n" not in str(error.value)


def test_a_network_of_any_order_has_a_chain_rule_and_that_of_the_generalised_kl_a_bound(tmp_path):
    run = open_run(tmp_path / "run", AnyOrder())
    np.testing.assert_allclose(run.log_prob(X[:8]), -L * math.log(3), rtol=1e-5)
    run = open_run(tmp_path / "uniform", GeneralizedKL(), Uniform(3, 8, Reciprocal()))
    assert np.isfinite(run.evaluate_on(X, batch_size=512)["nats"])
