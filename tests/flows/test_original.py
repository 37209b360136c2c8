"""The program of the paper gives the same numbers; `original.json` has them and says by which calls."""

import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from d3pm_jax import flows

RECORDED = json.loads(Path(__file__).with_name("original.json").read_text())
X = np.array([[0, 3, 4], [2, 1, 4]])
B, L = X.shape
K = 3  # digits


def waves(*shape, step, scale=1.0):
    return jnp.asarray(scale * np.cos(step * np.arange(1, math.prod(shape) + 1) ** 2).reshape(shape))


def read_params(raw, step_of_network):
    """Bounds the scales of raw [.., D, P], whose shift comes before the scale: exp(s) (logit + t)."""
    D = raw.shape[-2]
    m = (raw.shape[-1] - 2) // 3
    log_bound = jnp.broadcast_to(waves(D, step=0.9 + step_of_network), raw.shape[:-1])
    log_bounds = jnp.broadcast_to(waves(D, m, step=1.1 + step_of_network), (*raw.shape[:-1], m))
    log_scale = flows.bounded_log_scale(raw[..., 1], log_bound)
    shift = jnp.exp(log_scale) * raw[..., 0]
    log_scales = flows.bounded_log_scale(raw[..., 2 + 2 * m :], log_bounds)
    return jnp.concatenate(
        [shift[..., None], log_scale[..., None], raw[..., 2 : 2 + 2 * m], log_scales], axis=-1
    )


def coupling_conditioner(step_of_network):
    def condition(v):
        hidden = jnp.tanh(v.reshape(len(v), -1) @ waves(L, 4, step=1.9 + step_of_network))
        raw = hidden @ waves(4, L * 2 * 8, step=2.3 + step_of_network)
        return read_params(raw.reshape(len(v), L, 2, 8), step_of_network)

    return condition


def causal_conditioner(v):
    before = np.tril(np.ones((L * K, L * K)), -1)[:, :, None]
    weights = waves(L * K, L * K, 83, step=1.9, scale=0.7) * before
    raw = jnp.einsum("bj,ijp->bip", jnp.tanh(v.reshape(len(v), -1)), weights)
    raw += waves(1, L * K, 83, step=2.3)
    return read_params(raw.reshape(len(v), L, K, 83), 0)


def coupling_flow(v):
    v, first = flows.coupling(coupling_conditioner(0), v, 1, flows.mixture_affine)
    v, linear = flows.linear(v[:, ::-1], waves(K, K, step=3.1))
    v, second = flows.coupling(coupling_conditioner(1), v, 1, flows.mixture_affine)
    return v, first + linear + second


def invert_coupling_flow(z):
    z = flows.invert_coupling(coupling_conditioner(1), z, 1, flows.invert_mixture_affine)
    z = flows.invert_linear(z, waves(K, K, step=3.1))[:, ::-1]
    return flows.invert_coupling(coupling_conditioner(0), z, 1, flows.invert_mixture_affine)


def autoregressive_flow(v):
    return flows.autoregressive(causal_conditioner, v, flows.mixture_affine)


def invert_autoregressive_flow(z):
    return flows.invert_autoregressive(causal_conditioner, z, flows.invert_mixture_affine)


def encode(x, eps):
    """v and log q(v | x) of texts, with noise [B, L, K]."""
    params = waves(5, 2 * K, step=1.7, scale=0.8)[x]
    mean, log_std = jnp.split(params, 2, axis=-1)
    log_q = jax.scipy.stats.norm.logpdf(eps) - log_std
    v, log_slope = flows.signed_softplus(mean + jnp.exp(log_std) * eps, flows.to_digits(x, 2, K))
    return v, jnp.sum(log_q - log_slope, axis=(1, 2))


def noise(n):
    """eps [n, L, K]; the program has positions last."""
    return jnp.swapaxes(waves(n, K, L, step=5.3, scale=1.5), 1, 2)


def log_base(z):
    loc = waves(1, 1, K, step=0.6)
    log_scale = waves(1, 1, K, step=0.8, scale=0.5)
    log_p = jax.scipy.stats.norm.logpdf((z - loc) * jnp.exp(-log_scale)) - log_scale
    return jnp.sum(log_p, axis=(1, 2))


def assert_close(actual, recorded, tolerance=1e-11):
    np.testing.assert_allclose(actual, recorded, rtol=tolerance, atol=tolerance)


def test_digits():
    for base, digits in ((2, 5), (3, 3)):
        recorded = RECORDED["digits"][f"base {base}, dims {digits}"]
        np.testing.assert_array_equal(flows.to_digits(np.arange(27), base, digits), recorded)


def test_mixture(x64):
    recorded = RECORDED["mixture"]

    @jax.jit
    def there_and_back(v, raw):
        params = read_params(raw, 0)
        z, log_slope = flows.mixture_affine(v, params)
        back = flows.invert_mixture_affine(v, params)
        return z, jnp.sum(log_slope), back, -jnp.sum(flows.mixture_affine(back, params).log_slope)

    v = waves(1, 4, K, step=0.7, scale=3.0)
    z, log_det, back, log_det_of_inverse = there_and_back(v, waves(1, 4, K, 8, step=1.3, scale=1.2))
    assert_close(z, recorded["z"])
    assert_close(log_det, recorded["log_det"][0])
    # Its halving ends at steps of 1e-10.
    assert_close(back, recorded["v of z = v"], 1e-9)
    assert_close(log_det_of_inverse, recorded["log_det of the inverse"][0], 1e-9)


def test_encoder(x64):
    v, log_q = jax.jit(encode)(jnp.asarray(X), noise(B))
    assert_close(v, RECORDED["encoder"]["v"])
    assert_close(log_q, RECORDED["encoder"]["log_q"])


@pytest.mark.parametrize(
    ("name", "flow", "inverse"),
    [
        ("coupling", coupling_flow, invert_coupling_flow),
        ("autoregressive", autoregressive_flow, invert_autoregressive_flow),
    ],
)
def test_flow(name, flow, inverse, x64):
    recorded = RECORDED[name]
    k = 3

    @jax.jit
    def both(eps, z):
        v, log_q = encode(jnp.asarray(np.tile(X, (k, 1))), eps)
        z_of_v, log_det = flow(v)
        log_weights = (log_base(z_of_v) + log_det - log_q).reshape(k, B)
        return log_weights, flows.importance_bound(log_weights), inverse(z)

    z = jnp.swapaxes(waves(B, K, L, step=4.1, scale=0.2), 1, 2)
    log_weights, bound, v = both(noise(k * B), z)
    assert_close(log_weights, recorded["log_weights"])
    assert_close(bound, recorded["iwbo"])
    # Its F rounds where it is near 1, and v is up to 20.
    assert_close(v, recorded["v of fixed z"], 1e-5)
    if name == "coupling":
        # The program leaves the alphabet of 5; here every code means a symbol.
        code = flows.from_digits((v > 0).astype(jnp.int32), 2)
        np.testing.assert_array_equal(code, recorded["x of fixed z"])
        assert np.max(code) >= 5
        assert np.max(flows.from_code(code, 5)) < 5
