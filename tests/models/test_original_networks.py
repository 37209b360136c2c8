"""The networks beside the programs that they come from: what those gave for weights made by a formula.

U-Net: the official D3PM code (google-research/google-research, d3pm/images/model.py), in the copy at
github.com/carat-keeeehun/nlp-final, commit a28f2ec. The program cannot run on a current Flax, as its trainer
needs `flax.optim`; the file of the network can, and with its casts to float32 widened to float64 it gave the
numbers here.
ScoreNet: `MNISTScoreNet` of github.com/paulffm/Dirichlet-Diffusion-Score-Model-Reimplementation, commit
4c3c1ad, in PyTorch and float64, as it is.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from d3pm_jax import heads
from d3pm_jax.models import ScoreNet, UNet
from d3pm_jax.weights import twin

pytestmark = pytest.mark.usefixtures("x64")


def made(params):
    """The parameters by a formula: parameter i by name has entries sin(i + 2.4 j), scaled by its fan-in."""
    state_dict = twin.to_torch(params)
    values = {}
    for i, (name, x) in enumerate(sorted(state_dict.items())):
        wave = np.sin(i + 2.4 * np.arange(x.size)).reshape(x.shape)
        if x.ndim == 1:
            values[name] = (1.0 if "norm" in name else 0.0) * name.endswith("weight") + 0.3 * wave
        else:
            values[name] = wave * np.sqrt(2.0 / np.prod(x.shape[1:]))
    return twin.from_torch(params, values)


def images(K, size, channels):
    """Two images of all kinds of values."""
    n = np.arange(2 * size * size * channels)
    return jnp.asarray((n * n + 7 * n) % 1009 % K, jnp.int32).reshape(2, size, size, channels)


def outputs(build, *args, **kwargs):
    """What the network that build(rngs) makes gives with the weights of the formula."""
    graphdef, shapes = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))))
    params = made(jax.tree.map(lambda x: jnp.zeros(x.shape), shapes))
    return jax.jit(lambda params: nnx.merge(graphdef, params)(*args, **kwargs))(params)


def summary(x):
    """Four entries and a sum of all."""
    x = np.asarray(x).ravel()
    return [*x[:: x.size // 4][:4], np.sum(x * np.cos(np.arange(x.size)))]


LOGITS = {  # by the number of heads
    1: [
        0.05262671111219075,
        -3.6476716426136013,
        0.4887410668145019,
        3.3534986422885513,
        -49.55241397176843,
    ],
    4: [
        0.05008354415383176,
        -3.6449469979598903,
        0.4872233980038818,
        3.356385615995658,
        -49.50559706267494,
    ],
}


@pytest.mark.parametrize("num_heads", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_the_unet_with_classes_gives_the_logits_of_the_official_code(num_heads):
    xt = images(256, 8, 1)
    t = jnp.array([1, 61], jnp.int32)
    label = jnp.array([2, 0], jnp.int32)
    options = {"ch": 32, "ch_mult": (1, 2), "num_res_blocks": 1, "attn_resolutions": (4,), "num_classes": 3}
    options |= {"num_heads": num_heads}
    output = outputs(lambda rngs: UNet(256, 1, 8, 100, **options, rngs=rngs), xt, t, label=label)
    np.testing.assert_allclose(summary(heads.residual(output, xt)), LOGITS[num_heads], rtol=1e-11)


def test_the_unet_gives_the_logistic_parameters_of_the_official_code():
    xt = images(256, 8, 3)
    t = jnp.array([1, 1000], jnp.int32)
    options = {"ch": 32, "ch_mult": (1, 1, 2), "num_res_blocks": 1, "attn_resolutions": (8,), "outputs": 2}
    output = outputs(lambda rngs: UNet(256, 3, 8, 1000, **options, rngs=rngs), xt, t)
    loc = jnp.tanh(output[..., 0] + xt * (2 / 255) - 1)
    recorded = [
        -0.5369851902056165,
        0.5325390478588246,
        -0.6702987811868276,
        0.01829692399674145,
        -23.750964871494357,
    ]
    np.testing.assert_allclose(summary(loc), recorded, rtol=1e-11)
    recorded = [
        0.06064418856626806,
        0.9463773318774729,
        -1.1582896308946309,
        -0.7525418327698706,
        -35.898070992475304,
    ]
    np.testing.assert_allclose(summary(output[..., 1]), recorded, rtol=1e-11)


def test_the_score_net_gives_the_scores_of_the_original():
    xt = images(2, 28, 1)
    t = jnp.array([3, 50], jnp.int32)
    weights = tuple(np.linspace(3.0, 1.0, 400).tolist())
    options = {"ch_mult": (1, 2), "num_res_blocks": 1, "time_dependent_weights": weights}
    output = outputs(lambda rngs: ScoreNet(2, 1, 60, ch=32, **options, rngs=rngs), xt, t)
    recorded = [
        0.8315051133395625,
        0.8137494347329116,
        0.3526131859687899,
        0.35397926259468177,
        0.21749181383039448,
    ]
    np.testing.assert_allclose(summary(output), recorded, rtol=1e-11)
