"""A network told times in [0, 1] is one of steps that divides by T: in chains, bounds and guidance."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax.evaluation.jumps import jump_costs
from d3pm_jax.sampling import Denoiser, Guided, guidance, named
from d3pm_jax.schedules import continuous

T, K, B, L = 6, 4, 5, 3
MASK = K - 1
LABELS = jnp.arange(B) % 2
X0 = jax.random.randint(jax.random.key(1), (B, L), 0, MASK)
INDEX = jnp.arange(B)
PROCESS = d3pm.absorbing(d3pm.reciprocal(T), K, MASK)
RESPACED = d3pm.respace(PROCESS, [2, 3, T])


def of_unit(x, time, label=None):
    """Logits that turn with the time, in a way that tells 1..T from (0, 1] and each from the other."""
    angle = 3 * time[:, None, None] + jnp.arange(K)[None, None] + x[..., None]
    if label is not None:
        angle = angle + label[:, None, None]
    return d3pm.forbid(3 * jnp.cos(angle), MASK)


def of_steps(x, time, label=None):
    return of_unit(x, time / T, label)


def log_prob(one_hots, time):
    return -jnp.sum(one_hots[..., 0], axis=1) * (1 + time)


def both(process, make=lambda network: network):
    """The denoiser of either network, made by hand for the one of steps."""
    return (
        Denoiser(process, make(of_unit), "leave_one_out", time="unit"),
        Denoiser(process, make(of_steps), "leave_one_out"),
    )


def condition(network, gamma, on, late):
    null = jnp.zeros_like(LABELS)
    return guidance.classifier_free(network, LABELS, null, gamma, on, late)


GUIDED = {
    "unguided": lambda network: network,
    "x_s up to a step": lambda network: condition(network, 3.0, "x_s", 3),
    "x_0 up to a step": lambda network: condition(network, 3.0, "x_0", 3),
    "both": lambda network: guidance.by_classifier(condition(network, 3.0, "x_0", 3), log_prob),
}
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in GUIDED if name != "both"]


@pytest.mark.parametrize("name", ["both", *SLOW])
def test_chains_and_guidance_tell_the_network_its_unit(name):
    unit, steps = (
        np.asarray(d3pm.sample(jax.random.key(0), denoiser, (B, L)).x0)
        for denoiser in both(RESPACED, GUIDED[name])
    )
    np.testing.assert_array_equal(unit, steps)
    assert (unit >= 0).all()


@pytest.mark.slow
def test_first_hitting_calls_between_steps():
    hit = named.first_hitting(continuous.linear)
    for name in ("unguided", "x_0 up to a step"):
        unit, steps = (d3pm.sample(jax.random.key(0), x, (B, L), hit).x0 for x in both(PROCESS, GUIDED[name]))
        np.testing.assert_array_equal(unit, steps)


def test_a_denoiser_stands_where_a_bound_asks_for_a_network():
    def bound(network):
        key = jax.random.key(0)
        return d3pm.estimate_bound(key, network, RESPACED, X0, INDEX, belief="leave_one_out").total()

    unit, steps = both(RESPACED)
    right = bound(steps.network)
    np.testing.assert_allclose(bound(unit), right, rtol=1e-6)
    np.testing.assert_allclose(bound(steps), right, rtol=1e-6)
    # The trap: steps told to a network of [0, 1].
    assert abs(bound(of_unit).mean() - right.mean()) > 0.1


@pytest.mark.slow
def test_a_denoiser_stands_in_the_other_bounds():
    totals = [
        d3pm.stratified_bound(jax.random.key(0), x, RESPACED, X0, INDEX, 2, belief=x.belief)
        for x in both(RESPACED)
    ]
    np.testing.assert_allclose(*totals, rtol=1e-6)
    term = partial(d3pm.posterior_kl, belief="leave_one_out")
    costs = [jump_costs(x, PROCESS, X0, (2, T), jax.random.key(0), term) for x in both(PROCESS)]
    np.testing.assert_allclose(*costs, rtol=1e-6)


def test_what_cannot_be_told_another_unit_is_refused():
    class Own(Guided):
        def beliefs(self, x, time):
            return [of_unit(x, time)]

    with pytest.raises(TypeError, match=r"Own calls a network itself, .* divide the time by process.time"):
        d3pm.sample(jax.random.key(0), Denoiser(PROCESS, Own(), time="unit"), (B, L))  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="ByClassifier guides the law of x_s"):
        both(PROCESS, GUIDED["both"])[0](X0, jnp.ones(B))


def zeros(xt, time):
    return jnp.zeros((*xt.shape, K))


LATER = d3pm.absorbing(d3pm.reciprocal(T + 1), K, MASK)
WIDER = d3pm.absorbing(d3pm.reciprocal(T), K + 1, K)
OF_LOO = Denoiser(PROCESS, zeros, "leave_one_out")
U = jnp.full((2, B), 0.5)
BOUNDS = {
    "estimate_bound": lambda x, process, **said: d3pm.estimate_bound(
        jax.random.key(0), x, process, X0, INDEX, **said
    ),
    "all_t_bound": lambda x, process, **said: d3pm.all_t_bound(x, process, X0, noise, **said),
    "stratified_bound": lambda x, process, **said: d3pm.stratified_bound(
        jax.random.key(0), x, process, X0, INDEX, 2, **said
    ),
    "strata_bound": lambda x, process, **said: d3pm.strata_bound(x, process, X0, U, noise, **said),
    "jump_costs": lambda x, process, belief="d3pm": jump_costs(
        x, process, X0, (2, process.T), jax.random.key(0), partial(d3pm.posterior_kl, belief=belief)
    ),
}


def noise(t):
    return jnp.full((B, L), 0.5)


@pytest.mark.parametrize("bound", BOUNDS.values(), ids=BOUNDS)
def test_a_bound_refuses_a_denoiser_of_another_belief_or_process(bound):
    with pytest.raises(
        ValueError, match=r"belief = 'd3pm', and the Denoiser has 'leave_one_out': pass belief="
    ):
        bound(OF_LOO, PROCESS)
    with pytest.raises(ValueError, match=r"belief = 'denoiser', and the Denoiser has 'd3pm'"):
        bound(Denoiser(PROCESS, zeros), PROCESS, belief="denoiser")
    with pytest.raises(ValueError, match=r"process.time\[-1\] = 7, and the Denoiser has 6: .* make a new"):
        bound(OF_LOO, LATER, belief="leave_one_out")
    with pytest.raises(ValueError, match=r"process.K = 5, and the Denoiser has 4: .* denoiser.process"):
        bound(OF_LOO, WIDER, belief="leave_one_out")


def test_under_jit_the_belief_is_compared_and_unknown_times_are_not():
    compute = jax.jit(BOUNDS["estimate_bound"], static_argnames=("x", "belief"))
    assert compute(OF_LOO, RESPACED, belief="leave_one_out").steps.shape == (3, B)
    with pytest.raises(ValueError, match="belief = 'd3pm', and the Denoiser has"):
        compute(OF_LOO, RESPACED)


def test_a_term_that_says_what_the_logits_are_needs_no_belief():
    def own(process, logits, x0, xt, t):
        return d3pm.posterior_kl(process, logits, x0, xt, t, belief="leave_one_out")

    said = BOUNDS["all_t_bound"](OF_LOO, PROCESS, belief="leave_one_out").total()
    for term in (own, partial(d3pm.posterior_kl, belief="leave_one_out")):
        np.testing.assert_array_equal(BOUNDS["all_t_bound"](OF_LOO, PROCESS, term=term).total(), said)
