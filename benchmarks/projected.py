"""Times losses of hidden states and a kernel at K = 50,257 on a CPU, beside the same of logits in memory.

    python benchmarks/projected.py [absorbing uniform masked cross-entropy] [--rounds 9]

Of 4 x 1,024 places and width 768 with the gradients for both, each in turn: with logits in memory, projected,
and projected with weights of 0 at half of the places. Ratios are of the same round; beside them stand the
temporaries that XLA plans, and how far values and gradients are apart.
"""

import argparse
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from measuring import line

import d3pm_jax as d3pm
from d3pm_jax import losses
from d3pm_jax.projection import Projection

K = 50_257
WIDTH = 768
SHAPE = (4, 1024)
T = 1000
CASES = {
    "absorbing": (lambda: d3pm.absorbing(d3pm.reciprocal(T), K, K - 1), losses.posterior_kl),
    "uniform": (lambda: d3pm.uniform(d3pm.cosine(T), K), losses.posterior_kl),
    "masked": (
        lambda: d3pm.masked(d3pm.uniform(d3pm.cosine(T), K - 1), d3pm.reciprocal(T)),
        losses.posterior_kl,
    ),
    "cross-entropy": (
        lambda: d3pm.absorbing(d3pm.reciprocal(T), K, K - 1),
        lambda process, logits, x0, xt, t: losses.cross_entropy(process, logits, x0),
    ),
}
HEAD = (
    "loss",
    "temporaries, MB",
    "projected",
    "time of it",
    "with half the weights",
    "apart: value, gradients",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], help="losses (all)")
    parser.add_argument("--rounds", type=int, default=9, help="how often each is timed (9)")
    args = parser.parse_args()
    print(line(HEAD))
    print(line(["---"] * len(HEAD)), flush=True)
    for name in args.cases or CASES:
        print(line(measure(name, args.rounds)), flush=True)


def measure(name: str, rounds: int) -> list[str]:
    """Compiles both forms, compares and times them; returns a row."""
    make_process, loss = CASES[name]
    process = make_process()
    rng = np.random.default_rng(0)
    x0 = jnp.asarray(rng.integers(0, K - 1, SHAPE), jnp.int32)
    t = jnp.asarray([200, 500, 700, 900], jnp.int32)
    xt = d3pm.q_sample(process, x0, t, jnp.asarray(rng.random(SHAPE), jnp.float32))
    hidden = jnp.asarray(rng.normal(size=(*SHAPE, WIDTH)), jnp.float32)
    kernel = jnp.asarray(0.03 * rng.normal(size=(WIDTH, K)), jnp.float32)
    weight = jnp.full(SHAPE, 1 / x0.size)
    half = jnp.where(jnp.arange(SHAPE[1]) % 2 == 0, weight, 0.0)
    extra_mask = name in ("absorbing", "cross-entropy")

    def finish(output: jax.Array, xt: jax.Array) -> jax.Array:
        logits = d3pm.residual(output, xt)
        return d3pm.forbid(logits, K - 1) if extra_mask else logits

    def in_memory(logits: Projection, weight: jax.Array) -> jax.Array:
        return (loss(process, logits.logits(), x0, xt, t) * weight).sum()

    def projected(logits: Projection, weight: jax.Array) -> jax.Array:
        return losses.projected(process, loss, logits, (x0, xt, t), weight).total

    def compile_form(form: Any) -> Any:
        def value(hidden: jax.Array, kernel: jax.Array, weight: jax.Array) -> jax.Array:
            return form(Projection(hidden, kernel, None, xt, finish), weight)

        return jax.jit(jax.value_and_grad(value, (0, 1))).lower(hidden, kernel, weight).compile()

    plain, ours = compile_form(in_memory), compile_form(projected)
    memory = [f"{form.memory_analysis().temp_size_in_bytes / 1e6:,.0f}" for form in (plain, ours)]
    value, gradients = plain(hidden, kernel, weight)
    value_of_ours, gradients_of_ours = ours(hidden, kernel, weight)
    apart = [abs(float(value_of_ours / value) - 1)]
    apart += [
        float(jnp.abs(x - y).max() / jnp.abs(x).max())
        for x, y in zip(gradients, gradients_of_ours, strict=True)
    ]
    del gradients, gradients_of_ours
    calls = [functools.partial(plain, hidden, kernel, weight)]
    calls += [functools.partial(ours, hidden, kernel, x) for x in (weight, half)]
    seconds = np.array([[time_call(call) for call in calls] for _ in range(rounds)])
    ratios = seconds[:, 1:] / seconds[:, :1]
    of_all, of_half = (f"{np.median(x):.2f} ({x.min():.2f}..{x.max():.2f})" for x in ratios.T)
    return [name, *memory, of_all, of_half, ", ".join(f"{x:.0e}" for x in apart)]


def time_call(call: Any) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
