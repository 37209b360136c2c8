"""Rows that are taken several times around known places, and edits: plans, integers and enumerated laws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from d3pm_jax import sampling
from d3pm_jax.sampling import Denoiser, Known, PartWay, Row, Sampler, make_plan, named
from d3pm_jax.sampling.correctors import Corrected, Gibbs
from d3pm_jax.sampling.noise import DRAW
from d3pm_jax.sampling.plans import rows_of_edit
from d3pm_jax.sampling.transitions import Bayes, RemaskLoop
from tests.sampling import rules
from tests.sampling.cases import Case, make_process
from tests.sampling.rules import K, T
from tests.sampling.simulation import simulate
from tests.sampling.test_chains import laws_of
from tests.sampling.test_samplers import EXAMPLES, STREAMS, L, make_beliefs

TOLERANCE = 1e-12

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.filterwarnings("ignore:x_T still depends")]


# ---- Plans ----


def levels(plan):
    assert [row.number for row in plan] == list(range(len(plan), 0, -1))
    return [(row.t, row.s) for row in plan]


def test_a_plan_takes_each_row_so_many_times_with_ways_back_up_between():
    process = make_process("absorbing")
    twice = levels(make_plan(named.repaint(2), process, (L,)))
    assert twice[:4] == [(4, 3), (3, 4), (4, 3), (3, 2)]
    assert twice[-3:] == [(1, 0), (0, 1), (1, 0)]
    assert len(levels(make_plan(named.repaint(5), process, (L,)))) == T * (5 + 4)
    assert make_plan(named.repaint(1), process, (L,)) == make_plan(Sampler(), process, (L,))
    # A row that holds its level has nowhere to go back to; others go back by as many steps as they take.
    loop = Sampler(RemaskLoop(rows=4, alpha=0.55), passes=2)
    down = [(4, 3), (3, 4), (4, 3), (3, 2), (2, 3), (3, 2)]
    held = [*down, (2, 2), (2, 2), (2, 0), (0, 2), (2, 0)]
    assert levels(make_plan(loop, process, (L,))) == held


PLAN = make_plan(named.repaint(2), make_process("absorbing"), (L,))


@pytest.mark.parametrize(
    ("strength", "first"), [(1.0, (4, 3)), (0.7, (3, 2)), (0.6, (2, 1)), (0.25, (1, 0)), (1e-9, (1, 0))]
)
def test_an_edit_takes_the_rows_from_its_level_on(strength, first):
    rows = rows_of_edit(named.repaint(2), PLAN, strength, T)
    assert levels(rows)[0] == first
    assert rows == PLAN[len(PLAN) - len(rows) :]
    # All passes of the level are taken.
    assert sum((row.t, row.s) == first for row in rows) == 2


def test_an_edit_by_a_plan_that_skips_levels_begins_at_the_nearest():
    plan = (Row(3, 10, 7), Row(2, 7, 2), Row(1, 2, 0))
    lengths = [len(rows_of_edit(named.ddim(), plan, strength, 10)) for strength in (1.0, 0.9, 0.8, 0.5, 0.4)]
    assert lengths == [3, 3, 2, 2, 1]
    reveal = make_plan(named.random_order(), make_process("absorbing"), (L,))
    assert rows_of_edit(named.random_order(), reveal, 0.3, T) == reveal


def test_an_edit_by_a_plan_without_rows_says_so():
    with pytest.raises(ValueError, match="the plan has no rows that go down: pass what make_plan returns"):
        rows_of_edit(Sampler(), (), 0.5, T)


# ---- Integers ----


def test_what_failed_is_never_noised_into_a_category():
    """Of half of the examples the network says nothing in the first row, and of all something after it."""
    process = make_process("uniform")
    x = jnp.zeros((EXAMPLES, L), jnp.int32)
    u = np.random.default_rng(6).random((len(PLAN) + 1, EXAMPLES, L))
    fails = np.arange(EXAMPLES) % 2 == 0

    def network(x, t):
        says_nothing = jnp.asarray(fails) & (t == T)
        return jnp.where(says_nothing[:, None, None], jnp.nan, jnp.zeros((EXAMPLES, L, K)))

    def noise(row, stream):
        return jnp.asarray(u)[row]

    chain = sampling.run(Denoiser(process, network), x, noise, named.repaint(2))
    np.testing.assert_array_equal(chain.x0 < 0, np.repeat(fails[:, None], L, axis=1))
    assert chain.failed_at == len(PLAN)


def denoise_by(process, beliefs):
    """A denoiser that is a table by t and x_t."""

    def network(x, t):
        return jnp.log(beliefs)[t, x @ jnp.asarray(K ** np.arange(L)[::-1])]

    return Denoiser(process, network, "leave_one_out")


@functools.partial(jax.jit, static_argnames=("sampler", "strength"))
def run(process, sampler, beliefs, xT, u, x0, known, strength=None):
    """A chain with all of its states, or an edit; beliefs are a table by t and x_t."""
    denoiser = denoise_by(process, beliefs)
    known = Known(x0, known)

    def noise(row, stream):
        return u[row, stream]

    if strength is not None:
        plan = rows_of_edit(sampler, make_plan(sampler, process, (L,)), strength, T)
        xt = process.draw_q(x0, jnp.asarray(plan[0].t, jnp.int32), noise(0, DRAW))
        return sampling.run(denoiser, xt, noise, sampler, known=known, plan=plan)
    return sampling.run(denoiser, xT, noise, sampler, known=known, record=range(len(u)))


def draw_known(world, data=(0, 1)):
    rng = np.random.default_rng(7)
    x0 = rng.choice([k for k in data if k in world.data], (EXAMPLES, L))
    return x0, rng.random(x0.shape) < 0.4


NOISED = Sampler(Corrected(Gibbs()), passes=2, noises_known=True)


@pytest.mark.parametrize(
    ("name", "sampler"),
    [
        ("marginal", NOISED),
        *(
            pytest.param(name, sampler, marks=pytest.mark.slow)
            for name, sampler in (
                ("masked", NOISED),
                ("gaussian", NOISED),
                ("uniform", named.repaint(2)),
                ("gaussian", named.repaint(2)),
                ("absorbing", named.repaint(2, noises_known=True)),
            )
        ),
    ],
)
def test_known_places_are_clean_or_noised_to_the_level_of_each_row(name, sampler):
    world, process = rules.make_world(name), make_process(name)
    x0, known = draw_known(world)
    plan = make_plan(sampler, process, (L,))
    u = np.random.default_rng(8).random((len(plan) + 1, STREAMS, EXAMPLES, L))
    beliefs = make_beliefs(name)
    xT = rules.draw(np.broadcast_to(world.prior, (EXAMPLES, L, K)), u[0, 0])
    start = x0
    if sampler.noises_known:
        start = rules.draw_forward(world, world.Qbar[T], x0, u[0, 0])
    moves = None
    if isinstance(sampler.step, Corrected):
        moves = lambda w, p, x, t: rules.gibbs(w, p, t)  # noqa: E731
    case = Case(sampler, (name,), lambda w, p, x, t, s, m: rules.bayes(w, p, x, t), move=moves)
    expected = simulate(
        case,
        world,
        beliefs,
        np.where(known, start, xT),
        u,
        [plan[0].t, *(row.s for row in plan)],
        ~known,
        x0 if sampler.noises_known else None,
    )
    chain = run(process, sampler, *map(jnp.asarray, (beliefs, xT, u, x0, known)))
    for number, x in expected.states.items():
        np.testing.assert_array_equal(chain.states[number], x, err_msg=f"{number} rows left")
    np.testing.assert_array_equal(np.asarray(chain.x0)[known], x0[known])
    np.testing.assert_array_equal(chain.calls, expected.calls)
    assert chain.failed_at == 0


@pytest.mark.parametrize(
    ("name", "strength"),
    [
        ("masked", 0.5),
        *(pytest.param(*x, marks=pytest.mark.slow) for x in (("uniform", 0.75), ("masked", 1.0))),
    ],
)
def test_an_edit_is_the_end_of_a_chain_from_the_noised_example(name, strength):
    world, process = rules.make_world(name), make_process(name)
    x0, known = draw_known(world)
    u = np.random.default_rng(9).random((T + 1, STREAMS, EXAMPLES, L))
    beliefs = make_beliefs(name)
    level = round(strength * T)
    xt = rules.draw_forward(world, world.Qbar[level], x0, u[0, 0])
    case = Case(Sampler(), (name,), lambda w, p, x, t, s, m: rules.bayes(w, p, x, t))
    down = list(range(level, -1, -1))
    expected = simulate(case, world, beliefs, np.where(known, x0, xt), u, down, ~known)
    chain = run(process, Sampler(), *map(jnp.asarray, (beliefs, x0, u, x0, known)), strength=strength)
    np.testing.assert_array_equal(chain.x0, expected.states[0])
    np.testing.assert_array_equal(chain.calls, level)


@pytest.mark.slow
def test_an_edit_is_the_same_in_any_batch_and_by_places_that_are_revealed():
    """Of masks: as many calls as places were masked, and what was not masked stays."""
    process = make_process("absorbing")
    beliefs = jnp.asarray(make_beliefs("absorbing"))
    x0 = jnp.asarray(draw_known(rules.make_world("absorbing"))[0])

    @functools.partial(jax.jit, static_argnames="sampler")
    def draw(x0, first, sampler):
        denoiser = denoise_by(process, beliefs)
        start = PartWay(x0, strength=0.5)
        return sampling.sample(jax.random.key(2), denoiser, x0.shape, sampler, first=first, start=start)

    for sampler in (Sampler(), named.random_order()):
        together = draw(x0[:6], 0, sampler)
        alone = [draw(x0[i : i + 1], i, sampler).x0[0] for i in range(6)]
        np.testing.assert_array_equal(together.x0, alone)
        assert np.all(np.asarray(together.x0) < K - 1)
    # 1 - alpha_2 = .405: 2 of 5 places are masked.
    assert 0.3 < np.mean(np.asarray(draw(x0, 0, named.random_order()).calls)) / L < 0.5


# ---- Laws ----


def law_of_rows(name, p0, length):
    """p(x_{t-1} | x_t) of each place by the library, for the exact belief about p0: [T, n, length, K].

    A network of masks is told no time: what it knows at every t is what it knows where all states can be.
    """
    world = rules.make_world(name)
    states = rules.all_states(length)
    denoiser = rules.exact_beliefs(world, p0, length)[0][1:]
    if world.has_mask:
        denoiser = np.broadcast_to(denoiser[1], denoiser.shape)
    t = np.repeat(np.arange(1, T + 1), len(states))
    x = np.tile(states, (T, 1))
    with np.errstate(divide="ignore"):
        logits = np.log(denoiser.reshape(-1, length, K))
    law = laws_of(make_process(name), (Bayes(),), *map(jnp.asarray, (logits, x, t, t - 1)))[0]
    return np.asarray(law).reshape(T, len(states), length, K)


def law_of_chain(name, rows, length, passes=1, first=None, is_noised=False):
    """The law of x_0 by rows that are taken so many times, the first place known to be `first`, or not."""
    world = rules.make_world(name)
    states = rules.all_states(length)
    Q = np.asarray(make_process(name).Q(jnp.arange(T + 1)))

    def together(of_places, level):
        of_places = of_places.copy()
        if first is not None:
            of_places[:, 0] = world.Qbar[level if is_noised else 0][first]
        return np.prod(of_places[:, np.arange(length), states], axis=-1)

    x = together(np.broadcast_to(world.prior, (1, length, K)), T)[0]
    for t in range(T, 0, -1):
        down, up = together(rows[t - 1], t - 1), together(Q[t][states], t)
        for _ in range(passes - 1):
            x = x @ down @ up
        x = x @ down
    return x


def given_first(p0, first):
    """p(x | first place), of all places, and of all but the first."""
    by_place = p0.reshape(K, -1)
    rest = by_place[first] / by_place[first].sum()
    return np.concatenate([rest if k == first else np.zeros_like(rest) for k in range(K)]), rest


@pytest.mark.parametrize("name", ["absorbing", pytest.param("uniform", marks=pytest.mark.slow)])
def test_clamping_is_exact_for_masks_and_a_network_without_time(name):
    """A clamped chain draws the others as a chain of their own would, of their law given what is known."""
    p0 = rules.data_law(rules.make_world(name), 3)
    rows = law_of_rows(name, p0, 3)
    for first in (0, 1):
        _, others = given_first(p0, first)
        rows_of_others = law_of_rows(name, others, 2)
        for passes in (1, 3):
            clamped = law_of_chain(name, rows, 3, passes, first).reshape(K, -1)[first]
            alone = law_of_chain(name, rows_of_others, 2, passes)
            if name == "absorbing":
                np.testing.assert_allclose(clamped, alone, atol=TOLERANCE)
            else:
                assert np.abs(clamped - alone).sum() > 1e-2


@pytest.mark.parametrize("name", ["uniform", pytest.param("gaussian", marks=pytest.mark.slow)])
def test_passes_move_the_law_towards_the_conditional_one(name):
    """By total variation: the more passes the nearer, and clean places nearer than noised ones."""
    p0 = rules.data_law(rules.make_world(name), 3)
    rows = law_of_rows(name, p0, 3)

    def distance(passes, is_noised):
        total = 0.0
        for first in range(K):
            conditional, _ = given_first(p0, first)
            law = law_of_chain(name, rows, 3, passes, first, is_noised)
            total += np.abs(law - conditional).sum() / 2 / K
        return total

    clean = [distance(passes, is_noised=False) for passes in (1, 2, 5, 20)]
    noised = [distance(passes, is_noised=True) for passes in (1, 2, 5, 20)]
    assert np.all(np.diff(clean) < -1e-3)
    assert np.all(np.diff(noised) < -1e-3)
    assert np.all(np.less(clean, noised))
    assert clean[-1] < 0.9 * clean[0]
