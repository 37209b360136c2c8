"""Laws of whole chains under an exact belief, by enumeration of what the code draws each row from."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from d3pm_jax import processes, schedules
from d3pm_jax.sampling import Denoiser, Sampler, laws, places as p, run as run_chain
from d3pm_jax.sampling.places import Candidates, Reveal
from d3pm_jax.sampling.transitions import (
    Bayes,
    Cap,
    Euler,
    Keep,
    LeastConfident,
    Mixture,
    Poisson,
    Remask,
    RemaskLoop,
    Rescale,
    Stratified,
)
from tests.sampling import rules
from tests.sampling.cases import ALL, make_process
from tests.sampling.rules import MASK, K, T
from tests.sampling.views import make_view

L = 3
STATES = rules.all_states(L)  # [27, L]
TOLERANCE = 1e-12

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.filterwarnings("ignore:x_T still depends")]


def kl(p: np.ndarray, q: np.ndarray) -> float:
    """KL(p || q) in nats."""
    terms = np.where(p > 0, p * (np.log(np.where(p > 0, p, 1)) - np.log(np.where(p > 0, q, 1))), 0)
    return float(terms.sum())


def product_kernel(law: np.ndarray) -> np.ndarray:
    """The joint law [n, K^L] of places [n, L, K] that are drawn each on its own."""
    return np.prod(law[:, np.arange(law.shape[1]), rules.all_states(law.shape[1])], axis=-1)


# ---- Samplers that reveal ----

WORLD = rules.make_world("absorbing")
DATA = rules.data_law(WORLD, L)
# What a denoiser knows of masks does not depend on t: any t will do at which all states can be.
DENOISER = rules.exact_beliefs(WORLD, DATA, L)[0][2]  # [27, L, K]
ORDERS = np.array(list(itertools.permutations([0.2, 0.5, 0.8])))  # noise for each order of places
DRAWN = np.array(list(itertools.product([0, 1], repeat=L)))


@functools.partial(jax.jit, static_argnames="reveals")
def choose_places(reveals, log_p, drawn, masked, u):
    """Which places are revealed, by rule."""
    candidates = Candidates(
        law=log_p,
        drawn=drawn,
        masked=masked,
        places=jnp.full(len(drawn), L),
        uniforms=lambda: u,
        i=jnp.asarray(1),
        rows=L,
    )
    return [reveal.choose(candidates) for reveal in reveals]


REVEALS: dict[str, p.Revealing] = {
    "random": Reveal(),
    "first hitting": p.FirstHitting(),
    "entropy": Reveal(p.LeastEntropy()),
    "largest": Reveal(p.LargestProbability()),
    "drawn": Reveal(p.DrawnProbability()),
    "largest above 1": Reveal(p.LargestProbability(), p.Threshold(1.5)),
    "drawn above 1": Reveal(p.DrawnProbability(), p.Threshold(1.5)),
    "tiny threshold": Reveal(p.DrawnProbability(), p.Threshold(1e-9)),
    "tiny factor": Reveal(p.DrawnProbability(), p.Factor(1e-9)),
    "large factor": Reveal(p.DrawnProbability(), p.Factor(10.0)),
    "bound 0": Reveal(p.LeastEntropy(), p.EntropyBound(0.0)),
    "bound inf": Reveal(p.LeastEntropy(), p.EntropyBound(float("inf"))),
    "bound .6": Reveal(p.LeastEntropy(), p.EntropyBound(0.6)),
    "threshold .6": Reveal(p.DrawnProbability(), p.Threshold(0.6)),
}


@functools.cache
def reveal_kernels() -> dict[str, np.ndarray]:
    """The law of a row [27, 27] of each rule: a sum over what places draw, and over the orders of noise."""
    n, d, o = (axis.ravel() for axis in np.indices((len(STATES), len(DRAWN), len(ORDERS))))
    x, drawn, u, denoiser = STATES[n], DRAWN[d], ORDERS[o], DENOISER[n]
    with np.errstate(divide="ignore"):
        log_p = np.log(denoiser)
    masked = x == MASK
    revealed = choose_places(tuple(REVEALS.values()), *map(jnp.asarray, (log_p, drawn, masked, u)))

    # A place that is not masked draws nothing: all but one of its draws count 0.
    of_drawn = np.take_along_axis(denoiser, drawn[..., None], axis=-1)[..., 0]
    weight = np.prod(np.where(masked, of_drawn, drawn == 0), axis=-1) / len(ORDERS)
    kernels = {}
    for name, of_rule in zip(REVEALS, revealed, strict=True):
        kernels[name] = np.zeros((len(STATES), len(STATES)))
        after = np.where(np.asarray(of_rule), drawn, x)
        np.add.at(kernels[name], (n, rules.number_of(after)), weight)
    return kernels


def run_kernel(kernel: np.ndarray, start: tuple[int, ...]) -> np.ndarray:
    """The law after L rows from one state."""
    law = np.zeros(len(STATES))
    law[rules.number_of(np.array(start))] = 1.0
    for _ in range(L):
        law = law @ kernel
    return law


def test_a_place_a_row_that_does_not_look_at_what_is_drawn_draws_the_law_of_the_data():
    kernels = reveal_kernels()
    start = (MASK,) * L
    for name in ("random", "first hitting", "entropy", "largest", "largest above 1", "bound 0"):
        np.testing.assert_allclose(run_kernel(kernels[name], start), DATA, atol=TOLERANCE, err_msg=name)
        assert abs(kl(run_kernel(kernels[name], start), DATA)) < TOLERANCE
    for name in ("drawn", "tiny threshold", "bound .6", "threshold .6"):
        assert kl(run_kernel(kernels[name], start), DATA) > 1e-3, name


def test_infilling_by_such_a_rule_draws_the_law_of_the_data_given_what_is_known():
    for place, value in itertools.product(range(L), (0, 1)):
        start = tuple(value if i == place else MASK for i in range(L))
        given_known = np.where(STATES[:, place] == value, DATA, 0)
        given_known = given_known / given_known.sum()
        for name in ("random", "first hitting", "entropy", "largest"):
            law = run_kernel(reveal_kernels()[name], start)
            np.testing.assert_allclose(law, given_known, atol=TOLERANCE, err_msg=name)


def test_at_the_ends_of_their_numbers_counts_reveal_one_place_or_all():
    kernels = reveal_kernels()
    for name in ("drawn above 1", "tiny factor"):
        np.testing.assert_array_equal(kernels[name], kernels["drawn"])
    np.testing.assert_array_equal(kernels["largest above 1"], kernels["largest"])
    np.testing.assert_array_equal(kernels["bound 0"], kernels["entropy"])
    unmasked = np.eye(K)[STATES]
    at_once = product_kernel(np.where((STATES == MASK)[..., None], DENOISER, unmasked))
    for name in ("tiny threshold", "large factor", "bound inf"):
        np.testing.assert_allclose(kernels[name], at_once, atol=TOLERANCE, err_msg=name)


@dataclasses.dataclass(frozen=True)
class Two(p.Count):
    """Reveals two places a row."""

    def count(self, candidates, score):
        return jnp.full_like(candidates.places, 2)


@pytest.mark.slow
def test_sorting_by_gumbel_noise_is_plackett_luce():
    """By a fine grid of noise: a comes first with p_a^(1/c) over their sum, and so on among the others."""
    fine = (np.arange(60) + 0.5) / 60
    u = np.stack(np.meshgrid(fine, fine, fine, indexing="ij"), axis=-1).reshape(-1, L)
    p_drawn = np.array([0.5, 0.2, 0.8])
    log_p = np.log(np.stack([p_drawn, 1 - p_drawn, np.full(L, 1e-9)], axis=-1))
    temperature = 1.8
    reveals = tuple(Reveal(p.DrawnProbability(temperature), count) for count in (p.One(), Two()))
    arguments = (np.tile(log_p, (len(u), 1, 1)), np.zeros((len(u), L), int), np.full((len(u), L), True), u)
    revealed = choose_places(reveals, *map(jnp.asarray, arguments))

    # In the first of the 3 rows that candidates speak of 1 - i / N is 2 / 3.
    weights = p_drawn ** (1 / (temperature * 2 / 3))
    for count, places in enumerate(map(np.asarray, revealed), 1):
        np.testing.assert_array_equal(places.sum(-1), count)
        expected = np.zeros(L)
        for order in itertools.permutations(range(L)):
            left = weights[list(order)]
            probability = np.prod(left / np.cumsum(left[::-1])[::-1])
            expected[list(order[:count])] += probability
        np.testing.assert_allclose(places.mean(0), expected, atol=2e-3)


# ---- Times ----


@pytest.mark.slow
def test_the_times_of_first_hitting_are_those_of_the_schedule():
    """P(no event by s) = ((1 - alpha_s) / (1 - alpha_t))^n, and a network sees the time of each event."""
    rng = np.random.default_rng(9)
    u = rng.random((L + 1, 3, 40, L))
    schedule = schedules.continuous.cosine

    def network(x, time):
        seen = jnp.broadcast_to(time[:, None], x.shape)
        return jnp.stack([seen, seen, jnp.full(x.shape, -jnp.inf)], axis=-1)

    @jax.jit
    def run(process, u):
        sampler = Sampler(p.FirstHitting(schedule=schedule))
        xT = jnp.full(u.shape[2:], MASK)

        def noise(row, stream):
            return u[row, stream]

        denoiser = Denoiser(process, network, time="unit")
        return run_chain(denoiser, xT, noise, sampler, watch=lambda seen: seen.logits)

    chain = run(make_process("absorbing"), jnp.asarray(u))
    times = np.asarray(chain.seen)[:, :, 0, 0]  # [rows, B]
    share = np.cumprod([u[n, 2, :, 0] ** (1 / n) for n in (3, 2, 1)], axis=0)  # 1 - alpha
    np.testing.assert_allclose(1 - np.cos(times * np.pi / 2), share, atol=TOLERANCE)

    fine = (np.arange(4096) + 0.5) / 4096
    for n in (1, 2, 3):
        after = p.next_hitting(jnp.full(4096, 0.7), jnp.full(4096, n, jnp.int32), jnp.asarray(fine))
        assert abs(np.mean(np.asarray(after) < 0.4) - (0.4 / 0.7) ** n) < 1 / 4096


@pytest.mark.slow
def test_the_number_of_events_has_the_mean_of_the_hazard_and_little_variance():
    """Where x is held at what it is, of a grid of phases: mean Lambda, variance at most 1 / 4."""
    world = rules.make_world("uniform")
    phases = (np.arange(1000) + 0.5) / 1000
    x = np.zeros((1000, 1), int)
    leave_one_out = np.tile([0.2, 0.3, 0.5], (1000, 1, 1))

    @jax.jit
    def count_events(process, logits, phases):
        memory = {"clock": phases[:, None]}
        events = jnp.zeros(len(phases), int)
        for t in range(T, 0, -1):
            t_all = jnp.full(len(phases), t)
            noise = jnp.full(x.shape, 0.5)
            at_x = jnp.asarray(x)
            view = make_view(
                process, logits, "leave_one_out", at_x, t_all, t_all - 1, lambda n, u=noise: u, memory
            )
            events += Stratified().law(view, view.ask(at_x, t_all))[:, 0, 0] == -jnp.inf
            memory = Stratified().draw(view).memory
        return events

    events = np.asarray(count_events(make_process("uniform"), jnp.log(leave_one_out), jnp.asarray(phases)))
    hazard = sum(1 - rules.bayes(world, leave_one_out[:1], x[:1], t)[0, 0, 0] for t in range(1, T + 1))
    assert abs(events.mean() - hazard) < 1e-3
    assert events.var() <= 0.25 + 1e-3
    assert len(np.unique(events)) == 2


# ---- Samplers with a law of all places ----


@functools.partial(jax.jit, static_argnames="steps")
def laws_of(process, steps, log_denoiser, x, t, s):
    """The law of each row by each step, from logits of the denoiser."""
    memory = {"confidence": jnp.full(x.shape, 0.3)}
    view = make_view(process, log_denoiser, "denoiser", x, t, s, lambda stream: jnp.zeros(x.shape), memory)
    answer = view.ask(x, t)
    return [jnp.exp(step.law(view, answer)) for step in steps]


KEEPS = (Keep(0.0), Keep(0.4), Keep(1.0))
FOR_MASKS = (
    Remask(Cap(0.2)),
    Remask(Rescale(0.7)),
    Remask(Rescale(1.0)),
    RemaskLoop(),
    Remask(LeastConfident()),
)
MIXTURES = (Mixture(0.0), Mixture(0.3), Mixture(1.0))


def marginals(name: str, steps, reach) -> list[np.ndarray]:
    """The largest distance of sum q(x_t | x_0) p(x_s | x_t, x_0) from q(x_s | x_0), by step."""
    world = rules.make_world(name)
    Qbar = world.Qbar
    cases = [
        (t, s, x0, xt)
        for t in range(1, T + 1)
        for s in reach(t)
        for x0 in world.data
        for xt in range(K)
        if Qbar[t, x0, xt] > 0
    ]
    t, s, x0, xt = np.array(cases).T
    with np.errstate(divide="ignore"):
        certain = np.log(np.eye(K)[x0])[:, None]  # what x_0 is
    computed = laws_of(make_process(name), steps, *map(jnp.asarray, (certain, xt[:, None], t, s)))
    distances = []
    for law in computed:
        sums = np.zeros((T + 1, T + 1, K, K))
        np.add.at(sums, (t, s, x0), Qbar[t, x0, xt][:, None] * np.asarray(law)[:, 0])
        distances.append(np.abs(sums[t, s, x0] - Qbar[s, x0]).max())
    return distances


@pytest.mark.slow
@pytest.mark.parametrize("name", ["absorbing", "marginal"])
def test_keep_and_masking_again_have_the_marginals_of_the_process(name):
    steps = KEEPS if name == "marginal" else KEEPS + FOR_MASKS
    *distances, of_last = marginals(name, steps, lambda t: range(t + 1))
    np.testing.assert_allclose(distances, 0, atol=TOLERANCE)
    if name == "absorbing":
        assert of_last > 0.1  # masking again by confidence leaves more masks


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_a_mixture_has_the_marginals_of_the_process(name):
    distances = marginals(name, MIXTURES, lambda t: [t - 1])
    np.testing.assert_allclose(distances, 0, atol=TOLERANCE)


SPECIAL = (Bayes(), Mixture(1.0), Mixture(0.0), Keep(1.0), Remask(Cap(0.0)), Remask(Rescale(0.0)))


@pytest.mark.slow
def test_the_ends_of_kappa_c_and_eta_are_ancestral_sampling_and_fresh_noise():
    """By the law of each row: absorbing, from each state that can be at each t."""
    world = rules.make_world("absorbing")
    t = np.repeat(np.arange(1, T), len(STATES))
    x = np.tile(STATES, (T - 1, 1))
    with np.errstate(divide="ignore"):
        logits = np.log(rules.exact_beliefs(world, DATA, L)[0][t, rules.number_of(x)])
    bayes, one, fresh, *same = laws_of(
        make_process("absorbing"), SPECIAL, *map(jnp.asarray, (logits, x, t, t - 1))
    )
    for law in (one, *same):
        np.testing.assert_allclose(law, bayes, atol=TOLERANCE)
    np.testing.assert_allclose(
        fresh, np.einsum("nlk,nkj->nlj", np.exp(logits), world.Qbar[t - 1]), atol=TOLERANCE
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["uniform", "marginal", "masked", "gaussian"])
def test_the_ends_of_kappa_are_ancestral_sampling_and_fresh_noise(name):
    world = rules.make_world(name)
    denoiser = rules.exact_beliefs(world, rules.data_law(world, L), L)[0]
    t = np.repeat(np.arange(1, T + 1), len(STATES))
    x = np.tile(STATES, (T, 1))
    with np.errstate(divide="ignore"):
        logits = np.log(denoiser[t, rules.number_of(x)])
    bayes, one, fresh = laws_of(make_process(name), SPECIAL[:3], *map(jnp.asarray, (logits, x, t, t - 1)))
    can_be = world.Qbar[t].max(1)[np.arange(len(t))[:, None], x].all(-1)
    np.testing.assert_allclose(one[can_be], bayes[can_be], atol=TOLERANCE)
    expected = np.einsum("nlk,nkj->nlj", denoiser[t, rules.number_of(x)], world.Qbar[t - 1])
    np.testing.assert_allclose(fresh[can_be], expected[can_be], atol=TOLERANCE)


def test_blocks_of_one_place_are_the_chain_rule():
    """A block of one place takes T rows by Bayes' rule, then the next one: KL 0; all places at once: not."""
    t = np.repeat(np.arange(T, 0, -1), len(STATES))
    x = np.tile(STATES, (T, 1))
    with np.errstate(divide="ignore"):
        logits = np.log(DENOISER[rules.number_of(x)])
    law = np.asarray(
        laws_of(make_process("absorbing"), (Bayes(),), *map(jnp.asarray, (logits, x, t, t - 1)))[0]
    )
    law = law.reshape(T, len(STATES), L, K)

    at_once = functools.reduce(np.matmul, [product_kernel(rows) for rows in law], np.eye(len(STATES))[-1])
    assert kl(at_once, DATA) > 1e-3

    sampled = np.eye(len(STATES))[-1]  # all masked
    for place in range(L):
        for rows in law:
            others = np.eye(K)[STATES]
            others[:, place] = rows[:, place]
            sampled = sampled @ product_kernel(others)
    np.testing.assert_allclose(sampled, DATA, atol=TOLERANCE)
    assert abs(kl(sampled, DATA)) < TOLERANCE


