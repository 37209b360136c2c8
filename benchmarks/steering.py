"""Says how far steering by a score is from exact, and what it is worth on a trained run.

    python benchmarks/steering.py exact
    python benchmarks/steering.py digits runs/digits_absorbing [--picture docs/images/steered_digits.png]

exact: total variation of particles from the tilted law p(x_0) exp(score(x_0)) / Z, by their number, under an
exact belief: four places of three categories, 16 steps. Beside it one of as many plain samples, drawn by
exp(score).
digits: mean scores and what a classifier says of samples, by the number of particles, beside the best of as
many.
Each prints tables in Markdown; docs/control.md says what they mean.
"""

import argparse
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import samplers
from digits_quality import TRAIN, Judge
from jaxtyping import Array
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import d3pm_jax as d3pm
from d3pm_jax import oracles, runs, sampler_laws, sampling
from d3pm_jax.processes import Process
from d3pm_jax.sampling import Sampler, even_grid, named

# ---- exact ----

STEPS = 16
PARTICLES = (4, 16, 64, 256)
DRAWS = 200_000  # particles of all samples together
K = samplers.CATEGORIES
L = samplers.LENGTH


def make_scores() -> dict[str, np.ndarray]:
    """Returns scores of all states [3^L]: of each place by itself, and of each state by itself."""
    states = np.indices((K,) * L).reshape(L, -1).T  # [3^L, L]
    return {
        "1.5 nats for each place of category 2": 1.5 * (states == 2).sum(axis=1),
        "a random number for each state, deviation 1.5": 1.5 * np.random.default_rng(1).normal(size=K**L),
    }


def make_processes() -> dict[str, tuple[Process, Sampler]]:
    """Returns processes of 16 steps and a sampler of each."""
    beta = d3pm.reciprocal(64)
    grid = even_grid(64, STEPS)
    absorbing = d3pm.respace(d3pm.absorbing(beta, K + 1, mask_id=K), grid)
    return {
        "uniform, ancestral": (d3pm.respace(d3pm.uniform(beta, K), grid), named.ancestral()),
        "absorbing, ancestral": (absorbing, named.ancestral()),
        "absorbing, random order": (absorbing, named.random_order()),
    }


def number_of(x: Array, categories: int) -> Array:
    return x @ jnp.asarray(categories ** np.arange(L - 1, -1, -1))


@partial(jax.jit, static_argnames=("sampler", "particles", "samples"))
def steer_states(
    process: Process, sampler: Sampler, logits: Array, scores: Array, key: Array, particles: int, samples: int
) -> sampling.Steered:
    """Steers with a network that is a table [T + 1, K^L, L, K], by scores [3^L]."""

    def denoise(x: Array, time: Array) -> Array:
        # The network is told the step of the process before it was respaced.
        step = jnp.searchsorted(process.time, time)
        return logits[step, number_of(x, process.K)]

    def score(x: Array) -> Array:
        return scores[number_of(x, K)]

    denoiser = sampling.Denoiser(process, denoise, "leave_one_out")
    return sampling.steer(key, score, particles, denoiser, (samples, L), sampler)


def total_variation(p: np.ndarray, q: np.ndarray) -> float:
    return 0.5 * float(np.abs(p - q).sum())


