"""A batch taken in parts makes the step of the whole batch, on one device and on two."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

import d3pm_jax as d3pm
from d3pm_jax import config as configs
from d3pm_jax.program.machine.devices import batch_sharding, replicated_sharding
from d3pm_jax.training.diffusion import DiffusionLoss, without_buffers
from d3pm_jax.training.state import init_state
from d3pm_jax.training.step import make_step

B = 16
L = 3
K = 4
T = 6
OBJECTIVE = configs.HybridLoss(ce_weight=0.1)
TIMESTEPS = configs.Importance(least_count=0)
PROCESS = d3pm.uniform(d3pm.cosine(T), K)
RULE = configs.Adam(lr=0.1, clip=1e-2).build()


def predict(params, xt, t, key=None, label=None, weight=None):
    """A table of x_t and one of the class."""
    logits = params["of_x"][xt] * (1.0 + t[:, None, None] / T)
    if label is None:
        return logits
    return logits + params["of_label"][label][:, None]


def take_two_steps(step, batch, devices):
    """The state after two steps, and the metrics of the second."""
    mesh = Mesh(jax.devices()[:devices], "data")
    rng = np.random.default_rng(1)
    tables = {"of_x": jnp.asarray(rng.normal(size=(K, K))), "of_label": jnp.asarray(rng.normal(size=(2, K)))}
    state = init_state(tables, RULE, TIMESTEPS.start(T))
    state, process = jax.device_put((state, PROCESS), replicated_sharding(mesh))
    for _ in range(2):
        state, row = step(state, process, jax.device_put(batch, batch_sharding(mesh)), jax.random.key(0))
    return jax.device_get((state, row))


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_parts_make_the_step_of_the_whole_batch():
    """Also where the parts have other sums of weights, none among them; the history sees every example.

    A batch without weights, in other parts, makes the step of one whose weights are 1.
    """

    def step_on(devices, accumulate):
        sharding = batch_sharding(Mesh(jax.devices()[:devices], "data"))
        return make_step(OBJECTIVE, TIMESTEPS, RULE, predict, 0.9, sharding, accumulate)

    rng = np.random.default_rng(0)
    weight = rng.random((B, L))
    weight[1::4] = 0.0  # all of part 1 of 4
    batch = {
        "x": rng.integers(0, K, (B, L)).astype(np.int32),
        "label": rng.integers(0, 2, B).astype(np.int32),
    }
    whole = step_on(devices=1, accumulate=1)
    expected = take_two_steps(whole, batch | {"weight": weight}, devices=1)
    actual = take_two_steps(step_on(devices=2, accumulate=4), batch | {"weight": weight}, devices=2)
    expected_of_ones = take_two_steps(whole, batch | {"weight": np.ones((B, L))}, devices=1)
    actual_of_ones = take_two_steps(step_on(devices=1, accumulate=2), batch, devices=1)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13),
        (actual, actual_of_ones),
        (expected, expected_of_ones),
    )
    assert actual[0].history.counts.sum() == actual_of_ones[0].history.counts.sum() == 2 * B


class FirstLogit:
    """An objective whose loss is the first logit."""

    def draw(self, process, x0, t, u):
        return x0

    def terms(self, process, logits, x0, xt, t, p_t):
        return (logits[..., 0],) * 3


def test_parts_have_keys_of_their_own_and_have_to_be_equal():
    """The key of a batch in one part is that of the step, so that such steps are as they always were."""

    def random(params, xt, t, key=None):
        return params * jnp.broadcast_to(jax.random.normal(key), (*xt.shape, K))

    rule = configs.Adam().build()
    batch = {"x": jnp.zeros((4, L), jnp.int32)}
    losses = {}
    for accumulate in (1, 2):
        step = make_step(FirstLogit(), configs.LowDiscrepancy(), rule, random, 0.9, accumulate=accumulate)
        _, row = step(init_state(jnp.asarray(1.0), rule), PROCESS, batch, jax.random.key(0))
        losses[accumulate] = row["loss"]
    key = jax.random.split(jax.random.fold_in(jax.random.key(0), 0), 3)[2]
    np.testing.assert_allclose(losses[1], jax.random.normal(jax.random.clone(key)), rtol=1e-6)
    expected = np.mean([jax.random.normal(k) for k in jax.random.split(key, 2)])
    np.testing.assert_allclose(losses[2], expected, rtol=1e-6)
    step = make_step(OBJECTIVE, TIMESTEPS, rule, predict, 0.9, accumulate=3)
    with pytest.raises(
        ValueError, match="a batch of 4 does not divide into accumulate = 3 parts: change one"
    ):
        step(init_state(jnp.ones((K, K)), rule, TIMESTEPS.start(T)), PROCESS, batch, jax.random.key(0))


def test_the_history_is_of_all_steps_also_where_some_are_left_out():
    """The state of a checkpoint is of this shape whichever steps a run is opened with."""
    loss = DiffusionLoss(OBJECTIVE, TIMESTEPS, without_buffers(predict))
    for process in (PROCESS, d3pm.respace(PROCESS, [2, T])):
        assert loss.start_history(process).counts.shape == (T,)


def bits(tree):
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(tree)]


def test_a_step_that_is_not_finite_changes_nothing_but_the_count():
    """One poisoned example of many: in its gradient, or in the loss alone, whose gradient is finite."""

    def poisoned(params, xt, t, key=None, label=None):
        root = jnp.sqrt(jnp.where(label == 2, 0.0, 1.0) + 0.0 * params["rate"])  # with a gradient of 0 * inf
        infinite = jnp.where(label == 1, jnp.inf, 0.0)
        return predict(params, xt, t) * root[:, None, None] + infinite[:, None, None]

    rule = configs.Adam(lr=0.1).build()
    tables = {"of_x": jnp.ones((K, K)), "of_label": jnp.zeros((3, K)), "rate": jnp.asarray(1.0)}
    state = init_state(tables, rule, TIMESTEPS.start(T))
    step = make_step(FirstLogit(), TIMESTEPS, rule, poisoned, 0.9)
    x = jnp.ones((8, L), jnp.int32)
    for i, (of_last, skipped, first) in enumerate(
        ((0, False, -1), (2, True, 2), (1, True, -1), (0, False, -1))
    ):
        label = jnp.asarray([0] * 7 + [of_last], jnp.int32)
        before = bits(dataclasses.replace(state, step=0))
        state, row = step(state, PROCESS, {"x": x, "label": label}, jax.random.key(0))
        after = bits(dataclasses.replace(state, step=0))
        assert (before == after, int(state.step)) == (skipped, i + 1)
        assert all(np.isfinite(value) for value in row.values()) != skipped
        assert row["first_nonfinite"] == first
        assert np.isfinite(row["grad_norm"]) == (of_last != 2)
