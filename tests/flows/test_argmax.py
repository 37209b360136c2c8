"""Every draw has its argmax at x, and its density is that of the paper's formulas and of autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from d3pm_jax import flows

K = 4
TINY = np.finfo(np.float32).tiny
# Noise that rounding has to get right: ties, what is next to 0, and what is far out.
EXTREME = np.array(
    [
        [0.0, 0.0, 0.0, 0.0],
        [-0.0, 0.0, -0.0, 0.0],
        [1.0, 1.0, 1.0, 1.0],
        [-7.3, -7.3, 2.0, 2.0],
        [TINY, -TINY, 0.0, 2 * TINY],
        [1e-45, -1e-45, 0.0, TINY],
        [1e-30, 2e-30, -1e-30, 1e-30],
        [1e4, 1e4, 1e4, 1e4],
        [-1e4, -1e4, -1e4, -1e4],
        [1e4, -1e4, 1e4, 0.0],
        [1e4, 1e4 + 1e-3, 9999.999, -1e4],
        [-1e4, 50.0, 90.0, 110.0],
        [16.0, 17.0, 36.9, 37.1],
        [1.0, 1.0 + 1e-7, 1.0 - 6e-8, 1.0],
    ],
    np.float32,
)


def rows(n, seed, dtype=np.float32):
    """x [4 N] and noise [4 N, K]: each row with each x."""
    rng = np.random.default_rng(seed)
    noise = np.concatenate([EXTREME, *(scale * rng.normal(size=(n, K)) for scale in (1, 30, 3000))])
    x = np.tile(np.arange(K), len(noise))
    return jnp.asarray(x, jnp.int32), jnp.asarray(np.repeat(noise, K, axis=0), dtype)


def lift_all(x, noise, phi):
    return (
        flows.softplus_threshold(noise, x),
        flows.gumbel(phi, x, noise),
        flows.gumbel_threshold(noise, x, phi),
    )


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("phi", ["equal", "mixed"])
def test_argmax_of_every_draw_is_x(jit, phi):
    x, noise = rows(50, 0)
    # Locations that go with the noise make all numbers large together, others each in turn.
    locations = noise if phi == "equal" else jnp.roll(noise, 5, axis=0)
    lift = jax.jit(lift_all) if jit else lift_all
    for v, log_density in lift(x, noise, locations):
        np.testing.assert_array_equal(jnp.argmax(v, axis=-1), x)
        assert np.all(np.isfinite(v))
        assert not np.any(np.isnan(log_density))
        # No tie: which of two the argmax is would be a matter of convention.
        assert np.all(np.sum(np.asarray(v) == np.max(v, axis=-1, keepdims=True), axis=-1) == 1)


@pytest.mark.parametrize("jit", [False, True])
def test_the_sign_of_every_draw_is_its_bit(jit):
    _, noise = rows(50, 1)
    lift = jax.jit(flows.signed_softplus) if jit else flows.signed_softplus
    bits = jnp.asarray(np.arange(noise.size).reshape(noise.shape) // 3 % 2, jnp.int32)
    v, log_slope = lift(noise, bits)
    np.testing.assert_array_equal(v > 0, bits == 1)
    np.testing.assert_array_equal(v < 0, bits == 0)
    assert np.all(np.isfinite(log_slope))


def paper_log_gumbel(v, phi):
    """log density of Gumbel(phi) at v: phi - v - exp(phi - v)."""
    return phi - v - np.exp(phi - v)


def paper_log_posterior(v, phi, x):
    """Of the paper: v_x ~ Gumbel(logsumexp phi), the others Gumbel(phi_i) cut off at v_x."""
    total = 0.0
    for i in range(len(phi)):
        if i == x:
            total += paper_log_gumbel(v[x], logsumexp(phi))
        else:
            total += paper_log_gumbel(v[i], phi[i]) + np.exp(phi[i] - v[x])
    return total


def test_a_gumbel_prior_makes_the_bound_tight_for_every_draw(x64):
    rng = np.random.default_rng(2)
    n = 60
    phi = np.repeat(2 * rng.normal(size=(n // K, K)), K, axis=0)
    x = np.tile(np.arange(K), n // K)
    noise = rng.gumbel(size=(n, K))

    @jax.jit
    def draw(phi, x, noise):
        v, log_q = flows.gumbel(phi, x, noise)
        wrong = flows.log_gumbel_posterior(phi, (x + 1) % K, v)
        return v, log_q, flows.log_gumbel(phi, v), wrong

    v, log_q, log_p, density_of_wrong_x = map(np.asarray, draw(phi, x, noise))
    right = phi[np.arange(n), x] - logsumexp(phi, axis=-1)
    np.testing.assert_allclose(log_p - log_q, right, rtol=1e-12, atol=1e-12)
    # The same by the formulas of the paper, which know neither function.
    paper_p = paper_log_gumbel(v, phi).sum(axis=-1)
    paper_q = [paper_log_posterior(*row) for row in zip(v, phi, x, strict=True)]
    np.testing.assert_allclose(paper_p - paper_q, right, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(log_q, paper_q, rtol=1e-12, atol=1e-12)
    # v by the paper's draw of a truncated Gumbel, from the uniform noise behind its own.
    v_x = v[np.arange(n), x][:, None]
    np.testing.assert_allclose(v_x[:, 0], logsumexp(phi, axis=-1) + noise[np.arange(n), x], rtol=1e-13)
    log_uniform = -np.exp(-noise)
    truncated = phi - np.log(np.exp(phi - v_x) - log_uniform)
    np.testing.assert_allclose(np.where(np.eye(K)[x] == 1, v_x, truncated), v, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(density_of_wrong_x, np.full(n, -np.inf))


def test_log_determinants_are_those_of_autodiff(x64):
    rng = np.random.default_rng(3)
    n = 40
    u = jnp.asarray(rng.normal(size=(n, K)) * np.repeat([1.0, 5.0], n // 2)[:, None])
    phi = jnp.asarray(rng.normal(size=(n, K)))
    x = jnp.asarray(np.arange(n) % K)

    def log_abs_det(f, u):
        return jnp.linalg.slogdet(jax.jacfwd(f)(u)).logabsdet

    @jax.jit
    @jax.vmap
    def both(u, x, phi):
        softplus = flows.softplus_threshold(u, x)[1]
        threshold = flows.gumbel_threshold(u, x, phi)[1]
        signed = flows.signed_softplus(u, x % 2 + jnp.zeros(K, jnp.int32))[1].sum()
        return jnp.stack([softplus, threshold, signed]), jnp.stack(
            [
                log_abs_det(lambda u: flows.softplus_threshold(u, x)[0], u),
                log_abs_det(lambda u: flows.gumbel_threshold(u, x, phi)[0], u),
                log_abs_det(lambda u: flows.signed_softplus(u, jnp.zeros(K, jnp.int32))[0], u),
            ]
        )

    log_dets, right = both(u, x, phi)
    np.testing.assert_allclose(log_dets, right, rtol=1e-9, atol=1e-9)


def test_logistic_noise_makes_the_gumbel_threshold_the_gumbel_posterior(x64):
    """Both its v and its density: log q(u) - log_det, with u logistic."""
    rng = np.random.default_rng(4)
    u = np.concatenate([rng.logistic(size=(30, K)), [[36.0, 38.0, 60.0, -30.0], [200.0, 0.0, -3.0, 700.0]]])
    x = jnp.asarray(np.arange(len(u)) % K)
    phi = jnp.asarray(rng.normal(size=u.shape))
    # -log(-log sigmoid(u)), where log1p(y) of the smallest y is y.
    noise = np.where(u > 40, u, -np.log(np.log1p(np.exp(-np.minimum(u, 40)))))
    v, log_q = jax.jit(flows.gumbel)(phi, x, noise)
    v_of_u, log_det = jax.jit(flows.gumbel_threshold)(u, x, phi)
    np.testing.assert_allclose(v_of_u, v, rtol=1e-12, atol=1e-12)
    log_logistic = (-u - 2 * np.logaddexp(0, -u)).sum(axis=-1)
    np.testing.assert_allclose(log_logistic - log_det, log_q, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [100.0, 1e4])
def test_gradients_at_extreme_noise_are_finite(size):
    x = jnp.arange(K)
    u = size * jnp.asarray([[1.0, 1, 1, 1], [-1, -1, -1, -1], [1, -1, 1, 0], [0, 1, -1, 1]])

    @jax.jit
    def gradients(u, phi):
        def total(u, phi):
            outputs = (flows.softplus_threshold(u, x), flows.gumbel_threshold(u, x, phi))
            return sum(jnp.sum(v) + jnp.sum(log_det) for v, log_det in outputs)

        return jax.grad(total, argnums=(0, 1))(u, phi)

    for gradient in gradients(u, jnp.zeros_like(u)):
        assert np.all(np.isfinite(gradient))


def test_noise_of_density_0_has_a_gradient():
    """The density of a standard Gumbel at -100 is exp(-exp(100)), whose log is no float32."""
    noise = jnp.where(jnp.eye(K, dtype=bool), -100.0, 0.0)

    def log_q(phi, noise):
        return jnp.sum(flows.gumbel(phi, jnp.zeros(K, jnp.int32), noise)[1])

    value, gradients = jax.jit(jax.value_and_grad(log_q, (0, 1)))(jnp.ones((K, K)), noise)
    assert value == -np.inf
    for gradient in gradients:
        assert np.all(np.isfinite(gradient))


def test_bits_are_0_or_1():
    with pytest.raises(ValueError, match=r"bits contains 2, outside 0\.\.1"):
        flows.signed_softplus(jnp.zeros(2), jnp.array([0, 2]))
    v, _ = jax.jit(flows.signed_softplus)(jnp.zeros(3), jnp.array([0, 2, -1]))
    np.testing.assert_array_equal(np.isnan(v), [False, True, True])
