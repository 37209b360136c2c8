"""Weighted sums of losses without an array of logits, against the same sums of logits in memory."""

import dataclasses
import json
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

import d3pm_jax as d3pm
from d3pm_jax import losses, projection
from d3pm_jax.losses import continuous, score_entropy
from d3pm_jax.numerics import log_prob
from d3pm_jax.schedules.continuous import linear
from tests.forked import Fork
from tests.losses import projected_meshes

K = 7
WIDTH = 5
B, L = 3, 5
S = (B, L)
T = 8
UNIFORM = d3pm.uniform(d3pm.reciprocal(T), K)
ABSORBING = d3pm.absorbing(d3pm.reciprocal(T), K, K - 1)
MASK_ON_TOP = d3pm.masked(d3pm.uniform(d3pm.reciprocal(T), K - 1), d3pm.reciprocal(T))
DENSE = d3pm.dense([*np.tile(np.eye(K) / 2 + 0.5 / K, (T - 1, 1, 1)), np.full((K, K), 1 / K)])


def forbidden(output, xt):
    return d3pm.forbid(d3pm.residual(output, xt), K - 1)


def scores(output, xt):
    return d3pm.heads.absorbing_log_scores(output, xt)


def of_time(nelbo, process, logits, x0, xt, t):
    return nelbo(linear, logits, x0, xt, t / T)


def hybrid(belief, process, logits, x0, xt, t):
    return losses.hybrid(process, logits, x0, xt, t, 0.1, belief)


ABSORBING_NELBO = partial(of_time, partial(continuous.absorbing_nelbo, mask_id=K - 1))
SCORE_ENTROPY = partial(of_time, partial(score_entropy.absorbing_score_entropy, mask_id=K - 1))
# The process, what its head makes of the output, and the loss.
CASES = {
    "absorbing, real times": (ABSORBING, forbidden, ABSORBING_NELBO),
    "cross entropy": (ABSORBING, forbidden, lambda p, logits, x0, xt, t: losses.cross_entropy(p, logits, x0)),
    "uniform, denoiser": (UNIFORM, d3pm.residual, partial(hybrid, "denoiser")),
    "mask on top, leave_one_out": (MASK_ON_TOP, d3pm.residual, partial(hybrid, "leave_one_out")),
}
MORE_CASES = {
    "absorbing": (ABSORBING, forbidden, partial(hybrid, "leave_one_out")),
    "scores": (ABSORBING, scores, SCORE_ENTROPY),
    "uniform, real times": (UNIFORM, d3pm.residual, partial(of_time, continuous.uniform_nelbo)),
    "dense": (DENSE, d3pm.residual, partial(hybrid, "d3pm")),
    **{
        f"uniform, {belief}": (UNIFORM, d3pm.residual, partial(hybrid, belief))
        for belief in ("d3pm", "official", "leave_one_out")
    },
    **{
        f"mask on top, {belief}": (MASK_ON_TOP, d3pm.residual, partial(hybrid, belief))
        for belief in ("d3pm", "denoiser")
    },
}


@pytest.fixture(autouse=True)
def few_places(monkeypatch):
    """Four rounds of four of the fifteen places, the last of which is not full."""
    monkeypatch.setattr(projection, "PLACES_ON_CPU", 4)
    monkeypatch.setattr(projection, "CATEGORIES_ON_CPU", 3)


def make_inputs(process, dtype=jnp.float64):
    rng = np.random.default_rng(0)
    x0 = jnp.asarray(rng.integers(0, K - 1, S), jnp.int32)
    t = jnp.asarray([1, 4, 7], jnp.int32)
    xt = d3pm.q_sample(process, x0, t, jnp.asarray(rng.random(S), jnp.float32))
    floats = (rng.normal(size=shape) for shape in ((*S, WIDTH), (WIDTH, K), (K,), S))
    hidden, kernel, bias, normal = (jnp.asarray(x, dtype) for x in floats)
    weight = jnp.where(normal > 0.5, 0.0, normal**2)
    return (hidden, kernel, bias), (x0, xt, t), weight


def sum_plain(process, finish, loss, parts, rows, weight):
    hidden, kernel, bias = parts
    values = loss(process, finish(hidden @ kernel + bias.reshape(1, 1, K), rows[1]), *rows)
    first = jax.tree.leaves(values)[0]
    return jnp.sum(jnp.where(weight > 0, weight * first, 0.0)), values


def sum_projected(process, finish, loss, tied, parts, rows, weight):
    hidden, kernel, bias = parts
    kernel = kernel.T if tied else kernel
    logits = projection.Projection(hidden, kernel, bias, rows[1], finish, tied)
    return losses.projected(process, loss, logits, rows, weight)


