"""Computes the bound of a run on examples, as a `Record` with the protocol by which it was measured.

Of a network that fills in masks and sees no time, it computes the exact likelihood as well.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from d3pm_jax.config import Count, Seed, checks_arguments, io as config_io
from d3pm_jax.evaluation.bound import (
    count_elements,
    left_to_right,
    random_order,
    summarize_bound,
)
from d3pm_jax.files import hash_arrays
from d3pm_jax.program.measure import record
from d3pm_jax.program.measure.examples import check_examples, evaluate
from d3pm_jax.program.measure.filling import (
    MIXED,
    AnyOrders,
    compute_in_orders,
    compute_mixture,
    require_fillable_mask,
)
from d3pm_jax.program.parts.build import Parts, describe_conditions
from d3pm_jax.program.storage import names

PARTS = ("reconstruction", "prior")  # of a bound whose terms were all computed, in bits per dimension
ORDERS = ("left to right", "in random orders")  # of the elements, in an exact likelihood


@checks_arguments
def compute_bound(
    parts: Parts,
    examples: Mapping[str, np.ndarray],
    batch_size: Count = 128,
    seed: Seed = 0,
    progress: Callable[[int], Any] = lambda done: None,
    calls: Count | None = None,
    split: str | None = None,
) -> record.Record:
    """Computes the bound on examples; of a classifier how well it tells their labels.

    Args:
        parts: of the run, at a checkpoint.
        examples: "x" int32 [N, *S], "label" int32 [N] for a network that takes them, "weight" [N, *S] if
            each element counts as often as that says, and "condition" [N, *C] if there are any.
        batch_size: how many at a time.
        seed: of the noise.
        progress: is called with the number of examples that are done.
        calls: estimate the sum over t from so many calls of the network per example, without bias; by
            default every t is computed. Of a flow: so many draws of v per example, of which the bound is
            IWBO(calls); by default one, for the ELBO. Of a classifier: the label is told at so many of the
            steps 0..T, evenly spread.
        split: of the data that the examples are of; None where they are others.

    Returns:
        The entries of `evaluation.bound.summarize_bound`, with the step, N, the seed and the times of the
        terms; without `calls` those of `evaluation.bound.summarize_parts`; of a flow with `calls` the ELBO as
        well; and the bound in units of the kind of data. Of a classifier those of
        `evaluation.bound.summarize_labels`. And the protocol.

    Raises:
        UserError: the process has fewer steps than calls.
    """
    figures = evaluate_examples(parts, examples, batch_size, seed, progress, calls)
    bound = parts.recipe.bound
    conditions = {"step": parts.step, "examples": len(examples["x"]), "seed": seed}
    result = figures | conditions | {"times": bound.times(calls)}
    if calls is not None:
        result["calls"] = calls
    protocol = describe_protocol(parts, examples, seed, split, bound.describe_terms(calls))
    if "nats" not in result:
        # The figures of a classifier are no bound, and have no other units.
        return record.Record(LABELS, result | {"protocol": protocol})
    return record.Record(EVAL, result | parts.kind.extra_figures(result, examples) | {"protocol": protocol})


def evaluate_examples(
    parts: Parts,
    examples: Mapping[str, np.ndarray],
    batch_size: int,
    seed: int,
    progress: Callable[[int], Any] = lambda done: None,
    calls: int | None = None,
) -> dict[str, Any]:
    """Computes the figures of `compute_bound` by the same arguments, without what they depend on."""
    bound = parts.recipe.bound
    # A program is compiled once for all bounds of the same parts, as for the estimates of a report.
    compiled = parts.once(("bound", seed, calls), lambda: bound.compile(calls, seed))
    values = evaluate(parts, compiled, examples, batch_size, progress)
    return bound.summarize(values, count_elements(examples["x"], examples.get("weight")), calls)


def seconds_per_call(parts: Parts, examples: Mapping[str, np.ndarray], batch_size: int = 128) -> float:
    """Measures the seconds that a call of the network takes for one example, once all is compiled.

    They are those of a bound by one call for each example. Besides the network they hold the noise, the cost
    of the logits, and the figures that the kind of the data adds, such as bits per character.
    """
    batch = {name: x[:batch_size] for name, x in examples.items()}
    n = len(batch["x"])
    compute_bound(parts, batch, n, calls=1)  # compiles
    start = time.monotonic()
    compute_bound(parts, batch, n, calls=1)
    return (time.monotonic() - start) / n


def name_test_split(parts: Parts) -> str:
    """Returns the name of the test split of the data of a run."""
    return getattr(parts.config.data, "test_split", "test")


def describe_protocol(
    parts: Parts, examples: Mapping[str, np.ndarray], seed: int, split: str | None, terms: str
) -> dict[str, Any]:
    """Describes all that figures of examples depend on.

    Of the config of the data it leaves out where the data lies: on another machine it is the same data. The
    hash of the examples says so for certain, and that of the labels and conditions that the network takes.

    Args:
        parts: of the run.
        examples: that the figures are of.
        seed: of the noise.
        split: of the data that the examples are of; None where they are others.
        terms: which terms of a bound were computed, in words.
    """
    config = parts.config
    data = config_io.to_json(config.data)
    hashed = [examples[name] for name in ("x", "weight") if name in examples]
    protocol = {
        "N": len(examples["x"]),
        "split": split,
        "data": {name: value for name, value in data.items() if name not in config.data.places},
        "examples": f"sha256 {hash_arrays(*hashed)}",
        "terms": terms,
        "seed": seed,
        **describe_conditions(parts),
    }
    inputs = [x for name, x in parts.extra_inputs(examples).items() if name != "weight"]
    if inputs:
        protocol["inputs"] = f"sha256 {hash_arrays(*inputs)}"
    return protocol


def _check_bound(bound: record.Record) -> None:
    """Raises where the step, a time, a term or a figure of a bound is missing or is not what it should be."""
    record.check_protocol(bound)
    times = bound["times"]
    terms = bound.get("steps", [])
    # A bound that is estimated from some calls has times, and no terms. That of a flow, of 0 steps, has
    # neither.
    has_times = len(times) > 0 or bound.protocol["steps"] == 0
    if not has_times or len(terms) not in (0, len(times)):
        raise ValueError("its times are not those of its terms")

    record.check_figures(bound, ("bits_per_dim",))
    parts = [bound.get(name) for name in PARTS]
    record.check_numbers([*times, *terms, *parts])
    for baseline in bound.get("baselines", {}).values():
        if isinstance(baseline, Mapping):
            record.check_figures(baseline, ("nats",))
        else:
            record.check_numbers([baseline])


EVAL = record.Format(names.EVAL, _check_bound)


def _check_labels(labels: record.Record) -> None:
    """Raises where a step or how many examples are missing, or a figure of a classifier is no number."""
    record.check_protocol(labels)
    record.check_figures(labels, ("cross_entropy", "accuracy"))


LABELS = record.Format(names.ACCURACY, _check_labels)


@checks_arguments
def compute_likelihood(
    parts: Parts,
    examples: Mapping[str, np.ndarray],
    batch_size: Count = 128,
    seed: Seed = 0,
    progress: Callable[[int], Any] = lambda done: None,
    split: str | None = None,
    orders: AnyOrders = None,
) -> record.Record:
    """Computes -log p of examples whose elements are filled in one after the other: `likelihood.chain_rule`.

    Args:
        parts: of a run with a network that `find_fillable_mask` returns a mask of.
        examples: "x" [N, *S], "label", "weight" and "condition" if any, as `Run.read_batch` gives them.
        batch_size: how many at a time.
        seed: of the random orders.
        progress: is called with the number of examples that are done in both orders, and then of those that
            are done in all further ones.
        split: of the data that the examples are of; None where they are others.
        orders: further random orders, of which the mean and the mixture are computed too; "all": the mixture
            of all orders, of at most 16 elements.

    Returns:
        The entries of `evaluation.bound.summarize_bound` for each of "left to right" and "in random orders";
        and step, N, seed and protocol. With orders those of `filling.compute_mixture` under "orders".

    Raises:
        UserError: the network sees time, or has no extra mask; or the examples are no such dict, or none.
    """
    require_fillable_mask(parts)
    check_examples(examples)
    x0 = examples["x"]
    N = len(x0)
    num_elements = count_elements(x0, examples.get("weight"))  # int, or float [N] with weights
    index = jnp.arange(N, dtype=jnp.int32)
    every_order = (left_to_right(index, x0.shape[1:]), random_order(seed)(index, x0.shape[1:], 0))
    nats = compute_in_orders(
        parts, examples, every_order, batch_size, lambda done: progress(done // len(ORDERS))
    )  # [2, N]

    result: dict[str, Any] = {"step": parts.step, "examples": N, "seed": seed}
    for name, nats_in_order in zip(ORDERS, nats, strict=True):
        result[name] = summarize_bound(nats_in_order, num_elements)
    if orders is not None:
        result["orders"] = compute_mixture(parts, examples, orders, batch_size, seed, progress)
    result["protocol"] = describe_protocol(parts, examples, seed, split, "all")
    return record.Record(EXACT, result)


def _check_exact(likelihood: record.Record) -> None:
    """Raises where an order, a step or how many examples are missing, or a figure is no number."""
    record.check_protocol(likelihood)
    for order in ORDERS:
        record.check_figures(likelihood[order], ("bits_per_dim",))
    for name in MIXED.keys() & likelihood.get("orders", {}).keys():
        record.check_figures(likelihood["orders"][name], ("bits_per_dim",))


EXACT = record.Format(
    names.EXACT,
    _check_exact,
    damaged="{path} is damaged ({why}): delete it, `d3pm eval --chain-rule` writes it again",
)
