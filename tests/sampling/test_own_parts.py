"""Steps, orders and guidance that a user writes: they draw the integers of their rules in NumPy."""

import dataclasses
import functools
import itertools
import re
import typing
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import sampling
from d3pm_jax.config.samplers import describe_sampler
from d3pm_jax.numerics import inverse_cdf
from d3pm_jax.sampling import (
    Denoiser,
    Known,
    LawStep,
    Row,
    Sampler,
    Step,
    Taken,
    make_plan,
    places,
    transitions,
)
from d3pm_jax.sampling.correctors import Corrected, Corrector, Gibbs
from d3pm_jax.sampling.network import Guided, call_network
from d3pm_jax.sampling.noise import DRAW, ORDER
from tests.sampling import rules
from tests.sampling.cases import Case, make_process
from tests.sampling.rules import MASK, K, T
from tests.sampling.simulation import simulate
from tests.sampling.test_samplers import EXAMPLES, STREAMS, L, make_beliefs

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.filterwarnings("ignore:x_T still depends")]

NAME = "marginal"


@dataclasses.dataclass(frozen=True)
class Once(LawStep):
    """Draws a place by Bayes' rule until it has changed, and then leaves it."""

    def start(self, view):
        return {"has_changed": jnp.zeros(view.x.shape, bool)}

    def law(self, view, answer):
        bayes = d3pm.p_logits(view.process, answer.logits, view.x, view.t, answer.belief)
        stays = jnp.log(jax.nn.one_hot(view.x, view.process.K, dtype=bayes.dtype))
        return jnp.where(view.memory["has_changed"][..., None], stays, bayes)

    def remember(self, view, answer, x):
        return {"has_changed": view.memory["has_changed"] | (x != view.x)}


@dataclasses.dataclass(frozen=True)
class Twice(Step):
    """Asks again at a first draw of x_s, and draws by Bayes' rule from the mean of both answers."""

    def draw(self, view):
        answer = view.ask(view.x, view.t)
        law = d3pm.p_logits(view.process, answer.logits_loo, view.x, view.t, "leave_one_out")
        first = view.hold(inverse_cdf.categorical(law, view.noise(ORDER)))
        again = view.ask(first, view.t)
        mean = jnp.logaddexp(answer.logits_loo, again.logits_loo)
        law = d3pm.p_logits(view.process, mean, view.x, view.t, "leave_one_out")
        return Taken(inverse_cdf.categorical(law, view.noise(DRAW)), view.memory, view.see(answer))

    def count_calls(self, plan):
        return 2 * len(plan)


@dataclasses.dataclass(frozen=True)
class AtEvenSteps(Step):
    """Draws by Bayes' rule at even t, and rests at odd t; a row counts its own calls."""

    def draw(self, view):
        calls = jnp.ones(len(view.x), jnp.int32)

        def move():
            answer = view.ask(view.x, view.t)
            law = d3pm.p_logits(view.process, answer.logits, view.x, view.t, answer.belief)
            x = inverse_cdf.categorical(law, view.noise(DRAW))
            return Taken(x, view.memory, view.see(answer), calls)

        def rest():
            return Taken(view.x, view.memory, view.see(None), 0 * calls)

        return jax.lax.cond(view.row.t % 2 == 0, move, rest)

    def count_calls(self, plan):
        return None


