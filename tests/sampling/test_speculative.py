"""Drafts that are checked: the law of one place a call, by sums over all that a row may draw.

A row is piecewise constant in its uniforms: which category each draft is, whether it is accepted, what
stands for the first that is not. `enumerate_row` finds the pieces from conditional laws alone, and the step
is run at both ends of each. So the sums are over what the code does.
"""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import oracles, sampling, schedules
from d3pm_jax.processes import Process
from d3pm_jax.sampling import Denoiser, Known, Row, Sampler, Shaping, guidance, named, noise
from d3pm_jax.sampling.places import LargestProbability, LeftToRight, RandomOrder, Reveal
from d3pm_jax.sampling.run import prepare
from d3pm_jax.sampling.speculative import Speculative, acceptance, leftover_logits

C = 3  # categories
K = C + 1
MASK = C
L = 4
STATES = np.array(list(itertools.product(range(K), repeat=L)), np.int32)  # [S, L]
PHASES = (0.7, 0.4, 0.6, 0.2)
END = 1e-7  # how far from the end of a piece it is entered, of its length

pytestmark = pytest.mark.usefixtures("x64")


def number(x: np.ndarray) -> np.ndarray:
    return x @ (K ** np.arange(L - 1, -1, -1))


# Of a network that is inconsistent, and sees the time.
TABLE = np.random.default_rng(0).normal(size=(2, L + 1, K**L, L, K)) * 1.5


def network(x, time, label=None):
    label = jnp.zeros(len(x), jnp.int32) if label is None else label
    return jnp.asarray(TABLE)[label, time, x @ (K ** jnp.arange(L)[::-1])]


def real_network(x, time):
    table = jnp.asarray(TABLE)[:, 0, x @ (K ** jnp.arange(L)[::-1])]
    return table[0] + time[:, None, None] * table[1]


class Case(NamedTuple):
    """Holds how chains are drawn."""

    drafts: int
    shaping: Shaping = Shaping()
    gamma: float | None = None  # of classifier-free guidance
    known: tuple[int, ...] = (MASK,) * L  # what is known of each place; a mask: nothing
    schedule: Any = None

    @property
    def sampler(self) -> Sampler:
        return Sampler(Speculative(self.drafts, schedule=self.schedule), self.shaping)

    def denoiser(self, process: Process, num: int) -> Denoiser:
        """Returns the denoiser of so many examples, whose label is bound to each."""
        if self.schedule is not None:
            return Denoiser(process, real_network, "leave_one_out")
        label = jnp.ones(num, jnp.int32)
        guided = guidance.classifier_free(network, label, 0 * label, self.gamma or 0.0, "x_0")
        return Denoiser(process, guided, "leave_one_out")

    def view(self, process: Process, x: Any, u: Any, memory: Any) -> sampling.View:
        known = jnp.broadcast_to(jnp.asarray(self.known, jnp.int32), x.shape)
        prepared = prepare(
            self.denoiser(process, len(x)),
            x,
            lambda row, stream: u[stream],
            self.sampler,
            Known(known, known != MASK),
            None,
        )
        return prepared.view(x, memory, Row(jnp.asarray(L), process.T, 0))

    def start(self, process: Process, num: int) -> dict[str, Any]:
        """Returns what is remembered before the first row, with the same times for all examples."""
        x = jnp.broadcast_to(jnp.asarray(self.known, jnp.int32), (num, L))
        u = jnp.broadcast_to(jnp.asarray(PHASES), (5, num, L))
        return self.sampler.step.start(self.view(process, x, u, {}))