def check_cases(cases, tied):
    def compute_all():
        outputs = {}
        for name, (process, finish, loss) in cases.items():
            parts, rows, weight = make_inputs(process)
            plain = jax.value_and_grad(partial(sum_plain, process, finish, loss), has_aux=True)
            mine = jax.value_and_grad(partial(sum_projected, process, finish, loss, tied), has_aux=True)
            (total, values), gradients = plain(parts, rows, weight)
            values = jax.tree.map(lambda x, w=weight: jnp.where(w > 0, x, 0.0), values)
            outputs[name] = ((total, values), gradients), mine(parts, rows, weight)
        return outputs

    with jax.enable_x64(True):
        outputs = jax.jit(compute_all)()
    for case, (expected, found) in outputs.items():
        for x, y in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
            assert np.isfinite(x).all(), case
            assert np.abs(x).max() > 0, case
            np.testing.assert_allclose(y, x, rtol=1e-11, atol=1e-13, err_msg=str(case))


def test_sums_values_and_gradients_are_those_of_logits_in_memory():
    """In float64 and with weights of 0, of one process of each kind."""
    check_cases(CASES, tied=False)


def test_an_embedding_takes_the_place_of_a_kernel():
    check_cases({"cross entropy": CASES["cross entropy"]}, tied=True)


@pytest.mark.slow
@pytest.mark.parametrize("tied", [False, True])
def test_so_are_those_of_all_families_and_beliefs(tied):
    check_cases(CASES | MORE_CASES, tied)


def make_sum(which):
    (hidden, kernel, bias), (x0, _, _), weight = make_inputs(ABSORBING, jnp.float32)

    def sum_of(kernel):
        logits = projection.Projection(hidden, kernel, bias, x0, lambda output, xt: output)
        total, values = losses.projected(ABSORBING, losses.cross_entropy, logits, (x0,), weight)
        return {"total": total, "values": values.sum(), "both": total + 0.0 * values[0, 0]}[which]

    return sum_of, kernel


def test_a_cotangent_of_each_place_is_an_error():
    """By itself, beside that of the sum, and where the program is compiled or looped."""

    def looped(f):
        return lambda x: jax.lax.scan(lambda carry, _: (carry + f(x), None), 0.0, None, length=2)[0]

    for which in ("values", "both"):
        sum_of, kernel = make_sum(which)
        message = "their weighted sum has one: give each place its weight"
        with pytest.raises(ValueError, match=message):
            jax.grad(sum_of)(kernel)
        for wrap in (jax.jit, looped, jax.checkpoint):
            with pytest.raises(ValueError, match=message):
                jax.eval_shape(jax.grad(wrap(sum_of)), kernel)


def test_the_sum_has_its_gradient_under_transformations():
    sum_of, kernel = make_sum("total")
    expected = jax.grad(sum_of)(kernel)

    def looped(x):
        return jax.lax.scan(lambda carry, _: (carry + sum_of(x), None), 0.0, None, length=3)[0]

    np.testing.assert_allclose(jax.jit(jax.grad(looped))(kernel), 3 * expected, rtol=1e-5)
    np.testing.assert_allclose(jax.grad(jax.checkpoint(sum_of))(kernel), expected, rtol=1e-6)
    of_each = jax.vmap(jax.grad(sum_of))(jnp.stack([kernel, 2 * kernel]))
    np.testing.assert_allclose(of_each[0], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(of_each[1], jax.grad(sum_of)(2 * kernel), rtol=1e-5, atol=1e-6)


def test_places_without_weight_are_not_visited():
    """Rounds are counted: four of four places each where all have weight, one where four have."""
    (hidden, kernel, bias), (x0, _, _), _ = make_inputs(ABSORBING, jnp.float32)
    rounds = []

    def finish(output, xt):
        jax.debug.callback(lambda: rounds.append(len(output)))
        return output

    for weighted, expected in ((B * L, 4), (4, 1), (5, 2), (1, 1)):
        rounds.clear()
        weight = (jnp.arange(B * L)[::-1] < weighted).astype(jnp.float32).reshape(S)
        logits = projection.Projection(hidden, kernel, bias, x0, finish)
        losses.projected(ABSORBING, losses.cross_entropy, logits, (x0,), weight)
        jax.effects_barrier()
        assert rounds == [4] * expected


def test_no_array_of_logits_is_in_memory(monkeypatch):
    """Of 50,257 categories and 4 x 1,024 places: compiled, and looked for in all of the program."""
    monkeypatch.undo()
    large, places, width = 50_257, (4, 1024), 768
    process = d3pm.absorbing(d3pm.reciprocal(1000), large, large - 1)

    def finish(output, xt):
        return d3pm.forbid(d3pm.residual(output, xt), large - 1)

    def loss(hidden, kernel, x0, xt, t, weight):
        logits = projection.Projection(hidden, kernel, None, xt, finish)
        return losses.projected(process, losses.posterior_kl, logits, (x0, xt, t), weight).total

    floats = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((*places, width), (width, large), places)]
    integers = [jax.ShapeDtypeStruct(s, jnp.int32) for s in (places, places, (4,))]
    hidden, kernel, weight = floats
    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(hidden, kernel, *integers, weight).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 150e6
    assert "4096,50257" not in compiled.as_text()
    assert "1024,50257" not in compiled.as_text()


