"""The official code for images in NumPy, with its conventions (t = 0..T-1, eps), and the calls here.

The recorded numbers are outputs of a copy of google-research d3pm/images (carat-keeeehun/nlp-final a28f2ec,
its main functions read beside google-research at 30adf0e), on JAX with x64 and jax_dtype = float64,
num_bits = 4, T = 10, the model `probe`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

import d3pm_jax as d3pm
from d3pm_jax import compat
from tests.compat.inputs import BETA, T, i32, inputs, probe, product, vb_bits

pytestmark = pytest.mark.filterwarnings("ignore:x_T still depends")

LN2 = np.log(2)


def images_matrix(kind, beta, K, bands=None):
    """One step as d3pm/images has it: 255 whatever K is, the mask at K // 2."""
    Q = np.zeros((K, K))
    near = bands or K - 1
    step = 255 / (K - 1) * 2 / (K - 1)
    total = sum(np.exp(-((n * step) ** 2) / beta) for n in range(-near, near + 1))
    for i in range(K):
        for j in range(K):
            if kind == "absorbing":
                Q[i, j] = beta * (j == K // 2)
            elif abs(i - j) <= near:
                Q[i, j] = beta / K if kind == "uniform" else np.exp(-(((i - j) * step) ** 2) / beta) / total
        Q[i, i] += 1 - Q[i].sum()
    return Q


def images_logits(Q, p, xt, t0, eps):
    """log(fact1 + eps) + log(fact2 + eps) for one element, p a distribution over x_0."""
    return np.log(Q[t0][:, xt] + eps) + np.log(p @ product(Q[:t0]) + eps)


def images_bits(Q, x0, xt, logits, t0, eps=1e-6):
    bits = np.zeros(x0.shape)
    for i in np.ndindex(x0.shape):
        if t0 == 0:
            bits[i] = -log_softmax(logits[i])[x0[i]] / LN2
            continue
        true = log_softmax(images_logits(Q, np.eye(Q.shape[-1])[x0[i]], xt[i], t0, eps))
        model = log_softmax(images_logits(Q, softmax(logits[i]), xt[i], t0, eps))
        bits[i] = (np.exp(true) * (true - model)).sum() / LN2
    return bits.mean(axis=1)


def images_process(kind, beta, K, bands=None):
    if kind == "gaussian":
        return d3pm.gaussian(beta * ((K - 1) / 255) ** 2, K, bands)
    if kind == "absorbing":
        return d3pm.absorbing(beta, K, mask_id=K // 2)
    return d3pm.banded(beta, K, bands) if bands else d3pm.uniform(beta, K)


IMAGES = [("uniform", None), ("uniform", 3), ("gaussian", None), ("gaussian", 3), ("absorbing", None)]


@pytest.mark.parametrize(("kind", "bands"), IMAGES)
def test_official_images(kind, bands, close):
    K = 16
    Q = np.stack([images_matrix(kind, b, K, bands) for b in BETA])
    process = images_process(kind, BETA, K, bands)
    close(process.Q(jnp.arange(1, T + 1)), Q)
    x0, xt, logits = inputs(K)
    t0 = np.array([0, 1, 5, T - 1] * 2)
    actual = vb_bits(process, jnp.asarray(logits), i32(x0), i32(xt), i32(t0 + 1))
    close(actual, [images_bits(Q, *(x[b : b + 1] for x in (x0, xt, logits)), t0[b])[0] for b in range(8)])
    q = product(Q)[x0]
    prior = np.exp(np.asarray(process.log_prior(), np.float64))
    right = (q * (np.log(q + 1e-6) - np.log(prior + 1e-6))).sum(-1).mean(1) / LN2
    close(jax.jit(compat.prior_bits)(process, i32(x0)), right)


def test_official_logits(close):
    Q = np.stack([images_matrix("absorbing", b, 4) for b in BETA])
    process = d3pm.absorbing(BETA, 4, mask_id=2)
    x0, xt, logits = inputs(4)
    t0 = np.array([0, 1, 5, 9] * 2)
    q = np.asarray(jax.jit(compat.q_posterior)(process, i32(x0), i32(xt), i32(t0 + 1)))
    p = np.asarray(jax.jit(compat.p_logits)(process, jnp.asarray(logits), i32(xt), i32(t0 + 1)))
    for b, d in np.ndindex(x0.shape):
        if t0[b] == 0:
            close(q[b, d], np.log(np.eye(4)[x0[b, d]] + 1e-6))
            close(p[b, d], logits[b, d])
        else:
            close(q[b, d], images_logits(Q, np.eye(4)[x0[b, d]], xt[b, d], t0[b], 1e-6))
            close(p[b, d], images_logits(Q, softmax(logits[b, d]), xt[b, d], t0[b], 1e-6))


def test_eps_0_is_exact(close):
    process = d3pm.uniform(BETA, 4)
    x0, xt, logits = inputs(4)

    @jax.jit
    def both(logits, x0, xt, t):
        kl = d3pm.posterior_kl(process, logits, x0, xt, t, belief="official")
        heads = [f(logits[..., 0] / 4, logits[..., 1] / 4) for f in (official_head, d3pm_head)]
        return (compat.vb_bits(process, logits, x0, xt, t, 0.0), heads[0]), (kl.mean(1) / LN2, heads[1])

    def official_head(loc, log_scale):
        return compat.logistic(loc, log_scale, 16, 0.0)

    def d3pm_head(loc, log_scale):
        return d3pm.heads.logistic(loc, log_scale, 16)

    actual, right = both(jnp.asarray(logits), i32(x0), i32(xt), i32([1, 2, 4, 10] * 2))
    close(actual[0], right[0])
    close(actual[1], right[1])


def test_official_gaussian_of_few_levels_is_the_identity():
    Q = images_matrix("gaussian", 0.02, 8)
    np.testing.assert_array_equal(Q, np.eye(8))
    with pytest.raises(ValueError, match="identity"):
        images_process("gaussian", d3pm.linear(50), 8)


@pytest.mark.parametrize("K", [4, 256])
def test_official_logistic_head(K, close):
    rng = np.random.default_rng(0)
    loc = rng.uniform(-1, 1, 5).astype(np.float32).astype(np.float64)
    log_scale = rng.uniform(0, 2, 5).astype(np.float32).astype(np.float64)
    right = np.zeros((5, K))
    for i, (m, s) in enumerate(zip(loc, log_scale, strict=True)):
        for k in range(K):
            edges = [(-1 + 2 * k / (K - 1) + side / (K - 1) - m) / np.exp(s - 2) for side in (-1, 1)]
            low = -np.logaddexp(0, -edges[0])
            high = -np.logaddexp(0, -edges[1])
            right[i, k] = high + np.log1p(-np.exp(low - high) + 1e-6)
    actual = compat.logistic(jnp.asarray(loc), jnp.asarray(log_scale), K)
    close(actual, right)


X0_16 = np.array([[0, 1, 8], [15, 3, 9]])
XT_16 = np.array([[0, 2, 8], [13, 3, 11]])
RECORDED = {  # vb_terms_bpd at t = 0, 1, 5, 9, then prior_bpd; num_bits = 4
    ("gaussian", None): [
        [2.737203170546, 7.161116714821],
        [2.691987358851, 5.400532931327],
        [3.228281832615, 5.100887536064],
        [1.699176584788, 2.262783934873],
        [3.838188533593, 3.83802191423],
    ],
    ("uniform", None): [
        [2.737203170546, 7.161116714821],
        [2.002450746993, 3.422560910769],
        [0.8554645627477, 0.6558904972251],
        [0.2279204265451, 0.1610947195107],
        [2.604889849425e-07, 2.604889851293e-07],
    ],
    ("absorbing", None): [
        [2.737203170546, 7.161116714821],
        [2.908713949525, 5.429861407925],
        [2.94407325707, 4.128388845145],
        [0.6852686749955, 0.51671321246],
        [0, 0],
    ],
    ("uniform", 3): [
        [2.737203170546, 7.161116714821],
        [1.061560647623, 1.903271735418],
        [0.4276591357478, 0.4504689469087],
        [0.09847652134522, 0.1211316812841],
        [0.9692609524702, 0.8438726612624],
    ],
}


@pytest.mark.parametrize(("kind", "bands"), RECORDED)
def test_recorded_official_images(kind, bands, close):
    beta = {("uniform", None): d3pm.cosine(T), ("absorbing", None): d3pm.reciprocal(T)}.get(
        (kind, bands), BETA
    )
    process = images_process(kind, beta, 16, bands)
    t0 = (0, 1, 5, 9)
    *right, prior = RECORDED[kind, bands]
    logits = jnp.concatenate([probe(t, XT_16, 16, 3.0) for t in t0])
    x0 = i32(np.tile(X0_16, (4, 1)))
    xt = i32(np.tile(XT_16, (4, 1)))
    close(vb_bits(process, logits, x0, xt, i32(np.repeat(t0, 2) + 1)), np.concatenate(right))
    close(jax.jit(compat.prior_bits)(process, x0), prior * 4)


def test_recorded_official_logistic_head(close):
    process = d3pm.uniform(d3pm.cosine(T), 16)
    t0 = np.repeat([0, 0, 5, 5], 2)
    x0 = np.tile(X0_16, (4, 1))
    xt = np.tile(XT_16, (4, 1))
    loc = np.tanh(np.cos(xt * 1.3 + t0[:, None]))
    log_scale = np.sin(xt * 0.7)
    actual = vb_bits(
        process, compat.logistic(jnp.asarray(loc), jnp.asarray(log_scale), 16), i32(x0), i32(xt), i32(t0 + 1)
    )
    close(actual[2:6], [10.7028255224, 5.824602481116, 0.8664225811347, 0.9004612697246])


def test_eps_lets_the_official_chain_jump_anywhere(x64):
    """Each step goes to any of K values with probability about K eps, however narrow the step is."""
    process = d3pm.gaussian(np.array([1.0] * 6 + [0.002]), 256)
    x = i32(128)
    far = np.abs(np.arange(256) - 128) > 60
    assert np.exp(d3pm.q_posterior(process, x, x, i32(7)))[far].sum() < 1e-12
    leaked = softmax(np.asarray(compat.q_posterior(process, x, x, i32(7))))[far].sum()
    assert 1e-4 < leaked < 256e-6
