"""How far samples around known elements are from the conditional law, of a network that knows the data.

    python benchmarks/clamping.py

Three elements of three categories, the data of 20 random laws (each of 27 weights, the exponentials of normal
numbers times 2). The first element is known. The law of the other two is computed by enumeration in float64,
for each way of clamping: known elements are clean in every row, or noised as x is (`noises_known`); each row
is taken once, or several times with a step back up between (`passes`). Prints the total variation from
p(x_2, x_3 | x_1), the mean over laws and x_1; and beside it that of a chain without known elements from the
data: what comes of few steps alone.
"""

import itertools
import warnings
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import d3pm_jax as d3pm
from d3pm_jax.processes import Process

L = 3
DATA = 3  # categories of the data
LAWS = 20
STEPS = (10, 50, 250)
PASSES = (1, 2, 5, 10, 50)
PASSES_OF = (10, 50)  # the numbers of steps that passes are shown for


def states(K: int) -> np.ndarray:
    """Returns every x, [K^3, 3]."""
    return np.array(list(itertools.product(range(K), repeat=L)))


def laws(number: int) -> np.ndarray:
    """Draws laws of x_0, [number, 27]."""
    weights = np.exp(2 * np.random.default_rng(0).normal(size=(number, DATA**L)))
    return weights / weights.sum(1, keepdims=True)


@partial(jax.jit, static_argnames="timeless")
def reverse_steps(process: Process, law: jax.Array, timeless: bool) -> jax.Array:
    """Computes p(x_{t-1} | x_t) of each element for the exact denoiser, t = 1..T: [T, K^3, 3, K].

    That of an absorbing process is the same at every t where x_t is possible: it sees no time.
    """
    K = process.K
    x0 = jnp.asarray(states(DATA))  # [27, 3]
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
        return jnp.exp(d3pm.p_logits(process, logits, xt, ts, belief="denoiser"))

    return jax.lax.map(at, jnp.arange(1, process.T + 1))


class Clamping:
    """Knows the steps down and up of a chain, whose first element may be known: laws of K^3 states."""

    def __init__(self, process: Process, down: np.ndarray, first: int | None, is_noised: bool):
        steps = jnp.arange(process.T + 1)
        self.T, self.K = process.T, process.K
        self.prior = np.exp(np.asarray(process.log_prior()))  # [K]
        self.Q = np.asarray(process.Q(steps))  # [T + 1, K, K]
        self.Qbar = np.asarray(process.Qbar(steps))
        self.down = down  # [T, K^3, 3, K]
        self.first = first
        self.is_noised = is_noised

    def together(self, of_elements: np.ndarray, level: int) -> np.ndarray:
        """Returns the law [n, K^3] of elements [n, 3, K] at a level, each drawn on its own."""
        of_elements = of_elements.copy()
        if self.first is not None:
            of_elements[:, 0] = self.Qbar[level if self.is_noised else 0, self.first]
        return np.prod(of_elements[:, np.arange(L), states(self.K)], axis=-1)

    def law(self, passes: int) -> np.ndarray:
        """Returns the law of x_0, [K^3]."""
        x = self.together(np.broadcast_to(self.prior, (1, L, self.K)), self.T)[0]
        for t in range(self.T, 0, -1):
            down = self.together(self.down[t - 1], t - 1)
            up = self.together(self.Q[t][states(self.K)], t)
            x = x @ down @ np.linalg.matrix_power(up @ down, passes - 1)
        return x


def distances(
    process: Process, ways: Sequence[tuple[bool, int]]
) -> tuple[dict[tuple[bool, int], float], float]:
    """Returns total variations, the mean over laws: with x_1 known by way of clamping, and without.

    Args:
        process: of K = 3, or with a mask 4.
        ways: whether the known element is noised, and the number of passes.
    """
    K = process.K
    is_data = np.flatnonzero((states(K) < DATA).all(1))
    by_way: dict[tuple[bool, int], list[float]] = {way: [] for way in ways}
    free = []
    for law in laws(LAWS):
        down = np.asarray(reverse_steps(process, jnp.asarray(law), K > DATA))
        free.append(np.abs(Clamping(process, down, None, False).law(1)[is_data] - law).sum() / 2)
        for first in range(DATA):
            exact = np.where(states(DATA)[:, 0] == first, law, 0.0)
            exact /= exact.sum()
            for is_noised, passes in ways:
                clamped = Clamping(process, down, first, is_noised).law(passes)[is_data]
                by_way[is_noised, passes].append(np.abs(clamped - exact).sum() / 2)
    return {way: float(np.mean(values)) for way, values in by_way.items()}, float(np.mean(free))


def gaussian(T: int) -> Process:
    """Makes Gaussian noise of three categories, whose variance rises until x_T forgets x_0."""
    return d3pm.gaussian(np.linspace(0.1, 1.0, T), DATA)


PROCESSES: dict[str, Callable[[int], Process]] = {
    "absorbing": lambda T: d3pm.absorbing(d3pm.reciprocal(T), DATA + 1, mask_id=DATA),
    "uniform": lambda T: d3pm.uniform(d3pm.cosine(T, 0.0, 1.0), DATA),
    "gaussian": gaussian,
}


def main() -> None:
    """Prints both tables."""
    jax.config.update("jax_enable_x64", True)
    # Ten steps of Gaussian noise leave .09 bits of an element, which the column without known ones counts.
    warnings.filterwarnings("ignore", "x_T still depends")
    print("process, steps: clean clamping, one pass; nothing known")
    for T in STEPS:
        for name, make in PROCESSES.items():
            by_way, free = distances(make(T), [(False, 1)])
            print(f"{name}, {T}: {by_way[False, 1]:.4f}; {free:.4f}")
    print(f"process, steps, known elements: passes {', '.join(map(str, PASSES))}")
    for T in PASSES_OF:
        for name, make in PROCESSES.items():
            ways = list(itertools.product((False, True), PASSES))
            by_way, _ = distances(make(T), ways)
            for is_noised, known in ((False, "clean"), (True, "noised")):
                row = " ".join(f"{by_way[is_noised, passes]:.4f}" for passes in PASSES)
                print(f"{name}, {T}, {known}: {row}")


if __name__ == "__main__":
    main()
