"""Processes of every family: of any K and T, and at small K beside their one-step matrices in NumPy."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from d3pm_jax import processes
from d3pm_jax.processes import Process
from d3pm_jax.schedules import cosine, linear, reciprocal
from tests.processes.own import cyclic_shift


class Case(NamedTuple):
    process: Process
    Q: np.ndarray  # [T, K, K]
    prior: np.ndarray  # [K]
    data: list[int]  # categories that the data may contain
    forbid: int | None = None


BETA = np.array([0.15, 0.3, 0.5, 1.0])
RISING = np.array([0.8, 0.85, 0.9, 1.0])


def _rising(K: int) -> np.ndarray:
    """Probabilities in proportion to 1..K."""
    weights = np.arange(1, K + 1)
    return weights / weights.sum()


# A process of each family, of K categories and T steps, under the schedule that is usual for it. "absorbing"
# ends in a category of the data, "extra mask" in one that the data does not have.
FAMILIES: dict[str, Callable[[int, int], Process]] = {
    "uniform": lambda K, T: processes.uniform(cosine(T), K),
    "absorbing": lambda K, T: processes.absorbing(reciprocal(T), K, K // 2),
    "extra mask": lambda K, T: processes.absorbing(reciprocal(T), K, K - 1),
    "autoregressive": lambda K, T: processes.autoregressive(T, K, K - 1),
    "gaussian": lambda K, T: processes.gaussian(linear(T), K),
    "marginal": lambda K, T: processes.marginal(cosine(T), _rising(K)),
    "masked": lambda K, T: processes.masked(processes.uniform(cosine(T), K - 1), reciprocal(T)),
    "masked gaussian": lambda K, T: processes.masked(processes.gaussian(linear(T), K - 1), reciprocal(T)),
    "interpolating": lambda K, T: processes.interpolating(T, K, K - 1, 0.2),
}


def _mix(beta: np.ndarray, pi: np.ndarray) -> np.ndarray:
    return np.stack([(1 - b) * np.eye(len(pi)) + b * np.tile(pi, (len(pi), 1)) for b in beta])


def _uniform() -> Case:
    pi = np.full(3, 1 / 3)
    return Case(processes.uniform(BETA, 3), _mix(BETA, pi), pi, [0, 1, 2])


def _absorbing() -> Case:
    pi = np.array([0.0, 1.0, 0.0])
    return Case(processes.absorbing(BETA, 3, 1), _mix(BETA, pi), pi, [0, 1, 2])


def _extra_mask() -> Case:
    pi = np.array([0.0, 0.0, 1.0])
    return Case(processes.absorbing(BETA, 3, 2), _mix(BETA, pi), pi, [0, 1], forbid=2)


def _marginal() -> Case:
    pi = np.array([0.6, 0.0, 0.4])
    return Case(processes.marginal(BETA, pi), _mix(BETA, pi), pi, [0, 1, 2])


def _masked() -> Case:
    pi = np.array([0.7, 0.3])
    return _on_top(processes.marginal(BETA, pi), _mix(BETA, pi), pi, BETA[::-1] * 0.6)


def _masked_dense() -> Case:
    Q = np.random.default_rng(1).dirichlet([1.0, 1.0], (4, 2))
    Qbar = Q[0] @ Q[1] @ Q[2] @ Q[3]
    return _on_top(processes.dense(Q), Q, Qbar.mean(0), RISING * 0.5)


def _on_top(inner: Process, Q: np.ndarray, prior: np.ndarray, gamma: np.ndarray) -> Case:
    masked = np.zeros((4, 3, 3))
    for t in range(4):
        masked[t, :2, :2] = (1 - gamma[t]) * Q[t]
        masked[t, :2, 2] = gamma[t]
        masked[t, 2, 2] = 1.0
    hidden = 1 - np.prod(1 - gamma)
    prior = np.append((1 - hidden) * prior, hidden)
    return Case(processes.masked(inner, gamma), masked, prior, [0, 1], forbid=2)


def _interpolating() -> Case:
    """GIDD, its mask in the middle: Q from s to t is a I + 1 (b_t - a b_s)^T, a = alpha_t / alpha_s."""
    p_uniform, gamma = 0.4, 1.5
    time = np.arange(5) / 4
    c = 2**gamma * p_uniform / (1 - p_uniform) * (time * (1 - time)) ** (gamma / 2)
    alpha = (1 - time) / (1 + c)
    b = np.stack([c / 2, time, c / 2], axis=1) / (1 + c)[:, None]
    Q = np.zeros((4, 3, 3))
    for t in range(4):
        a = alpha[t + 1] / alpha[t]
        Q[t] = a * np.eye(3) + (b[t + 1] - a * b[t])
    return Case(processes.interpolating(4, 3, 1, p_uniform, gamma), Q, np.array([0.0, 1.0, 0.0]), [0, 2], 1)


def _gaussian() -> Case:
    Q = np.zeros((4, 3, 3))
    for t, beta in enumerate(RISING):
        total = sum(np.exp(-4 * n**2 / (4 * beta)) for n in range(-2, 3))
        for i in range(3):
            for j in range(3):
                if i != j:
                    Q[t, i, j] = np.exp(-4 * (i - j) ** 2 / (4 * beta)) / total
            Q[t, i, i] = 1 - Q[t, i].sum()
    return Case(processes.gaussian(RISING, 3), Q, np.full(3, 1 / 3), [0, 1, 2])


def _banded() -> Case:
    Q = np.zeros((4, 3, 3))
    for t, beta in enumerate(BETA):
        Q[t] = beta / 3 * np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
        for i in range(3):
            Q[t, i, i] = 1 - Q[t, i].sum()
    return Case(processes.banded(BETA, 3, 1), Q, np.full(3, 1 / 3), [0, 1, 2])


def _neighbours() -> Case:
    """Three points on a line, the last one far off, and exp(s R) from the eigenvectors of R."""
    R = np.array([[-1.0, 1.0, 0.0], [1.0, -1.5, 0.5], [0.0, 0.5, -0.5]])
    durations = np.array([0.1, 0.5, 1.0, 3.0])
    eigenvalues, V = np.linalg.eigh(R)
    Q = np.stack([V * np.exp(s * eigenvalues) @ V.T for s in durations])
    process = processes.from_rate(processes.knn_rate(np.array([[0.0], [1.0], [3.0]]), 1), durations)
    return Case(process, Q, np.full(3, 1 / 3), [0, 1, 2])


def _dense() -> Case:
    rng = np.random.default_rng(0)
    Q = rng.uniform(0.1, 1.0, (4, 3, 3))
    Q[0, 0, 2] = Q[0, 2, 0] = Q[1, 1, 0] = 0.0
    Q /= Q.sum(-1, keepdims=True)
    Qbar = Q[0] @ Q[1] @ Q[2] @ Q[3]
    return Case(processes.dense(Q), Q, Qbar.mean(0), [0, 1, 2])


def _cyclic_shift() -> Case:
    """A process that is no part of the library, beside its matrices."""
    beta = np.array([0.4, 0.5, 0.3, 0.6])
    I = np.eye(3)
    Q = np.stack([(1 - b) * I + b * np.roll(I, 1, axis=1) for b in beta])
    return Case(cyclic_shift(beta, 3), Q, np.full(3, 1 / 3), [0, 1, 2])


# Every case at K = 3, T = 4, by its name.
CASES: dict[str, Callable[[], Case]] = {
    "uniform": _uniform,
    "absorbing": _absorbing,
    "extra mask": _extra_mask,
    "marginal": _marginal,
    "masked": _masked,
    "masked dense": _masked_dense,
    "interpolating": _interpolating,
    "gaussian": _gaussian,
    "banded": _banded,
    "neighbours": _neighbours,
    "dense": _dense,
    "own": _cyclic_shift,
}
NAMES = tuple(CASES)


def make(name: str) -> Case:
    """K = 3, T = 4. Call it under x64 for float64 tables."""
    return CASES[name]()


def all_steps(process: Process) -> tuple[np.ndarray, np.ndarray]:
    """Q and Qbar of t = 0..T."""
    t = jnp.arange(process.T + 1, dtype=jnp.int32)
    return np.asarray(process.Q(t)), np.asarray(process.Qbar(t))
