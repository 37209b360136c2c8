"""Bijections of numbers are NumPy's in both tails, their slopes autodiff's, and their inverses exact."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_expit, log_softmax, logsumexp

from d3pm_jax import flows
from d3pm_jax.flows import elementwise

M = 3
V = np.concatenate([np.linspace(-8, 8, 33), [1e-3, -1e-8]])


def parameters(kind):
    """logit_weights, means and log_scales [40, M] of mixtures."""
    rng = np.random.default_rng(0)
    logit_weights, means, log_scales = rng.normal(size=(3, 40, M))
    if kind == "first weights":
        return 0.3 * logit_weights, 0.3 * means, 0.3 * log_scales
    if kind == "narrow":
        return 4 * logit_weights, 3 * means, log_scales - 4
    # Means beyond all v on both sides, one of the parts wide.
    return 4 * logit_weights, 30 * means, log_scales + np.array([-2.0, 0.0, 3.0])


KINDS = ("first weights", "narrow", "far")
MIXTURES = [np.concatenate(x) for x in zip(*(parameters(kind) for kind in KINDS), strict=True)]
N = len(MIXTURES[0])  # the kinds one after the other


def every_v_with_every_mixture(dtype=np.float64):
    v = np.broadcast_to(V, (N, len(V)))
    mixtures = [np.broadcast_to(x[:, None], (N, len(V), M)) for x in MIXTURES]
    return [jnp.asarray(x, dtype) for x in (v, *mixtures)]


def by_numpy(v, logit_weights, means, log_scales):
    """log F - log (1 - F), and log F' - log F - log (1 - F)."""
    distance = (v[..., None] - means) / np.exp(log_scales)
    log_weights = log_softmax(logit_weights, axis=-1)
    log_below = logsumexp(log_weights + log_expit(distance), axis=-1)
    log_above = logsumexp(log_weights + log_expit(-distance), axis=-1)
    density = log_weights + log_expit(distance) + log_expit(-distance) - log_scales
    return log_below - log_above, logsumexp(density, axis=-1) - log_below - log_above


# What the tests of the mixture need, in one program.
@jax.jit
def there_and_back(v, *mixture):
    z, log_slope = flows.mixture_logit(v, *mixture)
    slope = jax.grad(lambda v: flows.mixture_logit(v, *mixture).z.sum())(v)
    back = flows.invert_mixture_logit(z, *mixture)
    return z, log_slope, slope, back, flows.mixture_logit(back, *mixture).z


