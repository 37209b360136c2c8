"""SEDD: louaaron/Score-Entropy-Discrete-Diffusion at 0605786, its loss and its steps beside those here.

Recorded numbers are outputs of the program on torch with float64 as the default type, of `LogLinearNoise(0)`
and a graph of N tokens, by example and place: "loss" at a time, dsigma `score_entropy`; "tweedie" from 0.9 to
a time `staggered_score` times `transp_transition`, at 0 without the mask, as the mean of the number of the
category, counted from 1, where what is negative counts as 0; "rate" the sum of these numbers weighed by
`reverse_rate`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax.losses import score_entropy
from d3pm_jax.sampling import laws
from tests.compat.inputs import i32

pytestmark = pytest.mark.usefixtures("x64")
LINEAR = d3pm.schedules.continuous.linear
RECORDED = {
    ("absorbing", 3): {
        "loss 0.3": [7.694664942155, 0.0, 9.086165186617, 9.086165186617, 7.739721403382, 0.0],
        "loss 0.9": [1.57673384422, 0.0, 2.040567259041, 2.040567259041, 1.591752664629, 0.0],
        "tweedie 0.6": [2.394055916588, 2.0, 2.394055916588, 2.394055916588, 2.394055916588, 1.0],
        "tweedie 0.0": [1.870987854108, 2.0, 1.870987854108, 1.870987854108, 1.870987854108, 1.0],
        "rate": [0.4704375658041, 0.0, 0.4704375658041, 0.4704375658041, 0.4704375658041, 0.0],
    },
    ("uniform", 3): {
        "loss 0.3": [
            0.8218756719609,
            0.5687887956214,
            0.6277961527254,
            0.6277961527254,
            0.5687887956214,
            3.982288901802,
        ],
        "loss 0.9": [
            0.8634970045122,
            0.3374375956318,
            0.5264315686003,
            0.5264315686003,
            0.3374375956318,
            0.1563429183298,
        ],
        "tweedie 0.6": [
            2.236312986141,
            1.531143537681,
            1.884494574721,
            1.884494574721,
            1.531143537681,
            1.531143537681,
        ],
        "tweedie 0.0": [
            2.662463439195,
            1.320498645934,
            1.378295413817,
            1.378295413817,
            1.320498645934,
            1.320498645934,
        ],
        "rate": [
            2.153597078453,
            1.144134079225,
            0.9429582317864,
            0.9429582317864,
            1.144134079225,
            1.144134079225,
        ],
    },
    ("absorbing", 27): {
        "loss 0.3": [14.46718266919, 0.0, 14.81873709733, 14.81873709733, 16.42522522046, 0.0],
        "loss 0.9": [3.89931742268, 0.0, 4.016502232058, 4.016502232058, 4.551998273101, 0.0],
        "tweedie 0.6": [17.13384424483, 14.0, 17.13384424483, 17.13384424483, 17.13384424483, 1.0],
        "tweedie 0.0": [13.97578191897, 14.0, 13.97578191897, 13.97578191897, 13.97578191897, 1.0],
        "rate": [3.609542251708, 0.0, 3.609542251708, 3.609542251708, 3.609542251708, 0.0],
    },
    ("uniform", 27): {
        "loss 0.3": [
            1.3035536034,
            9.780826631221,
            11.69642346621,
            1.309036012572,
            10.3699569129,
            10.14600693069,
        ],
        "loss 0.9": [
            4.143029437006,
            0.8266668877323,
            1.490951057744,
            4.171523543486,
            1.016111653004,
            0.9483936542208,
        ],
        "tweedie 0.6": [
            10.42508936632,
            11.48772875869,
            11.42571492481,
            16.74778617655,
            16.49613583724,
            11.48772875869,
        ],
        "tweedie 0.0": [
            12.40208520513,
            13.79496386551,
            13.841175336,
            14.12396696217,
            14.0394132268,
            13.79496386551,
        ],
        "rate": [
            14.13261756174,
            14.40231561784,
            14.09854628041,
            13.38034892831,
            13.4424046439,
            14.40231561784,
        ],
    },
}


def make_inputs(noise, N):
    """x_0, x_t and log scores that the program was given, log s: 0 at x_t."""
    x0 = np.array([[0, N // 2, N - 1], [N - 1, 1, 0]])
    if noise == "uniform":
        xt = np.array([[0, 1, 2], [N - 1, N - 2, 1]])
        log_s = 0.3 * np.cos(3.4 + (np.arange(N) + 1) * (xt[..., None] + 1))
    else:
        xt = np.array([[N, N // 2, N], [N, N, 0]])
        log_s = 0.3 * np.cos(3.4 + (np.arange(N + 1) + 1) * (xt[..., None] + 1)) - np.log(4 * N)
    np.put_along_axis(log_s, xt[..., None], 0.0, axis=-1)
    return i32(x0), i32(xt), jnp.asarray(log_s)


def scaled(log_s, time):
    """log(s (e^sigma - 1)), of masks."""
    return log_s + np.log(time / (1 - time))


@jax.jit
def compute(process, x0, xt, log_s):
    """What is recorded, here; a process of masks has one more category than tokens."""
    has_mask = laws.mask_of(process) is not None
    found = {}
    for time in (0.3, 0.9):
        if has_mask:
            loss = score_entropy.absorbing_score_entropy(
                LINEAR, scaled(log_s, time), x0, xt, jnp.asarray(time), process.K - 1
            )
        else:
            loss = score_entropy.uniform_score_entropy(LINEAR, log_s, x0, xt, jnp.asarray(time))
        found[f"loss {time}"] = loss
    log_scores = scaled(log_s, 0.9) if has_mask else log_s
    number = 1 + jnp.arange(process.K)
    t = i32(9)
    for s in (6, 0):
        law = jnp.exp(laws.tweedie_logits(process, log_scores, xt, t, i32(s)))
        found[f"tweedie {s / 10}"] = law @ number
    rate = jnp.exp(laws.score_log_rates(process, log_scores, xt, t, i32(6))) @ number
    found["rate"] = rate / np.log(0.4 / 0.1)  # the sum of dsigma over the row
    return found


@pytest.mark.parametrize(("noise", "N"), RECORDED)
def test_recorded_sedd(noise, N):
    beta = d3pm.reciprocal(10)
    process = d3pm.uniform(beta, N) if noise == "uniform" else d3pm.absorbing(beta, N + 1, N)
    found = compute(process, *make_inputs(noise, N))
    for name, numbers in RECORDED[noise, N].items():
        np.testing.assert_allclose(found[name].ravel(), numbers, rtol=1e-10, atol=1e-12, err_msg=name)
