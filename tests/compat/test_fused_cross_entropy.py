"""Tokamax and Levanter: cross entropy of hidden states and a kernel, with a weight of each place.

Recorded numbers are outputs of the programs. Tokamax at 783ea957, `linear_softmax_cross_entropy_loss` in its
form "chunked_xla" in float64: the loss by place (reduction "none"), its sum with weights, and the gradients
of that for hidden states and kernel, the first number of each place and of three categories and the sum of
all sizes, with blocks of 27 and 1,733 categories, which divide the vocabulary.
Levanter at 9263f81e, `fused_cross_entropy_loss_and_logsumexp_penalty` without reduction, in float32.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import losses, projection

WIDTH = 4
WEIGHT = np.array([1.0, 0.0, 0.5, 2.0, 0.25, 3.0])
TOKAMAX = {
    27: {
        "loss": [
            1.855245354003,
            2.176861910455,
            2.980964505542,
            7.595876770478,
            6.701761424009,
            3.965971062204,
        ],
        "total": 32.11083469034,
        "hidden": [-0.3520374209146, 0.0, 0.5999570764336, -6.376044841421, -0.8616732888997, 1.558633218265],
        "kernel": [0.3537571179587, 0.9556390228307, 0.1874319135363],
        "all hidden": 36.07776117249,
        "all of the kernel": 53.72822925294,
    },
    50257: {
        "loss": [
            9.283032178454,
            10.9950891604,
            11.44478800709,
            15.41461967537,
            9.372262899099,
            14.80310763648,
        ],
        "total": 92.58705416696,
        "hidden": [-0.291019268212, 0.0, 0.4199306982179, -6.41249855056, 0.1353752550844, 0.772071846833],
        "kernel": [0.0001279391917806, 0.8278607576717, 3.527919055802e-05],
        "all hidden": 36.72188442117,
        "all of the kernel": 66.78340007332,
    },
}
LEVANTER = {
    27: [1.8552454, 2.176862, 2.9809644, 7.5958776, 6.7017612, 3.9659705],
    50257: [9.2830257, 10.995079, 11.444787, 15.414619, 9.3722649, 14.803108],
}


@pytest.mark.parametrize("K", [27, 50_257])
def test_recorded_fused_cross_entropy(K, x64):
    hidden = jnp.asarray(2 * np.sin(1.3 * np.arange(6 * WIDTH)).reshape(6, WIDTH))
    kernel = jnp.asarray(2 * np.cos(0.7 * np.arange(WIDTH * K)).reshape(WIDTH, K))
    x0 = jnp.asarray([0, K - 1, K // 2, 1, K // 3, K - 2])
    process = d3pm.uniform(np.ones(1), K)

    @jax.jit
    def total(parts, weight):
        logits = projection.Projection(*parts, None, x0, lambda output, xt: output)
        return losses.projected(process, losses.cross_entropy, logits, (x0,), weight)

    right = TOKAMAX[K]
    (value, nats), (g_hidden, g_kernel) = jax.value_and_grad(total, has_aux=True)(
        (hidden, kernel), jnp.asarray(WEIGHT)
    )
    found = {
        "loss": nats,
        "total": value,
        "hidden": g_hidden[:, 0],
        "kernel": g_kernel[0, jnp.array([0, K // 2, K - 1])],
        "all hidden": abs(g_hidden).sum(),
        "all of the kernel": abs(g_kernel).sum(),
    }
    for name, x in found.items():
        expected = np.array(right[name]) * (WEIGHT > 0 if name == "loss" else 1)
        np.testing.assert_allclose(x, expected, rtol=1e-10, atol=1e-12, err_msg=name)
    all_nats = total((hidden, kernel), jnp.ones(6)).values
    np.testing.assert_allclose(all_nats, right["loss"], rtol=1e-10)
    np.testing.assert_allclose(all_nats, LEVANTER[K], rtol=2e-6)