@dataclasses.dataclass(frozen=True)
class MiddleOut(places.Order):
    """Reveals places from the middle outwards, of two that are as near the first one first."""

    def score(self, candidates):
        size = candidates.masked.shape[-1]
        distance = jnp.abs(jnp.arange(size) - (size - 1) / 2)
        return jnp.broadcast_to(-distance, candidates.masked.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class Sharper(Guided):
    """Guides by p(x_s | x_t)^2, normalised."""

    network: object

    def beliefs(self, x, time):
        return [call_network(self.network, x, time)]

    def guide(self, log_laws, process, x, t, s):
        (log_law,) = log_laws
        return d3pm.log_normalize(2 * log_law)


@dataclasses.dataclass(frozen=True, eq=False)
class SharperX0(Sharper):
    """Guides what the network says of x_0 in the same way."""

    changes_law = False

    def beliefs(self, x, time):
        return [2 * logits for logits in super().beliefs(x, time)]


class Problem:
    """Holds what chains of a process are drawn from, and draws them by the library."""

    def __init__(self, name, rows=T):
        rng = np.random.default_rng(11)
        world = rules.make_world(name)
        self.world = world
        self.process = make_process(name)
        self.beliefs = make_beliefs(name)
        self.u = rng.random((rows + 1, STREAMS, EXAMPLES, L))
        self.x0 = rng.choice(world.data, (EXAMPLES, L))
        self.known = rng.random((EXAMPLES, L)) < 0.3
        prior = np.broadcast_to(world.prior, (EXAMPLES, L, K))
        self.xT = np.where(self.known, self.x0, rules.draw(prior, self.u[0, DRAW]))

    def run(self, sampler, guide=lambda network: network, watch=None):
        """The chain of the library, with the states of all rows."""
        plan = make_plan(sampler, self.process, (L,))

        @jax.jit
        def run(process, beliefs, xT, u, x0, known):
            def network(x, t):
                return jnp.log(beliefs)[t, x @ jnp.asarray(K ** np.arange(L)[::-1])]

            return sampling.run(
                Denoiser(process, guide(network), "leave_one_out"),
                xT,
                lambda row, stream: u[row, stream],
                sampler,
                known=Known(x0, known),
                plan=plan,
                record=range(len(plan), -1, -1),
                watch=watch,
            )

        arrays = (self.beliefs, self.xT, self.u, self.x0, self.known)
        return run(self.process, *map(jnp.asarray, arrays))

    def belief(self, x, t):
        """What the network says of x_t, [B, L, K]."""
        return self.beliefs[t, rules.number_of(x)]

    def simulate(self, draw, passes=1):
        """The states of all rows, T first; draw(x, t, u) draws x_s, and between passes x is noised."""
        states = [self.xT]
        for row in make_plan(Sampler(passes=passes), self.process, (L,)):
            u = self.u[row.number]
            if row.s > row.t:
                drawn = rules.draw_forward(self.world, self.world.Q[row.s], states[-1], u[DRAW])
            else:
                drawn = draw(states[-1], row.t, u)
            states.append(np.where(self.known, self.x0, drawn))
        return states


def power(p, exponent):
    return p**exponent / np.sum(p**exponent, axis=-1, keepdims=True)


def test_a_law_of_ones_own_draws_its_integers_with_what_it_remembers():
    problem = Problem(NAME)
    has_changed = np.zeros((EXAMPLES, L), bool)

    def draw(x, t, u):
        nonlocal has_changed
        law = rules.bayes(problem.world, problem.belief(x, t), x, t)
        # What is drawn where a place is known counts as drawn.
        drawn = np.where(has_changed, x, rules.draw(law, u[DRAW]))
        has_changed = has_changed | (drawn != x)
        return drawn

    chain = problem.run(Sampler(Once()))
    np.testing.assert_array_equal(chain.states, problem.simulate(draw))
    assert chain.calls.tolist() == [T] * EXAMPLES
    assert chain.failed_at == 0
    changes = np.sum(np.diff(chain.states, axis=0) != 0, axis=0)
    assert changes.max() == 1


def test_a_step_of_ones_own_may_ask_twice_and_be_watched():
    problem = Problem(NAME)

    def draw(x, t, u):
        said = problem.belief(x, t)
        first = rules.draw(rules.bayes(problem.world, said, x, t), u[ORDER])
        first = np.where(problem.known, problem.x0, first)
        mean = (said + problem.belief(first, t)) / 2
        return rules.draw(rules.bayes(problem.world, mean, x, t), u[DRAW])

    chain = problem.run(Sampler(Twice()), watch=lambda seen: (seen.x, seen.logits, seen.changed))
    states = problem.simulate(draw)
    np.testing.assert_array_equal(chain.states, states)
    assert chain.calls.tolist() == [2 * T] * EXAMPLES
    assert chain.program_calls == 2 * T

    x, logits, changed = map(np.asarray, chain.seen)
    np.testing.assert_array_equal(x, states[:-1])
    said = [problem.belief(x, t) for x, t in zip(states[:-1], range(T, 0, -1), strict=True)]
    np.testing.assert_allclose(np.exp(logits), said, rtol=1e-12)
    np.testing.assert_array_equal(changed, [a != b for a, b in itertools.pairwise(states)])


def test_a_step_of_ones_own_may_count_its_calls_between_ways_back_up():
    problem = Problem(NAME, rows=3 * T)

    def draw(x, t, u):
        if t % 2:
            return x
        return rules.draw(rules.bayes(problem.world, problem.belief(x, t), x, t), u[DRAW])

    chain = problem.run(Sampler(AtEvenSteps(), passes=2))
    np.testing.assert_array_equal(chain.states, problem.simulate(draw, passes=2))
    assert chain.calls.tolist() == [T] * EXAMPLES
    assert chain.program_calls == T


@pytest.mark.slow
def test_a_step_of_ones_own_counts_its_calls_by_the_rows_of_a_plan_that_goes_up():
    class ByFirstRow(Step):
        def draw(self, view):
            return Taken(view.x, view.memory)

        def count_calls(self, plan):
            return 2 * plan[0].t

    assert (draw(Sampler(ByFirstRow(), passes=2)).calls == 2 * T).all()


def test_a_law_of_ones_own_may_be_corrected_and_taken_in_blocks():
    """With a rule that is Bayes' the integers are those of the sampler that has it."""

    class Plain(LawStep):
        def law(self, view, answer):
            return d3pm.p_logits(view.process, answer.logits, view.x, view.t, answer.belief)

    for own, same in (
        (Sampler(Corrected(Gibbs(), Plain()), passes=2), Sampler(Corrected(Gibbs()), passes=2)),
        (Sampler(Plain(), block=1), Sampler(block=1)),
    ):
        problem = Problem("absorbing", rows=4 * T)
        chain, expected = problem.run(own), problem.run(same)
        np.testing.assert_array_equal(chain.states, expected.states)
        np.testing.assert_array_equal(chain.calls, expected.calls)


def test_a_step_that_masks_again_may_choose_by_itself():
    @dataclasses.dataclass(frozen=True)
    class Zero(transitions.Remask):
        def choose(self, view, answer):
            return jnp.zeros_like(view.x)

    chain = Problem("absorbing").run(Sampler(Zero()))
    problem = Problem("absorbing")
    np.testing.assert_array_equal(chain.states[-1], np.where(problem.known, problem.x0, 0))


def test_an_order_of_ones_own_reveals_places_from_the_middle_outwards():
    problem = Problem("absorbing", rows=L)
    from_middle = -np.abs(np.arange(L) - L // 2)
    case = Case(
        Sampler(places.Reveal(MiddleOut())),
        ("absorbing",),
        choose=lambda c: rules.first_of(from_middle, c.masked)[:1],
    )
    levels = list(range(L, -1, -1))
    expected = simulate(case, problem.world, problem.beliefs, problem.xT, problem.u, levels, ~problem.known)
    chain = problem.run(case.sampler)
    np.testing.assert_array_equal(chain.states, [expected.states[number] for number in levels])
    np.testing.assert_array_equal(chain.calls, expected.calls)

    # Of what was masked at first, the middle is known after a row, and what is left of it after two.
    all_masked = np.all(problem.xT == MASK, axis=1)
    masked = np.asarray(chain.states)[:, all_masked] == MASK
    of_rows = [[True, True, True], [True, False, True], [False, False, True], [False, False, False]]
    np.testing.assert_array_equal(masked, np.broadcast_to(np.array(of_rows)[:, None], masked.shape))


@pytest.mark.parametrize("step", [Sampler().step, Once()])
def test_guidance_of_ones_own_changes_the_law_of_x_s(step):
    problem = Problem(NAME)
    has_changed = np.zeros((EXAMPLES, L), bool)

    def draw(x, t, u):
        nonlocal has_changed
        law = power(rules.bayes(problem.world, problem.belief(x, t), x, t), 2)
        drawn = rules.draw(law, u[DRAW])
        if step == Once():
            drawn = np.where(has_changed, x, drawn)
        has_changed = has_changed | (drawn != x)
        return drawn

    chain = problem.run(Sampler(step), Sharper)
    np.testing.assert_array_equal(chain.states, problem.simulate(draw))
    assert chain.calls.tolist() == [T] * EXAMPLES


def test_guidance_of_ones_own_changes_what_is_said_of_x_0():
    problem = Problem(NAME)

    def draw(x, t, u):
        law = rules.bayes(problem.world, power(problem.belief(x, t), 2), x, t)
        return rules.draw(law, u[DRAW])

    # It is for steps that draw from no law of x_s too.
    chain = problem.run(Sampler(), SharperX0)
    np.testing.assert_array_equal(chain.states, problem.simulate(draw))


@pytest.mark.slow
def test_a_step_of_ones_own_may_be_steered():
    """By a score that is the same of all, which changes nothing."""
    denoiser = Denoiser(make_process(NAME), lambda x, t: jnp.log(jnp.asarray(make_beliefs(NAME)))[t, x[:, 0]])
    for step in (Twice(), Once()):
        with jax.debug_key_reuse(False):
            key = jax.random.key(3)
            plain = sampling.sample(key, denoiser, (6, L), Sampler(step))
            steered = sampling.steer(key, lambda x: jnp.zeros(len(x)), 3, denoiser, (2, L), Sampler(step))
        np.testing.assert_array_equal(steered.particles, plain.x0.reshape(2, 3, L))
        np.testing.assert_array_equal(steered.calls, 3 * plain.calls[:2])


# ---- What parts of one's own refuse ----


@functools.cache
def unsure(name):
    return Denoiser(make_process(name), lambda x, t: jnp.zeros((*x.shape, K)))


def draw(sampler, name=NAME, **arguments):
    return sampling.sample(jax.random.key(0), unsure(name), (2, L), sampler, **arguments)


def test_parts_of_ones_own_say_what_they_cannot_do():
    guided = Denoiser(make_process(NAME), Sharper(unsure(NAME).network))
    with pytest.raises(ValueError, match="Twice draws from none: guide x_0, or leave it out"):
        sampling.sample(jax.random.key(0), guided, (2, L), Sampler(Twice()))
    with pytest.raises(ValueError, match="Once takes one step at a time: respace the process"):
        draw(Sampler(Once()), plan=[Row(2, T, 1), Row(1, 1, 0)])
    with pytest.raises(ValueError, match=r"Threshold counts probabilities, but the order is MiddleOut\(\)"):
        places.Reveal(MiddleOut(), places.Threshold())
    with pytest.raises(ValueError, match="needs an absorbing process"):
        draw(Sampler(places.Reveal(MiddleOut())))
    with pytest.raises(TypeError, match="abstract"):
        LawStep()  # pyright: ignore[reportAbstractUsage]


def test_parts_of_ones_own_are_described():
    assert describe_sampler(Sampler(Once())) == "step = Once()"
    order = describe_sampler(Sampler(places.Reveal(MiddleOut())))
    assert order == "step = Reveal(order=MiddleOut(), count=One())"


def test_a_step_that_fails_is_noticed():
    class Broken(LawStep):
        def law(self, view, answer):
            law = d3pm.p_logits(view.process, answer.logits, view.x, view.t, answer.belief)
            return jnp.where((view.s == 1)[:, None, None], jnp.nan, law)

    chain = draw(Sampler(Broken()))
    assert chain.failed_at == 2


def returns(base, method, result, **fields):
    """An instance of a class of the user's own, with a method that returns this."""
    members = {method: lambda self, *arguments: result, **fields}
    return type(f"My{base.__name__}", (base,), members)()


WRONG = {
    f"MyStep.draw returns int32 [2, {L}]: return Taken(x, view.memory)": (
        NAME,
        lambda: returns(Step, "draw", jnp.zeros((2, L), jnp.int32)),
    ),
    f"MyStep.draw returns int32 [2]: return integers [2, {L}]": (
        NAME,
        lambda: returns(Step, "draw", Taken(jnp.zeros(2, jnp.int32), {})),
    ),
    f"MyLawStep.law returns float64 [2, {L}, 2]: return floats [2, {L}, {K}]": (
        NAME,
        lambda: returns(LawStep, "law", jnp.zeros((2, L, 2))),
    ),
    f"MyOrder.score returns float64 [{L}]: return floats [2, {L}]": (
        "absorbing",
        lambda: places.Reveal(returns(places.Order, "score", jnp.zeros(L))),
    ),
    "MyCount.count returns int: return integers [2]": (
        "absorbing",
        lambda: places.Reveal(count=returns(places.Count, "count", 2)),
    ),
    "MyCount.count returns float64 [2]: return integers [2]": (
        "absorbing",
        lambda: places.Reveal(count=returns(places.Count, "count", jnp.full(2, 2.5))),
    ),
    f"MyRevealing.choose returns bool [{L}]: return booleans [2, {L}]": (
        "absorbing",
        lambda: returns(places.Revealing, "choose", jnp.ones(L, bool), num_rows=lambda self, places: places),
    ),
    f"MySigma.sigma returns float64 [2]: return floats [2, {L}]": (
        "absorbing",
        lambda: transitions.Remask(returns(transitions.Sigma, "sigma", jnp.zeros(2))),
    ),
    f"MyCorrector.move returns float64 [2, {L}]: return integers [2, {L}]": (
        NAME,
        lambda: Corrected(returns(Corrector, "move", jnp.zeros((2, L)), moves=1)),
    ),
    # Between the rows of passes the step is one branch of two.
    "MyStep.draw returns None: return Taken(x, view.memory)": (
        NAME,
        lambda: returns(Step, "draw", None),
    ),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_parts_of_ones_own_return_is_checked(message):
    name, make_step = WRONG[message]
    step = make_step()
    with pytest.raises(TypeError, match=re.escape(message)):
        draw(Sampler(step), name)
    if not step.goes_by_masks:
        # Between the rows of passes a step is one branch of two.
        with pytest.raises(TypeError, match=re.escape(message)):
            draw(Sampler(step, passes=2), name)


def test_what_guidance_of_ones_own_returns_is_checked():
    logits = jnp.zeros((2, L, K))
    two = returns(Guided, "beliefs", [logits, logits])
    wrong = returns(Guided, "guide", logits[..., :2], beliefs=lambda self, x, time: [logits])
    messages = {
        "MyGuided.beliefs returned 2 logits, and num_laws is 1: set num_laws = 2": two,
        f"MyGuided.guide returns float64 [2, {L}, 2]: return floats [2, {L}, {K}]": wrong,
    }
    for message, guided in messages.items():
        with pytest.raises((TypeError, ValueError), match=re.escape(message)):
            sampling.sample(jax.random.key(0), Denoiser(make_process(NAME), guided), (2, L))


@dataclasses.dataclass(frozen=True)
class OfManyFields(LawStep):
    """Has fields of types that the library does not check."""

    weights: jax.Array
    arrays: tuple[jax.Array, ...]
    rows: tuple[Row, ...]
    table: np.ndarray
    share: int | float
    order: str | places.Order
    power: Literal[1, 2]
    bound: float
    steps: typing.Sequence  # pyright: ignore
    dtype: np.dtype
    later: int = dataclasses.field(init=False)
    moves: int = 1

    def law(self, view, answer):
        raise NotImplementedError


def test_fields_of_a_users_step_are_what_they_were_given():
    x = jnp.arange(3)
    row = Row(1, 1, 0)
    step = OfManyFields(
        x, (x,), (row,), np.arange(3), 0.5, places.One, 1, np.inf, [row], np.float32, moves=np.int64(2)
    )
    assert step.weights is x
    assert step.arrays[0] is x
    assert step.rows[0].t == 1
    assert step.table.dtype == int
    assert (step.share, step.order, step.power, step.bound) == (0.5, places.One, 1, np.inf)
    assert (step.steps, step.dtype) == ([row], np.float32)
    assert type(step.moves) is int  # a number of Python, which can be hashed and saved


def test_masks_that_no_row_reveals_are_noticed():
    """By a count that says that there are fewer rows than there need to be, unless one place is known."""
    few = returns(places.Count, "count", jnp.ones(2, jnp.int32), num_rows=lambda self, places: places - 1)
    none = returns(places.Count, "count", jnp.zeros(2, jnp.int32))
    chain = draw(Sampler(places.Reveal(count=few)), "absorbing")
    assert chain.failed_at == 1
    np.testing.assert_array_equal((chain.x0 < 0).sum(1), 1)
    known = Known(jnp.zeros((2, L), jnp.int32), jnp.broadcast_to(jnp.arange(L) < 1, (2, L)))
    chain = draw(Sampler(places.Reveal(count=few)), "absorbing", known=known)
    assert chain.failed_at == 0
    assert (chain.x0 >= 0).all()

    # Of an edit the places that it masked.
    start = sampling.PartWay(jnp.zeros((2, L), jnp.int32), 0.5)
    edited = draw(Sampler(places.Reveal()), "absorbing", start=start, record=[L]).states[0] == MASK
    chain = draw(Sampler(places.Reveal(count=none)), "absorbing", start=start)
    assert edited.any()
    np.testing.assert_array_equal(chain.x0, jnp.where(edited, -1, 0))

    # In each block by itself.
    chain = draw(Sampler(places.Reveal(count=none), block=1), "absorbing")
    assert chain.failed_at == L
    assert (chain.x0 == -1).all()


def test_a_place_that_is_no_mask_is_not_revealed_again():
    every = returns(places.Revealing, "choose", jnp.ones((2, L), bool), num_rows=lambda self, places: 2)
    chain = draw(Sampler(every), "absorbing", record=[1, 0])
    np.testing.assert_array_equal(chain.states[0], chain.states[1])
