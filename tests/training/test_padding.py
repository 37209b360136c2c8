"""A step on padded examples is the step on the shorter ones."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import d3pm_jax as d3pm
from d3pm_jax import config as configs
from d3pm_jax.models import Transformer
from d3pm_jax.training.state import init_state
from d3pm_jax.training.step import StepNoise, make_step
from tests.models.small import randomised

B = 16
L = 3
SHORT = 2
RECIPROCAL = configs.Reciprocal()
CASES = (  # objective, process of K = 3 categories, what the network forbids
    (configs.HybridLoss(), configs.Uniform(3, 4, RECIPROCAL), None),
    (configs.ContinuousAbsorbing(RECIPROCAL, 2), configs.Absorbing(3, 4, RECIPROCAL, 2), 2),
    (configs.ContinuousUniform(RECIPROCAL), configs.Uniform(3, 4, RECIPROCAL), None),
)


def gradient_step(objective, process, forbid, network, x0, u, weight):
    """The metrics of a step of gradient descent on a batch, and the parameters after it."""
    graphdef, params = network

    def predict(params, xt, t, key=None, weight=None):
        logits = nnx.merge(graphdef, params)(xt, t, weight=weight)
        if forbid is None:
            return logits
        return d3pm.forbid(logits, forbid)

    sgd = optax.sgd(1.0)
    has_real_times = not isinstance(objective, configs.HybridLoss)
    if has_real_times:
        t = jnp.linspace(0.5, 3.5, B)
    else:
        t = jnp.arange(B) % 4 + 1
    step = make_step(objective, configs.LowDiscrepancy(), sgd, predict, 0.9)
    batch = {"x": x0, "weight": weight}
    noise = StepNoise(t, jnp.full(B, 0.25), u)
    state, metrics = step(init_state(params, sgd), process.build(), batch, jax.random.key(0), noise)
    return metrics, state.params


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_padded_batch_has_the_loss_and_the_gradient_of_the_shorter_one():
    """Of a transformer, with each objective, at the same t and x_t, whatever stands in the padding."""
    graphdef, params = randomised(lambda: Transformer(3, 4, 4, num_layers=1, num_heads=1, rngs=nnx.Rngs(0)))
    network = graphdef, jax.tree.map(lambda x: x.astype(float), params)

    @jax.jit
    def steps(x0, u, weight):
        return [gradient_step(*case, network, x0, u, weight) for case in CASES]

    rng = np.random.default_rng(0)
    x0 = jnp.asarray(rng.integers(0, 2, (B, L)), jnp.int32)
    u = jnp.asarray(rng.random((B, L)))
    weight = jnp.asarray(rng.integers(1, 3, (B, L)) / 2 * (np.arange(L) < SHORT))
    actual = steps(x0, u, weight)
    expected = steps(*(x[:, :SHORT] for x in (x0, u, weight)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13), actual, expected)
    unweighted = steps(x0, u, jnp.ones((B, L)))
    assert all(
        abs(a["loss"] / b["loss"] - 1) > 1e-3 for (a, _), (b, _) in zip(actual, unweighted, strict=True)
    )
