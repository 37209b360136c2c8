"""d3pm eval computes the bound on the test split, its parts, and two baselines."""

import dataclasses
import hashlib
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from tyro.conf import arg
from tyro.constructors import PrimitiveConstructorSpec

from d3pm_jax import show
from d3pm_jax.cli import arguments, eval_samples, eval_text, results
from d3pm_jax.config import io as config_io
from d3pm_jax.config.checks import Count, Seed
from d3pm_jax.data import count_categories
from d3pm_jax.errors import UserError
from d3pm_jax.evaluation import baselines
from d3pm_jax.evaluation.bound import elements, with_error
from d3pm_jax.likelihood import bits_per_dim
from d3pm_jax.machine import cluster
from d3pm_jax.machine.terminal import Terminal
from d3pm_jax.measure import grids
from d3pm_jax.runs.run import Run

Examples = dict[str, np.ndarray]  # "x", and if there are any "label" and "weight"
SHORT = 100_000  # calls of the network that take no time worth telling


Counts = Annotated[
    tuple[Count, ...],
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="N[,N...]",
        instance_from_str=lambda words: tuple(dict.fromkeys(map(int, words[0].split(",")))),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(map(str, value))],
    ),
]  # each number once


@dataclasses.dataclass(frozen=True)
class Eval(arguments.Computation):
    """Computes bits per dimension on the test split, with its parts."""

    data_dir: Annotated[str | None, arg(metavar="DIR")] = None
    """where data sets lie, if not where the run found them"""
    steps: Counts | None = None
    """take so many steps of the process in place of all; a line for each number"""
    calls: Annotated[Count | None, arg(metavar="N")] = None
    """estimate the sum over the steps from N calls of the network per example, without bias"""
    limit: Annotated[Count | None, arg(metavar="N")] = None
    """only the first N examples of the split"""
    batch_size: Annotated[Count, arg(metavar="B")] = 128
    """examples at a time"""
    seed: Annotated[Seed, arg(metavar="N")] = 0
    """of the noise"""
    samples: Annotated[Count | None, arg(metavar="N")] = None
    """draw N samples and measure how far they are from the training split (2000 for a start);
    of text, whether they are of its words and what they copy"""
    inception: Annotated[Path | None, arg(metavar="FILE")] = None
    """measure them in features of these weights of Inception, not of a classifier of the data"""
    chain_rule: Annotated[Count | None, arg(metavar="N")] = None
    """of a network that fills in masks and sees no time: the exact likelihood of N examples too,
    from left to right and in random orders, by a call of the network for each element"""


def execute(args: Eval, words: list[str]) -> int:
    """Evaluates; returns the exit status."""
    arguments.check_grid(args.grid, args.steps)
    run = arguments.find_data(arguments.open_with_others(args, args.batch_size), args.data_dir)
    eval_samples.check(args, run)
    eval_text.check(args, run)
    runs = _with_steps(args, run)
    examples = run.read_batch("test", args.limit)
    split = getattr(run.config.data, "test_split", "test")
    print(f"checkpoint of step {run.step}, {len(examples['x'])} examples of split {split!r}")
    if args.limit is None:
        _say_how_long(list(runs.values()), examples, args)
    compared, found = _baselines(run, examples), []
    for steps, each in runs.items():
        found.append(_evaluate(each, examples, steps, compared, args))
    eval_samples.execute(args, list(runs.values()))
    eval_text.execute(args, run, examples)
    print("for comparison, on the same examples:")
    for name, value in compared.items():
        print(f"  {name}: {value:.3f} bits/dim")
    print(f"test bits/dim: {_in_bits(found[-1])}")
    return 0


