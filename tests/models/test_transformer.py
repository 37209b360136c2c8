"""The transformer: what it depends on, how it starts, what it refuses, and its formulas in NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from d3pm_jax import config as configs
from d3pm_jax.config import Spec
from d3pm_jax.models import Transformer, attend
from d3pm_jax.models.attention import attend_by_jax
from d3pm_jax.models.transformer import rotary_angles, rotate_pairs
from tests.models.small import initial, randomised

OPTIONS = {"K": 5, "max_time": 50, "width": 8, "num_layers": 2, "num_heads": 2}
XT = jnp.asarray(np.random.default_rng(0).integers(0, 5, (2, 6)))
T = jnp.asarray([3, 40])
RECORDED_WEIGHTS = [0.35497263, 0.07947568]
RECORDED_OUTPUT = [-0.18818432, -0.57615215, -0.56723332, -0.04522012, 0.01180530]


def build(**changes):
    return Transformer(**(OPTIONS | changes), rngs=nnx.Rngs(0))


def test_a_new_network_says_nothing():
    graphdef, params = initial(build)
    output = jax.jit(lambda p: nnx.merge(graphdef, p)(XT, T))(params)
    np.testing.assert_array_equal(output, np.zeros((2, 6, 5)))
    assert params["layers"]["qkv"]["kernel"].shape == (2, 8, 24)  # of both layers
    first, second = params["layers"]["qkv"]["kernel"][...]
    assert np.abs(first - second).max() > 0.1


@pytest.mark.parametrize("tied", [False, True])
def test_the_last_layer_apart(tied):
    graphdef, params = randomised(build, tied=tied)
    assert ("kernel" in params["head"]) != tied

    @jax.jit
    def call(params):
        network = nnx.merge(graphdef, params)
        return network(XT, T), network.hidden(XT, T), network.projection()

    output, hidden, (kernel, bias, is_tied) = call(params)
    assert is_tied == tied
    np.testing.assert_array_equal(kernel, params["embed"]["embedding"] if tied else params["head"]["kernel"])
    expected = np.asarray(hidden, np.float64) @ np.asarray(kernel.T if tied else kernel) + np.asarray(bias)
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)


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
    exact, gradients = run(attend, q, k, v)
    np.testing.assert_allclose(exact, expected, rtol=1e-12)
    narrow = [jnp.asarray(x, jnp.float32) for x in (q, k, v)]
    for f in (attend, attend_by_jax):
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
    gradient = jax.jit(jax.grad(lambda q, k, v: attend(q, k, v, None).sum())).trace(shape, shape, shape)
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
        (spec._replace(shape=(2, 2, 1)), "positions = 'rotary' is for sequences"),
        (spec._replace(outputs=2), "Transformer gives K = 5 logits: use Head"),
    ):
        with pytest.raises(ValueError, match=words):
            model.build(wrong, nnx.Rngs(0))
    for wrong, words in (
        ({"positions": "learned"}, "positions = 'learned', sizes = None: such a network needs the shape"),
        ({"tied": True, "sizes": (2, 5), "shape": (2,)}, "tied = True is for places that share their"),
        ({"sizes": (2, 5)}, r"positions = 'rotary', sizes = \(2, 5\): such a network needs the shape"),
        ({"shape": (2, 3)}, r"shape = \(2, 3\), but rotary positions are for sequences"),
        ({"positions": "grid", "shape": (2, 3), "sizes": (2, 5)}, "tuples of the shape"),
    ):
        with pytest.raises(ValueError, match=words):
            build(**wrong)
    made = nnx.eval_shape(
        lambda: dataclasses.replace(model, positions="grid").build(
            spec._replace(shape=(2, 3), condition=(4,)), nnx.Rngs(0)
        )
    )
    assert [layer.embedding.shape for layer in made.positions] == [(2, 8), (3, 8)]
    with pytest.raises(ValueError, match=r"xt has shape \[2, 6\], but the network was made for"):
        nnx.eval_shape(lambda: made(XT, T, condition=jnp.zeros((2, 4))))
    learned = {"positions": "learned", "shape": (5,)}
    assert nnx.eval_shape(lambda: build(**learned)(XT[:, :4], T)).shape == (2, 4, 5)
    with pytest.raises(ValueError, match=r"xt has shape \[2, 6\], but the network was made for"):
        nnx.eval_shape(lambda: build(**learned)(XT, T))
    with pytest.raises(ValueError, match=r"xt has shape \[2, 2, 3\], expected \[B, L\]"):
        nnx.eval_shape(lambda: build()(XT.reshape(2, 2, 3), T))


def test_a_network_that_sets_nothing_new_is_what_it_was():
    """Numbers that were recorded before there were learned positions, conditions and sizes."""
    graphdef, params = randomised(build, num_classes=3)
    output = jax.jit(lambda p: nnx.merge(graphdef, p)(XT, T, label=jnp.asarray([0, 2])))(params)
    np.testing.assert_allclose(output[1, 2], RECORDED_OUTPUT, rtol=1e-4)
    first = initial(lambda: build(num_classes=3))[1]
    actual = [first["embed"]["embedding"][0, 0], first["layers"]["mlp2"]["kernel"][1, 0, 0]]
    np.testing.assert_allclose(actual, RECORDED_WEIGHTS, rtol=1e-5)


def test_positions_tell_places_apart():
    """A grid is the learned positions that are its sums; rotary ones leave equal categories equal logits."""
    options = {"shape": (2, 3), "condition": (2,)}
    grid, of_grid = randomised(build, positions="grid", **options)
    learned, of_learned = randomised(build, positions="learned", **options)
    rotary, of_rotary = randomised(build)
    rows, columns = (of_grid["positions"][axis]["embedding"][...] for axis in (0, 1))
    sums = (rows[:, None] + columns[None]).reshape(6, 8)
    of_learned = with_arrays(of_learned, dict(of_grid) | {"positions": {0: {"embedding": sums}}})
    equal = jnp.zeros((2, 2, 3), jnp.int32)
    weight = jnp.ones((2, 2, 3)).at[:, 1, 2].set(0)

    @jax.jit
    def compute(of_grid, of_learned, of_rotary):
        given = {"condition": jnp.asarray([[1.0, 2.0], [0.0, -3.0]])}
        on_grid = nnx.merge(grid, of_grid)
        outputs = {"grid": on_grid(XT.reshape(2, 2, 3), T, **given)}
        outputs["learned"] = nnx.merge(learned, of_learned)(XT.reshape(2, 2, 3), T, **given)
        outputs["condition"] = on_grid(XT.reshape(2, 2, 3), T, condition=given["condition"] + 1.0)
        outputs["equal"] = on_grid(equal, T, **given, weight=weight)
        outputs["outside"] = on_grid(equal.at[:, 1, 2].set(3), T, **given, weight=weight)
        outputs["rotary"] = nnx.merge(rotary, of_rotary)(equal.reshape(2, 6), T)
        return outputs

    outputs = compute(of_grid, of_learned, of_rotary)
    np.testing.assert_allclose(outputs["grid"], outputs["learned"], rtol=1e-4, atol=1e-5)
    changed = np.abs(outputs["grid"] - outputs["condition"])
    assert changed.max(axis=(1, 2, 3)).min() > 1e-2
    np.testing.assert_allclose(outputs["equal"][:, 0], outputs["outside"][:, 0], rtol=1e-4, atol=1e-5)
    for name, tells_apart in (("equal", True), ("rotary", False)):
        logits = outputs[name].reshape(2, 6, 5)
        distances = np.abs(logits[:, :, None] - logits[:, None]).max(-1)[:, ~np.eye(6, dtype=bool)]
        assert (distances > 1e-3).all() == tells_apart
        assert (distances > 1e-5).any() == tells_apart


def with_arrays(like, arrays):
    """Returns parameters of a network with other arrays."""
    return jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves(arrays))


def test_places_of_several_sizes_have_rows_and_columns_of_their_own():
    """Where these are copies of what a network of one size has in common, the logits are the same."""
    sizes = (2, 4, 4, 3, 2, 4)
    masked = np.where(np.arange(6) % 2, 4, np.arange(6) % 2)
    shared, params = randomised(build)
    sized, of_places = randomised(build, sizes=sizes, shape=(6,))
    own = np.concatenate([np.arange(size) for size in sizes])
    with_mask = np.concatenate([[*range(size), 4] for size in sizes])
    copies = {
        "embed": {"embedding": params["embed"]["embedding"][...][with_mask]},
        "head": {"kernel": params["head"]["kernel"][...][:, own], "bias": params["head"]["bias"][...][own]},
    }
    assert jax.tree.map(jnp.shape, copies) == {
        name: {key: x.shape for key, x in of_places[name].items()} for name in copies
    }
    of_places = with_arrays(of_places, dict(params) | copies)
    x = jnp.asarray([[1, 3, 0, 2, 1, 3], masked])
    expected = jax.jit(lambda p: nnx.merge(shared, p)(x, T))(params)
    actual = jax.jit(lambda p: nnx.merge(sized, p)(x, T))(of_places)
    expected = np.where(np.arange(5) < np.array(sizes)[:, None], expected, -np.inf)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_stacked_biases_and_scales_do_not_decay():
    stacked = {"norm": {"scale": jnp.ones((3, 4)), "kernel": jnp.ones((3, 4))}}
    assert configs.optimizer._decays(stacked) == {"norm": {"scale": False, "kernel": True}}
    params = nnx.split(nnx.eval_shape(build))[1]
    mask = configs.optimizer._decays(params)
    assert mask["layers"]["qkv"]["kernel"].get_value() is True
    assert mask["embed"]["embedding"].get_value() is True
    assert mask["layers"]["qkv"]["bias"].get_value() is False
    assert mask["layers"]["modulation"]["linear"]["bias"].get_value() is False
