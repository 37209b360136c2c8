"""Layers come back exactly at their first weights, and their log-determinants are those of autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from d3pm_jax import flows

B, L, D, P = 4, 2, 3, 8
FIXED = 1
NUMPY = np.random.default_rng(0)
V = NUMPY.uniform(-8, 8, (B, L, D))
WEIGHTS = {
    "coupling": NUMPY.normal(size=(L * FIXED, L * (D - FIXED) * P)),
    "causal": NUMPY.normal(size=(L * D, L * D, P)),
    "matrix": np.linalg.qr(NUMPY.normal(size=(D, D)))[0] * np.array([1.0, -1.5, 0.7]),
}
FIRST = 0.05  # the scale of weights at the start


def conditioner(scale, params=P):
    """Of all positions, as a network of texts is."""

    def condition(v):
        weights = scale * jnp.asarray(WEIGHTS["coupling"], v.dtype)
        raw = jnp.tanh(v.reshape(len(v), -1)) @ weights
        return raw.reshape(*v.shape[:-1], D - FIXED, P)[..., :params]

    return condition


def causal_conditioner(scale):
    def condition(v):
        before = np.tril(np.ones((L * D, L * D)), -1)[:, :, None]
        weights = scale * jnp.asarray(WEIGHTS["causal"] * before, v.dtype)
        raw = jnp.einsum("bj,ijp->bip", jnp.tanh(v.reshape(len(v), -1)), weights)
        return raw.reshape(*v.shape, P)

    return condition


def affine(v, params):
    return flows.affine(v, params[..., 0], params[..., 1])


def invert_affine(z, params):
    return flows.invert_affine(z, params[..., 0], params[..., 1])


def matrix():
    return jnp.asarray(WEIGHTS["matrix"])


# Each layer and its inverse, at weights of a scale.
LAYERS = {
    "mixture coupling": (
        lambda v, scale: flows.coupling(conditioner(scale), v, FIXED, flows.mixture_affine),
        lambda z, scale: flows.invert_coupling(conditioner(scale), z, FIXED, flows.invert_mixture_affine),
    ),
    "affine coupling": (
        lambda v, scale: flows.coupling(conditioner(scale, 2), v, FIXED, affine),
        lambda z, scale: flows.invert_coupling(conditioner(scale, 2), z, FIXED, invert_affine),
    ),
    "autoregressive": (
        lambda v, scale: flows.autoregressive(causal_conditioner(scale), v, flows.mixture_affine),
        lambda z, scale: flows.invert_autoregressive(
            causal_conditioner(scale), z, flows.invert_mixture_affine
        ),
    ),
    "linear": (
        lambda v, scale: flows.linear(v, matrix()),
        lambda z, scale: flows.invert_linear(z, matrix()),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_comes_back_and_has_the_determinant_of_autodiff(name, x64):
    forward, inverse = LAYERS[name]

    @jax.jit
    def there_and_back(v, scale):
        z, log_det = forward(v, scale)

        def of_one(v):
            return forward(v.reshape(1, L, D), scale)[0].reshape(-1)

        jacobian = jax.vmap(jax.jacfwd(of_one))(v.reshape(B, -1))
        return z, log_det, jnp.linalg.slogdet(jacobian).logabsdet, inverse(z, scale)

    v = jnp.asarray(V)
    for scale in (FIRST, 0.6):
        z, log_det, right, back = there_and_back(v, scale)
        assert log_det.shape == (B,)
        np.testing.assert_allclose(log_det, right, rtol=1e-10, atol=1e-10)
        if scale == FIRST:
            np.testing.assert_allclose(back, V, rtol=0, atol=1e-10)
        if "coupling" in name:
            np.testing.assert_array_equal(z[..., :FIXED], V[..., :FIXED])
        assert np.abs(np.asarray(z) - V).max() > 0.1


def test_a_stack_comes_back_to_what_it_gave(x64):
    """v itself is lost by a factor at each layer, so that the residual in z counts."""
    names = ["mixture coupling", "linear", "autoregressive", "affine coupling"]

    @jax.jit
    def stack(v, scale):
        for name in names:
            v, _ = LAYERS[name][0](v, scale)
            v = v[:, ::-1]
        return v

    @jax.jit
    def inverse(z, scale):
        for name in reversed(names):
            z = LAYERS[name][1](z[:, ::-1], scale)
        return z

    z = stack(jnp.asarray(V), 0.6)
    np.testing.assert_allclose(stack(inverse(z, 0.6), 0.6), z, rtol=1e-9, atol=1e-9)


def test_layers_take_any_axes():
    """Without positions, and of images."""

    @jax.jit
    def both(v, params):
        z, log_det = flows.coupling(lambda fixed: params[..., FIXED:, :], v, FIXED, affine)
        return z, log_det, *flows.linear(v, jnp.asarray(WEIGHTS["matrix"], v.dtype))

    rng = np.random.default_rng(1)
    for shape in ((B, D), (B, 2, 2, D)):
        v = rng.normal(size=shape)
        params = rng.normal(size=(*shape, 2))
        z, log_det, z_of_matrix, log_det_of_matrix = both(v, params)
        assert z.shape == shape
        right = np.sum(params[..., FIXED:, 1], axis=tuple(range(1, len(shape))))
        np.testing.assert_allclose(log_det, right, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(z_of_matrix, v @ WEIGHTS["matrix"].T, rtol=1e-5, atol=1e-5)
        right = np.prod(shape[1:-1]) * np.linalg.slogdet(WEIGHTS["matrix"]).logabsdet
        np.testing.assert_allclose(log_det_of_matrix, np.full(B, right), rtol=1e-5)


def test_what_does_not_fit_is_refused_in_words_of_the_call():
    v = jnp.asarray(V, jnp.float32)
    for function, transform in (
        (flows.coupling, flows.mixture_affine),
        (flows.invert_coupling, flows.invert_mixture_affine),
    ):
        for num_fixed in (D, D + 2):
            with pytest.raises(
                ValueError, match=rf"num_fixed = {num_fixed} leaves no number of [vz], which has D = 3"
            ):
                function(conditioner(1.0), v, num_fixed, transform)
        with pytest.raises(ValueError, match="num_fixed = 0: it must be at least 1"):
            function(conditioner(1.0), v, 0, transform)
        refused = r"^conditioner\(v\) has shape \(4, 2, 3, 8\), expected \[4, 2, 2, P\]: return P parameters"
        with pytest.raises(ValueError, match=refused):
            function(lambda fixed: jnp.zeros((B, L, D, P)), v, FIXED, transform)
        refused = r"params has shape \(4, 2, 2, 7\), expected .* P = 2 \+ 3 m: make the conditioner return"
        with pytest.raises(ValueError, match=refused):
            function(lambda fixed: jnp.zeros((B, L, D - FIXED, 7)), v, FIXED, transform)
        with pytest.raises(ValueError, match=r"^conditioner\(v\) has shape \(4, 3\)"):
            function(lambda fixed: jnp.zeros((B, D)), v, FIXED, transform)
    for function, transform in (
        (flows.autoregressive, flows.mixture_affine),
        (flows.invert_autoregressive, flows.invert_mixture_affine),
    ):
        with pytest.raises(
            ValueError, match=r"^conditioner\(v\) has shape \(4, 2, 2, 8\), expected \[4, 2, 3, P\]"
        ):
            function(lambda v: jnp.zeros((B, L, D - 1, P)), v, transform)


def test_a_number_of_the_matrix_that_is_not_finite_is_refused_or_marks_all():
    v = jnp.asarray(V, jnp.float32)
    wrong = jnp.eye(D).at[0, 1].set(jnp.nan)
    for function in (flows.linear, flows.invert_linear):
        with pytest.raises(ValueError, match=r"^matrix contains nan: it must be finite"):
            function(v, wrong)
        for x in jax.tree.leaves(jax.jit(function)(v, wrong)):
            assert np.all(np.isnan(x))