@functools.partial(jax.jit, static_argnames="case")
def conditional_laws(case, process):
    """Returns the law [S, L, K] of each place at each state, asked as a sampler of one place a call does."""
    x = jnp.asarray(STATES)
    masks = np.sum((STATES == MASK) & (np.array(case.known) == MASK), axis=1)
    total = sum(place == MASK for place in case.known)
    t = jnp.asarray(
        np.clip(-(-masks * L // total), 1, L), jnp.int32
    )  # the smallest whose t / L reaches the share
    time = process.time[t]
    if case.schedule is not None:
        # 1 - alpha is the time: u_N^(1/N) .. u_n^(1/n) with n masks of N.
        factors = [u ** (1 / (i + 1)) for i, u in enumerate(PHASES[:total])]
        shares = np.cumprod(factors[::-1])[::-1]
        time = jnp.asarray(shares)[np.maximum(masks - 1, 0)] * L
    (answer,) = case.denoiser(process, len(x)).ask_each(x, t, time)
    return jnp.exp(answer.shaped_by(case.sampler.shape).log_denoiser)


@functools.partial(jax.jit, static_argnames="case")
def take_row(case, process, x, score, u):
    memory = case.start(process, len(x)) | {"score": score}
    return case.sampler.step.take(case.view(process, x, u, memory)).x


class Piece(NamedTuple):
    """Holds a part of the cube of uniforms: where it lies in each stream and place, and how large it is."""

    x: np.ndarray
    after: np.ndarray
    weight: float
    ends: dict[tuple[int, int], tuple[float, float]]  # by stream and place


def interval(p: np.ndarray, category: int) -> tuple[float, float]:
    ends = np.concatenate([[0], np.cumsum(p / p.sum())])
    return ends[category], ends[category + 1]


def enumerate_row(laws: np.ndarray, x: np.ndarray, places: list[int]) -> list[Piece]:
    """Returns all that a row may draw from x, the next places in their order."""
    pieces = []
    p = [laws[number(x), place] for place in places]

    def go(j: int, after: np.ndarray, weight: float, ends: dict) -> None:
        if j == len(places):
            pieces.append(Piece(x, after, weight, ends))
            return
        place = places[j]
        q = laws[number(after), place]
        for category in np.flatnonzero(p[j]):
            revealed = after.copy()
            revealed[place] = category
            drafted = ends | {(noise.DRAW, place): interval(p[j], category)}
            accepted = min(1.0, q[category] / p[j][category])
            if accepted > 0:
                at = {(noise.ACCEPT, place): (0.0, accepted)}
                go(j + 1, revealed, weight * p[j][category] * accepted, drafted | at)
            if accepted < 1 - 1e-14:
                left = np.maximum(q - p[j], 0)
                for instead in np.flatnonzero(left):
                    replaced = after.copy()
                    replaced[place] = instead
                    at = {
                        (noise.ACCEPT, place): (accepted, 1.0),
                        (noise.REPLACE, place): interval(left, instead),
                    }
                    share = p[j][category] * (1 - accepted) * left[instead] / left.sum()
                    pieces.append(Piece(x, replaced, weight * share, drafted | at))

    go(0, x, 1.0, {})
    return pieces


def check_law(case: Case, orders: list[tuple[int, ...]]) -> None:
    """Compares the law of chains with that of one place a call, for each order of the places."""
    process = d3pm.absorbing(d3pm.reciprocal(L), K, MASK)
    laws = np.asarray(conditional_laws(case, process))
    unknown = [place for place in range(L) if case.known[place] == MASK]
    rng = np.random.default_rng(1)
    for order in orders:
        queue = [place for place in order if place in unknown]
        start = np.array(case.known, np.int32)

        # All states of this order: its first places are revealed.
        states = [start]
        pieces = []
        for x in states:
            left = [place for place in queue if x[place] == MASK]
            if not left:
                continue
            pieces += enumerate_row(laws, x, left[: case.drafts])
            for category in range(C):
                after = x.copy()
                after[left[0]] = category
                states.append(after)

        u = rng.random((5, 2 * len(pieces), L))
        for i, piece in enumerate(pieces):
            for (stream, place), (low, high) in piece.ends.items():
                u[stream, 2 * i, place] = low + END * (high - low)
                u[stream, 2 * i + 1, place] = high - END * (high - low)
        x = np.repeat([piece.x for piece in pieces], 2, axis=0)
        score = np.broadcast_to(-np.argsort(order).astype(float), x.shape)
        after = np.asarray(take_row(case, process, *map(jnp.asarray, (x, score, u))))
        np.testing.assert_array_equal(after, np.repeat([piece.after for piece in pieces], 2, axis=0))

        # A state comes after all that lead to it.
        found = np.zeros(K**L)
        found[number(start)] = 1
        for i, piece in enumerate(pieces):
            found[number(after[2 * i])] += found[number(piece.x)] * piece.weight
        expected = np.zeros(K**L)
        expected[number(start)] = 1
        for x in states:
            left = [place for place in queue if x[place] == MASK]
            for category in range(C) if left else ():
                after_one = x.copy()
                after_one[left[0]] = category
                expected[number(after_one)] += expected[number(x)] * laws[number(x), left[0], category]
        is_done = np.all(STATES[:, unknown] != MASK, axis=1)
        np.testing.assert_allclose(found[is_done].sum(), 1, rtol=1e-12)
        np.testing.assert_allclose(found[is_done], expected[is_done], rtol=0, atol=1e-12)


ORDERS = list(itertools.permutations(range(L)))


def test_the_law_of_drafts_is_that_of_one_place_a_call():
    check_law(Case(3), [(2, 0, 3, 1)])


EVERY_CASE = {
    **{f"{drafts} drafts": Case(drafts) for drafts in (1, 2, 3, 4)},
    "more drafts than places": Case(9),
    "known places": Case(4, known=(MASK, 1, MASK, MASK)),
    "temperature": Case(4, Shaping(temperature=0.6)),
    "top-p": Case(4, Shaping(top_p=0.7)),
    "guidance": Case(4, gamma=1.7),
    "guidance, top-p, known places": Case(3, Shaping(top_p=0.8), 2.0, (MASK, MASK, 0, MASK)),
    "drawn times": Case(4, schedule=schedules.continuous.linear),
    "drawn times, known places": Case(2, known=(2, MASK, MASK, MASK), schedule=schedules.continuous.linear),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY_CASE)
def test_the_law_is_the_same_for_all_orders(name):
    check_law(EVERY_CASE[name], ORDERS)


def test_what_rounding_leaves_nothing_of_is_drawn_from_the_law_itself():
    log_q = jnp.log(jnp.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]]))
    log_p = log_q.at[1].set(jnp.log(jnp.array([0.6, 0.1, 0.3])))
    leftover = jnp.exp(leftover_logits(log_p, log_q))
    np.testing.assert_allclose(leftover, [[0.5, 0.3, 0.2], [0, 0.2, 0]], atol=1e-12)
    share = acceptance(log_p, log_q, jnp.array([0, 0]))
    np.testing.assert_allclose(share, [1, 5 / 6], rtol=1e-12)


