"""The layers against their formulas: backward passes by hand, types of statistics, embeddings of time."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from d3pm_jax.models import layers
from d3pm_jax.models.backbone import join_features
from d3pm_jax.models.layers import conv_doubled, group_norm, norm_swish, time_embedding
from tests.models.small import randomised, small


def plain_group_norm(x, scale, bias, groups, eps):
    B, H, W, C = x.shape
    g = x.reshape(B, H, W, groups, C // groups)
    mean = g.mean((1, 2, 4), keepdims=True)
    variance = g.var((1, 2, 4), keepdims=True)
    return ((g - mean) / jnp.sqrt(variance + eps)).reshape(x.shape) * scale[None, None, None] + bias[
        None, None, None
    ]


@pytest.mark.usefixtures("x64")
def test_group_norm_and_its_gradient_equal_the_formula():
    key_x, key_scale, key_bias, key_weight = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(key_x, (2, 3, 5, 12))
    scale = jax.random.normal(key_scale, (12,))
    bias = jax.random.normal(key_bias, (12,))
    weight = jax.random.normal(key_weight, (2, 3, 5, 12))

    @partial(jax.jit, static_argnums=0)
    def value_and_gradient(f):
        return jax.value_and_grad(lambda *a: (f(*a, 4, 1e-6) * weight).sum(), (0, 1, 2))(x + 3, scale, bias)

    for a, b in zip(
        *(jax.tree.leaves(value_and_gradient(f)) for f in (group_norm, plain_group_norm)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11)


@pytest.mark.usefixtures("x64")
def test_group_norm_of_bfloat16_has_statistics_in_float32():
    key_x, key_g = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(key_x, (2, 8, 8, 4), jnp.float32).astype(jnp.bfloat16)
    g = jax.random.normal(key_g, (2, 8, 8, 4), jnp.float32).astype(jnp.bfloat16)
    x = (x + 30).astype(jnp.bfloat16)
    scale = jnp.ones(4, jnp.float32)
    bias = jnp.zeros(4, jnp.float32)

    @partial(jax.jit, static_argnums=0)
    def value_and_gradient(norm, x, g):
        y, pull_back = jax.vjp(lambda x: norm(x, scale, bias, 2, 1e-6), x)
        return y, pull_back(g)[0]

    actual = value_and_gradient(group_norm, x, g)
    right = value_and_gradient(plain_group_norm, x.astype(float), g.astype(float))
    for a, b in zip(actual, right, strict=True):
        assert a.dtype == jnp.bfloat16
        assert np.abs(a.astype(float) - b).max() < 2**-8 * np.abs(b).max()


@pytest.mark.usefixtures("x64")
def test_norm_and_swish_in_one_equal_the_functions_one_after_the_other():
    """In float64, and in float32 where the mean is large and one entry of the first row is far from it."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 3, 5, 12)) + 3).at[0, 0, 0].add(1000)
    shifts = (jnp.asarray(rng.normal(size=(1, 12))), jnp.asarray(rng.normal(size=(2, 12))))
    scale, bias = jnp.asarray(rng.normal(size=(2, 12)))
    keep = jnp.asarray(rng.random(x.shape) < 0.8)
    weight = jnp.asarray(rng.normal(size=x.shape))

    def one_by_one(x, shifts, scale, bias):
        return norm_swish(x, scale, bias, 4, 1e-6, shifts, keep, 0.2)

    def in_one(x, shifts, scale, bias):
        shift = shifts[0] + shifts[1]
        return layers._norm_swish_in_one(x, shift, scale, bias, keep, 4, 1e-6, 0.2)

    @jax.jit
    def value_and_gradients(args):
        narrow = jax.tree.map(jnp.float32, args)
        results = []
        for f, arrays in (one_by_one, args), (in_one, args), (in_one, narrow):
            y, pull_back = jax.vjp(f, *arrays)
            results.append((y, pull_back(weight.astype(y.dtype))))
        return results

    right, wide, narrow = value_and_gradients((x, shifts, scale, bias))
    for a, b, c in zip(*map(jax.tree.leaves, (right, wide, narrow)), strict=True):
        assert (b.dtype, c.dtype) == (np.float64, np.float32)
        np.testing.assert_allclose(b, a, rtol=1e-10, atol=1e-11)
        assert np.abs(c - a).max() < 3e-5 * np.abs(a).max()


def test_accelerators_take_norm_and_swish_in_one():
    """The barriers that keep XLA from sharing arrays between its kernels show which form a platform takes."""
    x = jnp.zeros((1, 2, 2, 4))
    norm = layers.GroupNorm(4, 2, 1e-6)
    traced = jax.jit(jax.grad(lambda x: norm.swish(x).sum())).trace(x)
    for platform, barriers in ("cuda", 4), ("cpu", 0):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert text.count("optimization_barrier") == barriers


