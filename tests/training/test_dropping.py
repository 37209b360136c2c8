"""Which examples of a step are trained on without label and condition, and what they have in their place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

import d3pm_jax as d3pm
from d3pm_jax import config as configs
from d3pm_jax.program.machine.devices import batch_sharding, replicated_sharding
from d3pm_jax.training.diffusion import draw_noise
from d3pm_jax.training.dropping import Dropping
from d3pm_jax.training.loss import split_keys
from d3pm_jax.training.state import init_state
from d3pm_jax.training.step import make_step

B = 16
L = 4
K = 3
CLASSES = 5
RATE = 0.4
DROPPING = Dropping(RATE, CLASSES, (1,), "float32")
PROCESS = d3pm.uniform(d3pm.cosine(4), K)
RULE = configs.Adam(lr=0.0).build()
# The condition of example i is 2^i, so that a sum of conditions says of which examples it is.
BATCH = {
    "x": np.zeros((B, L), np.int32),
    "label": (np.arange(B) % CLASSES).astype(np.int32),
    "condition": 2.0 ** np.arange(B, dtype=np.float32)[:, None],
}


class FirstLogit:
    """An objective whose loss is the first logit."""

    def draw(self, process, x0, t, u):
        return x0

    def terms(self, process, logits, x0, xt, t, p_t):
        return (logits[..., 0],) * 3


def number(params, xt, t, key=None, *, label, condition):
    """Logits that are the first feature of the condition; NaN where label and condition are not both null."""
    first, is_null = condition.T  # [B], [B]
    agree = (label == CLASSES) == (is_null == 1)
    value = jnp.where(agree, params * first, jnp.nan)
    return jnp.broadcast_to(value[:, None, None], (*xt.shape, K))


def examples_with_inputs(accumulate, devices, draws_before=False, steps=3):
    """Which examples have their own label and condition in each step, bool [steps, B].

    The noise of a step may be drawn before it, as for a file of noise.
    """
    mesh = Mesh(jax.devices()[:devices], "data")
    sharding = batch_sharding(mesh)
    spread = configs.LowDiscrepancy()
    step = make_step(FirstLogit(), spread, RULE, number, 0.9, sharding, accumulate, dropping=DROPPING)
    state, process = jax.device_put((init_state(jnp.float32(1), RULE), PROCESS), replicated_sharding(mesh))
    batch = jax.device_put(BATCH, sharding)
    has_inputs = []
    for i in range(steps):
        noise = None
        if draws_before:
            noise = draw_noise(spread, jax.random.key(7), np.int32(i), None, (B, L), 4, sharding)
        state, row = step(state, process, batch, jax.random.key(7), noise)
        sum_of_conditions = int(row["loss"] * B)
        has_inputs.append([bool(sum_of_conditions >> i & 1) for i in range(B)])
    return np.array(has_inputs)


def test_key_and_step_alone_decide_which_examples_are_dropped():
    """Neither parts nor devices do, nor where the noise comes from."""
    whole = examples_with_inputs(accumulate=1, devices=1)
    parts = examples_with_inputs(accumulate=4, devices=2, draws_before=True)
    np.testing.assert_array_equal(parts, whole)
    key = jax.random.key(7)
    expected = [DROPPING.draw(key, step, B) for step in range(3)]
    np.testing.assert_array_equal(whole, ~np.array(expected))
    assert not np.array_equal(whole[0], whole[1])


def test_as_many_are_dropped_as_the_rate_says():
    """By a stream of its own, which is none of those of noise and dropout."""
    key = jax.random.key(3)
    steps = jnp.arange(500)
    dropped = jax.vmap(lambda step: DROPPING.draw(key, step, B))(steps)  # [500, B]
    n = dropped.size
    assert abs(float(dropped.mean()) - RATE) < 4 * np.sqrt(RATE * (1 - RATE) / n)
    everything = jax.vmap(lambda step: Dropping(1.0, CLASSES).draw(key, step, B))(steps)
    assert everything.all()
    for stream in range(3):
        u = jax.vmap(lambda step, i=stream: jax.random.uniform(split_keys(key, step)[i], (B,)))(steps)
        agree = float(((u < RATE) == dropped).mean())
        assert agree < RATE**2 + (1 - RATE) ** 2 + 4 * np.sqrt(0.25 / n)


def test_null_inputs_are_a_class_above_and_a_feature_more():
    dropping = Dropping(0.1, 10, (2, 3), "int32")
    assert (dropping.num_labels, dropping.extended_condition) == (11, (2, 4))
    null = dropping.null_inputs(2)
    np.testing.assert_array_equal(null["label"], [10, 10])
    np.testing.assert_array_equal(null["condition"], [[[0, 0, 0, 1]] * 2] * 2)
    assert {name: x.dtype for name, x in null.items()} == {"label": "int32", "condition": "int32"}
    condition = np.arange(1, 7).reshape(1, 2, 3).astype(np.int32)
    extended = dropping.extend_condition(jnp.asarray(condition))
    np.testing.assert_array_equal(extended, np.pad(condition, ((0, 0), (0, 0), (0, 1))))
    assert dropping.extend_condition(extended) is extended
    assert dropping.extend_condition(null["condition"]) is null["condition"]


@pytest.mark.parametrize("classes", [None, CLASSES])
def test_what_a_network_does_not_take_is_left_alone(classes):
    batch = {"x": jnp.zeros((2, L), jnp.int32), "label": jnp.array([1, 2], jnp.int32)}
    dropped = Dropping(1.0, classes).drop(batch, jax.random.key(0), 0)
    expected = batch["label"] if classes is None else [classes, classes]
    np.testing.assert_array_equal(dropped["label"], expected)
    assert set(dropped) == {"x", "label"}
