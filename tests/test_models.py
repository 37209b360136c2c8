"""The networks: their definition, a hand-written backward pass, and their weights as names and arrays."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from d3pm_jax.models import ScoreNet, UNet, convert
from d3pm_jax.models.layers import conv_doubled, group_norm, time_embedding


def small(**changes):
    options = {
        "ch": 8,
        "ch_mult": (1, 2),
        "num_res_blocks": 1,
        "attn_resolutions": (4,),
        "groups": 4,
    } | changes
    return UNet(5, 1, 8, 100, rngs=nnx.Rngs(0), **options)


def small_score_net(**changes):
    options = {"ch": 8, "ch_mult": (1, 2), "num_res_blocks": 1, "groups": 4} | changes
    return ScoreNet(5, 1, 100, rngs=nnx.Rngs(0), **options)


def randomised(build, **options):
    """(graphdef, parameters) of build(**options), with no zeros as after initialisation."""
    graphdef, shapes = nnx.split(nnx.eval_shape(lambda: build(**options)))
    rng = np.random.default_rng(7)
    return graphdef, jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) * 0.2, x.dtype), shapes)


def initial(build):
    """(graphdef, parameters) of build() as it initialises them; one program, quick to compile."""
    graphdef = nnx.graphdef(nnx.eval_shape(build))
    init = jax.jit(lambda: nnx.split(build())[1]).lower()
    return graphdef, init.compile(compiler_options={"xla_backend_optimization_level": 0})()


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
def test_conv_of_a_doubled_image_equals_that_of_the_copies():
    build = partial(nnx.Conv, 3, 5, (3, 3), padding=1, param_dtype=float, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(build(bias_init=nnx.initializers.normal(1.0)))
    x = jax.random.normal(jax.random.key(1), (2, 3, 4, 3))
    weight = jax.random.normal(jax.random.key(2), (2, 6, 8, 5))

    def of_copies(conv, x):
        return conv(jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2))

    def value_and_gradient(f):
        return jax.value_and_grad(lambda *a: (f(nnx.merge(graphdef, a[0]), a[1]) * weight).sum(), (0, 1))(
            params, x
        )

    for a, b in zip(
        *(jax.tree.leaves(value_and_gradient(f)) for f in (conv_doubled, of_copies)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.usefixtures("x64")
def test_time_embedding_counts_from_zero_and_covers_1000():
    found = time_embedding(jnp.array([1, 51], jnp.int32), 6, 100)
    angles = 500.0 * np.array([1.0, 1e-2, 1e-4])
    np.testing.assert_allclose(found, [[0, 0, 0, 1, 1, 1], [*np.sin(angles), *np.cos(angles)]], rtol=1e-9)


def test_a_new_network_says_nothing():
    xt, t = images()
    graphdef, params = initial(small)
    output = jax.jit(lambda p, x, t: nnx.merge(graphdef, p)(x, t))(params, xt, t)
    assert output.shape == (2, 8, 8, 1, 5)
    np.testing.assert_array_equal(output, 0.0)


def test_dropout_needs_a_key_and_depends_on_it():
    graphdef, params = randomised(small, dropout=0.5)
    xt, t = images()

    @jax.jit
    def model(xt, t, key=None):
        return nnx.merge(graphdef, params)(xt, t, key=key)

    np.testing.assert_array_equal(model(xt, t), model(xt, t))
    one, two = (model(xt, t, key=jax.random.key(i)) for i in (1, 2))
    assert np.abs(one - two).max() > 1e-3
    assert np.abs(one - model(xt, t)).max() > 1e-3


@pytest.mark.parametrize("options", [{}, {"onehot_input": True, "num_classes": 3}])
def test_every_parameter_and_every_input_matters(options):
    graphdef, params = randomised(small, **options)
    xt, t = images()
    one, other = jnp.array([1, 0], jnp.int32), jnp.array([1, 2], jnp.int32)

    @jax.jit
    def loss(params, t, label):
        more = {"label": label} if "num_classes" in options else {}
        return (nnx.merge(graphdef, params)(xt, t, **more) ** 2).sum()

    for path, g in jax.tree_util.tree_flatten_with_path(jax.jit(jax.grad(loss))(params, t, one))[0]:
        assert np.any(g != 0) or (path[-2].key == "bias" and path[-3].key == "k"), path
    assert loss(params, t, one) != loss(params, t + jnp.array([1, 0], jnp.int32), one)
    assert (loss(params, t, one) != loss(params, t, other)) == ("num_classes" in options)


def test_labels_and_classes_go_together():
    xt, t = images()
    with pytest.raises(ValueError, match="num_classes = 3 was called without labels"):
        nnx.eval_shape(lambda: small(num_classes=3)(xt, t))
    with pytest.raises(ValueError, match="num_classes = None was called with labels"):
        nnx.eval_shape(lambda: small()(xt, t, label=t))


def test_padding_is_of_the_scaled_value_0_on_both_sides():
    options = {"ch_mult": (1, 1, 1), "groups": 4, "ch": 8, "num_res_blocks": 1, "attn_resolutions": ()}
    _, params = randomised(small, **options)
    xt = images()[0][:, :5, :5]
    padded = jnp.pad(xt, ((0, 0), (1, 2), (1, 2), (0, 0)), constant_values=2)  # 2 x / (K - 1) - 1 = 0

    @jax.jit
    def output(params, xt):
        network = nnx.eval_shape(lambda: UNet(5, 1, xt.shape[1], 100, rngs=nnx.Rngs(0), **options))
        return nnx.merge(nnx.graphdef(network), params)(xt, jnp.array([3, 90], jnp.int32))

    np.testing.assert_allclose(output(params, xt), output(params, padded)[:, 1:6, 1:6], atol=1e-6)


def test_score_net_is_centred_scaled_with_time_and_near_0_at_first():
    xt, _ = images()
    t = jnp.array([10, 70], jnp.int32)
    graphdef, params = initial(small_score_net)
    weighted, other_params = randomised(small_score_net, time_dependent_weights=(3.0, 1.0, 2.0, 6.0))
    outputs = jax.jit(lambda p: [nnx.merge(g, p)(xt, t) for g in (graphdef, weighted)])
    assert 0 < np.abs(outputs(params)[0]).max() < 1e-3
    assert 15 < np.std(params["frequencies"][...]) < 45
    plain, scaled = outputs(other_params)
    assert plain.shape == (2, 8, 8, 1, 5)
    np.testing.assert_allclose(plain.mean(-1), 0.0, atol=1e-5)
    # the weights stand at t = 25, 50, 75, 100: 3 before the first, 1 + (20 / 25) (2 - 1) at t = 70
    np.testing.assert_allclose(scaled, plain * np.array([3.0, 1.8])[:, None, None, None, None], rtol=1e-5)


def test_frequencies_of_time_are_saved_with_the_weights():
    _, params = randomised(small_score_net)
    np.testing.assert_array_equal(convert.to_torch(params)["frequencies"], params["frequencies"][...])


@pytest.mark.usefixtures("x64")
def test_group_norm_of_bfloat16_has_statistics_in_float32():
    keys = jax.random.split(jax.random.key(0), 2)
    x, g = (jax.random.normal(k, (2, 8, 8, 4), jnp.float32).astype(jnp.bfloat16) for k in keys)
    x = (x + 30).astype(jnp.bfloat16)
    one, zero = jnp.ones(4, jnp.float32), jnp.zeros(4, jnp.float32)

    @partial(jax.jit, static_argnums=0)
    def value_and_gradient(norm, x, g):
        y, pull_back = jax.vjp(lambda x: norm(x, one, zero, 2, 1e-6), x)
        return y, pull_back(g)[0]

    found = value_and_gradient(group_norm, x, g)
    right = value_and_gradient(plain_group_norm, x.astype(float), g.astype(float))
    for a, b in zip(found, right, strict=True):
        assert a.dtype == jnp.bfloat16
        assert np.abs(a.astype(float) - b).max() < 2**-8 * np.abs(b).max()


@pytest.mark.parametrize("build", [small, small_score_net])
def test_bfloat16_is_the_type_of_every_large_product(build):
    graphdef, params = nnx.split(nnx.eval_shape(lambda: build(dtype=jnp.bfloat16)))
    assert {x.dtype for x in jax.tree.leaves(params)} == {np.dtype("float32")}
    jaxpr = jax.make_jaxpr(lambda p, x, t: nnx.merge(graphdef, p)(x, t))(params, *images())
    assert jaxpr.out_avals[0].dtype == jnp.float32
    products = [e for e in jaxpr.eqns if e.primitive.name in ("conv_general_dilated", "dot_general")]
    wide = [e for e in products if e.outvars[0].aval.dtype != jnp.bfloat16]
    assert len(products) > 20
    shapes = {e.outvars[0].aval.shape for e in wide[:-1]}
    assert shapes == {(2, 32)}, "only the embedding of time and the last layer are float32"
    assert wide[-1] is products[-1]


def test_convert_goes_both_ways_to_the_bit():
    _, params = randomised(small)
    state_dict = convert.to_torch(params)
    assert state_dict["conv_in.weight"].shape == (8, 1, 3, 3)
    assert state_dict["temb1.weight"].shape == (32, 8)
    assert "down.0.blocks.0.norm1.weight" in state_dict
    back = convert.from_torch(jax.tree.map(jnp.zeros_like, params), state_dict)
    jax.tree.map(np.testing.assert_array_equal, back, params)


def test_convert_names_what_does_not_fit():
    _, params = randomised(small)
    state_dict = convert.to_torch(params)
    kernel = state_dict.pop("conv_in.weight")
    with pytest.raises(ValueError, match=r"missing \['conv_in.weight'\], left over \['other'\]"):
        convert.from_torch(params, state_dict | {"other": kernel})
    with pytest.raises(ValueError, match=r"conv_in.weight has shape \(8, 1, 3\)"):
        convert.from_torch(params, state_dict | {"conv_in.weight": kernel[..., 0]})


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"attn holds \[2\], but the levels of ch_mult are 0..1"):
        small_score_net(attn=(0, 2))
    with pytest.raises(ValueError, match="1 time_dependent_weights: pass at least 2"):
        small_score_net(time_dependent_weights=(1.0,))
    with pytest.raises(ValueError, match="8 channels do not divide into 3 groups: change ch or groups"):
        small(groups=3)
