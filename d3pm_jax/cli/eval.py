"""d3pm eval computes the bound on the test split, its parts, and what baselines reach."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from d3pm_jax import show
from d3pm_jax.cli import arguments
from d3pm_jax.config import Choice, Count, Seed
from d3pm_jax.errors import UserError
from d3pm_jax.kinds import Samples, files
from d3pm_jax.program.machine import cluster
from d3pm_jax.program.machine.terminal import Terminal
from d3pm_jax.program.measure import (
    bounds,
    certificate,
    filling,
    record,
    sample_quality,
    samples,
    step_costs,
)
from d3pm_jax.program.parts.draw import Draw
from d3pm_jax.program.parts.reading import open_whole
from d3pm_jax.program.storage import names
from d3pm_jax.runs.run import Run

Examples = Mapping[str, np.ndarray]  # "x", and if there are any "label", "weight" and "condition"
ROWS = 11  # of a table by time, at most
SHORT = 100_000  # calls of the network below which the command does not say how long it will take


@arguments.list_own_options_first
@dataclasses.dataclass(frozen=True)
class EvalCommand(arguments.Computation):
    """Computes bits per dimension of the test split; for a classifier its accuracy.

    A quick estimate: d3pm eval runs/digits --limit 100

    The quality of samples with fewer steps: d3pm eval runs/digits --steps 10,50 --samples 2000
    """

    limit: Annotated[Count | None, arguments.name_option(metavar="N")] = None
    """take only the first N test examples"""
    steps: Annotated[arguments.Counts | None, arguments.name_option()] = None
    """use only N steps of the process instead of all; prints a line for each N, as --steps 10,50"""
    grid: arguments.Grid = "even"
    calls: Annotated[Count | None, arguments.name_option(metavar="N")] = None
    """estimate the bound from N network calls per example instead of one call per step, without bias;
    for a flow: compute the bound IWBO(N) beside the ELBO;
    for a classifier: take only N of the steps 0..T"""
    chain_rule: Annotated[Count | None, arguments.name_option(metavar="N")] = None
    """also compute the exact likelihood of N examples, from left to right and in random orders;
    only for a network that fills in masks and sees no time; takes one network call per element"""
    certify: Annotated[Count | None, arguments.name_option(metavar="N")] = None
    """instead of the bound of the split: all that is known of -log p of the first N test examples, in pairs:
    bounds, exact likelihoods and the truth where it can be enumerated"""
    draws: Annotated[Count | None, arguments.name_option(metavar="M")] = None
    """with --certify: how many orders, or paths, of each example (default: 8)"""
    orders: Annotated[Count | filling.AllOrders | None, arguments.name_option(metavar="M|all")] = None
    """with --chain-rule: also M random orders, the same for all examples, and their mixture, which is a law
    of its own; takes M calls per element; all: the mixture of all orders, of at most 16 elements"""
    by_block: bool = False
    """with --orders M: orders of blocks, x[0], x[1], .. of each example, such as frames or rows of pixels,
    and inside of a block random ones"""
    samples: Annotated[Count | None, arguments.name_option(metavar="N")] = None
    """also draw N samples and compare them with the training split (2000 for a start):
    images by their features, text by its words and by what it copies, tables by their columns and pairs"""
    sampler: Annotated[Choice | None, arguments.name_option(metavar="NAME")] = None
    """with --samples: the sampler (default: that of the config, or ancestral);
    --sampler.FIELD VALUE sets a field of it, --sampler help lists all samplers with their fields"""
    inception: Annotated[Path | None, arguments.name_option(metavar="FILE")] = None
    """with --samples, for images: weights of Inception, whose features replace those of a small classifier"""
    batch_size: Annotated[Count, arguments.name_option(metavar="B")] = 128
    """examples per batch"""
    seed: Annotated[Seed, arguments.name_option(metavar="N")] = 0
    """seed of the noise"""


def execute(command: EvalCommand, words: list[str]) -> int:
    """Evaluates; returns the exit status."""
    arguments.check_grid(command.grid, command.steps)
    choice = command.sampler
    if choice is not None and command.samples is None:
        raise UserError(f"--sampler {choice.name} draws samples: say how many, as --samples 2000")
    run = arguments.open_with_others(command, command.batch_size)
    arguments.check_data(command, run)
    if run.parts.recipe.classifier is not None:
        return _evaluate_classifier(command, run)
    if command.certify is not None:
        return _certify(command, run, command.certify)
    _check_options(command, run)
    if choice is not None:
        samples.check_sampler(run.parts, choice.sampler)
    if command.grid == "dp":
        _prepare_best_grids(run)

    runs = [run]
    if command.steps is not None:
        grids = [step_costs.choose_steps(run.parts, run.workdir, n, command.grid) for n in command.steps]
        runs = [run.respaced(grid) for grid in grids]

    examples = _read_examples(command, run)
    if command.limit is None:
        _print_duration(command, runs, examples)
    baselines = run.parts.kind.baselines(open_whole(run.parts, run.workdir, "train"), examples, print)
    counts = command.steps or (None,)  # None stands for all steps
    computed = [
        _evaluate(command, respaced_run, steps, examples, baselines)
        for steps, respaced_run in zip(counts, runs, strict=True)
    ]
    if command.samples is not None:
        measure_samples(command, runs, command.samples)
    if command.chain_rule is not None:
        _compute_likelihood(command, run, examples, command.chain_rule)

    print("for comparison, on the same examples:")
    for name, value in baselines.items():
        print(f"  {name}: {record.format_baseline(value)}")
    example_name = run.parts.kind.example_name
    if example_name is not None:
        print(f"test nats per {example_name}: {record.format_figure(computed[-1], 'nats')}")
    print(f"test bits/dim: {record.format_figure(computed[-1], 'bits_per_dim')}")
    return 0


def _evaluate_classifier(command: EvalCommand, run: Run) -> int:
    """Computes how well a classifier tells the labels of noised examples, writes and prints it."""
    _refuse_options(
        command,
        ("steps", "samples", "inception", "chain_rule", "certify", "draws", "orders", "by_block"),
        "the run trains a classifier, which has no bound and no samples; leave it out (--calls N takes N of "
        "the steps 0..T)",
    )
    # More calls than can be made are refused before any data is read.
    run.parts.recipe.bound.compile(command.calls, command.seed)
    result = _compute(command, run, _read_examples(command, run))
    path, replaced = record.write_record(result, run.workdir, _name_files(command))
    for line in _format_labels(result):
        print(line)
    print(f"written to {path}{replaced}")
    accuracy = record.format_figure(result, "accuracy")
    cross_entropy = record.format_with_unit(result, "cross_entropy")
    print(f"test accuracy: {accuracy}, cross entropy: {cross_entropy}, over t = 0..{result['times'][-1]}")
    return 0


def _refuse_options(command: EvalCommand, fields: Sequence[str], why: str) -> None:
    """Raises UserError where one of these options was given."""
    for name in fields:
        if getattr(command, name) not in (None, False):
            raise UserError(f"--{name.replace('_', '-')}: {why}")


def _certify(command: EvalCommand, run: Run, num: int) -> int:
    """Computes, writes and prints the certificate of the first test examples."""
    _refuse_options(
        command,
        ("limit", "steps", "calls", "chain_rule", "orders", "by_block", "samples", "inception"),
        f"--certify {num} is of N examples with all steps, and takes --draws M alone; leave it out",
    )
    with Terminal("example", num).show_bar() as terminal:
        result = run.certify(
            num, command.draws or certificate.DRAWS, command.batch_size, command.seed, terminal.advance
        )
    suffix = record.file_suffix(step=command.step, n=num, draws=command.draws, seed=command.seed)
    path, replaced = record.write_record(result, run.workdir, suffix)
    picture = path.with_suffix(".png")
    show.save_certificate(picture, result, run.caption)
    print(f"checkpoint of step {run.step}, the same {result['examples']} examples in all rows")
    for row in result["rows"]:
        bits, nats = (record.format_with_unit(row, name) for name in ("bits_per_dim", "nats"))
        print(f"  {row['name']}: {bits}, {nats}; paired {record.format_figure(row, 'difference')}")
        print(f"      {row['law']}")
    print(f"  paired: nats above {result['reference']}")
    for note in result["notes"]:
        print(f"  note: {note}")
    print(f"picture: {picture}, written to {path}{replaced}")
    return 0


def _format_labels(result: record.Record) -> list[str]:
    """Formats the figures of a classifier at some times as lines of a table."""
    lines = ["    t  cross entropy  accuracy"]
    times = result["times"]
    chosen = np.unique(np.linspace(0, len(times) - 1, min(len(times), ROWS)).round().astype(int))
    for i in chosen.tolist():
        nats = result["cross_entropy_by_step"][i]
        accuracy = result["accuracy_by_step"][i]
        lines.append(f"{times[i]:5d}  {nats:8.3f} nats  {accuracy:8.3f}")
    return lines


def _check_options(command: EvalCommand, run: Run) -> None:
    """Refuses options that do not fit the run, before anything is computed."""
    if command.samples is not None:
        run.parts.kind.check_quality(command.samples, command.inception)
        # The table of all figures is printed last, and a damaged file would end the command there.
        sample_quality.read_quality([run.workdir])
    elif command.inception is not None:
        raise UserError(
            f"--inception {command.inception} measures samples of images: say how many, as --samples 5000"
        )
    if command.chain_rule is not None and filling.find_fillable_mask(run.parts) is None:
        raise UserError(
            f"--chain-rule {command.chain_rule} is for a network that fills in masks and sees no time: "
            f"Absorbing with an extra mask, and Transformer(see_time=False); leave it out"
        )
    _refuse_options(command, ("draws",), "it says how many orders, or paths, of --certify N; leave it out")
    if command.by_block and not isinstance(command.orders, int):
        raise UserError("--by-block says which orders: say how many, as --orders 16")
    if command.orders is not None and command.chain_rule is None:
        raise UserError(
            f"--orders {command.orders} is of exact likelihoods: say of how many examples, as --chain-rule 64"
        )
    if command.by_block:
        filling.check_blocks(run.parts.description.shape)
    if command.orders == "all":
        filling.check_all_orders(run.parts.description.shape)
    if command.steps is not None:
        # A run without steps, or with fewer, is refused before anything else is said of them.
        run.respaced(max(command.steps))
    if command.calls is None:
        return
    if command.steps is None:
        # More calls than can be made are refused here. Nothing is compiled before the function is called.
        run.parts.recipe.bound.compile(command.calls, command.seed)
    elif command.calls > min(command.steps):
        raise UserError(
            f"calls = {command.calls}: it must be in 1..{min(command.steps)}, the smallest number of --steps"
        )


def _prepare_best_grids(run: Run) -> None:
    """Measures the costs that the best grids follow from, unless they are in the folder of the run."""
    if step_costs.read_costs(run.parts, run.workdir) is not None:
        return
    with Terminal("time", step_costs.num_times(run.parts)).show_bar() as terminal:
        costs = step_costs.measure_costs(run.parts, run.workdir, terminal.advance)
        step_costs.write_costs(run.parts, run.workdir, costs)
    # The first process alone writes them, and all processes read them.
    cluster.wait_for_all()


def _read_examples(command: EvalCommand, run: Run) -> Examples:
    """Reads the test examples that are asked for, and prints of what the figures are."""
    examples = run.read_batch("test", command.limit)
    words = f"{len(examples['x'])} examples of split {bounds.name_test_split(run.parts)!r}"
    print(f"checkpoint of step {run.step}, {words}")
    return examples


def _compute(command: EvalCommand, run: Run, examples: Examples) -> record.Record:
    """Computes the bound of a run, or the figures of a classifier, on test examples."""
    with Terminal("example", len(examples["x"])).show_bar() as terminal:
        return bounds.compute_bound(
            run.parts,
            examples,
            command.batch_size,
            command.seed,
            terminal.advance,
            command.calls,
            bounds.name_test_split(run.parts),
        )


def _name_files(command: EvalCommand, steps: int | None = None) -> str:
    """Returns the suffix of the names of files, which tells what was asked for."""
    return record.file_suffix(
        step=command.step,
        steps=steps,
        grid=command.grid,
        calls=command.calls,
        limit=command.limit,
        seed=command.seed,
    )


def _evaluate(
    command: EvalCommand, run: Run, steps: int | None, examples: Examples, baselines: Mapping[str, Any]
) -> record.Record:
    """Computes the bound with the steps of a run, writes it to files of its own, and prints it."""
    bound = _compute(command, run, examples)
    suffix = _name_files(command, steps)
    stored = record.Record(bounds.EVAL, {**bound, "baselines": baselines, "limit": command.limit})
    path, replaced = record.write_record(stored, run.workdir, suffix)
    figures_in_words = (
        f"{record.format_with_unit(bound, 'bits_per_dim')}, {record.format_with_unit(bound, 'nats')}"
    )
    for name, template in run.parts.kind.units.items():
        if name in bound:
            figures_in_words += f", {template.format(bound[name])}"
    print(f"  {run.parts.recipe.bound.describe(bound, figures_in_words)}")
    for name, template in run.parts.kind.remarks.items():
        if name in bound:
            print(f"  {template.format(bound[name])}")
    if "steps" in bound:
        picture = run.workdir / f"{names.BOUND_TERMS}{suffix}.png"
        show.save_bound_terms(picture, {"": bound}, run.caption)
        print(f"terms of every t: {picture} and {path}{replaced}")
    else:
        print(f"written to {path}{replaced}")
    return bound


def _print_duration(command: EvalCommand, runs: Sequence[Run], examples: Examples) -> None:
    """Prints about how long the evaluation will take, unless it calls the network fewer than SHORT times."""
    N = len(examples["x"])
    calls = sum(command.calls or run.parts.recipe.bound.calls for run in runs)  # for each example
    if N * calls < SHORT:
        return
    seconds = bounds.seconds_per_call(runs[0].parts, examples, command.batch_size) * N * calls
    minutes = max(1, round(seconds / 60))
    duration = f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
    advice = "--limit N takes the first N"
    if command.calls is None and runs[0].parts.recipe.bound.calls > 1:
        advice += ", --calls N fewer calls for each"
    print(f"about {duration}: {N:,} examples x {calls} calls of the network; {advice}")


def measure_samples(command: EvalCommand, runs: Sequence[Run], num: int) -> None:
    """Draws num samples of each run, all of one workdir, measures them and prints the figures."""
    kind = runs[0].parts.kind
    reference = sample_quality.prepare_reference(
        runs[0].parts, runs[0].workdir, num, command.batch_size, command.inception
    )
    sampler = command.sampler and command.sampler.sampler
    draw = Draw(sampler=sampler, **runs[0].read_sample_inputs(num))
    for run in runs:
        with Terminal("sample", num).show_bar() as terminal:
            quality = sample_quality.measure_quality(
                run.parts,
                reference,
                num,
                draw,
                command.seed,
                command.batch_size,
                terminal.advance,
            )
        path = sample_quality.write_quality(quality.record, run.workdir)
        samples = Samples(quality.samples, run.parts.recipe.categories)
        written = files.write_measured(kind, path, samples, quality.measured, run.caption)
        if written is not None:
            print(written)
        print(f"figures and their protocol: {path}")
    closing = kind.closing_words(reference)
    if closing is not None:
        print(closing)
    for line in sample_quality.format_quality(sample_quality.read_quality([runs[0].workdir]), kind.quality):
        print(line)


def _compute_likelihood(command: EvalCommand, run: Run, examples: Examples, num: int) -> None:
    """Computes and prints the exact likelihood of the first examples by the chain rule."""
    first_examples = {name: x[:num] for name, x in examples.items()}
    N = len(first_examples["x"])
    orders = command.orders
    if isinstance(orders, int):
        orders = filling.Orders(orders, by_block=command.by_block)
    with Terminal("example", N).show_bar() as terminal:
        likelihood = bounds.compute_likelihood(
            run.parts,
            first_examples,
            command.batch_size,
            command.seed,
            terminal.advance,
            bounds.name_test_split(run.parts),
            orders,
        )
    byblock = "" if command.by_block else None
    suffix = record.file_suffix(
        step=command.step, chain_rule=num, orders=command.orders, byblock=byblock, seed=command.seed
    )
    path, replaced = record.write_record(likelihood, run.workdir, suffix)
    for name in bounds.ORDERS:
        bits = record.format_with_unit(likelihood[name], "bits_per_dim")
        print(f"  exact, {name}, {N} examples: {bits}")
    if orders is not None:
        mixed = likelihood["orders"]
        for name, words in filling.MIXED.items():
            if name in mixed:
                print(f"  {words.format(M=mixed['num'])}: {record.format_drawn(mixed[name])}")
        effective = ""
        if "effective" in mixed:
            effective = f"; {mixed['effective']:.1f} orders count in it"
        print(f"  the mixture is {mixed['law']}{effective}")
    print(f"written to {path}{replaced}")
