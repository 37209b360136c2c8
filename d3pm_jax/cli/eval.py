"""d3pm eval computes the bound on the test split, its parts, and two baselines."""

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from d3pm_jax import show
from d3pm_jax.cli import arguments, eval_samples, results
from d3pm_jax.config import io as config_io
from d3pm_jax.config.objective import logits_keywords
from d3pm_jax.evaluation import baselines
from d3pm_jax.likelihood import bits_per_dim
from d3pm_jax.runs import grids
from d3pm_jax.runs.run import Run
from d3pm_jax.runs.terminal import Terminal

SHORT = 100_000  # calls of the network that take no time worth telling


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    arguments.add_checkpoint(parser)
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


def execute(args: argparse.Namespace, rest: list[str]) -> int:
    """Evaluates; returns the exit status."""
    run = arguments.open_named(args, args.batch_size)
    if args.data_dir is None:
        run.config.data.check_kept()
    if args.grid == "dp":
        _measure_jumps(run)
    counts: list[int | None] = args.steps or [None]
    runs = [run if n is None else run.respaced(arguments.grid(run, n, args.grid)) for n in counts]
    x0, labels = run.read_split("test", args.limit)
    if args.limit is None:
        _say_how_long(runs, x0, labels, args)
    eval_samples.check(args, run)
    compared = _baselines(run, x0)
    found = [_evaluate(each, x0, labels, n, compared, args) for n, each in zip(counts, runs, strict=True)]
    for each in runs:
        eval_samples.execute(args, each)
    split = getattr(run.config.data, "test_split", "test")
    print(f"checkpoint of step {run.step}, {len(x0)} examples of split {split!r}")
    for result in found:
        print(_line(result))
    print("for comparison, on the same examples:")
    for name, value in compared.items():
        print(f"  {name}: {value:.3f} bits/dim")
    print(f"test bits/dim: {_with_error(found[-1], '', 3)}")
    return 0


def _measure_jumps(run: Run) -> None:
    """Computes what the best grids follow from, once for each checkpoint."""
    if grids.read(run.workdir, run.step) is None:
        with Terminal("time", grids.num_times(run)).shown() as terminal:
            grids.write(run.workdir, grids.measure(run, terminal.advance))


def _evaluate(
    run: Run,
    x0: np.ndarray,
    labels: np.ndarray | None,
    steps: int | None,
    compared: dict[str, float],
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Computes the bound with the steps of a run, and writes it to files of its own."""
    with Terminal("example", len(x0)).shown() as terminal:
        result = run.evaluate_on(x0, labels, args.batch_size, args.seed, terminal.advance, args.calls)
    result |= {"baselines": compared, "limit": args.limit, "protocol": _protocol(run, len(x0), args)}
    named = argparse.Namespace(**vars(args) | {"steps": steps})
    suffix = results.suffix(named, "step", "steps", "grid", "calls", "limit", "seed")
    path = args.workdir / f"eval{suffix}.json"
    replaced = results.write_json(path, result, ("step", "examples"))
    plot = None
    if "steps" in result:
        plot = args.workdir / f"bound_terms{suffix}.png"
        _plot(plot, result["steps"], run.caption)
    print(f"terms of every t: {plot} and {path}{replaced}" if plot else f"written to {path}{replaced}")
    return result


def _protocol(run: Run, N: int, args: argparse.Namespace) -> dict[str, Any]:
    """Says all that a bound depends on."""
    config, data = run.config, config_io.to_json(run.config.data)
    return {
        "N": N,
        "split": getattr(config.data, "test_split", "test"),
        "data": {name: value for name, value in data.items() if name not in config.data.places},
        "checkpoint": run.step,
        "ema": config.train.ema_decay,
        "steps": run.process.T,
        "T": int(run.process.time[-1]),
        "grid": args.grid if args.steps else "all",
        "terms": "all" if args.calls is None else f"{args.calls} for each example, stratified",
        **logits_keywords(config.loss),
        "dtype": getattr(config.model, "compute", "float32"),
        "seed": args.seed,
    }


def _line(result: dict[str, Any]) -> str:
    """Says what was found with so many steps."""
    steps = len(result["times"])
    total = f"  {steps} steps: {_with_error(result, '', 3)} bits/dim, {_with_error(result, 'nats', 2)} nats"
    if "steps" not in result:
        return f"{total}, estimated from {result['calls']} of them for each example"
    parts = {
        "reconstruction -log p(x_0 | x_1)": result["reconstruction"],
        f"denoising, t = 2..{steps}": sum(result["steps"][1:]),
        "prior KL(q(x_T | x_0) || p(x_T))": result["prior"],
    }
    return f"{total}: " + ", ".join(f"{name} {value:.4g}" for name, value in parts.items())


def _with_error(result: dict[str, Any], of: str, digits: int) -> str:
    value, error = result[of or "bits_per_dim"], result[f"{of}_standard_error".strip("_")]
    return f"{value:.{digits}f} +- {'unknown' if error is None else f'{error:.{digits}f}'}"


def _say_how_long(
    runs: list[Run], x0: np.ndarray, labels: np.ndarray | None, args: argparse.Namespace
) -> None:
    """Prints how long it will take, by a call of the network, where that is minutes."""
    calls = [args.calls or run.process.T for run in runs]
    if len(x0) * sum(calls) < SHORT:
        return
    n = min(args.batch_size, len(x0))
    once = partial(runs[0].evaluate_on, x0[:n], None if labels is None else labels[:n], n, calls=1)
    once()  # compiles
    start = time.monotonic()
    once()
    seconds = (time.monotonic() - start) / n * len(x0) * sum(calls)
    fewer = "--limit N takes the first N"
    fewer += ", --calls N fewer calls for each" if args.calls is None else ""
    print(f"about {_in_words(seconds)}: {len(x0):,} examples x {sum(calls)} calls of the network; {fewer}")


def _in_words(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _baselines(run: Run, test: np.ndarray) -> dict[str, float]:
    (x0, labels), levels = run.read_split("train"), run.parts.categories
    place = "per-pixel histogram" if run.parts.description.kind == "image" else "histogram of each place"
    found = {place: baselines.histogram_nats(x0, test, levels)}
    if labels is not None:
        name = f"mixture of {len(np.unique(labels))} class histograms"
        found[name] = baselines.class_mixture_nats(x0, labels, test, levels)
    return {name: bits_per_dim(float(np.mean(nats)), test[0].size) for name, nats in found.items()}


def _plot(path: Path, steps: list[float], caption: str) -> None:
    curves = {
        "term of the bound\n[bits/dim]": steps,
        "sum from t to T\n[bits/dim]": np.cumsum(steps[::-1])[::-1],
    }
    show.save_curves(path, range(1, len(steps) + 1), curves, "t", caption=caption)
