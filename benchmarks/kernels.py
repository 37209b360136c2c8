"""Our kernels beside the same mathematics written as the official D3PM code does it, in one interleaved run.

    python benchmarks/kernels.py [loss] [belief] [draw] [growth] [places] [torch] [--rounds N]

The other side gathers from T x K x K tables, multiplies softmax(logits) by Qbar, puts 1e-6 into every log
and draws with K Gumbels per element. Times are medians over rounds in which everything takes its turn, each
the second of two calls; memory is the temporaries of the compiled program. Compare ratios, not times.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from measuring import in_turn

import d3pm_jax as d3pm

T = 1000
EPS = 1e-6
CE_WEIGHT = 0.001
BELIEFS = ("d3pm", "leave_one_out", "denoiser")
Program = tuple[Callable[..., Any], tuple[Any, ...]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="STUDY", help="which studies (all)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds per study (9)")
    args = parser.parse_args()
    if unknown := set(args.what) - set(STUDIES):
        parser.error(f"unknown study {unknown.pop()}: choose from {', '.join(STUDIES)}")
    for name in args.what or STUDIES:
        print(f"\n{name}: {STUDIES[name].__doc__}")
        STUDIES[name](args.rounds)


def loss(rounds: int) -> None:
    """hybrid loss and its gradient for the logits, K = 256, batch 32 of 32 x 32 x 3, float32"""
    for name, build in FAMILIES.items():
        process = build(256)
        tables = official_tables(process)
        data = examples(process, (32, 32 * 32 * 3))
        compare(
            {
                f"{name}, official form": (official_loss, (*tables, *data)),
                f"{name}, d3pm_jax": (our_loss, (process, *data)),
            },
            rounds,
        )


def belief(rounds: int) -> None:
    """hybrid loss and its gradient under each belief, K = 256, 8 x 1024 elements, float32"""
    for name, process in (
        ("uniform", d3pm.uniform(d3pm.cosine(T), 256)),
        ("absorbing", d3pm.absorbing(d3pm.reciprocal(T), 256, 255)),
        ("mask + uniform", MIXING["mask + uniform"](256)),
        ("gaussian", d3pm.gaussian(d3pm.linear(T), 256)),
    ):
        data = (process, *examples(process, (8, 1024)))
        programs = {f"{name}, {b}": (partial(our_loss, belief=b), data) for b in BELIEFS}
        compare(programs, rounds)


def draw(rounds: int) -> None:
    """q_sample at batch 128 and draws from logits at batch 32, 32 x 32 x 3, K = 256, noise included"""
    processes = {name: build(256) for name, build in FAMILIES.items()}
    key = jax.random.key(0)
    shape = (128, 32 * 32 * 3)
    x0 = random_integers(0, 256, shape)
    t = random_integers(1, T + 1, shape[:1])
    programs: dict[str, Program] = {
        "q_sample, official form": (official_q_sample, (key, processes["gaussian"].Qbar_table, x0, t))
    }
    for name, process in processes.items():
        programs[f"q_sample, {name}"] = (our_q_sample, (key, process, x0, t))
    compare(programs, rounds)
    logits = jax.random.normal(key, (32, 32 * 32 * 3, 256)) * 2
    compare(
        {
            "from logits, Gumbel": (gumbel, (key, logits)),
            "from logits, one uniform": (inverse, (key, logits)),
            "from logits, two words": (inverse_two_words, (key, logits)),
        },
        rounds,
    )


def growth(rounds: int) -> None:
    """the loss and its gradient as K grows (512 tokens at K = 50,000: 102 MB of logits), and as T grows"""
    for K, shape in ((17, (8, 8192)), (256, (8, 4096)), (4096, (8, 256)), (50_000, (8, 64))):
        programs = {}
        for name, build in MIXING.items():
            start = time.perf_counter()
            process = jax.block_until_ready(build(K))
            built = time.perf_counter() - start
            programs[f"K = {K}, {name}, built in {built:.2f} s"] = (
                our_loss,
                (process, *examples(process, shape)),
            )
        compare(programs, rounds)
    for steps in (100, 1000, 10_000):
        process = d3pm.uniform(d3pm.cosine(steps), 256)
        compare(
            {f"T = {steps}, uniform, K = 256": (our_loss, (process, *examples(process, (8, 4096))))}, rounds
        )


def places(rounds: int) -> None:
    """ten columns at batch 512: one pi of all, one of each, ten sizes; the loss and its gradient, p_sample"""
    rng = np.random.default_rng(0)

    def columns(sizes: tuple[int, ...]) -> Any:
        return d3pm.by_place([d3pm.marginal(d3pm.cosine(T), rng.dirichlet(np.ones(K))) for K in sizes])

    processes = {
        "one pi of 10": d3pm.marginal(d3pm.cosine(T), rng.dirichlet(np.ones(10))),
        "ten pi of 10": columns((10,) * 10),
        "ten pi of 8 to 12": columns((8, 9, 10, 11, 12) * 2),
    }
    losses: dict[str, Program] = {}
    steps: dict[str, Program] = {}
    for name, process in processes.items():
        logits, x0, xt, t = examples(process, (512, 10), most=8)
        losses[f"loss, {name}"] = (partial(our_loss, belief="leave_one_out"), (process, logits, x0, xt, t))
        u = jax.random.uniform(jax.random.key(1), xt.shape)
        steps[f"step, {name}"] = (d3pm.p_sample, (process, logits, xt, t, u))
    compare(losses, rounds)
    compare(steps, rounds)


def torch(rounds: int) -> None:
    """hybrid loss and gradient beside torch_ref (dense, eager: K x K per element), K = 17, 64 of 8 x 8"""
    import torch as pytorch

    import torch_ref

    process = d3pm.uniform(d3pm.cosine(T), 17)
    twin = torch_ref.uniform(d3pm.cosine(T), 17)
    data = examples(process, (64, 64))

    def as_tensor(x: jax.Array) -> Any:
        return pytorch.as_tensor(np.array(x))

    logits = as_tensor(data[0])
    integers = [as_tensor(x).long() for x in data[1:]]  # x_0, x_t, t

    def theirs(*_: Any) -> Any:
        x = logits.clone().requires_grad_()
        value = torch_ref.hybrid(twin, x, *integers, CE_WEIGHT).loss.mean()
        value.backward()
        return value.detach().numpy()

    ours = jax.jit(our_loss)
    timed({"torch_ref": theirs, "d3pm_jax": lambda: jax.block_until_ready(ours(process, *data))}, rounds)


FAMILIES: dict[str, Callable[[int], Any]] = {
    "uniform": lambda K: d3pm.uniform(d3pm.cosine(T), K),
    "absorbing": lambda K: d3pm.absorbing(d3pm.reciprocal(T), K, K // 2),
    "gaussian": lambda K: d3pm.gaussian(d3pm.linear(T), K),
}
MIXING: dict[str, Callable[[int], Any]] = {
    "uniform": lambda K: d3pm.uniform(d3pm.cosine(T), K),
    "absorbing": lambda K: d3pm.absorbing(d3pm.reciprocal(T), K, K - 1),
    "mask + uniform": lambda K: d3pm.masked(d3pm.uniform(d3pm.cosine(T), K - 1), d3pm.reciprocal(T)),
}
STUDIES = {"loss": loss, "belief": belief, "draw": draw, "growth": growth, "places": places, "torch": torch}


def our_loss(
    process: Any, logits: jax.Array, x0: jax.Array, xt: jax.Array, t: jax.Array, belief: Any = "d3pm"
) -> Any:
    def value(logits: jax.Array) -> jax.Array:
        return d3pm.hybrid(process, logits, x0, xt, t, CE_WEIGHT, belief=belief).loss.mean()

    return jax.value_and_grad(value)(logits)


def official_loss(Qbar: Any, Q_transposed: Any, logits: Any, x0: Any, xt: Any, t: Any) -> Any:
    """Computes the loss and its gradient as the official code does.

    t = 1 has the row of Qbar and Q for index 1: both tables begin with the identity.
    """
    each = t[:, None]

    def value(logits: jax.Array) -> jax.Array:
        back = jnp.log(Q_transposed[each, xt] + EPS)

        def posterior(row: jax.Array, clean: jax.Array) -> jax.Array:
            return jnp.where(each[..., None] == 1, clean, back + jnp.log(row + EPS))

        onehot = jax.nn.one_hot(x0, logits.shape[-1])
        true = posterior(Qbar[each - 1, x0], jnp.log(onehot + EPS))
        model = posterior(jax.nn.softmax(logits) @ Qbar[t - 1], logits)
        log_q = jax.nn.log_softmax(true)
        log_p = jax.nn.log_softmax(model)
        kl = jnp.sum(jnp.exp(log_q) * (log_q - log_p), axis=-1)
        first = -jnp.sum(onehot * log_p, axis=-1)
        ce = -jnp.sum(onehot * jax.nn.log_softmax(logits), axis=-1)
        return jnp.mean(jnp.where(each == 1, first, kl) + CE_WEIGHT * ce)

    return jax.value_and_grad(value)(logits)


def official_q_sample(key: jax.Array, Qbar: jax.Array, x0: jax.Array, t: jax.Array) -> jax.Array:
    return gumbel(key, jnp.log(Qbar[t[:, None], x0] + EPS))


def gumbel(key: jax.Array, logits: jax.Array) -> jax.Array:
    noise = jnp.clip(jax.random.uniform(key, logits.shape), jnp.finfo(logits.dtype).tiny, 1.0)
    return jnp.argmax(logits - jnp.log(-jnp.log(noise)), axis=-1)


def our_q_sample(key: jax.Array, process: Any, x0: jax.Array, t: jax.Array) -> jax.Array:
    return d3pm.q_sample(process, x0, t, jax.random.uniform(key, x0.shape))


def inverse(key: jax.Array, logits: jax.Array) -> jax.Array:
    return d3pm.categorical(logits, jax.random.uniform(key, logits.shape[:-1]))


def inverse_two_words(key: jax.Array, logits: jax.Array) -> jax.Array:
    u, low = jax.random.uniform(key, (2, *logits.shape[:-1]))
    return d3pm.categorical(logits, u, low)


def official_tables(process: Any) -> tuple[jax.Array, jax.Array]:
    """Returns Qbar [T + 1, K, K] and transposed Q [T + 1, K, K], from the definition."""
    t = jnp.arange(process.T + 1)
    return process.Qbar(t), jnp.swapaxes(process.Q(t), 1, 2)


def random_integers(low: int, high: int, shape: tuple[int, ...]) -> jax.Array:
    return jnp.asarray(np.random.default_rng(low + high).integers(low, high, shape), jnp.int32)


def examples(process: Any, shape: tuple[int, int], most: int | None = None) -> tuple[jax.Array, ...]:
    """Returns logits, x_0 of at most so many categories, a drawn x_t, and t."""
    key = jax.random.key(0)
    x0 = random_integers(0, process.K - 1 if most is None else most, shape)
    t = random_integers(1, process.T + 1, shape[:1])
    xt = d3pm.q_sample(process, x0, t, jax.random.uniform(key, shape))
    return jax.random.normal(key, (*shape, process.K)) * 2, x0, xt, t


def compare(programs: dict[str, Program], rounds: int) -> None:
    """Times compiled programs, the first of which the others are compared with."""
    compiled = {name: (jax.jit(f).lower(*args).compile(), args) for name, (f, args) in programs.items()}
    calls = {}
    notes = {}
    for name, (program, args) in compiled.items():
        calls[name] = lambda program=program, args=args: jax.block_until_ready(program(*args))
        megabytes = program.memory_analysis().temp_size_in_bytes / 1e6
        notes[name] = f"{megabytes:9.1f} MB of temporaries"
    timed(calls, rounds, notes)


def timed(calls: dict[str, Callable[[], Any]], rounds: int, notes: dict[str, str] | None = None) -> None:
    """Prints medians, and how many times faster than the first each is in the same round."""
    seconds = in_turn(calls, rounds)
    first = next(iter(seconds.values()))
    for name, taken in seconds.items():
        ratios = first / taken
        print(
            f"  {name:44s} {np.median(taken) * 1e3:9.1f} ms   x {np.median(ratios):7.1f} "
            f"({ratios.min():.1f} to {ratios.max():.1f})  {(notes or {}).get(name, '')}",
            flush=True,
        )


if __name__ == "__main__":
    main()
