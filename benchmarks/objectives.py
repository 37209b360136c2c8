"""Objectives on one text at equal FLOPs: trains, evaluates, and prints the table of what is finished.

    python benchmarks/objectives.py train NAME... --text FILE [--seed 0] [--out runs/objectives]
    python benchmarks/objectives.py table [--out runs/objectives]
    python benchmarks/objectives.py variance RUN

FILE is a text of a-z and spaces. The schedule, the network, the optimizer and the batches are the same for
all: they differ in the objective, and in the noise that belongs to it. What was stopped is taken up. Each is
a run as any other: `d3pm eval` and `d3pm sample` open it.

`variance` measures, at the weights of a run of masks, how noisy the gradient of a batch of 16 is under each
objective that has the same mean: D3PM's in T steps, MD4's in continuous time, and that of any order.
"""

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from d3pm_jax import config, runs
from d3pm_jax.training.diffusion import DiffusionLoss, without_buffers

BATCH_SIZE = 16
T = 1000  # steps of the process of `d3pm eval` and `d3pm sample`
CALLS = 10  # of the network, for the evaluation of an example
EXACT = 64  # examples of the chain rule
UNIFORM = config.Uniform(K="data", steps=T, beta=config.Reciprocal())
ABSORBING = config.Absorbing(K="data", steps=T, beta=config.Reciprocal(), mask_id="data")
ONLY_MASKS = config.Interpolating(K="data", steps=T, mask_id="data", p_uniform=0.0)
SOME_TOKENS = config.Interpolating(K="data", steps=T, mask_id="data", p_uniform=0.2)
REAL_TIMES = config.RealTimes()
MORE_EARLY = config.RealTimes(power=2.0)
HEAD = config.Head()


@dataclasses.dataclass(frozen=True)
class Case:
    """Holds what a row of the table differs in."""

    process: config.Process
    loss: config.Objective
    timesteps: config.Timesteps = REAL_TIMES
    head: config.Head = HEAD
    sees_time: bool = True
    steps: int = 1500


CASES = {
    "udlm": Case(UNIFORM, config.ContinuousUniform()),
    "absorbing": Case(ABSORBING, config.ContinuousAbsorbing(), sees_time=False),
    "any_order": Case(ABSORBING, config.AnyOrder(), sees_time=False),
    # A step on 2 L places takes 2.284 times the FLOPs.
    "blocks": Case(ABSORBING, config.Blocks(block=4), sees_time=False, steps=657),
    "sedd_uniform": Case(UNIFORM, config.ScoreEntropy(), head=config.ScoreHead()),
    "gidd_0": Case(ONLY_MASKS, config.GIDD(p_uniform=0.0), MORE_EARLY),
    "gidd_02": Case(SOME_TOKENS, config.GIDD(p_uniform=0.2), MORE_EARLY),
    "sedd_absorbing": Case(ABSORBING, config.ScoreEntropy(), head=config.ScoreHead(), sees_time=False),
}


def make_config(case: Case, text: Path, seed: int) -> config.Config:
    """Completes a case to a config: that of letters_absorbing.py, but for half a batch and what differs."""
    return config.Config(
        data=config.Text(str(text.resolve()), tokenizer="letters27", length=128),
        process=case.process,
        model=config.Transformer(width=128, num_layers=4, num_heads=4, see_time=case.sees_time),
        head=case.head,
        loss=case.loss,
        timesteps=case.timesteps,
        optimizer=config.Adam(lr=2e-3, warmup_steps=100, decay_steps=case.steps),
        train=config.Train(
            steps=case.steps,
            batch_size=BATCH_SIZE,
            seed=seed,
            ema_decay=0.99,
            checkpoint_every=250,
            sample_every=0,
        ),
    )


def train(name: str, text: Path, seed: int, out: Path) -> None:
    """Does what is left of a run: training and evaluation."""
    case = CASES[name]
    workdir = out / f"{name}_seed{seed}"
    if not (workdir / "trained").exists():
        before = cpu_seconds()
        resume = (workdir / "config.json").exists()
        try:
            run = runs.train(make_config(case, text, seed), workdir, resume=resume)
        finally:
            with (workdir / "cpu_seconds").open("a") as file:
                file.write(f"{cpu_seconds() - before}\n")
        if run.step < case.steps:
            sys.exit(f"{workdir} was interrupted at step {run.step}: call this again")
        (workdir / "trained").touch()
    if not (workdir / EVALUATED).exists():
        evaluate = [sys.executable, "-m", "d3pm_jax", "eval", str(workdir), "--calls", str(CALLS)]
        if not case.sees_time and case.loss.fills_any_order:
            evaluate += ["--chain-rule", str(EXACT)]
        subprocess.run(evaluate, check=True)


EVALUATED = f"eval_calls{CALLS}.json"