def test_accelerators_join_features_once():
    x = jnp.zeros((1, 2, 2, 4))
    traced = jax.jit(join_features).trace(x, x)
    for platform, barriers in ("cuda", 1), ("cpu", 0):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert text.count("optimization_barrier") == barriers


@pytest.mark.usefixtures("x64")
def test_conv_of_a_doubled_image_equals_that_of_the_copies():
    build = partial(nnx.Conv, 3, 5, (3, 3), padding=1, param_dtype=float, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(build(bias_init=nnx.initializers.normal(1.0)))
    x = jax.random.normal(jax.random.key(1), (2, 3, 4, 3))
    weight = jax.random.normal(jax.random.key(2), (2, 6, 8, 5))

    def of_copies(conv, x):
        return conv(jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2))

    @partial(jax.jit, static_argnums=0)
    def value_and_gradient(f):
        return jax.value_and_grad(lambda *a: (f(nnx.merge(graphdef, a[0]), a[1]) * weight).sum(), (0, 1))(
            params, x
        )

    for a, b in zip(
        *(jax.tree.leaves(value_and_gradient(f)) for f in (conv_doubled, of_copies)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.usefixtures("x64")
def test_forms_of_accelerators_equal_those_of_cpus():
    """They convolve once for all cases of a doubled image, and measure groups in one read of an image."""
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 6))
    kernels = list(jax.random.normal(jax.random.key(1), (4, 2, 2, 6, 5)))
    weights = jax.random.normal(jax.random.key(2), (4, 2, 3, 4, 5))
    far = 100 + x  # the mean is large

    @partial(jax.jit, static_argnums=(0, 1))
    def compute(convolve, measure):
        def value(x, kernels):
            pixels = jnp.stack(convolve(x, kernels))
            return (pixels * weights).sum(), pixels

        return jax.grad(value, (0, 1), has_aux=True)(x, kernels), measure(far, 3)

    of_accelerators = compute(layers._convolve_in_one, layers._measure_in_one_read)
    of_cpus = compute(layers._convolve_one_by_one, layers._measure_in_two_reads)
    for a, b in zip(*map(jax.tree.leaves, (of_accelerators, of_cpus)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


def plain_attention(x, params, groups, num_heads):
    """Each head by itself: softmax(q k^T / sqrt(c)) v of its c channels."""
    B = len(x)
    C = x.shape[-1]
    h = plain_group_norm(x, params["norm"]["scale"], params["norm"]["bias"], groups, 1e-6)
    h = np.asarray(h).reshape(B, -1, C)
    q = h @ params["q"]["kernel"] + params["q"]["bias"]
    k = h @ params["k"]["kernel"] + params["k"]["bias"]
    v = h @ params["v"]["kernel"] + params["v"]["bias"]
    mixed = np.zeros(h.shape)
    c = C // num_heads
    for i in range(num_heads):
        channels = np.s_[:, :, i * c : (i + 1) * c]
        e = np.exp(np.einsum("bqc,bkc->bqk", q[channels], k[channels]) / np.sqrt(c))
        mixed[channels] = np.einsum("bqk,bkc->bqc", e / e.sum(-1, keepdims=True), v[channels])
    out = params["proj_out"]
    return x + (mixed @ out["kernel"] + out["bias"]).reshape(x.shape)


@pytest.mark.usefixtures("x64")
def test_every_head_attends_with_its_own_channels():
    graphdef, params = randomised(lambda: small(num_heads=4).mid_attn)
    x = np.random.default_rng(0).normal(size=(2, 3, 2, 16))
    params = jax.tree.map(lambda p: p.astype(float), params)
    actual = jax.jit(lambda params, x: nnx.merge(graphdef, params)(x))(params, x)
    plain = jax.tree.map(np.asarray, nnx.to_pure_dict(params))
    np.testing.assert_allclose(actual, plain_attention(x, plain, 4, 4), rtol=1e-12, atol=1e-13)


@pytest.mark.usefixtures("x64")
def test_time_embedding_counts_from_zero_and_covers_1000():
    actual = time_embedding(jnp.array([1, 51], jnp.int32), 6, 100)
    angles = 500.0 * np.array([1.0, 1e-2, 1e-4])
    np.testing.assert_allclose(actual, [[0, 0, 0, 1, 1, 1], [*np.sin(angles), *np.cos(angles)]], rtol=1e-9)
