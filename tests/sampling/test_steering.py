"""Steering by a score: which particles go on, what their weights multiply to, and which law they come to."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax.sampling import (
    Denoiser,
    Known,
    Sampler,
    Steered,
    best_of,
    named,
    per_example,
    sample,
    steer,
    steering,
)
from d3pm_jax.sampling.noise import CLEAN, SELECT
from d3pm_jax.sampling.run import prepare, run_rows
from tests.sampling import rules
from tests.sampling.cases import CASES, make_process
from tests.sampling.rules import MASK, K, T

L = 3
N = 4
P = 5
STATES = rules.all_states(L)
SCORES = 1.5 * np.random.default_rng(9).normal(size=len(STATES))
PSI = named.psi(0.6)

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.filterwarnings("ignore:x_T still depends")]


def number_of(x):
    return x @ jnp.asarray(K ** np.arange(L)[::-1])


def denoise_by(process, logits):
    """A denoiser that is a table [T + 1, K^L, L, K] by t and x_t."""
    return Denoiser(process, lambda x, t: logits[t, number_of(x)], "leave_one_out")


@functools.cache
def make_beliefs(name: str) -> np.ndarray:
    world = rules.make_world(name)
    return rules.exact_beliefs(world, rules.data_law(world, L), L)[1]


def log_beliefs(name: str) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(make_beliefs(name))


def make_key():
    """The key of `run`, which may be used again."""
    return jax.random.key(7)


@jax.jit
def run(scores, key):
    def score(x):
        return scores[number_of(x)]

    denoiser = denoise_by(make_process("uniform"), jnp.asarray(log_beliefs("uniform")))
    return steer(key, score, P, denoiser, (N, L), PSI)


def test_weights_telescope_to_the_score_of_what_is_drawn():
    steered = run(jnp.asarray(SCORES), make_key())
    assert steered.failed_at == 0
    of_line = np.zeros((N, P))
    for log_weights, ancestors in zip(steered.log_weights, steered.ancestors, strict=True):
        of_line = np.take_along_axis(of_line + np.asarray(log_weights), np.asarray(ancestors), axis=1)
    expected = SCORES[rules.number_of(np.asarray(steered.particles))]
    np.testing.assert_allclose(of_line, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(steered.scores, expected, rtol=0, atol=0)

    # One of the particles is drawn, each as likely, by the first place of the first particle.
    noise = per_example(make_key(), jnp.arange(N * P), (L,))
    u = np.asarray(noise(jnp.asarray(0), SELECT)).reshape(N, P, L)[:, 0, 0]
    chosen = np.asarray(steered.particles)[np.arange(N), np.floor(u * P).astype(int)]
    np.testing.assert_array_equal(steered.x0, chosen)
    weights = np.exp(steered.log_weights)
    np.testing.assert_allclose(steered.effective_size, weights.sum(-1) ** 2 / (weights**2).sum(-1))
    assert steered.calls.tolist() == [T * P] * N
    assert steered.program_calls == T


def test_a_score_that_is_the_same_of_all_changes_nothing():
    steered = run(jnp.full(len(SCORES), 3.0), make_key())

    @jax.jit
    def draw(key):
        denoiser = denoise_by(make_process("uniform"), jnp.asarray(log_beliefs("uniform")))
        return sample(key, denoiser, (N * P, L), PSI)

    plain = draw(make_key())
    np.testing.assert_array_equal(steered.particles, plain.x0.reshape(N, P, L))
    assert (np.asarray(steered.effective_size) == P).all()
    assert (np.asarray(steered.ancestors) == np.arange(P)).all()


def test_minus_infinity_is_never_drawn_and_nan_is_noticed():
    """All of one program: where a score may be what it is, where nothing may, and where it is NaN."""
    never = np.where(STATES[:, 0] == 1, -np.inf, SCORES)
    steered = run(jnp.asarray(never), make_key())
    assert steered.failed_at == 0
    assert not (np.asarray(steered.particles)[..., 0] == 1).any()
    assert np.isfinite(steered.log_weights[:-1]).all()  # on the way it says nothing

    failed = run(jnp.full(len(SCORES), -np.inf), make_key())
    assert failed.failed_at == 1
    assert (np.asarray(failed.particles) == -1).all()
    assert (np.asarray(failed.x0) == -1).all()
    assert (np.asarray(failed.effective_size)[-1] == 0).all()
    assert run(jnp.full(len(SCORES), np.nan), make_key()).failed_at == T
    assert run(jnp.full(len(SCORES), np.inf), make_key()).failed_at == T


def test_particles_are_drawn_by_their_weights():
    rng = np.random.default_rng(0)
    log_weights = np.concatenate([2 * rng.normal(size=(50, 7)), np.full((3, 7), -np.inf)])
    log_weights[:10, :4] = -np.inf
    log_weights[-1, 5] = 0.0
    u = rng.random(len(log_weights))
    ancestors = np.asarray(jax.jit(steering.resample)(jnp.asarray(log_weights), jnp.asarray(u)))
    has_law = log_weights.max(-1) > -np.inf
    assert (ancestors[~has_law] == -1).all()
    weights = np.exp(log_weights[has_law])
    share = weights / weights.sum(-1, keepdims=True)
    points = (np.arange(7) + u[has_law, None]) / 7
    expected = (np.cumsum(share, axis=-1)[:, None] <= points[..., None]).sum(-1)
    np.testing.assert_array_equal(ancestors[has_law], expected)
    assert (np.take_along_axis(share, ancestors[has_law], axis=-1) > 0).all()

    # In float32 j + u is rounded up behind many particles: alike, they go on once each all the same.
    u32 = jnp.asarray([np.nextafter(np.float32(1), np.float32(0)), 0, 0.3], jnp.float32)
    alike = jax.jit(steering.resample)(jnp.zeros((3, 300), jnp.float32), u32)
    np.testing.assert_array_equal(alike, np.broadcast_to(np.arange(300), (3, 300)))


def test_the_best_of_some_is_the_first_of_the_largest():
    candidates = jnp.asarray([[[2], [0], [1], [0]], [[2], [2], [2], [2]], [[1], [2], [1], [2]]])
    table = jnp.asarray([1.0, 0.5, -np.inf])
    best, scores = jax.jit(lambda x: steering.choose_best(lambda x: table[x[:, 0]], x))(candidates)
    assert best.tolist() == [[0], [-1], [1]]
    assert scores.tolist() == [[-np.inf, 1, 0.5, 1], [-np.inf] * 4, [0.5, -np.inf, 0.5, -np.inf]]
    with pytest.raises(ValueError, match=r"score\(x\) contains nan: it must be finite, or -inf"):
        steering.choose_best(lambda x: jnp.where(x[:, 0] == 2, jnp.nan, 1.0), candidates)


def unsure(process):
    return Denoiser(process, lambda x, t: jnp.zeros((*x.shape, K)))


ABSORBING = unsure(d3pm.absorbing(d3pm.reciprocal(T), K, MASK))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"score": lambda x: x}, r"score\(x\) has dtype int32, expected floats: return one number for each"),
        ({"score": lambda x: jnp.zeros(3)}, r"score\(x\) has shape \(3,\), expected \[4\]"),
        ({"score": lambda x: jnp.zeros((4, 1))}, r"score\(x\) has shape \(4, 1\), expected \[4\]"),
        ({"score": lambda x, y: x}, r"score is called as score\(x\), but takes \(x, y\)"),
        ({"score": 3.0}, "score is 3.0, expected a function"),
        ({"particles": 0}, r"particles = 0.* 1..1048576"),
        ({"shape": ()}, r"shape = \(\): it must be \(N, \*S\)"),
        ({"shape": (2, 0)}, "there is no place to draw"),
        (
            {"sampler": named.maskgit(), "denoiser": unsure(d3pm.uniform(d3pm.reciprocal(T), K))},
            "needs an absorbing process",
        ),
        ({"known": jnp.zeros((2, L), bool)}, r"known is of dtype bool, shape \(2, 3\), expected a Known"),
        (
            {"known": Known(jnp.zeros((3, L), int), jnp.zeros((3, L), bool))},
            r"known\.x0 has shape \(3, 3\), but shape = \(2, 3\): pass one of each example",
        ),
    ],
)
def test_what_cannot_be_used_gets_one_line(arguments, message):
    options = {
        "score": lambda x: jnp.zeros(len(x)),
        "particles": 2,
        "denoiser": ABSORBING,
        "shape": (2, L),
        "sampler": Sampler(),
    }
    with pytest.raises((TypeError, ValueError), match=message):
        jax.eval_shape(lambda: steer(jax.random.key(0), **options | arguments))


# ---- Whole chains ----


@functools.partial(jax.jit, static_argnames=("name", "particles", "n"))
def steer_by_name(process, logits, scores, key, name, particles, n, first=0) -> Steered:
    def score(x):
        return scores[number_of(x)]

    denoiser = denoise_by(process, logits)
    return steer(key, score, particles, denoiser, (n, L), CASES[name].sampler, first=first)


EVERY_KIND = ("remdm_confidence", "stratified", "maskgit", "first_hitting", "blocks", "gibbs")


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY_KIND)
def test_a_sample_is_the_same_in_any_batch(name):
    process = make_process("absorbing")
    logits = jnp.asarray(log_beliefs("absorbing"))
    options = (process, logits, jnp.asarray(SCORES), jax.random.key(3), name, P)
    together = steer_by_name(*options, 6)
    parts = [steer_by_name(*options, 2, first) for first in (0, 2, 4)]
    assert together.failed_at == 0
    for field in ("x0", "particles", "scores", "calls"):
        joined = np.concatenate([getattr(part, field) for part in parts])
        np.testing.assert_array_equal(getattr(together, field), joined, err_msg=field)
    for field in ("log_weights", "ancestors", "effective_size"):
        joined = np.concatenate([getattr(part, field) for part in parts], axis=1)
        np.testing.assert_allclose(getattr(together, field), joined, rtol=1e-12, atol=1e-12, err_msg=field)
    assert (np.asarray(together.ancestors) != np.arange(P)).any()


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY_KIND)
def test_one_particle_is_plain_sampling_and_one_candidate_is_too(name):
    denoiser = denoise_by(make_process("absorbing"), jnp.asarray(log_beliefs("absorbing")))
    key = jax.random.key(5)
    options = (denoiser, (6, L), CASES[name].sampler)
    plain = sample(key, *options, first=2)
    with jax.debug_key_reuse(False):
        steered = steer(key, lambda x: 1.0 * x.sum(-1), 1, *options, first=2)
        best = best_of(key, lambda x: 1.0 * x.sum(-1), 1, *options, first=2)
    for x in (steered.x0, steered.particles[:, 0], best.x0):
        np.testing.assert_array_equal(x, plain.x0)
    np.testing.assert_array_equal(steered.calls, plain.calls)
    np.testing.assert_array_equal(best.calls, plain.calls)


@pytest.mark.slow
def test_the_best_of_some_candidates_is_found_among_the_examples_of_the_key():
    denoiser = denoise_by(make_process("uniform"), jnp.asarray(log_beliefs("uniform")))
    scores = jnp.asarray(SCORES)
    key = jax.random.key(1)
    with jax.debug_key_reuse(False):
        plain = sample(key, denoiser, (12, L), PSI, first=8)
        best = best_of(key, lambda x: scores[number_of(x)], 4, denoiser, (3, L), PSI, first=2)
    np.testing.assert_array_equal(best.candidates, plain.x0.reshape(3, 4, L))
    of_candidates = SCORES[rules.number_of(np.asarray(plain.x0)).reshape(3, 4)]
    np.testing.assert_array_equal(best.scores, of_candidates)
    expected = np.asarray(best.candidates)[np.arange(3), of_candidates.argmax(-1)]
    np.testing.assert_array_equal(best.x0, expected)
    assert best.calls.tolist() == [4 * T] * 3
    assert best.failed_at == 0


@pytest.mark.slow
def test_what_is_known_of_a_sample_is_known_of_all_that_are_drawn_for_it():
    denoiser = denoise_by(make_process("absorbing"), jnp.asarray(log_beliefs("absorbing")))
    x0 = np.array([[0, 1, 0], [1, 1, 0], [0, 0, 1]])
    mask = np.array([[True, False, True], [False, False, False], [False, True, False]])
    options = (P, denoiser, x0.shape, named.random_order())
    known = Known(jnp.asarray(x0), jnp.asarray(mask))
    key = jax.random.key(4)
    with jax.debug_key_reuse(False):
        steered = steer(key, lambda x: 1.0 * x.sum(-1), *options, known=known)
        best = best_of(key, lambda x: 1.0 * x.sum(-1), *options, known=known)
    for x in (steered.particles, best.candidates):
        assert np.where(mask[:, None], np.asarray(x) == x0[:, None], True).all()
        assert (np.asarray(x) < MASK).all()
    # A call for each place that is not known.
    for calls in (steered.calls, best.calls):
        np.testing.assert_array_equal(calls, P * (~mask).sum(1))


@pytest.mark.slow
def test_the_x_0_that_is_scored_is_drawn_given_x_s():
    """Of one place the leave-one-out belief is p(x_0): what is scored must have p(x_0) q(x_s | x_0)."""
    world = rules.make_world("gaussian")
    p0 = np.array([0.5, 0.2, 0.3])
    grid = 500
    xT = np.repeat([0, 1, 2], grid)
    u = np.tile((np.arange(grid) + 0.5) / grid, 3)[:, None]

    def network(x, t):
        return jnp.broadcast_to(jnp.log(jnp.asarray(p0)), (*x.shape, K))

    def noise(row, stream):
        return jnp.asarray(u) if stream == CLEAN else jnp.full(u.shape, 0.37)

    # One particle for each sample: none is selected, and the sum of weights is the score of the x_0 drawn.
    denoiser = Denoiser(make_process("gaussian"), network, "leave_one_out")
    prepared = prepare(denoiser, jnp.asarray(xT)[:, None], noise, Sampler(), known=None, plan=None)
    chain = run_rows(prepared, steering.Selecting(prepared, lambda x: x[:, 0].astype(float), particles=1))
    scored = np.cumsum(np.asarray(chain.seen.log_weights)[..., 0], axis=0).round().astype(int)  # [T, 3 grid]
    x = xT
    for row, t in enumerate(range(T, 0, -1)):
        law = rules.bayes(world, np.broadcast_to(p0, (len(x), 1, K)), x[:, None], t)
        x = rules.draw(law, np.full((len(x), 1), 0.37))[:, 0]
        posterior = p0 * world.Qbar[t - 1][:, x].T
        posterior /= posterior.sum(-1, keepdims=True)
        for of_start in range(3):
            part = slice(of_start * grid, (of_start + 1) * grid)
            counts = np.bincount(scored[row, part], minlength=K) / grid
            np.testing.assert_allclose(counts, posterior[part][0], rtol=0, atol=1.5 / grid)
    np.testing.assert_array_equal(chain.x0[:, 0], x)


def chain_law(process_name: str, name: str) -> np.ndarray:
    """The law [K^L] of what a sampler draws: of rows one after the other, by the rules."""
    world = rules.make_world(process_name)
    beliefs = make_beliefs(process_name)
    of_row = CASES[name].law
    if of_row is None:
        return rules.data_law(world, L)  # a place a row, in an order that looks at nothing
    law = world.prior[STATES].prod(-1)
    for t in range(T, 0, -1):
        of_places = of_row(world, beliefs[t], STATES, t, t - 1, {})
        law = law @ np.prod(of_places[:, np.arange(L), STATES], axis=-1)
    return law


@pytest.mark.slow
@pytest.mark.parametrize(
    ("process_name", "name"),
    [
        ("uniform", "ancestral"),
        ("gaussian", "ancestral"),
        ("uniform", "psi"),
        ("marginal", "ddim"),
        ("uniform", "euler"),
        ("masked", "tau_leaping"),
        ("absorbing", "ancestral"),
        ("absorbing", "remdm_rescale"),
        ("absorbing", "random_order"),
    ],
)
def test_many_particles_have_the_tilted_law(process_name, name):
    """20 runs of 5,000 particles: p(x_0) exp(score(x_0)) / Z lies within the error bars of the runs.

    The shares of particles have a bias of order 1 / P; times the product of the mean weights of all rows,
    which is an estimate of Z, they have none.
    """
    runs = 20
    particles = 5000
    steered = steer_by_name(
        make_process(process_name), jnp.asarray(log_beliefs(process_name)), jnp.asarray(SCORES),
        jax.random.key(11), name, particles, runs,
    )  # fmt: skip
    assert steered.failed_at == 0
    numbers = rules.number_of(np.asarray(steered.particles))  # [runs, particles]
    share = np.stack([np.bincount(row, minlength=len(STATES)) for row in numbers]) / particles
    normaliser = np.exp(steered.log_weights).mean(-1).prod(0)  # [runs]
    law = chain_law(process_name, name)
    weighted = law * np.exp(SCORES)
    assert (share[:, weighted == 0] == 0).all()
    possible = weighted > 1e-4 * weighted.sum()

    def errors(estimates: np.ndarray, expected: np.ndarray) -> np.ndarray:
        """By how many standard errors of the mean of all runs each state is off."""
        standard_error = estimates.std(0, ddof=1) / np.sqrt(runs)
        return np.abs(estimates.mean(0) - expected)[possible] / standard_error[possible]

    assert errors(normaliser[:, None] * share, weighted).max() < 4
    assert errors(share, weighted / weighted.sum()).max() < 5
    assert errors(share, law).max() > 20  # without a score
