"""The numbers of the page that explores processes are those of dense matrices in NumPy."""

import base64
import json
import re
import zlib

import numpy as np
import pytest

from d3pm_jax.numerics import smallest_entry
from docs import explore

T, LEVELS = 25, 6


def make_matrices(name: str) -> np.ndarray:
    """Q [T, K, K], with the betas of the schedule that goes with a process."""
    t = np.arange(1, T + 1)
    if name == "gaussian":
        beta = np.linspace(0.1 / T, 20 / T, T)[:, None, None]
        distance = np.subtract.outer(np.arange(LEVELS), np.arange(LEVELS))
        n = np.arange(1 - LEVELS, LEVELS)
        Q = np.exp(-4 * distance**2 / ((LEVELS - 1) ** 2 * beta))
        Q /= np.exp(-4 * n**2 / ((LEVELS - 1) ** 2 * beta)).sum(-1, keepdims=True)
        Q[:, np.arange(LEVELS), np.arange(LEVELS)] = 0
        Q[smallest_entry(np.dtype("float64")) > Q] = 0  # as the tables of the library have them
        return Q + np.eye(LEVELS) * (1 - Q.sum(-1, keepdims=True))
    if name == "uniform":
        f = np.cos((np.arange(T + 1) / T + 0.008) / 1.008 * np.pi / 2)
        beta, pi = 1 - f[1:] / f[:-1], np.full(LEVELS, 1 / LEVELS)
    else:
        beta, pi = 1 / (T - t + 1), np.eye(LEVELS + 1)[LEVELS]
    return np.stack([(1 - b) * np.eye(len(pi)) + b * pi for b in beta])


def divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.zeros(np.broadcast_shapes(a.shape, b.shape)), where=b > 0)


def log_or_0(p: np.ndarray) -> np.ndarray:
    return np.log(p, out=np.zeros_like(p), where=p > 0)


@pytest.mark.parametrize(
    ("name", "schedule"), [("uniform", "cosine"), ("absorbing", "reciprocal"), ("gaussian", "linear")]
)
def test_numbers_are_those_of_dense_matrices(name, schedule):
    case = explore.compute_case(name, schedule, LEVELS, T)
    Q = make_matrices(name)
    K = Q.shape[-1]
    p0 = explore.measure_histogram(name, LEVELS)
    Qbar = np.stack([np.linalg.multi_dot([np.eye(K), np.eye(K), *Q[:t]]) for t in range(T + 1)])
    pair = p0[:, None] * Qbar  # [T + 1, K, K]  of x_0 and x_t
    marginal = pair.sum(1, keepdims=True)
    information = (pair * log_or_0(divide(Qbar, marginal))).sum((1, 2)) / np.log(2)
    np.testing.assert_allclose(case["information"], information, rtol=0, atol=1e-6)
    np.testing.assert_allclose(case["unchanged"], np.trace(pair, axis1=1, axis2=2), rtol=0, atol=1e-6)

    # By Bayes' rule, [T, x_0, x_t, x_{t-1}].
    both = Qbar[:-1, :, None, :] * Q.swapaxes(1, 2)[:, None]
    posterior = divide(both, both.sum(-1, keepdims=True))
    shown = np.reshape(case["posterior"], (T, LEVELS, K, K)) / 1000
    np.testing.assert_allclose(shown, posterior[:, :LEVELS], rtol=0, atol=0.00051)

    # A network that knows p0 believes p(x_0 | x_t), and goes back by the average of the posteriors.
    belief = divide(pair, marginal)[1:]  # [T, x_0, x_t]
    back = (belief[..., None] * posterior).sum(1, keepdims=True)
    kl = (pair[1:, ..., None] * posterior * log_or_0(divide(posterior, back))).sum((1, 2, 3))
    ce = -(pair[1:] * log_or_0(belief)).sum((1, 2))
    np.testing.assert_allclose(case["term"], kl / np.log(2), rtol=0, atol=1e-6)
    np.testing.assert_allclose(case["term"], -np.diff(information), rtol=0, atol=1e-6)
    weights = [
        (shown, exact) for shown, exact in zip(case["weight"], kl / ce, strict=True) if shown is not None
    ]
    assert len(weights) > T / 2
    np.testing.assert_allclose(*np.transpose(weights), rtol=0, atol=2e-6)

    if name == "gaussian":
        assert case["alpha_bar"] is None
    else:
        other = (0, 1)  # neither stays nor is the mask: its probability is (1 - alpha_bar) pi
        drawn_anew = 1 - Qbar[:, 0, 0] if name == "absorbing" else LEVELS * Qbar[:, *other]
        np.testing.assert_allclose(case["alpha_bar"], 1 - drawn_anew, rtol=0, atol=1e-6)


def test_the_chain_is_one_of_the_process():
    pictures = explore.compute_case("absorbing", "reciprocal", LEVELS, T)["chain"]
    chain = np.array([list(map(int, picture)) for picture in pictures])
    np.testing.assert_array_equal(chain[0], explore.load_pictures(LEVELS)[explore.PICTURE].ravel())
    before, after = chain[:-1], chain[1:]
    assert np.all((after == before) | (after == LEVELS))
    hidden = (chain == LEVELS).mean(1)
    np.testing.assert_allclose(hidden, np.arange(T + 1) / T, atol=0.2)
    assert hidden[-1] == 1


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        (("absorbing", "linear", 4, 25), "x_T still depends on x_0"),
        (("gaussian", "cosine", 8, 50), "x_T still depends on x_0"),
        (("gaussian", "information", 8, 50), "draw a new value"),
    ],
)
def test_a_choice_that_is_not_offered_says_why(choice, reason):
    with pytest.raises(explore.NotOffered, match=reason):
        explore.compute_case(*choice)


def test_the_page_holds_its_numbers_and_loads_nothing():
    cases = {"uniform cosine 4 25": {"K": 4}, "absorbing linear 4 25": "why not"}
    page = explore.build_page(cases)
    packed = page.split('type="text/plain">')[1].split("</script>")[0]
    assert json.loads(zlib.decompress(base64.b64decode(packed)))["cases"] == cases
    assert "default-src 'none'" in page
    assert re.findall(r'(?:src|href)="(?!data:|explore\.html)', page) == []