def test_what_cannot_be_summed_is_refused_in_a_line():
    (hidden, kernel, bias), (x0, xt, t), weight = make_inputs(ABSORBING, jnp.float32)

    def sum_of(process=ABSORBING, loss=losses.posterior_kl, rows=(x0, xt, t), weight=weight, **changes):
        parts = {"hidden": hidden, "kernel": kernel, "bias": bias, "xt": xt, "finish": forbidden} | changes
        return losses.projected(process, loss, projection.Projection(**parts), rows, weight)

    other = d3pm.absorbing(d3pm.reciprocal(T), K + 1, K)
    wrong = {
        "weight is 0 at all places": {"weight": 0 * weight},
        "weight contains -": {"weight": weight.at[0, 0].set(-1)},
        "weight contains nan": {"weight": weight.at[0, 0].set(jnp.nan)},
        "weight has shape": {"weight": weight[:1]},
        "the process has K = 8: make one of the other's": {"process": other},
        "pass floats [3, 5, 5]": {"hidden": hidden[..., 1:]},
        "the kernel is float32 [35]: pass floats [width, K]": {"kernel": kernel.reshape(-1)},
        "hidden is int32 [3, 5, 5]": {"hidden": hidden.astype(jnp.int32)},
        "hidden is None": {"hidden": None},
        "bias is float32 [6]": {"bias": bias[1:]},
        "rows hold an array of shape": {"rows": (x0, xt[:, 1:], t)},
    }
    for message, arguments in wrong.items():
        with pytest.raises(ValueError, match=re.escape(message)) as error:
            sum_of(**arguments)
        assert "\n" not in str(error.value), message
    with pytest.raises(TypeError, match=r"loss returns float32 \[\] for 4 places: return nats of each"):
        sum_of(loss=lambda process, logits, *rows: logits.sum())
    with pytest.raises(TypeError, match="loss returns dict for 4 places"):
        sum_of(loss=lambda process, logits, *rows: {"loss": logits[:, 0], "ce": logits[:, 1]})
    with pytest.raises(TypeError, match=r"projection is .* expected a Projection"):
        losses.projected(ABSORBING, losses.posterior_kl, hidden @ kernel, (x0, xt, t), weight)
    with pytest.raises(ValueError, match=r"get no gradient here: pass them through jax.lax.stop_gradient"):
        jax.grad(lambda weight: sum_of(weight=weight).total)(weight)

    # Under `jit` they are NaN.
    for bad in (0 * weight, weight.at[0, 0].set(-1), weight.at[0, 0].set(jnp.nan)):
        total, gradient = jax.jit(jax.value_and_grad(lambda h, w: sum_of(hidden=h, weight=w).total))(
            hidden, bad
        )
        assert np.isnan(total)
        assert np.isnan(gradient).any()


def test_categories_out_of_range_are_nan_and_infinite_losses_have_no_direction():
    (hidden, kernel, bias), (x0, xt, t), _ = make_inputs(ABSORBING, jnp.float32)
    weight = jnp.ones(S)
    logits = projection.Projection(hidden, kernel, bias, xt, forbidden)
    _, values = losses.projected(ABSORBING, losses.posterior_kl, logits, (x0.at[0, 0].set(K), xt, t), weight)
    assert np.isnan(values[0, 0])
    assert np.isfinite(values[1:]).all()

    def total(hidden):
        logits = projection.Projection(hidden, kernel, bias, xt, forbidden)
        masks = jnp.full_like(x0, K - 1)  # which the head rules out
        return losses.projected(ABSORBING, losses.cross_entropy, logits, (masks,), weight).total

    value, gradient = jax.value_and_grad(total)(hidden)
    assert value == np.inf
    np.testing.assert_array_equal(np.isnan(gradient), False)


def test_bfloat16_parts_are_summed_in_float32():
    (hidden, kernel, bias), (x0, _, _), weight = make_inputs(ABSORBING, jnp.float32)
    parts = tuple(x.astype(jnp.bfloat16) for x in (hidden, kernel, bias))
    wide = tuple(x.astype(jnp.float32) for x in parts)

    def total(parts):
        logits = projection.Projection(*parts, x0, lambda output, xt: output.astype(jnp.float32))
        return losses.projected(ABSORBING, losses.cross_entropy, logits, (x0,), weight).total

    gradient = jax.grad(total)(parts)
    expected = jax.grad(total)(wide)
    for x, y in zip(gradient, expected, strict=True):
        assert x.dtype == jnp.bfloat16
        np.testing.assert_allclose(x.astype(jnp.float32), y, rtol=0.01, atol=0.005)