def test_leftovers_that_fit_no_float_have_a_log():
    """Where q is below p, above it, as large, and where p is 0."""
    log_p = jnp.array([-1e-5, -1010.0, -1e4, -np.inf])
    log_q = jnp.array([-1e-5 - 1e-9, -1000.0, -1e4, -900.0])
    expected = [-np.inf, -1000 + np.log1p(-np.exp(-10.0)), -np.inf, -900]
    np.testing.assert_allclose(leftover_logits(log_p, log_q), expected, rtol=1e-12)


@functools.partial(jax.jit, static_argnames=("sampler", "n"))
def draw(process, sampler, n, first=0):
    """Draws examples whose first place is known, with what each row changed."""
    known = Known(jnp.zeros((n, L), jnp.int32), jnp.broadcast_to(jnp.arange(L)[None] == 0, (n, L)))
    streams = sampling.per_example(jax.random.key(0), first + jnp.arange(n, dtype=jnp.int32), (L,))
    return sampling.run(
        Denoiser(process, network, "leave_one_out"),
        jnp.full((n, L), MASK, jnp.int32),
        streams,
        sampler,
        known=known,
        watch=lambda seen: (seen.changed, seen.logits),
    )


def test_rows_and_inputs_are_counted():
    """Two drafts of three places are two rows: two calls of two inputs in all, and one of one."""
    chain = draw(d3pm.absorbing(d3pm.reciprocal(L), K, MASK), named.speculative(2), 50)
    changed, logits = chain.seen
    assert changed.sum(axis=-1).T.tolist() == [[2, 1]] * 50
    assert set(chain.calls.tolist()) == {3}
    assert chain.program_calls == 3
    assert len(logits) == 2
    assert chain.failed_at == 0


