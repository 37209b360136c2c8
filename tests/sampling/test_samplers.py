"""Samplers as a loop: the same integers as the rules in NumPy, from the same noise."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import sampling
from d3pm_jax.processes import Process
from d3pm_jax.sampling import Chain, Denoiser, Row, Sampler, Shaping, make_plan, named
from d3pm_jax.sampling.places import ByMasks
from d3pm_jax.sampling.transitions import Cap, Keep, Mixture, Remask, Stratified
from tests.sampling import rules
from tests.sampling.cases import ALL, CASES, make_process
from tests.sampling.rules import K, T
from tests.sampling.simulation import simulate
from tests.sampling.views import make_view

L = 3
EXAMPLES = 60
STREAMS = 8

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.filterwarnings("ignore:x_T still depends")]


def test_every_sampler_has_its_row_in_the_table_of_tests():
    assert CASES.keys() == named.SAMPLERS.keys()


@functools.cache
def make_beliefs(name: str) -> np.ndarray:
    """Random leave-one-out beliefs by t and x_t, [T + 1, K^L, L, K]."""
    rng = np.random.default_rng(4)
    world = rules.make_world(name)
    beliefs = rng.dirichlet(np.ones(world.K), (T + 1, world.K**L, L)) * world.is_data
    return beliefs / beliefs.sum(-1, keepdims=True)


@functools.partial(jax.jit, static_argnames=("sampler", "plan", "belief"))
def run(process, sampler, plan, belief, logits, xT, u):
    """A chain with all of its states; logits are a table by t and x_t."""

    def network(x, t):
        powers = jnp.asarray(process.K ** np.arange(L)[::-1])
        return logits[t, x @ powers]

    denoiser = Denoiser(process, network, belief)
    record = range(len(u))
    return sampling.run(denoiser, xT, lambda row, stream: u[row, stream], sampler, plan=plan, record=record)


# Of 4 rows 45% are 2, and 5% are at least 1. alpha is .85, .595, .2975, 0: at t = 2 it is nearest to .55.
LOOP = [4, 3, 2, 2, 0]


def levels_of(name: str) -> list[int]:
    """The levels of the plan of a sampler, by what its paper says."""
    step = CASES[name].sampler.step
    if isinstance(step, ByMasks):
        rows = step.num_rows(L)
        return list(range(rows, -1, -1))
    if name == "remdm_loop":
        return LOOP
    if name == "repaint":
        return [4, 3, 4, 3, 2, 3, 2, 1, 2, 1, 0, 1, 0]
    return list(range(T, -1, -1))


FAST = [("absorbing", "remdm_confidence"), ("absorbing by place", "maskgit")]
REMEMBER = ("remdm_confidence", "stratified")


def is_only_a_law(name: str) -> bool:
    """Whether a sampler draws each row from a law, and does and remembers nothing else."""
    return CASES[name].law is not None and CASES[name].move is None and name not in REMEMBER


# Laws of rows are compared for every process and belief (test_laws.py): the loop, for one, and correctors for
# all kinds.
PAIRS = [(CASES[name].names[-1], name) for name in CASES]
PAIRS += [
    ("uniform", "gibbs"),
    ("masked", "gibbs"),
    ("uniform", "predictor_corrector"),
    ("absorbing", "stratified"),
    *((name, "repaint") for name in ("uniform", "marginal", "absorbing", "masked")),
    *(
        (CASES[name].names[-1] + rules.BY_PLACE, name)
        for name in CASES
        if CASES[name].names != ALL and not is_only_a_law(name)
    ),
    *(("masked by place", name) for name in CASES if CASES[name].names == ALL),
    ("marginal by place", "gibbs"),
]


class Problem(NamedTuple):
    """Holds what a chain is drawn from."""

    process: Process
    plan: tuple[Row, ...]
    beliefs: np.ndarray  # [T + 1, K^L, L, K]
    xT: np.ndarray  # [B, L]
    u: np.ndarray  # [rows + 1, streams, B, L]


def make_problem(process_name: str, name: str) -> Problem:
    case = CASES[name]
    process = make_process(process_name)
    plan = make_plan(case.sampler, process, (L,))
    rng = np.random.default_rng(5)
    u = rng.random((len(plan) + 1, STREAMS, EXAMPLES, L))
    world = rules.make_world(process_name)
    xT = rules.draw(np.broadcast_to(world.prior, (EXAMPLES, L, world.K)), u[0, 0])
    if case.goes_by_masks:
        # Places that are not masked at the start are none to reveal, and none to count.
        xT = np.where(rng.random(xT.shape) < 0.7, xT, rng.integers(0, 2, xT.shape))
    return Problem(process, plan, make_beliefs(process_name), xT, u)


def run_problem(name: str, problem: Problem, logits: np.ndarray, belief: str = "leave_one_out") -> Chain:
    return run(
        problem.process,
        CASES[name].sampler,
        problem.plan,
        belief,
        *map(jnp.asarray, (logits, problem.xT, problem.u)),
    )


EVERY_PAIR = pytest.mark.parametrize(
    ("process_name", "name"),
    [pytest.param(*pair, marks=[] if pair in FAST else pytest.mark.slow) for pair in PAIRS],
)


def check_chain(process_name, name, belief):
    """Compares the chain of a sampler with its rules in NumPy, integer by integer."""
    problem = make_problem(process_name, name)
    world = rules.make_world(process_name)
    levels = levels_of(name)
    expected = simulate(CASES[name], world, problem.beliefs, problem.xT, problem.u, levels, belief=belief)
    with np.errstate(divide="ignore"):
        chain = run_problem(name, problem, np.log(problem.beliefs), belief)
    for number, x in expected.states.items():
        np.testing.assert_array_equal(chain.states[number], x, err_msg=f"{number} rows left")
    np.testing.assert_array_equal(chain.x0, expected.states[0])
    np.testing.assert_array_equal(chain.calls, expected.calls)
    assert chain.failed_at == 0
    assert chain.program_calls == (expected.program_calls or chain.calls.max())


@EVERY_PAIR
def test_a_chain_draws_the_integers_of_the_rules(process_name, name):
    check_chain(process_name, name, "leave_one_out")


OF_BELIEFS = [("absorbing", name) for name in CASES if not is_only_a_law(name)]
OF_BELIEFS += [("banded", name) for process_name, name in OF_BELIEFS if "banded" in CASES[name].names]


@pytest.mark.slow
@pytest.mark.parametrize("belief", ["denoiser", "official"])
@pytest.mark.parametrize(("process_name", "name"), OF_BELIEFS)
def test_a_network_that_copies_nothing_draws_the_integers_of_the_rules_by_its_belief(
    process_name, name, belief
):
    check_chain(process_name, name, belief)


@EVERY_PAIR
def test_a_network_that_breaks_down_or_rules_out_everything_fails_at_once(process_name, name):
    problem = make_problem(process_name, name)
    for broken in (np.nan, -np.inf):
        chain = run_problem(name, problem, np.full(problem.beliefs.shape, broken))
        assert chain.failed_at == len(problem.plan), broken


@pytest.mark.slow
@pytest.mark.parametrize(
    ("process_name", "plain", "same"),
    [
        ("absorbing", Sampler(), named.blocks(L)),
        ("absorbing", Sampler(Keep(0.6)), Sampler(Keep(0.6), Shaping(1.0, (), K, 1.0, 1.0), block=L)),
        ("uniform", Sampler(Keep(0.6)), Sampler(Keep(0.6), Shaping(1.0, (), K, 1.0, 1.0))),
        ("uniform", Sampler(), Sampler(Mixture(1.0))),
        ("marginal", Sampler(), Sampler(Mixture(1.0))),
        ("absorbing", Sampler(), Sampler(Keep(1.0))),
        ("absorbing", Sampler(), Sampler(Remask(Cap(0.0)))),
        ("absorbing", named.random_order(), named.first_hitting()),
    ],
)
def test_at_the_ends_of_their_numbers_samplers_draw_the_integers_of_others(process_name, plain, same):
    """A block of all places, temperature 1, top-k of K, top-p of 1; c = 1, kappa = 1, eta = 0."""
    process = make_process(process_name)
    rng = np.random.default_rng(8)
    u = rng.random((T + 1, STREAMS, 500, L))
    xT = rules.draw(np.broadcast_to(rules.make_world(process_name).prior, (500, L, K)), u[0, 0])
    beliefs = make_beliefs(process_name)
    world, every_x = rules.make_world(process_name), rules.all_states(L)
    denoiser = np.array([rules.denoiser_of(world, beliefs[t], every_x, t) for t in range(T + 1)])
    with np.errstate(divide="ignore"):
        logits = jnp.asarray(np.log(denoiser))
    drawn = []
    for sampler in (plain, same):
        plan = make_plan(sampler, process, (L,))
        arguments = map(jnp.asarray, (xT, u[: len(plan) + 1]))
        drawn.append(run(process, sampler, plan, "denoiser", logits, *arguments).x0)
    np.testing.assert_array_equal(*drawn)


def test_a_clock_goes_on_by_the_probability_of_leaving():
    """(alpha_3 - alpha_4) / (1 - alpha_4) = 1 / 4 of a mask at t = 4; only the second passes 1."""
    process = d3pm.absorbing(d3pm.reciprocal(4), 3, 2)
    clock = jnp.array([[0.2, 0.9, 0.5]])
    view = make_view(
        process,
        logits=jnp.broadcast_to(jnp.array([0.0, 0.0, -jnp.inf]), (1, 3, 3)),
        belief="d3pm",
        x=jnp.array([[2, 2, 2]]),
        t=jnp.array([4]),
        s=jnp.array([3]),
        noise=lambda stream: jnp.full((1, 3), 0.6),
        memory={"clock": clock},
    )
    taken = Stratified().draw(view)
    np.testing.assert_allclose(taken.memory["clock"], clock + 0.25, rtol=1e-6)
    assert taken.x.tolist() == [[2, 1, 2]]
