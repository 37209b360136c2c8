"""How far samples with known elements are from the conditional law, of a network that knows the data.

    python benchmarks/clamped.py

Three elements of three categories, the data of 20 random laws (each of 27 weights, the exponentials of normal
numbers times 2). The first element is known; the law of the other two under `sampling.infill` is computed by
enumeration, as is p(x_2, x_3 | x_1). Prints the total variation between the two, the mean over laws and x_1,
and beside it that of a chain without known elements from the data: what comes of few steps alone.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import d3pm_jax as d3pm

L = 3
LAWS = 20
STEPS = (10, 50, 250)


def states(K: int) -> np.ndarray:
    """Returns every x, [K^3, 3]."""
    return np.array(list(itertools.product(range(K), repeat=L)))


def laws(number: int, data: int = 3) -> np.ndarray:
    """Draws laws of x_0, [number, 27]."""
    weights = np.exp(2 * np.random.default_rng(0).normal(size=(number, data**L)))
    return weights / weights.sum(1, keepdims=True)


@partial(jax.jit, static_argnames="timeless")
def reverse_steps(process: d3pm.processes.Process, law: jax.Array, timeless: bool) -> jax.Array:
    """Computes p(x_{t-1} | x_t) of each element for the exact denoiser, t = 1..T: [T, K^3, 3, K].

    That of an absorbing process is the same at every t where x_t is possible: it sees no time.
    """
    K = process.K
    x0 = jnp.asarray(states(3))  # [27, 3]
    xt = jnp.asarray(states(K))  # [K^3, 3]

    def at(t: jax.Array) -> jax.Array:
        step = t
        if timeless:
            step = jnp.asarray(1)
        log_q = jnp.log(process.Qbar(step))[x0[:, None], xt[None]]  # [27, K^3, 3]
        joint = jnp.log(law)[:, None] + log_q.sum(-1)  # [27, K^3]
        by_category = []
        for k in range(K):
            of_category = jnp.where((x0 == k)[:, None], joint[..., None], -jnp.inf)  # [27, K^3, 3]
            by_category.append(jax.nn.logsumexp(of_category, 0))
        logits = jnp.stack(by_category, -1)  # [K^3, 3, K]
        ts = jnp.full(len(xt), t)
        return d3pm.p_logits(process, logits, xt, ts, belief="denoiser")

    return jax.lax.map(at, jnp.arange(1, process.T + 1))


def law_of_chain(log_p: np.ndarray, start: np.ndarray, K: int, first: int | None) -> np.ndarray:
    """Pushes a law of x_T through all steps, with the first element known or not: [K^3]."""
    x = states(K)
    law = start
    for t in range(len(log_p), 0, -1):
        p = np.exp(log_p[t - 1])  # [K^3, 3, K]
        if first is not None:
            p[:, 0] = np.eye(K)[first]
        step = np.ones((len(x), len(x)))
        for i in range(L):
            step *= p[:, i][:, x[:, i]]
        law = law @ step
    return law


def distances(process: d3pm.processes.Process) -> tuple[float, float]:
    """Returns the total variation with the first element known, and without, the mean over laws."""
    K = process.K
    clamped_distances = []
    free_distances = []
    is_data = np.flatnonzero((states(K) < 3).all(1))
    prior = np.exp(np.asarray(process.log_prior(), np.float64))
    start = prior[states(K)].prod(1)
    for law in laws(LAWS):
        log_p = np.asarray(reverse_steps(process, jnp.asarray(law), K > 3), np.float64)
        free_distances.append(np.abs(law_of_chain(log_p, start, K, None)[is_data] - law).sum() / 2)
        for k in range(3):
            begun = np.where(states(K)[:, 0] == k, prior[states(K)[:, 1:]].prod(1), 0.0)
            clamped_law = law_of_chain(log_p, begun, K, k)[is_data]
            exact = np.where(states(3)[:, 0] == k, law, 0.0)
            clamped_distances.append(np.abs(clamped_law - exact / exact.sum()).sum() / 2)
    return float(np.mean(clamped_distances)), float(np.mean(free_distances))


def main() -> None:
    """Prints the table."""
    jax.config.update("jax_enable_x64", True)
    print("process, steps: total variation with x_1 known; without")
    for T in STEPS:
        beta = d3pm.reciprocal(T)
        for name, process in (
            ("absorbing", d3pm.absorbing(beta, 4, mask_id=3)),
            ("uniform", d3pm.uniform(d3pm.cosine(T, 0.0, 1.0), 3)),
        ):
            print(f"{name}, {T}: {'; '.join(f'{x:.4f}' for x in distances(process))}")


if __name__ == "__main__":
    main()