@pytest.mark.parametrize("order", [LeftToRight(), RandomOrder()])
def test_one_draft_draws_as_one_place_a_call(order):
    """The same places from left to right; in a random order, which is drawn before, as many."""
    process = d3pm.absorbing(d3pm.reciprocal(L), K, MASK)
    one = draw(process, Sampler(Speculative(1, order)), 50)
    reference = draw(process, Sampler(Reveal(order)), 50)
    assert one.calls.tolist() == reference.calls.tolist() == [3] * 50
    assert one.program_calls == 3
    if order == LeftToRight():
        np.testing.assert_array_equal(one.x0, reference.x0)


def test_an_order_that_looks_at_the_law_is_refused():
    with pytest.raises(
        ValueError, match=r"^the order of drafts is drawn before them, but .* RandomOrder\(\)"
    ):
        Speculative(order=LargestProbability())


def test_guidance_of_x_s_is_refused():
    labels = jnp.zeros(2, jnp.int32)
    guided = guidance.classifier_free(network, labels, labels, 2.0)
    denoiser = Denoiser(d3pm.absorbing(d3pm.reciprocal(L), K, MASK), guided)
    with pytest.raises(ValueError, match="guidance changes the law of x_s, and revealed places take x_0"):
        sampling.sample(jax.random.key(0), denoiser, (2, L), named.speculative())


@pytest.mark.slow
def test_sixteen_drafts_of_a_chain_of_letters_take_few_calls():
    """Of a chain that forgets within a few places: in rounds at most L / 5, and inputs at most 1.3 L."""
    rng = np.random.default_rng(0)
    step = rng.dirichlet(np.ones(27), 27)
    start = np.linalg.matrix_power(step, 1000)[0]
    length = 128
    process = d3pm.absorbing(d3pm.reciprocal(length), 28, 27)
    oracle = oracles.markov_chain(start / start.sum(), step, length)
    denoiser = Denoiser(process, oracles.network(oracle, process), "leave_one_out")
    chain = jax.jit(lambda key: sampling.sample(key, denoiser, (16, length), named.speculative(16)))(
        jax.random.key(0)
    )
    assert np.mean(chain.calls) <= 1.3 * length
    assert chain.program_calls <= 2 * length / 5


def test_a_row_of_two_drafts_or_more_reveals_two_places_so_that_half_the_rows_do():
    """Also where each draft but the first is refused: the second answer has what the first has not."""
    process = d3pm.absorbing(d3pm.reciprocal(8), 3, mask_id=2)

    def disagree(x, time):
        revealed = jnp.sum(x != 2, axis=-1)
        likely = jnp.broadcast_to((revealed % 2)[:, None], x.shape)
        return jnp.where(likely[..., None] == jnp.arange(3)[None, None], 0.0, -40.0)

    denoiser = sampling.Denoiser(process, disagree, "leave_one_out")
    for drafts, rows in ((1, 5), (2, 3), (4, 3)):
        sampler = sampling.Sampler(Speculative(drafts))
        assert len(sampling.make_plan(sampler, process, (5,))) == rows
        chain = sampling.sample(jax.random.key(0), denoiser, (3, 5), sampler)
        assert chain.failed_at == 0
        np.testing.assert_array_equal(np.sort(chain.x0, axis=-1), [[0, 0, 0, 1, 1]] * 3)
