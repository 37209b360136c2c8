"""d3pm eval computes the bound on the test split, its parts, and two baselines."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from d3pm_jax import show
from d3pm_jax.cli import arguments, results
from d3pm_jax.evaluation import baselines
from d3pm_jax.likelihood import bits_per_dim
from d3pm_jax.runs.run import Run
from d3pm_jax.runs.terminal import Terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    arguments.add_run(parser)
    arguments.add_data_dir(parser)
    parser.add_argument(
        "--limit", type=arguments.positive, metavar="N", help="only the first N examples of the split"
    )
    parser.add_argument(
        "--batch-size", type=arguments.positive, default=128, metavar="B", help="examples at a time (128)"
    )
    parser.add_argument("--seed", type=arguments.seed, default=0, metavar="N", help="of the noise (0)")


def execute(args: argparse.Namespace, rest: list[str]) -> int:
    """Evaluates; returns the exit status."""
    run = arguments.open_named(args, args.batch_size, args.steps)
    if args.data_dir is None:
        run.config.data.check_kept()
    x0, labels = run.read_split("test", args.limit)
    with Terminal("example", len(x0)).shown() as terminal:
        result = run.evaluate_on(x0, labels, args.batch_size, args.seed, terminal.advance)
    result["baselines"] = _baselines(run, x0)
    result["limit"] = args.limit
    suffix = results.suffix(args, "step", "steps", "limit", "seed")
    path, plot = args.workdir / f"eval{suffix}.json", args.workdir / f"bound_terms{suffix}.png"
    replaced = results.write_json(path, result, ("step", "examples"))
    _plot(plot, result["steps"], run.caption)
    print(f"terms of every t: {plot} and {path}{replaced}")
    _report(result, getattr(run.config.data, "test_split", "test"))
    return 0


def _report(result: dict[str, Any], split: str) -> None:
    """Prints the figures."""
    print(f"checkpoint of step {result['step']}, {result['examples']} examples of split {split!r}")
    print(f"  reconstruction -log p(x_0 | x_1)  {result['reconstruction']:.4f} bits/dim")
    print(f"  denoising, sum over t = 2..{len(result['steps'])}    {sum(result['steps'][1:]):.4f} bits/dim")
    print(f"  prior KL(q(x_T | x_0) || p(x_T))  {result['prior']:.2e} bits/dim")
    print("for comparison, on the same examples:")
    for name, value in result["baselines"].items():
        print(f"  {name}: {value:.3f} bits/dim")
    error = result["standard_error"]
    print(f"test bits/dim: {result['bits_per_dim']:.3f} +- {'unknown' if error is None else f'{error:.3f}'}")


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