def test_functions_of_either_give_the_same():
    (hidden, kernel, bias), (x0, xt, t), _ = make_inputs(ABSORBING, jnp.float32)
    lazy = projection.Projection(hidden, kernel, bias, xt, forbidden)
    logits = forbidden(hidden @ kernel + bias.reshape(1, 1, K), xt)
    assert lazy.shape == logits.shape
    np.testing.assert_array_equal(projection.all_logits(lazy[:, 1:3]), logits[:, 1:3])
    for index in ((slice(None), slice(None), slice(3)), (..., slice(3))):
        with pytest.raises(IndexError, match="may be of categories"):
            lazy[index]
    np.testing.assert_array_equal(projection.all_logits(lazy), logits)
    places = jnp.asarray([[0, 4], [3, 3], [2, 1]])
    expected = jnp.take_along_axis(logits, places[..., None], axis=1)
    np.testing.assert_allclose(projection.at_places(lazy, places), expected, rtol=1e-6)
    np.testing.assert_array_equal(projection.at_places(logits, places), expected)

    def cost(logits, x0, tree):
        return {"ce": -log_prob(logits, x0), "t": tree["t"]}

    found = projection.by_rows(lazy, cost, x0, {"t": t})
    np.testing.assert_allclose(found["ce"], cost(logits, x0, {"t": t})["ce"], rtol=1e-5)
    np.testing.assert_array_equal(found["t"], jnp.broadcast_to(t[:, None], S))
    with pytest.raises(ValueError, match="values of places have no gradient"):
        jax.grad(
            lambda kernel: projection.by_rows(dataclasses.replace(lazy, kernel=kernel), cost, x0, {"t": t})[
                "ce"
            ].sum()
        )(kernel)


@pytest.mark.parametrize("categories", [None, "fsdp"])
def test_two_devices_make_the_same(categories):
    """Each with half of the places, or of all places half of the categories."""
    data = 2 if categories is None else 1
    assert projected_meshes.measure(2, data, False, categories) < 5e-6


def test_so_does_a_shard_map_of_ones_own():
    """Of the sum outside of it, and of each device inside: a kernel that they share gets all gradients."""
    process, (hidden, kernel, bias), rows, weight = projected_meshes.make_inputs()

    def total(kernel, hidden, weight, *rows):
        logits = projection.Projection(hidden, kernel, bias, rows[1], projected_meshes.finish)
        return losses.projected(process, losses.posterior_kl, logits, rows, weight).total

    def add_up(*arguments):
        return jax.lax.psum(total(*arguments), "devices")

    mesh = Mesh(np.array(jax.devices()[:2]), ("devices",))
    spread = partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(PartitionSpec(), *[PartitionSpec("devices")] * 5),
        out_specs=PartitionSpec(),
    )
    arguments = (kernel, hidden, weight, *rows)
    expected = jax.jit(jax.grad(total))(*arguments)
    for f in (jax.grad(spread(add_up)), spread(jax.grad(total))):
        np.testing.assert_allclose(jax.jit(f)(*arguments), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_so_do_four_in_every_layout(tmp_path):
    process = Fork(tmp_path, projected_meshes.main, JAX_NUM_CPU_DEVICES=4)
    output, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors
    measured = json.loads(output)
    assert len(measured) == 12
    for *case, apart in measured:
        assert apart < 5e-6, case


@pytest.mark.parametrize("places", [0, 3])
def test_any_number_of_places_is_summed(places):
    """None at all, and so many that devices would get unequal parts."""
    (hidden, kernel, bias), (x0, _, _), _ = make_inputs(ABSORBING, jnp.float32)
    mesh = Mesh(np.array(jax.devices()[:2]).reshape(2, 1), projected_meshes.AXES)
    spread = projection.Spread(mesh, projected_meshes.AXES)

    def cost(logits, x0):
        return -log_prob(logits, x0)

    for lies in (None, spread):
        logits = projection.Projection(
            hidden[:1, :places], kernel, bias, x0[:1, :places], forbidden, spread=lies
        )
        costs = projection.by_rows(logits, cost, logits.xt)
        expected = cost(projection.all_logits(logits), logits.xt)
        np.testing.assert_allclose(costs, expected, rtol=1e-5)
        total, values = projection.weigh(logits, cost, (logits.xt,), None)
        np.testing.assert_allclose(values, expected, rtol=1e-5)
        np.testing.assert_allclose(total, expected.sum(), rtol=1e-5)
