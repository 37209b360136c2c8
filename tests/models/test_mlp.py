"""The network of places: its layout where places differ in size, what it depends on, what it refuses."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from d3pm_jax import absorbing, by_place, config as configs, hybrid
from d3pm_jax.checks import bare, values_in_range
from d3pm_jax.config import Spec
from d3pm_jax.heads import forbid_beyond
from d3pm_jax.models import MLP, Inputs
from d3pm_jax.models.places import make_places
from tests.models.small import initial, randomised

# A grid of places of which one has more categories than are made one-hots; K - 1 = 70 is a mask.
SIZES = ((2, 2, 5), (70, 3, 2))
FLAT_SIZES = np.ravel(SIZES)
K = 71
INPUTS = Inputs((2, 3), K, max_time=50, sizes=SIZES)
XT = jnp.asarray([[[0, 1, 4], [69, 70, 1]], [[70, 0, 70], [3, 2, 0]]])
T = jnp.asarray([3, 40])


def build(width=8, dropout=0.0, remat=False, dtype=None, **inputs):
    options = {"width": width, "num_layers": 2, "dropout": dropout, "remat": remat, "dtype": dtype}
    return MLP(dataclasses.replace(INPUTS, **inputs), **options, rngs=nnx.Rngs(0))


def test_a_new_network_says_nothing_but_what_a_place_cannot_be():
    graphdef, params = initial(build)
    output = jax.jit(lambda p: nnx.merge(graphdef, p)(XT, T))(params)
    expected = np.where(np.arange(K) < np.array(SIZES)[..., None], 0.0, -np.inf)
    np.testing.assert_array_equal(output, np.broadcast_to(expected, (2, 2, 3, K)))
    # Each place has rows for its own categories and its mask, and a column for each of its own categories.
    assert params["embed"]["embedding"].shape == (sum(FLAT_SIZES + 1), 8)
    assert params["head"]["kernel"].shape == (8, sum(FLAT_SIZES))
    no_sizes = nnx.eval_shape(lambda: build(sizes=None, K=3))
    assert no_sizes.embed.embedding.shape == no_sizes.head.kernel.shape[::-1] == (18, 8)


@pytest.mark.usefixtures("x64")
def test_the_input_is_a_linear_map_of_one_hots_and_each_place_has_its_own_logits():
    """Of the masked places too; the gradient of the table is that of the linear map."""
    places = make_places((2, 3), K, SIZES)
    rng = np.random.default_rng(0)
    table = rng.normal(size=(sum(FLAT_SIZES + 1), 4))
    flat, w = rng.normal(size=(2, sum(FLAT_SIZES))), rng.normal(size=(2, 4))
    one_hots = []
    expected_logits = np.full((2, 6, K), -np.inf)
    for place, size in enumerate(FLAT_SIZES):
        x = np.asarray(XT).reshape(2, 6)[:, place]
        one_hots.append(np.eye(size + 1)[np.where(x == 70, size, x)])
        first = FLAT_SIZES[:place].sum()
        expected_logits[:, place, :size] = flat[:, first : first + size]
    one_hots = np.concatenate(one_hots, axis=1)

    @jax.jit
    def compute(table, flat):
        sums, pull_back = jax.vjp(lambda table: places.sum_rows(table, places.find_rows(XT)), table)
        return sums, pull_back(w)[0], places.split_logits(flat)

    sums, gradient, logits = compute(table, flat)
    np.testing.assert_allclose(sums, one_hots @ table, rtol=1e-12)
    np.testing.assert_allclose(gradient, one_hots.T @ w, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(logits, expected_logits.reshape(2, 2, 3, K))


def test_what_the_output_depends_on():
    """Every parameter that x_t reaches, time, label, condition and key; remat changes nothing."""
    given = {"num_classes": 3, "condition": (2,), "dropout": 0.5}
    _, params = randomised(build, **given)
    inputs = {"t": T + 0.0, "label": jnp.asarray([0, 2]), "condition": jnp.asarray([[1.0, 2.0], [0.5, -1.0]])}
    finite = np.arange(K) < np.array(SIZES)[..., None]

    def call(params, xt, inputs, key=None, remat=False):
        of_options = nnx.graphdef(nnx.eval_shape(lambda: build(**given, remat=remat)))
        return jnp.where(finite, nnx.merge(of_options, params)(xt, **inputs, key=key), 0.0)

    def loss(params, inputs, remat):
        return (call(params, XT, inputs, remat=remat) ** 2).sum()

    @jax.jit
    def compute(params, inputs):
        key = jax.random.key(0)
        outputs = {
            "dropout": call(params, XT, inputs, key),
            "x": call(params, XT.at[:, 1, 2].set(70), inputs),
        }
        outputs["dropout, remat"] = call(params, XT, inputs, key, remat=True)
        for name in inputs:
            outputs[name] = call(params, XT, inputs | {name: inputs[name] + 1})
        gradients = [jax.grad(loss)(params, inputs, remat) for remat in (False, True)]
        return call(params, XT, inputs), outputs, gradients

    same, outputs, (gradient, with_remat) = compute(params, inputs | {"label": jnp.asarray([0, 1])})
    np.testing.assert_allclose(outputs["dropout"], outputs.pop("dropout, remat"), rtol=1e-5)
    for name, output in outputs.items():
        changed = np.abs(output - same).max(axis=(1, 2, 3))
        assert changed.min() > 1e-3, name
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), gradient, with_remat)
    held = np.asarray(make_places((2, 3), K, SIZES).find_rows(XT))
    rows = np.abs(gradient["embed"]["embedding"][...]).max(1) > 0
    np.testing.assert_array_equal(np.flatnonzero(rows), np.unique(held))
    assert all(np.any(g != 0) for g in jax.tree.leaves(gradient))


def test_bfloat16_is_the_type_of_the_blocks_alone():
    graphdef, params = nnx.split(nnx.eval_shape(lambda: build(dtype=jnp.bfloat16, max_time=None)))
    assert {x.dtype for x in jax.tree.leaves(params)} == {np.dtype("float32")}
    jaxpr = jax.make_jaxpr(lambda p: nnx.merge(graphdef, p)(XT, T))(params)
    products = [e.outvars[0].aval for e in jaxpr.eqns if e.primitive.name == "dot_general"]
    assert [x.dtype.name for x in products if x.shape == (2, 8)][-4:] == ["bfloat16"] * 4
    assert products[-1].dtype == jaxpr.out_avals[0].dtype == jnp.float32


def test_a_category_that_a_place_does_not_have_is_refused_or_marked():
    graphdef, params = randomised(build, max_time=None)
    wrong = XT.at[1, 1, 1].set(3)
    network = nnx.merge(graphdef, params)
    with pytest.raises(ValueError, match=r"xt contains 3 at place \(1, 1\), which has 3 categories: give it"):
        network(wrong, T)
    output = jax.jit(lambda p, x: nnx.merge(graphdef, p)(x, T))(params, wrong)
    has_nan = np.isnan(output).any(axis=(1, 2, 3))
    np.testing.assert_array_equal(has_nan, [False, True])
    with pytest.raises(ValueError, match=r"xt has shape \[2, 3\], but the network was made for .* \[2, 3\]"):
        network(XT[:, 0], T)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sizes": ((2, 2), (70, 3))}, r"sizes = \(\(2, 2\), \(70, 3\)\): pass the number of categories of"),
        ({"sizes": ((2, 2, 5), (70, 3))}, "sizes = .*: pass the number of categories of each place"),
        ({"sizes": ((2, 2, 0), (70, 3, 2))}, "tuples of the shape"),
        ({"sizes": ((2, 2, 2.5), (70, 3, 2))}, "tuples of the shape"),
        ({"K": 72}, "K = 72, but sizes go up to 70: K is the largest size, or with an extra mask one more"),
        ({"K": 69}, "K = 69, but sizes go up to 70"),
        ({"width": 3}, "width = 3: the embedding of time needs a width of at least 4"),
    ],
)
def test_what_cannot_be_built_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        build(**changes)


def test_a_config_builds_it_for_the_data():
    spec = Spec((2, 3), K, None, 3, 50, remat=True, condition=(2,), sizes=SIZES)
    made = nnx.eval_shape(lambda: configs.MLP(width=8, num_layers=1, classes=3).build(spec, nnx.Rngs(0)))
    assert (made.remat, made.condition_shape, made.num_classes) == (True, (2,), 3)
    assert made.places == make_places((2, 3), K, SIZES)
    with pytest.raises(ValueError, match="MLP gives K = 71 logits: use Head"):
        configs.MLP().build(spec._replace(outputs=2), nnx.Rngs(0))


@pytest.mark.slow
@pytest.mark.optimised
def test_no_step_of_a_training_makes_padded_logits():
    """Of 14 columns of 10 categories and one of 5,000 between them, neither forward nor for the gradient."""
    sizes = (10,) * 7 + (5000,) + (10,) * 7
    process = by_place([absorbing(1 / np.arange(4.0, 0.0, -1.0), size + 1, size) for size in sizes])
    inputs = Inputs((15,), process.K, sizes=sizes)
    graphdef, params = nnx.split(nnx.eval_shape(lambda: MLP(inputs, 32, 1, rngs=nnx.Rngs(0))))

    @values_in_range()
    def loss(params, x0, xt, t):
        logits = forbid_beyond(bare(nnx.merge(graphdef, params))(xt, t), np.array(sizes))
        return hybrid(process, logits, x0, xt, t, 0.01).loss.mean()

    x = jax.ShapeDtypeStruct((64, 15), jnp.int32)
    t = jax.ShapeDtypeStruct((64,), jnp.int32)
    text = jax.jit(jax.value_and_grad(loss)).lower(params, x, x, t).compile().as_text()
    shapes = {tuple(map(int, dims.split(","))) for dims in re.findall(r"f32\[([\d,]+)\]", text)}
    assert max(np.prod(shape[1:]) for shape in shapes if shape[0] == 64) == sum(sizes)