@jax.jit
def gibbs_laws(process, logits_loo, x, t):
    return jnp.exp(laws.gibbs_logits(process, logits_loo, x, t))


@pytest.mark.parametrize(
    "name", [*ALL[1:3], *(pytest.param(x, marks=pytest.mark.slow) for x in (ALL[0], *ALL[3:]))]
)
def test_a_gibbs_move_leaves_the_law_of_each_level(name):
    world = rules.make_world(name)
    _, leave_one_out, p_t = rules.exact_beliefs(world, rules.data_law(world, L), L)
    x = np.tile(STATES, (T, L, 1, 1)).transpose(0, 1, 2, 3)  # [T, place, state, L]
    t = np.broadcast_to(np.arange(1, T + 1)[:, None, None], x.shape[:3])
    chosen = np.eye(L, dtype=bool)[None, :, None]
    if world.has_mask:
        x = np.where(chosen, MASK, x)
    flat = x.reshape(-1, L)
    with np.errstate(divide="ignore"):
        logits = np.log(leave_one_out[t.ravel(), rules.number_of(flat)])
    law = np.asarray(gibbs_laws(make_process(name), *map(jnp.asarray, (logits, flat, t.ravel()))))
    law = np.where(chosen[..., None], law.reshape(*x.shape, K), np.eye(K)[np.tile(STATES, (T, L, 1, 1))])
    for level in range(T):
        kernel = np.mean([product_kernel(law[level, place]) for place in range(L)], axis=0)
        np.testing.assert_allclose(p_t[level + 1] @ kernel, p_t[level + 1], atol=TOLERANCE)


