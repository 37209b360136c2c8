"""d3pm eval computes the bound on the test split, its parts, and two baselines."""

import argparse
from typing import Any

import numpy as np

from d3pm_jax.cli import arguments, eval_samples, eval_text
from d3pm_jax.errors import UserError
from d3pm_jax.evaluation.bound import with_error
from d3pm_jax.kinds import Kind
from d3pm_jax.machine import cluster
from d3pm_jax.machine.terminal import Terminal
from d3pm_jax.measure import bounds, grids, record
from d3pm_jax.parts.reading import open_whole
from d3pm_jax.runs.run import Run

Examples = dict[str, np.ndarray]  # "x", and if there are any "label" and "weight"
SHORT = 100_000  # calls of the network that take no time worth telling


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    arguments.add_checkpoint(parser)
    arguments.add_cluster(parser)
    arguments.add_data_dir(parser)
    text = "take so many steps of the process in place of all; a line for each number"
    arguments.add_steps(parser, arguments.counts, "N[,N...]", text)
    parser.add_argument(
        "--calls",
        type=arguments.positive,
        metavar="N",
        help="estimate the sum over the steps from N calls of the network per example, without bias",
    )
    parser.add_argument(
        "--limit", type=arguments.positive, metavar="N", help="only the first N examples of the split"
    )
    parser.add_argument(
        "--batch-size", type=arguments.positive, default=128, metavar="B", help="examples at a time (128)"
    )
    parser.add_argument("--seed", type=arguments.seed, default=0, metavar="N", help="of the noise (0)")
    eval_samples.add_arguments(parser)
    eval_text.add_arguments(parser)


def execute(args: argparse.Namespace, rest: list[str]) -> int:
    """Evaluates; returns the exit status."""
    arguments.check_grid(args)
    run = arguments.open_named(args, args.batch_size)
    eval_samples.check(args, run)
    eval_text.check(args, run)
    runs = _with_steps(args, run)
    examples = run.read_batch("test", args.limit)
    split = getattr(run.config.data, "test_split", "test")
    print(f"checkpoint of step {run.step}, {len(examples['x'])} examples of split {split!r}")
    if args.limit is None:
        _say_how_long(list(runs.values()), examples, args)
    compared, found = run.parts.kind.baselines(open_whole(run.parts, run.workdir, "train"), examples), []
    for steps, each in runs.items():
        found.append(_evaluate(each, examples, steps, compared, args))
    eval_samples.execute(args, list(runs.values()))
    eval_text.execute(args, run, examples)
    print("for comparison, on the same examples:")
    for name, value in compared.items():
        print(f"  {name}: {value:.3f} bits/dim")
    print(f"test bits/dim: {_in_bits(found[-1])}")
    return 0


def _with_steps(args: argparse.Namespace, run: Run) -> dict[int | None, Run]:
    """Returns the run with each number of steps that was asked for; None stands for all.

    Raises:
        UserError: the process has not so many, or --calls are more than them.
    """
    counts: list[int | None] = args.steps or [None]
    fewest = min(n or run.process.T for n in counts)
    if args.calls is not None and args.calls > fewest:
        raise UserError(f"calls = {args.calls}: it must be in 1..{fewest}, the fewest steps asked for")
    if args.grid == "dp":
        run.respaced(max(args.steps))  # a number that there is not is told before anything is computed
        _measure_jumps(run)
    runs: dict[int | None, Run] = {}
    for n in counts:
        runs[n] = run if n is None else run.respaced(grids.choose(run.parts, run.workdir, n, args.grid))
    return runs


def _measure_jumps(run: Run) -> None:
    """Computes what the best grids follow from, once for each checkpoint."""
    if grids.read(run.parts, run.workdir) is None:
        with Terminal("time", grids.num_times(run.parts)).shown() as terminal:
            grids.write(run.parts, run.workdir, grids.measure(run.parts, run.workdir, terminal.advance))
        cluster.meet()  # the first process has written it


def _evaluate(
    run: Run,
    examples: Examples,
    steps: int | None,
    compared: dict[str, float],
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Computes the bound with the steps of a run, writes it to files of its own, and prints it."""
    with Terminal("example", len(examples["x"])).shown() as terminal:
        result = bounds.evaluate(
            run.parts, examples, args.batch_size, args.seed, terminal.advance, args.calls
        )
    suffix = record.suffix(
        step=args.step, steps=steps, grid=args.grid, calls=args.calls, limit=args.limit, seed=args.seed
    )
    path, picture, replaced = bounds.write(
        run.parts, run.workdir, examples, result, compared, args.limit, suffix
    )
    print(_line(run.parts.kind, result))
    if picture is None:
        print(f"written to {path}{replaced}")
    else:
        print(f"terms of every t: {picture} and {path}{replaced}")
    return result


def _line(kind: Kind, result: dict[str, Any]) -> str:
    """Says what was found with so many steps."""
    steps = len(result["times"])
    nats = with_error(result["nats"], result["nats_standard_error"], 2)
    total = f"  {steps} steps: {_in_bits(result)} bits/dim, {nats} nats"
    for name, words in kind.units.items():
        if name in result:
            total += f", {words.format(result[name])}"
    if "steps" not in result:
        return f"{total}, estimated from {result['calls']} of them for each example"
    parts = {
        "reconstruction -log p(x_0 | x_1)": result["reconstruction"],
        f"denoising, t = 2..{steps}": sum(result["steps"][1:]),
        "prior KL(q(x_T | x_0) || p(x_T))": result["prior"],
    }
    return f"{total}: " + ", ".join(f"{name} {value:.4g}" for name, value in parts.items())


def _in_bits(result: dict[str, Any]) -> str:
    return with_error(result["bits_per_dim"], result["standard_error"], 3)


def _say_how_long(runs: list[Run], examples: Examples, args: argparse.Namespace) -> None:
    """Prints how long it will take, by a call of the network, where that is minutes."""
    calls, N = [args.calls or run.process.T for run in runs], len(examples["x"])
    if N * sum(calls) < SHORT:
        return
    seconds = bounds.seconds_per_call(runs[0].parts, examples, args.batch_size) * N * sum(calls)
    fewer = "--limit N takes the first N"
    fewer += ", --calls N fewer calls for each" if args.calls is None else ""
    print(f"about {_in_words(seconds)}: {N:,} examples x {sum(calls)} calls of the network; {fewer}")


def _in_words(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
