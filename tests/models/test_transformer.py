"""The transformer: what it depends on, how it starts, what it refuses, and its formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from d3pm_jax import config as configs
from d3pm_jax.config import Spec
from d3pm_jax.models import Transformer, transformer as transformer_module
from d3pm_jax.models.transformer import attention, rotary_angles, rotate_pairs
from tests.models.small import initial, randomised

OPTIONS = {"K": 5, "max_time": 50, "width": 8, "num_layers": 2, "num_heads": 2}
XT = jnp.asarray(np.random.default_rng(0).integers(0, 5, (2, 6)))
T = jnp.asarray([3, 40])


def build(**changes):
    return Transformer(**(OPTIONS | changes), rngs=nnx.Rngs(0))


def test_a_new_network_says_nothing():
    graphdef, params = initial(build)
    output = jax.jit(lambda p: nnx.merge(graphdef, p)(XT, T))(params)
    np.testing.assert_array_equal(output, np.zeros((2, 6, 5)))
    assert params["layers"]["qkv"]["kernel"].shape == (2, 8, 24)  # of both layers
    first, second = params["layers"]["qkv"]["kernel"][...]
    assert np.abs(first - second).max() > 0.1


def test_what_the_output_depends_on():
    """Every parameter, time and label; not what has weight 0; keeping less in memory changes nothing."""
    graphdef, params = randomised(build, num_classes=3, dropout=0.5)
    leaner = nnx.graphdef(nnx.eval_shape(lambda: build(num_classes=3, dropout=0.5, remat=True)))
    label = jnp.asarray([0, 2])
    weight = jnp.ones((2, 6)).at[:, 4:].set(0.0)
    other = XT.at[:, 4:].set((XT[:, 4:] + 1) % 5)
    inputs = {"xt": XT, "t": T + 0.0, "label": label, "weight": weight}

    def call(params, inputs, key=None, graphdef=graphdef):
        return nnx.merge(graphdef, params)(**inputs, key=key)[:, :4]

    @jax.jit
    def other_programs(params):
        actual = {"no padding": call(params, inputs | {"weight": None})}
        actual["dropout"] = call(params, inputs, jax.random.key(0))
        actual["remat"] = call(params, inputs, graphdef=leaner)
        actual["weight bool"] = call(params, inputs | {"weight": weight > 0})
        actual["weight int"] = call(params, inputs | {"weight": weight.astype(int)})

        def loss(params, graphdef):
            return (nnx.merge(graphdef, params)(XT, T, label=label) ** 2).sum()

        return actual, jax.grad(loss)(params, graphdef), jax.grad(loss)(params, leaner)

    one_program = jax.jit(call)
    same = one_program(params, inputs)
    changes = {"padding": {"xt": other}, "time": {"t": T + 0.5}, "label": {"label": label + 1}}
    changes |= {"in x": {"xt": XT + 1}}
    actual, gradient, again = other_programs(params)
    actual |= {name: one_program(params, inputs | change) for name, change in changes.items()}
    for name, x in actual.items():
        close = np.abs(x - same).max() < 1e-5
        assert close == (name in ("padding", "remat", "weight bool", "weight int")), name
    for path, g in jax.tree_util.tree_flatten_with_path(gradient)[0]:
        assert np.all(np.any(np.asarray(g).reshape(len(g), -1) != 0, axis=1)) or "class_emb" in str(path), (
            path
        )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), gradient, again)


@pytest.mark.usefixtures("x64")
def test_a_network_has_one_type_as_it_is_made():
    """Whatever it is told: where JAX computes in float64, what Flax makes is still float32."""
    for see_time, num_classes in ((False, None), (True, 3)):
        made = nnx.eval_shape(lambda: build(see_time=see_time, num_classes=num_classes))  # noqa: B023
        graphdef, params = nnx.split(made)
        assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
        assert jax.eval_shape(lambda p: nnx.merge(graphdef, p)(XT, T), params).dtype == jnp.float32  # noqa: B023


def test_a_network_without_time_does_not_see_it():
    graphdef, params = randomised(build, see_time=False)
    call = jax.jit(lambda p, t: nnx.merge(graphdef, p)(XT, t))
    np.testing.assert_array_equal(call(params, T), call(params, T - 1))
    assert "temb1" not in params
    with pytest.raises(ValueError, match="labels were passed to a network with num_classes = None"):
        nnx.eval_shape(lambda: build(see_time=False)(XT, T, label=T))


@pytest.mark.usefixtures("x64")
def test_attention_and_positions_equal_their_formulas():
    """In float64 and in float32, with the gradients of JAX's own attention, which accelerators take."""
    rng = np.random.default_rng(1)
    q, k, v, g = rng.normal(size=(4, 2, 5, 3, 4))
    seen = np.array([[1, 1, 0, 1, 1], [1, 0, 0, 0, 0]], bool)
    scores = np.where(seen[:, None, None], np.einsum("bqhd,bkhd->bhqk", q, k) / 2, -np.inf)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    expected = np.einsum("bhqk,bkhd->bqhd", weights, v)
    run = jax.jit(
        lambda f, *qkv: jax.vjp(lambda *qkv: f(*qkv, jnp.asarray(seen)[:, None]), *qkv), static_argnums=0
    )
    exact, gradients = run(attention, q, k, v)
    np.testing.assert_allclose(exact, expected, rtol=1e-12)
    narrow = [jnp.asarray(x, jnp.float32) for x in (q, k, v)]
    for f in (attention, transformer_module._attention_of_jax):
        actual, gradient = run(f, *narrow)
        np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=1e-6)
        for a, b in zip(gradient(jnp.asarray(g, jnp.float32)), gradients(jnp.asarray(g)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6)
    turned = np.asarray(jax.jit(lambda x: rotate_pairs(x, rotary_angles(5, 4)))(q))
    point = q[..., :2] + 1j * q[..., 2:]
    angle = np.arange(5)[:, None] * np.array([1.0, 0.01])
    moved = point * np.exp(1j * angle)[None, :, None]
    np.testing.assert_allclose(turned, np.concatenate([moved.real, moved.imag], -1), rtol=1e-12)


def test_accelerators_take_the_attention_of_jax():
    """The formula for CPUs makes one axis of the examples and the heads, 6, and goes nowhere else."""
    shape = jax.ShapeDtypeStruct((2, 7, 3, 4), jnp.float32)
    gradient = jax.jit(jax.grad(lambda q, k, v: attention(q, k, v, None).sum())).trace(shape, shape, shape)
    merged = {
        platform: "tensor<6x7x" in gradient.lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "cuda", "tpu")
    }
    assert merged == {"cpu": True, "cuda": False, "tpu": False}


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match="width = 8 does not divide into 3 heads of an even width"):
        build(num_heads=3)
    spec = Spec((6,), 5, None, None, 50)
    model = configs.Transformer(width=8, num_layers=1, num_heads=1)
    for wrong, words in (
        (spec._replace(shape=(2, 2, 1)), "this network is for sequences"),
        (spec._replace(outputs=2), "Transformer gives K = 5 logits: use Head"),
    ):
        with pytest.raises(ValueError, match=words):
            model.build(wrong, nnx.Rngs(0))


def test_stacked_biases_and_scales_do_not_decay():
    stacked = {"norm": {"scale": jnp.ones((3, 4)), "kernel": jnp.ones((3, 4))}}
    assert configs.optimizer._decays(stacked) == {"norm": {"scale": False, "kernel": True}}
    params = nnx.split(nnx.eval_shape(build))[1]
    mask = configs.optimizer._decays(params)
    assert mask["layers"]["qkv"]["kernel"].get_value() is True
    assert mask["embed"]["embedding"].get_value() is True
    assert mask["layers"]["qkv"]["bias"].get_value() is False
    assert mask["layers"]["modulation"]["linear"]["bias"].get_value() is False
