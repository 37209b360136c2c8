"""Bounds and likelihoods of a `Projection`, against those of logits in memory."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import enumeration, likelihood, losses, orders, projection
from d3pm_jax.evaluation.jumps import jump_costs
from tests.lowering.values import largest_value

K = 7
WIDTH = 5
B, L = 3, 5
T = 6


@pytest.fixture(autouse=True)
def few_places(monkeypatch):
    """Four rounds of four of the fifteen places, the last of which begins earlier."""
    monkeypatch.setattr(projection, "PLACES_ON_CPU", 4)
    monkeypatch.setattr(projection, "PLACES", 4)


def make_processes(K):
    return {
        "absorbing": d3pm.absorbing(d3pm.reciprocal(T), K, K - 1),
        "uniform": d3pm.uniform(d3pm.reciprocal(T), K),
        "masked": d3pm.masked(d3pm.uniform(d3pm.reciprocal(T), K - 1), d3pm.reciprocal(T)),
    }


def forbidden(output, xt):
    return d3pm.forbid(d3pm.residual(output, xt), output.shape[-1] - 1)


def make_network(K):
    """Makes a network that projects, of hidden states of places that look at each other."""
    rng = np.random.default_rng(1)
    embedding, kernel, bias = (jnp.asarray(rng.normal(size=s), float) for s in ((K, WIDTH), (WIDTH, K), (K,)))

    def network(x, time) -> Any:
        h = embedding[x]
        h = jnp.tanh(h + h.mean(axis=1, keepdims=True) + time[:, None, None] / T)
        return projection.Projection(h, kernel, bias, x, forbidden)

    return network


FAST = [("absorbing", "official"), ("uniform", "denoiser")]
SLOW = [("uniform", "leave_one_out"), ("masked", "official"), ("masked", "denoiser")]


def compute_all(project, cases, K=K):
    """The figures of a network of processes and beliefs, by name."""
    rng = np.random.default_rng(0)
    network = make_network(K)

    def denoise(x, time):
        logits = network(x, time)
        return logits if project else projection.all_logits(logits)

    x0 = jnp.asarray(rng.integers(0, K - 1, (B, L)), jnp.int32)
    weight = jnp.asarray(rng.random((B, L)) * (rng.random((B, L)) > 0.2), float)
    noise = d3pm.sampling.per_example(jax.random.key(0), jnp.arange(B), (L,))
    u = jnp.asarray(rng.random((2, B)), float)
    figures = {}
    for name, belief in cases:
        process = make_processes(K)[name]
        of = f"{name}, {belief}: "
        bound = likelihood.all_t_bound(denoise, process, x0, noise, belief=belief, weight=weight)
        figures[of + "all t"] = bound.steps
        figures[of + "strata"] = likelihood.strata_bound(denoise, process, x0, u, noise, belief=belief)
        figures[of + "path"] = likelihood.trajectory_log_weight(denoise, process, x0, noise, belief)
    fill_in = functools.partial(denoise, time=jnp.ones(B))
    order = jnp.asarray(rng.random((B, L)), float)
    figures["chain rule"] = likelihood.chain_rule(fill_in, x0, order, K - 1)
    figures["all orders"] = orders.all_orders(fill_in, x0, K - 1)
    return figures


@pytest.mark.parametrize("cases", [FAST, pytest.param(SLOW, marks=pytest.mark.slow)])
def test_figures_are_those_of_logits_in_memory(cases):
    with jax.enable_x64(True):
        expected, found = jax.jit(lambda: [compute_all(project, cases) for project in (False, True)])()
    for name, x in expected.items():
        assert np.isfinite(x).all(), name
        assert np.abs(x).max() > 0, name
        np.testing.assert_allclose(found[name], x, rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.slow
def test_figures_of_float32():
    expected, found = jax.jit(lambda: [compute_all(project, FAST) for project in (False, True)])()
    for name, x in expected.items():
        np.testing.assert_allclose(found[name], x, rtol=1e-5, atol=1e-6, err_msg=name)


def test_no_figure_needs_an_array_of_all_logits():
    """In the programs of all devices; K is so large that nothing else is of that size."""
    large = 211
    assert largest_value(lambda: compute_all(True, FAST + SLOW, large)) < B * L * large
    assert largest_value(lambda: compute_all(False, FAST[:1], large)) >= B * L * large


def test_costs_of_jumps_are_those_of_logits_in_memory():
    process = make_processes(K)["uniform"]
    network = make_network(K)
    x0 = np.random.default_rng(0).integers(0, K - 1, (B, L))
    expected, found = (
        jump_costs(jax.jit(denoise), process, x0, [1, T], jax.random.key(0))
        for denoise in (lambda x, t: projection.all_logits(network(x, t)), network)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_what_does_not_fit_a_projection_is_refused():
    noise = d3pm.sampling.per_example(jax.random.key(0), jnp.arange(B), (L,))
    x0 = jnp.zeros((B, L), jnp.int32)
    with pytest.raises(ValueError, match=r"^denoise\(xt, time\) has shape \(3, 5, 6\), expected \[3, 5, 7\]"):
        likelihood.all_t_bound(make_network(K - 1), make_processes(K)["uniform"], x0, noise)
    process = d3pm.autoregressive(L, K, K - 1)
    with pytest.raises(ValueError, match=r"^Autoregressive goes by the place, .*: let the network return"):
        likelihood.all_t_bound(make_network(K), process, x0, noise)

    def sums(process, logits, x0, xt, t):
        return losses.posterior_kl(process, logits, x0, xt, t).sum()

    with pytest.raises(
        ValueError, match=r"^term\(process, logits, x0, xt, t\) has shape \(\), expected \[4\]"
    ):
        likelihood.all_t_bound(make_network(K), make_processes(K)["uniform"], x0, noise, sums)


def test_laws_that_are_enumerated_are_those_of_logits_in_memory():
    """Of two places: all logits of so few are made at once."""
    network = make_network(K)
    process = d3pm.respace(make_processes(K)["absorbing"], [3, 6])
    laws = [
        enumeration.chain_law(lambda x, time, read=read: read(network(x, time)), process, (2,))
        for read in (lambda logits: logits, projection.all_logits)
    ]
    np.testing.assert_allclose(*laws, rtol=1e-6)
