"""Figures of texts for d3pm eval: by character, by n-grams and compressors, and by the chain rule."""

import argparse
from collections.abc import Mapping

import numpy as np

from d3pm_jax.cli import arguments
from d3pm_jax.errors import UserError
from d3pm_jax.evaluation.bound import with_error
from d3pm_jax.machine.terminal import Terminal
from d3pm_jax.measure import exact, record
from d3pm_jax.runs.run import Run

Examples = Mapping[str, np.ndarray]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what figures of texts take."""
    parser.add_argument(
        "--chain-rule",
        type=arguments.positive,
        metavar="N",
        help="of a network that fills in masks and sees no time: the exact likelihood of N examples too, "
        "from left to right and in random orders, by a call of the network for each element",
    )


def check(args: argparse.Namespace, run: Run) -> None:
    """Raises UserError where a chain rule is asked of a network that has none."""
    if args.chain_rule is not None and exact.mask_of(run.parts) is None:
        raise UserError(
            f"--chain-rule {args.chain_rule} is for a network that fills in masks and sees no time: "
            f"Absorbing with an extra mask (head.forbid), and Transformer(see_time=False); leave it out"
        )


def execute(args: argparse.Namespace, run: Run, examples: Examples) -> None:
    """Computes and prints the exact likelihood by the chain rule, if it is asked for."""
    if args.chain_rule is None:
        return
    few = {name: x[: args.chain_rule] for name, x in examples.items()}
    with Terminal("example", 2 * len(few["x"])).shown() as terminal:
        found = exact.likelihood(run.parts, few, args.batch_size, args.seed, terminal.advance)
    suffix = record.suffix(step=args.step, chain_rule=args.chain_rule, seed=args.seed)
    exact.write(run.parts, run.workdir, few, found, suffix)
    for name in ("left to right", "in random orders"):
        bits = with_error(found[name]["bits_per_dim"], found[name]["standard_error"], 3)
        print(f"  exact, {name}, {len(few['x'])} examples: {bits} bits/dim")