def resampled_law(law: np.ndarray, scores: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Returns the law of one of n draws, taken by exp(score): a mean over many such draws."""
    total = np.zeros(len(law))
    repeats = DRAWS // n
    drawn = rng.choice(len(law), (repeats, n), p=law)
    weights = np.exp(scores[drawn] - scores[drawn].max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    np.add.at(total, drawn, weights)
    return total / repeats


def run_exact() -> None:
    """Prints a table for each score."""
    jax.config.update("jax_enable_x64", True)
    data = samplers.make_data_law()
    rng = np.random.default_rng(2)
    for score_name, scores in make_scores().items():
        print(f"\n{score_name}\n")
        print(f"| process and sampler | how | no score | {' | '.join(map(str, PARTICLES))} |")
        print("|---" * (len(PARTICLES) + 3) + "|")
        tilted = None
        for name, (process, sampler) in make_processes().items():
            network = oracles.network(oracles.table(data), process)
            world = sampler_laws.World(process, L, network)
            steps = range(process.T + 1)
            logits = np.stack([world.logits(world.states, np.full(len(world.states), t)) for t in steps])
            law = sampler_laws.enumerate_sampler(sampler, process, L, network).law
            tilted = law * np.exp(scores)
            tilted /= tilted.sum()
            steered = []
            sizes = []
            for particles in PARTICLES:
                result = steer_states(
                    process,
                    sampler,
                    jnp.asarray(logits),
                    jnp.asarray(scores),
                    jax.random.key(0),
                    particles,
                    DRAWS // particles,
                )
                assert result.failed_at == 0
                numbers = np.asarray(number_of(result.particles, K)).ravel()
                counts = np.bincount(numbers, minlength=K**L)
                steered.append(total_variation(counts / counts.sum(), tilted))
                sizes.append(float(np.mean(result.effective_size)) / particles)
            at_end = [total_variation(resampled_law(law, scores, n, rng), tilted) for n in PARTICLES]
            plain = f"{total_variation(law, tilted):.3f}"
            print(f"| {name} | steered | {plain} | {' | '.join(f'{x:.3f}' for x in steered)} |")
            print(f"| | drawn at the end | {plain} | {' | '.join(f'{x:.3f}' for x in at_end)} |")
            print(f"| | effective size / P | | {' | '.join(f'{x:.2f}' for x in sizes)} |", flush=True)
        assert tilted is not None
        exact = np.bincount(rng.choice(K**L, DRAWS, p=tilted), minlength=K**L) / DRAWS
        print(f"\nas many exact draws: {total_variation(exact, tilted):.3f}")


# ---- digits ----

COUNTS = (1, 4, 16, 64)
SAMPLES = 96
CLASS = 7
SHOWN = 32


class Figures(NamedTuple):
    """Holds what is said of samples."""

    score: float
    ink: float  # mean of the sum of levels / 16
    called: float  # share that the classifier calls the class
    digits: float  # share that it takes for a digit of any class
    distinct: float  # share of samples that are no copy of another


def make_digit_scores(images: np.ndarray, labels: np.ndarray) -> dict[str, Callable[[Any], Any]]:
    """Returns scores of digits x [M, 8, 8, 1] of levels 0..16."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        linear = LogisticRegression(C=0.1, max_iter=500).fit(images[:TRAIN] / 16, labels[:TRAIN])
    weights = jnp.asarray(linear.coef_.T, jnp.float32)  # [64, 10]
    bias = jnp.asarray(linear.intercept_, jnp.float32)

    def log_p_of_class(x: Array) -> Array:
        logits = x.reshape(len(x), -1) / 16 @ weights + bias[None]
        return jax.nn.log_softmax(logits)[:, CLASS]

    def minus_ink(x: Array) -> Array:
        return -x.reshape(len(x), -1).sum(axis=-1) / 16

    return {f"log p({CLASS} given x) of a linear classifier": log_p_of_class, "minus ink": minus_ink}


def judge_samples(judge: Judge, x: np.ndarray, score: Callable[[Any], Any]) -> Figures:
    return Figures(
        float(np.mean(score(jnp.asarray(x)))),
        float(x.reshape(len(x), -1).sum(axis=1).mean() / 16),
        float(np.mean(judge.classes(x) == CLASS)),
        judge.share(x),
        len(np.unique(x.reshape(len(x), -1), axis=0)) / len(x),
    )


def run_digits(folder: Path, picture: Path | None) -> None:
    """Prints a table for each score, and draws the first samples of each way."""
    judge = Judge()
    data: Any = load_digits(return_X_y=True)
    _, labels = data
    run = runs.open(folder)
    key = jax.random.key(0)
    strips = []
    for name, score in make_digit_scores(judge.images, labels).items():
        print(f"\n{name}\n")
        print("| way | P | score | ink | called 7 | digits | distinct | effective size / P, least and mean |")
        print("|---" * 8 + "|")
        for P in COUNTS:
            draw = runs.Draw(select=runs.BestOf(score, P))
            drawn = run.sample(key, SAMPLES, draw, batch_size=256)
            _print_row("best of", P, judge_samples(judge, drawn.x0, score), "")
            if P in (1, max(COUNTS)):
                strips.append(drawn.x0[:SHOWN])
            if P > 1:
                draw = runs.Draw(select=runs.Particles(score, P))
                steered = run.sample(key, SAMPLES, draw, batch_size=256)
                share = steered.effective_size / P
                size = f"{share.mean(axis=1).min():.2f}, {share.mean():.2f}"
                _print_row("steered", P, judge_samples(judge, steered.x0, score), size)
                if max(COUNTS) == P:
                    strips.append(steered.x0[:SHOWN])
    if picture is not None:
        rows = [np.concatenate(list(np.pad(x[..., 0], ((0, 0), (1, 1), (1, 1)))), axis=1) for x in strips]
        pixels = 255 - np.concatenate(rows) * 255 // 16
        image = Image.fromarray(pixels.astype(np.uint8))
        image.resize((3 * image.width, 3 * image.height), Image.Resampling.NEAREST).save(
            picture, optimize=True
        )


def _print_row(way: str, P: int, figures: Figures, size: str) -> None:
    score, ink, *shares = figures
    cells = " | ".join(f"{x:.0%}" for x in shares)
    print(f"| {way} | {P} | {score:.2f} | {ink:.1f} | {cells} | {size} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("exact")
    digits = commands.add_parser("digits")
    digits.add_argument("run", type=Path)
    digits.add_argument("--picture", type=Path)
    args = parser.parse_args()
    if args.command == "exact":
        run_exact()
    else:
        run_digits(args.run, args.picture)


if __name__ == "__main__":
    main()
