"""The law that each sampler draws a row from, against the rule of its paper (`rules`), in float64."""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.sampling import rules
from tests.sampling.cases import ALL, BY_PLACE, CASES, Case, make_process
from tests.sampling.rules import T
from tests.sampling.views import make_view

GRID = 64  # of u
TOLERANCE = 1e-12

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.filterwarnings("ignore:x_T still depends")]


class Rows(NamedTuple):
    """Holds all that rows are taken from: each x that can be at each t, with random beliefs and memories.

    What a network says is random at visible places too: it copies nothing of x_t.
    """

    x: np.ndarray  # [B, L]
    t: np.ndarray  # [B]
    predicted: np.ndarray  # [B, L, K]
    memory: dict[str, np.ndarray]  # [B, L] each


@functools.cache
def make_rows(name: str) -> Rows:
    world = rules.make_world(name)
    rng = np.random.default_rng(3)
    L = count_places(name)
    states = rules.all_states(L, world.K)
    parts = []
    for t in range(1, T + 1):
        can_be = np.max(world.Qbar[t], axis=-2, where=world.is_data[..., None], initial=0) > 0
        x = states[rules.pick(can_be, states).all(-1)]
        belief = rng.dirichlet(np.ones(world.K), x.shape) * world.is_data
        belief /= belief.sum(-1, keepdims=True)
        parts.append((x, np.full(len(x), t), belief))
    x, t, predicted = (np.concatenate(part) for part in zip(*parts, strict=True))
    memory = {"clock": 2 * rng.random(x.shape), "confidence": rng.random(x.shape)}
    return Rows(x, t, predicted, memory)


def count_places(name: str) -> int:
    return len(rules.SIZES) if name in BY_PLACE else 2


LAWS = {key: case for key, case in CASES.items() if case.law is not None}


def make_pairs(case: Case, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """The number of a row, and the s that it goes to, for each row and s."""
    pairs = [(b, s) for b, t in enumerate(rows.t) for s in case.reaches(int(t))]
    number, s = np.array(pairs).T
    return number, s


def expect_laws(name: str, belief: str, case: Case) -> np.ndarray:
    """The law of each pair by the rule, [N, L, K]."""
    world, rows = rules.make_world(name), make_rows(name)
    assert case.law is not None
    laws = []
    for n, s in zip(*make_pairs(case, rows), strict=True):
        x, t = rows.x[n, None], int(rows.t[n])
        memory = {key: values[n, None] for key, values in rows.memory.items()}
        believed = rules.read_belief(world, belief, rows.predicted[n, None], x, t)
        laws.append(case.law(*believed, x, t, int(s), memory)[0])
    return np.array(laws)


@functools.partial(jax.jit, static_argnames=("steps", "belief", "draws"))
def take_rows(process, steps, belief, views, draws):
    """What each step draws of its rows, or their laws."""
    results = []
    for step, (logits, x, t, s, memory, u) in zip(steps, views, strict=True):
        view = make_view(process, logits, belief, x, t, s, lambda stream, u=u: u, memory)
        if draws:
            results.append(step.draw(view).x)
        else:
            results.append(jnp.exp(step.law(view, view.ask(x, t))))
    return results


def run_rows(name: str, belief: str, draws: bool) -> dict[str, np.ndarray]:
    """`take_rows` by sampler, for each pair; with draws once for each u of a grid."""
    rows = make_rows(name)
    with np.errstate(divide="ignore"):
        logits = np.log(rows.predicted)
    views = {}
    for key, case in LAWS.items():
        if not case.is_for(name):
            continue
        number, s = make_pairs(case, rows)
        number, s = (np.repeat(array, GRID if draws else 1) for array in (number, s))
        u = np.tile((np.arange(GRID) + 0.5) / GRID, len(number) // GRID + 1)[: len(number)]
        memory = {key: values[number] for key, values in rows.memory.items()}
        view = (
            logits[number],
            rows.x[number],
            rows.t[number],
            s,
            memory,
            np.tile(u[:, None], count_places(name)),
        )
        views[case.between] = (key, view)
    taken = take_rows(
        make_process(name),
        tuple(views),
        belief,
        [jax.tree.map(jnp.asarray, v) for _, v in views.values()],
        draws,
    )
    of_step = dict(zip(views, taken, strict=True))
    return {key: np.asarray(of_step[case.between]) for key, case in LAWS.items() if case.is_for(name)}


FAST = [("marginal", "official"), ("absorbing", "denoiser")]


@pytest.mark.parametrize(
    ("name", "belief"),
    [
        pytest.param(*pair, marks=[] if pair in FAST else pytest.mark.slow)
        for pair in itertools.product(ALL + BY_PLACE, ("leave_one_out", "denoiser", "official"))
    ],
)
def test_the_law_of_a_row_is_that_of_the_rule(name, belief):
    for key, law in run_rows(name, belief, draws=False).items():
        expected = expect_laws(name, belief, LAWS[key])
        np.testing.assert_allclose(law, expected, atol=TOLERANCE, rtol=0, err_msg=key)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in ALL + BY_PLACE])
def test_a_grid_of_noise_draws_the_law_to_the_grid(name):
    for key, x_s in run_rows(name, "leave_one_out", draws=True).items():
        expected = expect_laws(name, "leave_one_out", LAWS[key])
        by_grid = x_s.reshape(-1, GRID, x_s.shape[-1])
        counts = np.stack([(by_grid == k).sum(1) for k in range(expected.shape[-1])], axis=-1)
        np.testing.assert_array_less(np.abs(counts - GRID * expected), 1 + 1e-9, key)