def test_the_mixture_is_that_of_numpy_and_of_autodiff(x64):
    arguments = every_v_with_every_mixture()
    z, log_slope, slope, back, z_of_back = map(np.asarray, there_and_back(*arguments))
    right, right_slope = by_numpy(*map(np.asarray, arguments))
    # F lies within 1e-300 of 0 or of 1, where it would round to them.
    assert np.abs(z).max() > 700
    np.testing.assert_allclose(z, right, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(log_slope, right_slope, rtol=1e-10, atol=1e-10)
    has_slope = slope > 1e-200
    assert has_slope.mean() > 0.8
    np.testing.assert_allclose(log_slope[has_slope], np.log(slope[has_slope]), rtol=1e-9, atol=1e-9)

    # Between two far parts z hardly depends on v, and only z itself comes back.
    np.testing.assert_allclose(z_of_back, z, rtol=1e-10, atol=1e-10)
    v = np.asarray(arguments[0])
    np.testing.assert_allclose(back[:40], v[:40], rtol=0, atol=1e-10)
    # Elsewhere v comes back to what the last digit of z says of it.
    error = np.abs(back - v) * np.minimum(slope, 1)
    assert np.all(error <= 1e-10 * (1 + np.abs(z)))


def test_tails_are_those_of_a_straight_line(x64):
    """One logistic has z = (v - mean) / scale, however far out."""
    v = np.resize([-1e6, -800.0, -40.0, 0.0, 40.0, 800.0, 1e6], (N, len(V)))
    zeros = np.zeros((N, len(V), M))
    z, log_slope, _, back, _ = there_and_back(v, zeros, zeros + 2, zeros - 1)
    np.testing.assert_allclose(z, (v - 2) * np.e, rtol=1e-14)
    np.testing.assert_allclose(log_slope, np.ones_like(v), rtol=0, atol=1e-9)
    np.testing.assert_allclose(back, v, rtol=1e-14, atol=1e-15)


def test_a_wide_part_has_the_tails_whatever_its_weight(x64):
    """Its weight is exp(-1000), which rounds to 0."""
    v = np.resize([-5e4, -5000.0, 0.0, 5000.0, 5e4], (N, len(V)))
    logit_weights, means, log_scales = np.broadcast_to(
        [[0.0, 0.0, -1000.0], [1.0, 2.0, 3.0], [0.0, 0.0, np.log(10)]], (N, len(V), 3, M)
    ).transpose(2, 0, 1, 3)
    z, _, _, back, _ = there_and_back(v, logit_weights, means, log_scales)
    np.testing.assert_allclose(z[0, 3], 1000 + (5000 - 3) / 10 + np.log(2), rtol=1e-12)
    np.testing.assert_allclose(back, v, rtol=1e-12, atol=1e-12)


def test_the_inverse_has_the_derivatives_of_the_implicit_function(x64):
    numbers = np.random.default_rng(5)
    v = jnp.asarray(numbers.normal(size=6) * 3)
    params = tuple(jnp.asarray(numbers.normal(size=(6, 3))) for _ in range(3))
    z = flows.mixture_logit(v, *params).z
    step = 1e-5
    arguments = (z, *params)

    @jax.jit
    def differentiate(directions):
        def moved(size):
            return flows.invert_mixture_logit(
                *(x + size * d for x, d in zip(arguments, directions, strict=True))
            )

        difference = (moved(step) - moved(-step)) / (2 * step)
        _, forward = jax.jvp(moved, (0.0,), (1.0,))
        return difference, forward, jax.grad(lambda size: moved(size).sum())(0.0)

    for i, x in enumerate(arguments):
        directions = [jnp.zeros(y.shape) for y in arguments]
        directions[i] = jnp.asarray(numbers.normal(size=x.shape))
        expected, forward, backward = differentiate(directions)
        np.testing.assert_allclose(forward, expected, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(backward, expected.sum(), rtol=1e-6, atol=1e-8)


def test_the_inverse_in_float32_is_as_exact_as_its_numbers():
    v, *mixture = [x[:40] for x in every_v_with_every_mixture(np.float32)]
    back = jax.jit(lambda v, *x: flows.invert_mixture_logit(flows.mixture_logit(v, *x).z, *x))(v, *mixture)
    assert back.dtype == np.float32
    # z has an error of some units in its last place, and the slope is about 1.
    np.testing.assert_allclose(back, v, rtol=0, atol=32 * np.finfo(np.float32).eps * 8)


def test_the_inverse_takes_few_rounds(monkeypatch):
    """Halving alone takes 24, and an autoregressive flow waits for them at every number."""
    v, *mixture = [x[:40] for x in every_v_with_every_mixture(np.float32)]
    z = flows.mixture_logit(v, *mixture).z
    monkeypatch.setattr(elementwise, "MAX_ROUNDS", 4)
    # A jitted function may have been traced with the number as it is elsewhere.
    monkeypatch.setattr(elementwise, "_solve", inspect.unwrap(elementwise._solve))
    back = jax.jit(lambda *arguments: flows.invert_mixture_logit(*arguments))(z, *mixture)
    assert np.isfinite(back).all()


def test_an_inverse_does_not_depend_on_the_numbers_beside_it():
    """Those of narrow parts take many rounds more."""
    v, *mixture = every_v_with_every_mixture(np.float32)
    z = flows.mixture_logit(v, *mixture).z

    @jax.jit
    def invert_all_and_the_first(*arguments):
        first = flows.invert_mixture_logit(*(x[:40] for x in arguments))
        return flows.invert_mixture_logit(*arguments)[:40], first

    among_all, alone = invert_all_and_the_first(z, *mixture)
    np.testing.assert_allclose(among_all, alone, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("log_scale", [-70.0, -89.0, -1e4])
def test_a_logistic_narrower_than_floats_is_a_step(log_scale):
    """In float32 the inverse of its scale would be infinite from exp(-89) on."""
    v = np.float32([0.5, 1.0, 1.0 + 1e-7, 2.0])
    mixture = [np.tile(np.float32(x), (4, 1)) for x in ([0.5, 0.0], [1.0, 0.0], [log_scale, 0.0])]

    def total(*arguments):
        transformed = flows.mixture_logit(*arguments)
        return jnp.sum(transformed.z) + jnp.sum(transformed.log_slope), transformed

    gradients, (z, log_slope) = jax.jit(jax.grad(total, (0, 1, 2, 3), has_aux=True))(v, *mixture)
    for gradient in gradients:
        assert np.isfinite(gradient).all()

    # float64 has scales of exp(-70), and numbers beside the mean tell no narrower ones apart.
    right = by_numpy(*(np.float64(x) for x in (v, *mixture[:2], np.maximum(mixture[2], -70))))
    np.testing.assert_allclose(z, right[0], rtol=1e-5)
    assert np.isfinite(log_slope).all()
    away = np.array([0, 2, 3])
    np.testing.assert_allclose(log_slope[away], right[1][away], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(flows.invert_mixture_logit(z, *mixture), v, rtol=3e-7)

    alone = [x[:, :1] for x in mixture]
    _, (z, log_slope) = total(v, *alone)
    assert np.isfinite(z).all()
    np.testing.assert_allclose(log_slope, -max(log_scale, -0.9 * np.log(np.finfo(np.float32).max)), rtol=1e-6)
    np.testing.assert_allclose(flows.invert_mixture_logit(z, *alone), v, rtol=1e-6)


def test_affine_transforms_and_all_parameters_in_one_array(x64):
    rng = np.random.default_rng(1)
    v, shift, log_scale = rng.normal(size=(3, 30)) * np.array([[8.0], [2.0], [1.0]])
    raw, log_bound = rng.normal(size=(2, 30)) * 3
    mixture = [x[:30] for x in MIXTURES]
    params = np.concatenate([shift[:, None], log_scale[:, None], *mixture], axis=-1)

    @jax.jit
    def there_and_back_of_both(v, shift, log_scale, params):
        affine = flows.affine(v, shift, log_scale)
        with_mixture = flows.mixture_affine(v, params)
        back = flows.invert_affine(affine.z, shift, log_scale)
        back_of_mixture = flows.invert_mixture_affine(with_mixture.z, params)
        return affine, back, with_mixture, back_of_mixture, flows.bounded_log_scale(raw, log_bound)

    affine, back, with_mixture, back_of_mixture, bounded = there_and_back_of_both(v, shift, log_scale, params)
    np.testing.assert_allclose(affine.z, np.exp(log_scale) * v + shift, rtol=1e-14, atol=1e-14)
    np.testing.assert_array_equal(affine.log_slope, log_scale)
    np.testing.assert_allclose(back, v, rtol=0, atol=1e-12)
    logit, slope_of_logit = by_numpy(v, *mixture)
    np.testing.assert_allclose(with_mixture.z, np.exp(log_scale) * logit + shift, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(with_mixture.log_slope, log_scale + slope_of_logit, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(back_of_mixture, v, rtol=0, atol=1e-10)
    bound = np.exp(log_bound)
    np.testing.assert_allclose(bounded, bound * np.tanh(raw / np.maximum(bound, 1)), rtol=1e-14)
    assert np.all(np.abs(bounded) <= bound)


def test_an_inverse_that_does_not_converge_says_where():
    zeros = jnp.zeros((2, 3, M))
    log_scales = zeros.at[1, 2, 0].set(100)  # exp(100) is above all float32
    z = jnp.ones((2, 3))
    refused = r"^the inverse does not converge at z\[1, 2\] = 1, where log_scales go up to 100: make the "
    with pytest.raises(ValueError, match=refused):
        flows.invert_mixture_logit(z, zeros, zeros, log_scales)
    v = jax.jit(flows.invert_mixture_logit)(z, zeros, zeros, log_scales)
    np.testing.assert_array_equal(np.isnan(v), [[False] * 3, [False, False, True]])


def test_parameters_of_a_wrong_number_are_refused():
    for P in (0, 1, 2, 4, 7):
        refused = rf"params has shape \(2, {P}\), expected \[\.\., P\] with P = 2 \+ 3 m: make the condition"
        for f in (flows.mixture_affine, flows.invert_mixture_affine):
            with pytest.raises(ValueError, match=refused):
                f(jnp.zeros(2), jnp.zeros((2, P)))
