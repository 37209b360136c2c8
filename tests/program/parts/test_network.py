"""The network of a run with the head of its config."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import d3pm_jax as d3pm
from d3pm_jax import config as configs
from d3pm_jax.config.head import make_logits
from d3pm_jax.data import Description
from d3pm_jax.program.parts import network
from tests import tiny


def test_the_head_of_a_config_centres_on_x_t():
    """At first the network gives 0, so loc = tanh(x_t in [-1, 1]) and log_scale = 0."""
    base = tiny.get_config()
    config = dataclasses.replace(base, head=configs.LogisticHead())
    functions = network.split_network(config, tiny.DIGITS, config.process.build(), extra_mask=16)
    xt = jax.random.randint(jax.random.key(1), (2, 8, 8, 1), 0, 17)
    shapes = jax.eval_shape(
        lambda k: functions.predict(functions.init(k), xt, jnp.array([1, 10])), jax.random.key(0)
    )
    logits = make_logits(config.head, jnp.zeros((*xt.shape, 2)), xt, 17, functions.extra_mask)
    loc = np.tanh(np.asarray(xt) / 8 - 1.0)
    expected = d3pm.logistic(jnp.asarray(loc, jnp.float32), jnp.zeros(xt.shape), 17)
    assert logits.shape == shapes.shape == (2, 8, 8, 1, 17)
    np.testing.assert_allclose(logits[..., :16], expected[..., :16], rtol=1e-5)
    assert np.all(np.isneginf(logits[..., 16]))


class Places(nnx.Module):
    """A network of a user's own that looks at no layout, and at the time where it is told to."""

    def __init__(self, K, sees_time, rngs):
        self.table = nnx.Embed(K, K, rngs=rngs)
        self.sees_time = sees_time

    def __call__(self, xt, t):
        logits = self.table(xt)
        return logits + t[:, None, None] if self.sees_time else logits


class Leaking(Places):
    """One that takes a layout, and mixes all places whatever it says."""

    def __call__(self, xt, t, layout=None):
        return super().__call__(xt, t) + self.table(xt).mean(1, keepdims=True)


@dataclasses.dataclass(frozen=True)
class OwnModel(configs.Model):
    sees_time: bool = False
    leaks: bool = False

    def build(self, spec, rngs):
        make = Leaking if self.leaks else Places
        return make(spec.K, self.sees_time, rngs)


BLOCKS = configs.Blocks(block=2)
SMALL = configs.Transformer(width=4, num_layers=1, num_heads=1, see_time=False)


NO_LAYOUT = (
    BLOCKS,
    OwnModel(),
    "lays the places of the network out, but that of OwnModel has no keyword layout",
)
OTHERS = (
    (BLOCKS, OwnModel(leaks=True), "the network of OwnModel does not look at layout.attended"),
    (BLOCKS, dataclasses.replace(SMALL, see_time=True), "is for a network that sees no time, and that of"),
    (configs.AnyOrder(), OwnModel(sees_time=True), "and that of OwnModel looks at t: take Transformer"),
    (configs.Blocks(block=4), SMALL, "block = 4 does not divide length = 6: take a block that does"),
)


@pytest.mark.parametrize(
    ("loss", "model", "words"),
    [NO_LAYOUT, *(pytest.param(*case, marks=pytest.mark.slow) for case in OTHERS)],
)
def test_a_network_that_is_not_for_the_objective_is_refused_before_a_run(loss, model, words):
    process = configs.Absorbing(4, 5, configs.Reciprocal(), mask_id=3)
    parts = {"process": process, "model": model, "loss": loss, "timesteps": configs.RealTimes()}
    config = dataclasses.replace(tiny.get_config(), head=configs.Head(), **parts)
    text = Description((6,), 3, kind="text", symbols=("a", "b", "c"))
    with pytest.raises(ValueError, match=words) as error:
        network.split_network(config, text, process.build(), extra_mask=3)
    assert "\n" not in str(error.value)
