"""Times how draws and losses compile on a CPU: `python benchmarks/compile_times.py K.. [--only WORDS..]`.

K is a number of categories or a range, 2-300. Each program is what a user may write: rows that all elements
share, broadcast inside the jit; one word of noise and two; and behind each draw functions of what was drawn,
which XLA fuses with it. The table has the slowest K of each program. A program that takes longer than --most
seconds ends the process, after its name was printed.
"""

import argparse
import signal
import statistics
import time
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import d3pm_jax as d3pm
from d3pm_jax import losses

T = 8
SHAPE = (64, 8)


def use(*draws: jax.Array) -> list[jax.Array]:
    """Returns draws, and functions of them: a call behind a draw is what can be slow, see `cpu.loops`."""
    return [y for x in draws for y in (x, jnp.exp(-1.0 * x), jnp.abs(x - 3), jnp.minimum(x, 3))]


def draw_shared_rows(row: jax.Array, u: jax.Array) -> list[jax.Array]:
    rows = jnp.broadcast_to(row, (*SHAPE, row.size))
    return use(d3pm.categorical(rows, u), d3pm.categorical(rows, u, u))


def draw_shared_rows_by_vmap(row: jax.Array, u: jax.Array) -> list[jax.Array]:
    draw = jax.vmap(d3pm.categorical, (None, 1, 1))
    rows = jnp.broadcast_to(row, (SHAPE[0], row.size))
    return use(draw(rows, u, u))


def draw_rows(logits: jax.Array, u: jax.Array) -> list[jax.Array]:
    return use(d3pm.categorical(logits, u), d3pm.categorical(2 * logits, u, u))


def draw_of_process(process: Any, x: jax.Array, t: jax.Array, u: jax.Array) -> list[jax.Array]:
    draws = [process.draw_q(x, t, u), process.draw_q(x, t, u, u), process.draw_step(x, t, u, u)]
    return use(*draws, process.draw_prior(u), process.draw_prior(u, u))


def step(process: Any, logits: jax.Array, x: jax.Array, t: jax.Array, u: jax.Array) -> list[jax.Array]:
    xt = process.draw_q(x, t, u)
    return use(d3pm.p_sample(process, logits, xt, t, u), d3pm.p_sample(process, logits, x, t, u, u_low=u))


def loss(process: Any, logits: jax.Array, x: jax.Array, t: jax.Array, u: jax.Array) -> Any:
    def compute(logits: jax.Array) -> jax.Array:
        return losses.hybrid(process, logits, x, process.draw_q(x, t, u), t, 0.01).loss.sum()

    return jax.value_and_grad(compute)(logits)


def make_programs(K: int) -> Iterator[tuple[str, Any, tuple]]:
    """Yields the name of each program, its function and what it takes."""
    logits = jnp.zeros((*SHAPE, K))
    x = jnp.zeros(SHAPE, jnp.int32)
    u = jnp.zeros(SHAPE)
    t = jnp.ones(SHAPE[:1], jnp.int32)
    yield "rows that all share", draw_shared_rows, (logits[0, 0], u)
    yield "rows that all share, by vmap", draw_shared_rows_by_vmap, (logits[0, 0], u)
    yield "rows", draw_rows, (logits, u)
    law = np.arange(1.0, K + 1)
    processes = {
        "uniform": d3pm.uniform(d3pm.cosine(T), K),
        "absorbing": d3pm.absorbing(d3pm.cosine(T), K, mask_id=K - 1),
        "marginal": d3pm.marginal(d3pm.cosine(T), law / law.sum()),
    }
    if K > 2:
        processes["masked"] = d3pm.masked(d3pm.uniform(d3pm.cosine(T), K - 1), np.linspace(0.05, 1.0, T))
    if K <= 300:
        processes["gaussian"] = d3pm.gaussian(np.full(T, 0.3), K)
    for name, process in processes.items():
        yield f"{name}: draws", draw_of_process, (process, x, t, u)
        yield f"{name}: step", step, (process, logits, x, t, u)
        yield f"{name}: loss with gradient", loss, (process, logits, x, t, u)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("K", nargs="+", help="a number of categories, or a range such as 2-300")
    parser.add_argument(
        "--only", nargs="*", default=[""], help="programs whose names have some of these words"
    )
    parser.add_argument("--most", type=int, default=120, help="seconds that a program may take")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message="x_T still depends")
    seconds: dict[str, dict[int, float]] = {}
    for words in args.K:
        first, _, last = words.partition("-")
        if not (first.isdecimal() and (last or first).isdecimal()):
            parser.error(f"unknown range {words}: pass a number of categories, or a range such as 2-300")
        for K in range(int(first), int(last or first) + 1):
            for name, f, arguments in make_programs(K):
                if not any(words in name for words in args.only):
                    continue
                print(f"K = {K}: {name}", end="", flush=True)
                signal.alarm(args.most)
                lowered = jax.jit(f).lower(*arguments)
                began = time.perf_counter()
                lowered.compile()
                signal.alarm(0)
                seconds.setdefault(name, {})[K] = time.perf_counter() - began
                print(f": {seconds[name][K]:.2f} s", flush=True)
            jax.clear_caches()
    print(f"\n| JAX {jax.__version__}, s to compile | programs | median | slowest |\n|---|---|---|---|")
    for name, by_K in seconds.items():
        slowest = max(by_K, key=lambda K, by_K=by_K: by_K[K])
        median = statistics.median(by_K.values())
        print(f"| {name} | {len(by_K)} | {median:.1f} | {by_K[slowest]:.1f}, K = {slowest} |")


if __name__ == "__main__":
    main()