def cpu_seconds() -> float:
    """Returns how long this process had a core."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def print_table(out: Path) -> None:
    """Prints the Markdown table of what is finished."""
    print("| objective | seed | steps | CPU minutes | bound | exact, left to right | exact, random orders |")
    print("|---|---|---|---|---|---|---|")
    for workdir in sorted(out.glob("*_seed*"), key=lambda path: path.stat().st_ctime):
        if (workdir / EVALUATED).exists():
            name, _, seed = workdir.name.rpartition("_seed")
            minutes = sum(map(float, (workdir / "cpu_seconds").read_text().split())) / 60
            exact = read(workdir / f"exact_chain_rule{EXACT}.json")
            both = [bits(exact.get(order)) for order in ("left to right", "in random orders")]
            bound = bits(read(workdir / EVALUATED))
            cells = [name, seed, str(CASES[name].steps), f"{minutes:.1f}", bound, *both]
            print(f"| {' | '.join(cells)} |")


def read(path: Path) -> dict[str, Any]:
    """Reads a file of figures, {} where there is none."""
    if not path.exists():
        return {}
    return json.loads(path.read_text())


def bits(figure: dict[str, float] | None) -> str:
    """Formats bits per character with their standard error, "" where there are none."""
    if not figure:
        return ""
    return f"{figure['bits_per_dim']:.3f} ± {figure['standard_error']:.3f}"


@dataclasses.dataclass(frozen=True)
class IndependentRealTimes(config.Timesteps):
    """Draws real t in (0, T], for every example by itself."""

    real = True

    def draw(self, key: jax.Array, history: Any, B: int, T: int) -> tuple[jax.Array, jax.Array]:
        return (1 - jax.random.uniform(key, (B,))) * T, jnp.full(B, 1 / T)


D3PM = config.HybridLoss(ce_weight=0.0)
MD4 = config.ContinuousAbsorbing()
ESTIMATORS = {
    "D3PM, 1,000 steps": (D3PM, config.LowDiscrepancy(), config.Independent()),
    "MD4": (MD4, config.RealTimes(), IndependentRealTimes()),
    "any order": (config.AnyOrder(), config.RealTimes(), IndependentRealTimes()),
}
BATCHES = 64  # of different examples
REPEATS = 4  # of other noise on each


def print_variances(workdir: Path) -> None:
    """Prints the variance of each estimator of the gradient over the squared norm of their mean.

    Of repeats on the same batch it is that of the noise, of different batches that of the examples too.
    """
    run = runs.open(workdir)
    x0 = run.read_batch("train", BATCHES * BATCH_SIZE)["x"].reshape(BATCHES, BATCH_SIZE, -1)
    means = 0.0
    variances = {}
    for name, (loss, *both_times) in ESTIMATORS.items():
        for times, spread in zip(both_times, ("spread over the batch", "independent"), strict=True):
            batch_means, deviations = compute_gradients(run, loss, times, x0)
            variances[name, spread] = Variances.of(batch_means, deviations)
            means = means + batch_means / (2 * len(ESTIMATORS))
    error = means.var(axis=0, ddof=1).sum() / BATCHES  # of the squared norm of their mean
    squared_norm = (means.mean(axis=0) ** 2).sum() - error
    print("| objective | times | noise alone | noise and examples |\n|---|---|---|---|")
    for names, found in variances.items():
        noise, noise_error, total = (x / squared_norm for x in found)
        print(f"| {' | '.join(names)} | {noise:.1f} ± {noise_error:.1f} | {total:.1f} |")


class Variances(NamedTuple):
    """Holds variances of the gradient of a batch, summed over parameters."""

    noise: float
    noise_error: float  # standard error of that, over batches
    total: float  # of noise and examples

    @classmethod
    def of(cls, batch_means: np.ndarray, deviations: np.ndarray) -> "Variances":
        noise = deviations.mean()
        between = batch_means.var(axis=0, ddof=1).sum()  # of means of REPEATS
        noise_error = deviations.std(ddof=1) / np.sqrt(BATCHES)
        return cls(noise, noise_error, between + noise * (1 - 1 / REPEATS))


def compute_gradients(
    run: Any, loss: config.Objective, times: config.Timesteps, x0: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean gradient of each batch, [BATCHES, P], and its variance over repeats, [BATCHES]."""
    objective = DiffusionLoss(loss, times, without_buffers(run.parts.recipe.diffusion.network))
    process = run.process

    @jax.jit
    def compute_gradient(key: jax.Array, step: jax.Array, x0: jax.Array) -> jax.Array:
        noise = objective.draw_noise(process, key, step, None, x0.shape)

        def bound(params: Any) -> jax.Array:
            # Losses are scaled as each paper has them; all kl are a T-th of the bound.
            _, (means, _, _) = objective.compute(params, None, process, {"x": x0}, noise, key, x0.size)
            return means["kl"] * process.T

        return ravel_pytree(jax.grad(bound)(run.params))[0]

    means = []
    deviations = []
    for batch in range(BATCHES):
        steps = range(batch * REPEATS, (batch + 1) * REPEATS)
        drawn = np.stack([compute_gradient(jax.random.key(0), step, x0[batch]) for step in steps])
        means.append(drawn.mean(axis=0))
        deviations.append(drawn.var(axis=0, ddof=1, dtype=np.float64).sum())
    return np.stack(means), np.array(deviations)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="train and evaluate")
    training.add_argument("names", nargs="+", choices=CASES, metavar="NAME", help=", ".join(CASES))
    training.add_argument("--text", type=Path, required=True, help="a text of a-z and spaces")
    training.add_argument("--seed", type=int, default=0, help="of the trainings")
    table = commands.add_parser("table", help="print the table of what is finished")
    variance = commands.add_parser("variance", help="compare the noise of gradients")
    variance.add_argument("run", type=Path, help="the folder of a run")
    for command in (training, table):
        command.add_argument("--out", type=Path, default=Path("runs/objectives"), help="where the runs are")
    args = parser.parse_args()
    if args.command == "table":
        print_table(args.out)
    elif args.command == "variance":
        print_variances(args.run)
    else:
        for name in args.names:
            train(name, args.text, args.seed, args.out)


if __name__ == "__main__":
    main()
