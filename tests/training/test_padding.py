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
from d3pm_jax.training.diffusion import StepNoise
from d3pm_jax.training.state import init_state
from d3pm_jax.training.step import make_step
from tests.models.small import randomised

B = 16
L = 3
SHORT = 2
RECIPROCAL = configs.Reciprocal()
CASES = (  # objective, process of K = 3 categories, what the network forbids
    (configs.HybridLoss(), configs.Uniform(3, 4, RECIPROCAL), None),
    (configs.ContinuousAbsorbing(RECIPROCAL), configs.Absorbing(3, 4, RECIPROCAL, 2), 2),
    (configs.ContinuousUniform(RECIPROCAL), configs.Uniform(3, 4, RECIPROCAL), None),
    (configs.ScoreEntropy(RECIPROCAL), configs.Absorbing(3, 4, RECIPROCAL, 2), 2),
    (configs.ScoreEntropy(RECIPROCAL), configs.Uniform(3, 4, RECIPROCAL), None),
)


def look_up(params, xt, t, weight):
    """Logits of two tables, one of x_t and one whose mean is taken over the example; nothing is of t."""
    share = weight / weight.sum(1, keepdims=True)
    mean = (share[..., None] * params["of_others"][xt]).sum(1, keepdims=True)
    return params["of_x"][xt] + mean


def gradient_step(objective, process, forbid, network, params, x0, u, weight):
    """The metrics of a step of gradient descent on a batch, and the parameters after it."""

    def predict(params, xt, t, key=None, weight=None):
        logits = network(params, xt, t, weight)
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
    """With each objective, at the same t and x_t, whatever stands in the padding; one of a transformer."""
    graphdef, params = randomised(lambda: Transformer(3, 4, 4, num_layers=1, num_heads=1, rngs=nnx.Rngs(0)))
    params = jax.tree.map(lambda x: x.astype(float), params)
    of_x, of_others = np.random.default_rng(1).normal(size=(2, 3, 3))
    tables = {"of_x": jnp.asarray(of_x), "of_others": jnp.asarray(of_others)}

    def transformer(params, xt, t, weight):
        return nnx.merge(graphdef, params)(xt, t, weight=weight)

    @jax.jit
    def steps(x0, u, weight):
        networks = ((transformer, params), *((look_up, tables) for _ in CASES[1:]))
        return [
            gradient_step(*case, *network, x0, u, weight)
            for case, network in zip(CASES, networks, strict=True)
        ]

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