# ---- Leaps ----


@functools.cache
def leaping_errors(name: str) -> np.ndarray:
    """Total variation of the sampled law from that of the data, by Euler and Poisson and the number of steps.

    Steps are equal in log alpha_bar, the last one is by Bayes' rule, and chains start from p_T.
    """
    L = 2
    alpha_T = np.exp(-3.0)
    pi = np.array([0.5, 0.5]) if name == "uniform" else np.array([0.0, 0.0, 1.0])
    size = len(pi)
    states = np.array(list(itertools.product(range(size), repeat=L)))
    p0 = np.random.default_rng(8).dirichlet(np.ones(len(states))) * (states < 2).all(-1)
    p0 = p0 / p0.sum()
    errors = []
    for steps in (64, 128, 256):
        beta = np.full(steps, 1 - alpha_T ** (1 / steps))
        alpha = (1 - beta[0]) ** np.arange(steps + 1)
        Qbar = alpha[:, None, None] * np.eye(size) + (1 - alpha)[:, None, None] * pi
        evidence = Qbar[:, states[:, None], states[None]]  # [t, x_0, x_t, L]
        p_t = np.einsum("n,tnm->tm", p0, evidence.prod(-1))
        denoiser = np.einsum("n,tnm,nlk->tmlk", p0, evidence.prod(-1), np.eye(size)[states])
        total = denoiser.sum(-1, keepdims=True)
        denoiser = denoiser / np.where(total > 0, total, 1)
        t = np.repeat(np.arange(steps, 0, -1), len(states))
        x = np.tile(states, (steps, 1))
        with np.errstate(divide="ignore"):
            logits = np.log(denoiser[t, x @ size ** np.arange(L)[::-1]])
        process = processes.marginal(beta, pi)
        computed = laws_of(process, (Euler(), Poisson()), *map(jnp.asarray, (logits, x, t, t - 1)))
        for law in computed:
            kernels = np.prod(np.asarray(law)[:, np.arange(L), states], axis=-1)
            kernels = kernels.reshape(steps, len(states), len(states))
            sampled = functools.reduce(np.matmul, kernels, p_t[steps])
            errors.append(0.5 * np.abs(sampled - p0).sum())
    return np.array(errors).reshape(3, 2).T


@pytest.mark.slow
@pytest.mark.parametrize("name", ["uniform", "absorbing"])
def test_the_error_of_leaping_falls_as_the_step(name):
    for errors in leaping_errors(name):
        slope = np.log2(errors[1] / errors[2])
        assert 0.85 < slope < 1.15, errors
