"""The U-Net: its definition, its hand-written backward pass, and its weights as names and arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from d3pm_jax.models import UNet, convert
from d3pm_jax.models.layers import group_norm, time_embedding


def small(**changes):
    options = {
        "ch": 8,
        "ch_mult": (1, 2),
        "num_res_blocks": 1,
        "attn_resolutions": (4,),
        "groups": 4,
    } | changes
    return UNet(5, 1, 8, 100, rngs=nnx.Rngs(0), **options)


def randomised(model):
    """(graphdef, parameters) with no zeros left from initialisation."""
    graphdef, params = nnx.split(model)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    return graphdef, tree.unflatten(
        [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    )


def images(n=2):
    return jax.random.randint(jax.random.key(3), (n, 8, 8, 1), 0, 5), jnp.array([1, 100][:n], jnp.int32)


def plain_group_norm(x, scale, bias, groups, eps):
    B, H, W, C = x.shape
    g = x.reshape(B, H, W, groups, C // groups)
    mean, variance = g.mean((1, 2, 4), keepdims=True), g.var((1, 2, 4), keepdims=True)
    return ((g - mean) / jnp.sqrt(variance + eps)).reshape(x.shape) * scale[None, None, None] + bias[
        None, None, None
    ]


@pytest.mark.usefixtures("x64")
def test_group_norm_and_its_gradient_equal_the_formula():
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = (2, 3, 5, 12), (12,), (12,), (2, 3, 5, 12)
    x, scale, bias, weight = (jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True))

    def value_and_gradient(f):
        return jax.value_and_grad(lambda *a: (f(*a, 4, 1e-6) * weight).sum(), (0, 1, 2))(x + 3, scale, bias)

    for a, b in zip(
        *(jax.tree.leaves(value_and_gradient(f)) for f in (group_norm, plain_group_norm)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11)


@pytest.mark.usefixtures("x64")
def test_time_embedding_counts_from_zero_and_covers_1000():
    found = time_embedding(jnp.array([1, 51], jnp.int32), 6, 100)
    angles = 500.0 * np.array([1.0, 1e-2, 1e-4])
    np.testing.assert_allclose(found, [[0, 0, 0, 1, 1, 1], [*np.sin(angles), *np.cos(angles)]], rtol=1e-9)


def test_a_new_network_says_nothing():
    xt, t = images()
    graphdef, params = nnx.split(small())
    output = jax.jit(lambda p, x, t: nnx.merge(graphdef, p)(x, t))(params, xt, t)
    assert output.shape == (2, 8, 8, 1, 5)
    np.testing.assert_array_equal(output, 0.0)


def test_dropout_needs_a_key_and_depends_on_it():
    graphdef, params = randomised(small(dropout=0.5))
    xt, t = images()

    @jax.jit
    def model(xt, t, key=None):
        return nnx.merge(graphdef, params)(xt, t, key=key)

    np.testing.assert_array_equal(model(xt, t), model(xt, t))
    one, two = (model(xt, t, key=jax.random.key(i)) for i in (1, 2))
    assert np.abs(one - two).max() > 1e-3
    assert np.abs(one - model(xt, t)).max() > 1e-3


@pytest.mark.parametrize("onehot_input", [False, True])
def test_every_parameter_and_every_input_matters(onehot_input):
    graphdef, params = randomised(small(onehot_input=onehot_input))
    xt, t = images()

    @jax.jit
    def loss(params, t):
        return (nnx.merge(graphdef, params)(xt, t) ** 2).sum()

    for path, g in jax.tree_util.tree_flatten_with_path(jax.jit(jax.grad(loss))(params, t))[0]:
        assert np.any(g != 0) or (path[-2].key == "bias" and path[-3].key == "k"), path
    assert loss(params, t) != loss(params, t + jnp.array([1, 0], jnp.int32))


def test_convert_goes_both_ways_to_the_bit():
    _, params = randomised(small())
    state_dict = convert.to_torch(params)
    assert state_dict["conv_in.weight"].shape == (8, 1, 3, 3)
    assert state_dict["temb1.weight"].shape == (32, 8)
    assert "down.0.blocks.0.norm1.weight" in state_dict
    back = convert.from_torch(jax.tree.map(jnp.zeros_like, params), state_dict)
    jax.tree.map(np.testing.assert_array_equal, back, params)


def test_convert_names_what_does_not_fit():
    _, params = nnx.split(small())
    state_dict = convert.to_torch(params)
    kernel = state_dict.pop("conv_in.weight")
    with pytest.raises(ValueError, match=r"missing \['conv_in.weight'\], left over \['other'\]"):
        convert.from_torch(params, state_dict | {"other": kernel})
    with pytest.raises(ValueError, match=r"conv_in.weight has shape \(8, 1, 3\)"):
        convert.from_torch(params, state_dict | {"conv_in.weight": kernel[..., 0]})


def test_sizes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"size 8 cannot be halved 4 times: shorten ch_mult"):
        small(ch_mult=(1, 1, 1, 1, 1))
    with pytest.raises(ValueError, match="8 channels do not divide into 3 groups: change ch or groups"):
        small(groups=3)