def _with_steps(args: Eval, run: Run) -> dict[int | None, Run]:
    """Returns the run with each number of steps that was asked for; None stands for all.

    Raises:
        UserError: the process has not so many, or --calls are more than them.
    """
    counts: tuple[int | None, ...] = args.steps or (None,)
    fewest = min(n or run.process.T for n in counts)
    if args.calls is not None and args.calls > fewest:
        raise UserError(f"calls = {args.calls}: it must be in 1..{fewest}, the fewest steps asked for")
    if args.grid == "dp" and args.steps is not None:
        run.respaced(max(args.steps))  # a number that there is not is told before anything is computed
        _measure_jumps(run)
    return {
        n: run if n is None else run.respaced(grids.choose(run.parts, run.workdir, n, args.grid))
        for n in counts
    }


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
    args: Eval,
) -> dict[str, Any]:
    """Computes the bound with the steps of a run, writes it to files of its own, and prints it."""
    with Terminal("example", len(examples["x"])).shown() as terminal:
        result = _bound(run, examples, args.batch_size, args.seed, terminal.advance, args.calls)
    result |= eval_text.figures(run, examples, result)
    result |= {"baselines": compared, "limit": args.limit, "protocol": _protocol(run, examples, args)}
    suffix = results.suffix(args, "step", "steps", "grid", "calls", "limit", "seed", steps=steps)
    path, plot = (args.workdir / f"{name}{suffix}" for name in ("eval", "bound_terms"))
    path, plot = path.with_suffix(".json"), plot.with_suffix(".png")
    replaced = results.write_json(path, result, ("step", "examples"))
    print(_line(result))
    if "steps" in result:
        show.save_bound_terms(plot, {"": result}, run.caption)
        print(f"terms of every t: {plot} and {path}{replaced}")
    else:
        print(f"written to {path}{replaced}")
    return result


def _bound(run: Run, examples: Examples, *args: Any, **more: Any) -> dict[str, Any]:
    labels, weight = examples.get("label"), examples.get("weight")
    return run.evaluate_on(examples["x"], labels, *args, weight=weight, **more)


def _protocol(run: Run, examples: Examples, args: Eval) -> dict[str, Any]:
    """Says all that a bound depends on."""
    config, data = run.config, config_io.to_json(run.config.data)
    content = b"".join(examples[name].tobytes() for name in ("x", "weight") if name in examples)
    return {
        "N": len(examples["x"]),
        "split": getattr(config.data, "test_split", "test"),
        "data": {name: value for name, value in data.items() if name not in config.data.places},
        "examples": f"sha256 {hashlib.sha256(content).hexdigest()}",
        "terms": "all" if args.calls is None else f"{args.calls} for each example, stratified",
        "seed": args.seed,
        **run.about(),
    }


def _line(result: dict[str, Any]) -> str:
    """Says what was found with so many steps."""
    steps = len(result["times"])
    nats = with_error(result["nats"], result["nats_standard_error"], 2)
    total = f"  {steps} steps: {_in_bits(result)} bits/dim, {nats} nats"
    if "perplexity" in result:
        total += f", {result['bits_per_char']:.3f} bits/char" if "bits_per_char" in result else ""
        total += f", perplexity {result['perplexity']:.4g}"
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


def _say_how_long(runs: list[Run], examples: Examples, args: Eval) -> None:
    """Prints how long it will take, by a call of the network, where that is minutes."""
    calls, N = [args.calls or run.process.T for run in runs], len(examples["x"])
    if N * sum(calls) < SHORT:
        return
    n = min(args.batch_size, N)
    once = partial(_bound, runs[0], {name: x[:n] for name, x in examples.items()}, n, calls=1)
    once()  # compiles
    start = time.monotonic()
    once()
    seconds = (time.monotonic() - start) / n * N * sum(calls)
    fewer = "--limit N takes the first N"
    fewer += ", --calls N fewer calls for each" if args.calls is None else ""
    print(f"about {_in_words(seconds)}: {N:,} examples x {sum(calls)} calls of the network; {fewer}")


def _in_words(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _baselines(run: Run, examples: Examples) -> dict[str, float]:
    levels, test, weight = run.parts.categories, examples["x"], examples.get("weight")
    if run.parts.description.kind == "text" or weight is not None:
        counts = count_categories(run.config.data.open("train"), levels)
        found = {"unigram": baselines.unigram_nats(counts, test, weight)}
    else:
        found = _by_place(run, test, levels)
    D = float(np.mean(elements(test, weight)))
    named = {name: bits_per_dim(float(np.mean(nats)) / D, 1) for name, nats in found.items()}
    return named | (eval_text.baselines(run, examples) if run.parts.description.kind == "text" else {})


def _by_place(run: Run, test: np.ndarray, levels: int) -> dict[str, np.ndarray]:
    x0, labels = run.read_split("train")
    place = "per-pixel histogram" if run.parts.description.kind == "image" else "histogram of each place"
    found = {place: baselines.histogram_nats(x0, test, levels)}
    if labels is not None:
        name = f"mixture of {len(np.unique(labels))} class histograms"
        found[name] = baselines.class_mixture_nats(x0, labels, test, levels)
    return found
