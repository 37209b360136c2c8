"""Counts the calls and the inputs of the network that checked drafts take.

    python benchmarks/speculative.py chain wiki27.txt
    python benchmarks/speculative.py run RUN [--num 16]

chain: of the Markov chain of the pairs of letters of a text of a-z and spaces, whose exact network is known.
run: of the network of a run that masks.
Prints a table in Markdown: for each number of drafts, the rows of an example, of two calls each, one after
the other, and its inputs, divided by the number of places L, with errors over examples.
"""

import argparse
from pathlib import Path

import jax
import numpy as np

import d3pm_jax as d3pm
from d3pm_jax import judge, oracles, runs
from d3pm_jax.sampling import Denoiser, Sampler, per_example, run
from d3pm_jax.sampling.places import LeftToRight, RandomOrder
from d3pm_jax.sampling.speculative import Speculative

DRAFTS = (2, 4, 8, 16, 32)
HEADER = "| order | drafts | rows / L | inputs / L |\n|---|---|---|---|"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("chain", "run"))
    parser.add_argument("path", type=Path, help="a text, or the folder of a run")
    parser.add_argument("--length", type=int, default=128, help="places of the chain")
    parser.add_argument("--num", type=int, default=64, help="how many examples")
    args = parser.parse_args()
    print(HEADER)
    if args.part == "chain":
        count_chain(args.path, args.length, args.num)
    else:
        count_run(args.path, args.num)


def count_chain(path: Path, length: int, num: int) -> None:
    """Prints the rows of the chain of a text."""
    chain = judge.read_target("bigrams", length, path)
    process = d3pm.absorbing(d3pm.reciprocal(length), chain.K + 1, mask_id=chain.K)
    network = oracles.network(chain, process)
    denoiser = Denoiser(process, network, "leave_one_out")
    noise = per_example(jax.random.key(0), np.arange(num, dtype=np.int32), (length,))

    for order in (RandomOrder(), LeftToRight()):
        for drafts in DRAFTS:
            sampler = Sampler(Speculative(drafts, order))

            @jax.jit
            def draw(x: jax.Array, sampler: Sampler = sampler):
                return run(denoiser, x, noise, sampler, watch=lambda seen: seen.changed.any(axis=-1))

            drawn = draw(np.full((num, length), chain.K, np.int32))
            assert int(drawn.failed_at) == 0
            rows = np.sum(drawn.seen, axis=0)  # of each example
            print_row(order, drafts, rows / length, np.asarray(drawn.calls) / length)


def count_run(path: Path, num: int) -> None:
    """Prints the rows of a run, whose examples are drawn one at a time."""
    opened = runs.open(path)
    length = int(np.prod(opened.parts.description.shape))
    for order in (RandomOrder(), LeftToRight()):
        for drafts in DRAFTS:
            draw = runs.Draw(sampler=Sampler(Speculative(drafts, order)))
            drawn = [opened.sample(jax.random.key(seed), 1, draw, batch_size=1) for seed in range(num)]
            # A row makes two calls, and the last one if it has one place.
            rows = np.array([np.ceil(one.program_calls / 2) for one in drawn])
            inputs = np.array([one.calls[0] for one in drawn])
            print_row(order, drafts, rows / length, inputs / length)


def print_row(order: object, drafts: int, rows: np.ndarray, inputs: np.ndarray) -> None:
    cells = " | ".join(f"{x.mean():.3f} ± {x.std(ddof=1) / len(x) ** 0.5:.3f}" for x in (rows, inputs))
    print(f"| {type(order).__name__} | {drafts} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
