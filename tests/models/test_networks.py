"""The networks: what they depend on, how they start, their types, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from d3pm_jax.models import UNet
from tests.models.small import images, initial, randomised, small, small_score_net

SMALLEST = {"ch_mult": (1,), "num_res_blocks": 0, "attn_resolutions": ()}


def test_a_new_network_says_nothing():
    xt, t = images()
    graphdef, params = initial(lambda: small(**SMALLEST))
    output = jax.jit(lambda p, x, t: nnx.merge(graphdef, p)(x, t))(params, xt, t)
    assert output.shape == (2, 8, 8, 1, 5)
    np.testing.assert_array_equal(output, 0.0)


def test_dropout_needs_a_key_and_depends_on_it():
    graphdef, params = randomised(small, dropout=0.5, **SMALLEST)
    xt, t = images()

    @jax.jit
    def model(xt, t, key=None):
        return nnx.merge(graphdef, params)(xt, t, key=key)

    np.testing.assert_array_equal(model(xt, t), model(xt, t))
    with_dropout = model(xt, t, key=jax.random.key(1))
    with_another_key = model(xt, t, key=jax.random.key(2))
    assert np.abs(with_dropout - with_another_key).max() > 1e-3
    assert np.abs(with_dropout - model(xt, t)).max() > 1e-3


@pytest.mark.parametrize(
    "options",
    [
        SMALLEST,
        pytest.param({"onehot_input": True, "num_classes": 3}, marks=pytest.mark.slow),
    ],
)
def test_every_parameter_and_every_input_matters(options):
    graphdef, params = randomised(small, **options)
    xt, t = images()
    labels = jnp.array([[1, 0], [1, 2]], jnp.int32) if "num_classes" in options else (None, None)

    @jax.jit
    def loss(params, t, label):
        return (nnx.merge(graphdef, params)(xt, t, label=label) ** 2).sum()

    loss_and_gradient = jax.jit(jax.value_and_grad(loss))
    at_first, gradient = loss_and_gradient(params, t, labels[0])
    for path, g in jax.tree_util.tree_flatten_with_path(gradient)[0]:
        assert np.any(g != 0) or (path[-2].key == "bias" and path[-3].key == "k"), path
    at_another_time, _ = loss_and_gradient(params, t + jnp.array([1, 0], jnp.int32), labels[0])
    assert at_first != at_another_time
    with_other_labels, _ = loss_and_gradient(params, t, labels[1])
    assert (at_first != with_other_labels) == ("num_classes" in options)
    if "num_classes" in options:
        bias_alone = params | {"class_emb": params["class_emb"] | {"kernel": nnx.Param(jnp.zeros((3, 32)))}}
        of_bias, _ = loss_and_gradient(bias_alone, t, labels[0])
        np.testing.assert_allclose(loss(params, t, None), of_bias, rtol=1e-6)


@pytest.mark.parametrize("build", [small, small_score_net])
def test_labels_need_classes(build):
    xt, t = images()
    with pytest.raises(ValueError, match="labels were passed to a network with num_classes = None"):
        nnx.eval_shape(lambda: build()(xt, t, label=t))


def test_padding_is_of_the_scaled_value_0_on_both_sides():
    options = SMALLEST | {"ch_mult": (1, 1, 1), "groups": 4, "ch": 8}
    _, params = randomised(small, **options)
    xt = images()[0][:, :5, :6]
    padded = jnp.pad(xt, ((0, 0), (1, 2), (1, 1), (0, 0)), constant_values=2)  # 2 x / (K - 1) - 1 = 0

    @jax.jit
    def output(params, xt):
        network = nnx.eval_shape(lambda: UNet(5, 1, xt.shape[1:3], 100, rngs=nnx.Rngs(0), **options))
        return nnx.merge(nnx.graphdef(network), params)(xt, jnp.array([3, 90], jnp.int32))

    np.testing.assert_allclose(output(params, xt), output(params, padded)[:, 1:6, 1:7], atol=1e-6)


def test_attention_follows_where_the_larger_side_is_asked_for():
    def attentions(size, **options):
        unet = nnx.eval_shape(lambda: UNet(5, 1, size, 100, ch=8, groups=4, **options, rngs=nnx.Rngs(0)))
        return [len(level.attns) for level in unet.down]

    options = {"ch_mult": (1, 2, 2), "num_res_blocks": 1, "attn_resolutions": (14, 5)}
    for size in ((28, 20), (18, 27)):  # levels of 28 x 20, 14 x 10, 7 x 5, and the other way round
        assert attentions(size, **options) == [0, 1, 0]


@pytest.mark.slow
def test_score_net_is_centred_scaled_with_time_and_near_0_at_first():
    xt, _ = images()
    t = jnp.array([10, 70], jnp.int32)
    options = {"ch_mult": (1,), "attn": ()}
    graphdef, params = initial(lambda: small_score_net(**options))
    weighted, other_params = randomised(
        small_score_net, **options, time_dependent_weights=(3.0, 1.0, 2.0, 6.0)
    )
    outputs = jax.jit(lambda p: [nnx.merge(g, p)(xt, t) for g in (graphdef, weighted)])
    assert 0 < np.abs(outputs(params)[0]).max() < 1e-3
    assert 15 < np.std(params["frequencies"][...]) < 45
    plain, scaled = outputs(other_params)
    assert plain.shape == (2, 8, 8, 1, 5)
    np.testing.assert_allclose(plain.mean(-1), 0.0, atol=1e-5)
    # the weights stand at t = 25, 50, 75, 100: 3 before the first, 1 + (20 / 25) (2 - 1) at t = 70
    np.testing.assert_allclose(scaled, plain * np.array([3.0, 1.8])[:, None, None, None, None], rtol=1e-5)


def equations(jaxpr):
    """Those of a program, and of the functions with a gradient of their own that it calls."""
    for equation in jaxpr.eqns:
        yield equation
        if "call_jaxpr" in equation.params:
            yield from equations(equation.params["call_jaxpr"])


@pytest.mark.parametrize("build", [small, small_score_net])
def test_bfloat16_is_the_type_of_every_large_product(build):
    graphdef, params = nnx.split(nnx.eval_shape(lambda: build(dtype=jnp.bfloat16)))
    assert {x.dtype for x in jax.tree.leaves(params)} == {np.dtype("float32")}
    jaxpr = jax.make_jaxpr(lambda p, x, t: nnx.merge(graphdef, p)(x, t))(params, *images())
    assert jaxpr.out_avals[0].dtype == jnp.float32
    products = [e for e in equations(jaxpr) if e.primitive.name in ("conv_general_dilated", "dot_general")]
    wide = [e for e in products if e.outvars[0].aval.dtype != jnp.bfloat16]
    assert len(products) > 20
    shapes = {e.outvars[0].aval.shape for e in wide[:-1]}
    assert shapes == {(2, 32)}, "only the embedding of time and the last layer are float32"
    assert wide[-1] is products[-1]


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"attn holds \[2\], but the levels of ch_mult are 0..1"):
        small_score_net(attn=(0, 2))
    with pytest.raises(ValueError, match="1 time_dependent_weights: pass at least 2"):
        small_score_net(time_dependent_weights=(1.0,))
    with pytest.raises(ValueError, match="8 channels do not divide into 3 groups: change ch or groups"):
        small(groups=3)
    for build in (small, small_score_net):
        with pytest.raises(ValueError, match="16 channels do not divide into 3 heads: change ch or"):
            build(num_heads=3)
        for wrong in (2.0, None, "2", 0):
            with pytest.raises(ValueError, match=f"num_heads = {wrong!r}: it must be a whole number in 1"):
                build(num_heads=wrong)


@pytest.mark.parametrize("build", [small, small_score_net])
def test_heads_change_no_shape_of_a_parameter(build):
    one_head = nnx.state(nnx.eval_shape(lambda: build(num_heads=1)))
    two_heads = nnx.state(nnx.eval_shape(lambda: build(num_heads=2)))
    assert jax.tree.map(jnp.shape, one_head) == jax.tree.map(jnp.shape, two_heads)
