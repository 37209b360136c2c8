"""Computes the bound of a run on examples, and writes it with the protocol by which it was measured.

Of a network that fills in masks and sees no time, it computes the exact likelihood as well.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from d3pm_jax import show
from d3pm_jax.config import Absorbing, io as config_io
from d3pm_jax.config.checks import Count, Seed, check_number
from d3pm_jax.errors import UserError
from d3pm_jax.evaluation.bound import (
    count_elements,
    evaluate_bound,
    exact_nats,
    left_to_right,
    random_order,
    summarize_bound,
)
from d3pm_jax.machine.devices import batch_sharding
from d3pm_jax.measure import record
from d3pm_jax.measure.record import Record
from d3pm_jax.parts.build import Parts, describe_conditions, make_caption
from d3pm_jax.storage import names

NUMBERS = ("nats", "reconstruction", "prior", "elbo_bits_per_dim")  # figures of a bound that a file may lack
ORDERS = ("left to right", "in random orders")  # of the elements, in an exact likelihood
COMPARED = ("N", "examples", "inputs")  # entries of the protocol that comparable figures have in common
DAMAGED = "{path} is damaged ({why}): delete it, `d3pm eval` writes it again"


def compute_bound(
    parts: Parts,
    examples: Mapping[str, np.ndarray],
    batch_size: int = 128,
    seed: int = 0,
    progress: Callable[[int], Any] = lambda done: None,
    calls: int | None = None,
) -> dict[str, Any]:
    """Computes the bound on examples.

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

    Returns:
        The entries of `evaluation.bound.summarize_bound`, with the step, N, the seed and the times of the
        terms; without `calls` those of `evaluation.bound.summarize_parts`; of a flow with `calls` the ELBO as
        well; and the bound in units of the kind of data. Of a classifier those of
        `evaluation.label_terms.summarize_labels`.

    Raises:
        UserError: the process has fewer steps than calls.
    """
    check_number("batch_size", batch_size, Count)
    check_number("seed", seed, Seed)
    if calls is not None:
        check_number("calls", calls, Count)
    method = parts.method
    x0 = examples["x"]

    # A program is compiled once for all bounds of the same parts, as for the estimates of a report.
    compiled = parts.once(("bound", seed, calls), lambda: method.compile_bound(calls, seed))
    sharding = batch_sharding(parts.mesh)
    extra_inputs = parts.extra_inputs(examples)
    bound = evaluate_bound(
        compiled, parts.params, method.process, x0, batch_size, sharding, extra_inputs, progress
    )
    D = count_elements(x0, examples.get("weight"))
    times = method.times_of_terms(calls)
    conditions = {"step": parts.step, "examples": len(x0), "seed": seed, "times": times}
    result = method.summarize(bound, D, calls) | conditions
    if calls is not None:
        result["calls"] = calls
    if "nats" not in result:
        # The figures of a classifier are no bound, and have no other units.
        return result
    return result | parts.kind.extra_figures(result, examples)


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


def describe_protocol(
    parts: Parts, examples: Mapping[str, np.ndarray], seed: int, calls: int | None = None
) -> dict[str, Any]:
    """Describes all that a bound depends on.

    Of the config of the data it leaves out where the data lies: on another machine it is the same data. The
    hash of the examples says so for certain, and that of the labels and conditions that the network takes.
    """
    config = parts.config
    data = config_io.to_json(config.data)
    protocol = {
        "N": len(examples["x"]),
        "split": getattr(config.data, "test_split", "test"),
        "data": {name: value for name, value in data.items() if name not in config.data.places},
        "examples": _hash_arrays([examples[name] for name in ("x", "weight") if name in examples]),
        "terms": parts.method.describe_terms(calls),
        "seed": seed,
        **describe_conditions(parts),
    }
    inputs = [x for name, x in parts.extra_inputs(examples).items() if name != "weight"]
    if inputs:
        protocol["inputs"] = _hash_arrays(inputs)
    return protocol


def _hash_arrays(arrays: Iterable[np.ndarray]) -> str:
    """Returns the hash of the numbers of arrays, one after the other."""
    content = b"".join(x.tobytes() for x in arrays)
    return f"sha256 {hashlib.sha256(content).hexdigest()}"


def write_bound(
    parts: Parts,
    workdir: Path,
    examples: Mapping[str, np.ndarray],
    result: Mapping[str, Any],
    baselines: Mapping[str, float],
    limit: int | None = None,
    suffix: str = "",
) -> tuple[Path, Path | None, str]:
    """Writes a bound to the folder of a run, and draws its terms where all were computed.

    Args:
        parts: of the run that the bound is of.
        workdir: of the run.
        examples: that it was computed on.
        result: of `compute_bound`.
        baselines: bits per dimension of what a model of the data has to beat, by name.
        limit: how many examples were asked for, if not all.
        suffix: of the names of files, of `record.file_suffix`.

    Returns:
        The path of the file, that of the picture if there is one, and words about the bound that it
        replaces, see `record.write_record`.
    """
    protocol = describe_protocol(parts, examples, result["seed"], result.get("calls"))
    path = workdir / f"{names.EVAL}{suffix}.json"
    content = {**result, "baselines": baselines, "limit": limit, "protocol": protocol}
    replaced = record.write_record(path, EVAL, content)
    if "steps" not in result:
        return path, None, replaced
    picture = workdir / f"{names.BOUND_TERMS}{suffix}.png"
    show.save_bound_terms(picture, {"": result}, make_caption(workdir, parts, parts.step))
    return path, picture, replaced


def _from_keys(content: dict[str, Any]) -> tuple[Any, ...]:
    """Returns the protocol, the values and the arrays of a bound from the keys of its file."""
    terms = content.get("steps", [])
    times = content["times"]
    protocol_of_keys = {
        "seed": content["seed"],
        "calls": content.get("calls"),
        "N": content["examples"],
        "step": content["step"],
        "steps": len(times) or None,  # how many there are, where the key of the file holds their terms
    }
    protocol = {**protocol_of_keys, **content["protocol"]}
    values = {
        "bound": record.take_figures(content),
        "baselines": record.take_figures(content["baselines"], "bits/dim"),
    }
    arrays = {"bound": {"times": times, "steps": terms}}
    return protocol, values, arrays


def _check_bound(bound: Record) -> None:
    """Raises where the step, a time, a term or a figure of a bound is missing or is not what it should be."""
    protocol = bound.protocol
    if type(protocol["step"]) is not int or type(protocol["N"]) is not int:
        raise ValueError("it names no step, or not how many examples")

    arrays = bound.arrays["bound"]
    times = arrays["times"]
    terms = arrays["steps"]
    # A bound that is estimated from some calls has times, and no terms. That of a flow, of 0 steps, has
    # neither.
    if not isinstance(times, list) or len(terms) not in (0, len(times)):
        raise ValueError("its times are not those of its terms")
    if not times and protocol["steps"] != 0:
        raise ValueError("its times are not those of its terms")

    values = bound.values["bound"]
    optional = [values[name] for name in NUMBERS if name in values]
    figures = [values["bits_per_dim"], *optional, *bound.values["baselines"].values()]
    numbers = [*times, *terms]
    for figure in figures:
        numbers += [figure.value, figure.error]
    record.check_numbers(numbers)


EVAL = record.Format(
    COMPARED,
    ("step", "examples"),
    _from_keys,
    DAMAGED,
    _check_bound,
)


def find_extra_mask(parts: Parts) -> int | None:
    """Returns the mask category of an absorbing run whose network never predicts it; None for other runs."""
    process = parts.config.process
    if not isinstance(process, Absorbing) or not isinstance(process.mask_id, int):
        return None
    if parts.config.head.forbid != process.mask_id:
        return None
    return process.mask_id


def find_mask(parts: Parts) -> int | None:
    """Returns the mask category of a run whose network can fill in any set of elements; else None.

    Such a network sees no time, so that it answers for any number of masks, and never predicts the mask.
    """
    if getattr(parts.config.model, "see_time", True):
        return None
    return find_extra_mask(parts)


def compute_likelihood(
    parts: Parts,
    examples: Mapping[str, np.ndarray],
    batch_size: int = 128,
    seed: int = 0,
    progress: Callable[[int], Any] = lambda done: None,
) -> dict[str, Any]:
    """Computes -log p of examples whose elements are filled in one after the other: `likelihood.chain_rule`.

    Args:
        parts: of a run with a network that `find_mask` returns a mask of.
        examples: "x" [N, *S], "label", "weight" and "condition" if any, as `Run.read_batch` gives them.
        batch_size: how many at a time.
        seed: of the random orders.
        progress: is called with the number of examples that are done: twice N in the end, N for each order.

    Returns:
        The entries of `evaluation.bound.summarize_bound` for each of "left to right" and "in random orders";
        and step, N and seed.

    Raises:
        UserError: the network sees time, or has no extra mask.
    """
    mask = find_mask(parts)
    if mask is None:
        raise UserError(
            "the network sees time, or has no extra mask, so it has a bound and no chain rule: take "
            "Absorbing, Head(forbid=) of its mask, and Transformer(see_time=False)"
        )
    x0 = examples["x"]
    num_elements = count_elements(x0, examples.get("weight"))  # int, or int [N] with weights
    extra_inputs = parts.extra_inputs(examples)
    sharding = batch_sharding(parts.mesh)
    orders = dict(zip(ORDERS, (left_to_right, random_order(seed)), strict=True))
    result: dict[str, Any] = {"step": parts.step, "examples": len(x0), "seed": seed}
    for i, (name, order) in enumerate(orders.items()):
        compiled = exact_nats(parts.predict, mask, order)
        done_before = i * len(x0)

        # As a default the value is bound in this round. A variable of the loop would be looked up when the
        # function is called, and have the value of the last round where that is later.
        def report_progress(done: int, done_before: int = done_before) -> None:
            progress(done_before + done)

        nats = evaluate_bound(
            compiled, parts.params, parts.process, x0, batch_size, sharding, extra_inputs, report_progress
        )  # [N]
        result[name] = summarize_bound(nats, num_elements)
    return result


def write_likelihood(
    parts: Parts,
    workdir: Path,
    examples: Mapping[str, np.ndarray],
    result: Mapping[str, Any],
    suffix: str = "",
) -> tuple[Path, str]:
    """Writes the result of `compute_likelihood` on examples to the folder of a run.

    Returns:
        The path of the file, and words about the result that it replaces, see `record.write_record`.
    """
    protocol = describe_protocol(parts, examples, result["seed"])
    path = workdir / f"{names.EXACT}{suffix}.json"
    return path, record.write_record(path, EXACT, result, protocol)


def _exact_from_keys(content: dict[str, Any]) -> tuple[Any, ...]:
    """Returns the protocol, the values and no arrays of a likelihood from the keys of its file."""
    protocol = {"N": content["examples"], "step": content["step"], "seed": content["seed"]}
    rows = {name: row for name, row in content.items() if isinstance(row, dict)}
    return protocol, {name: record.take_figures(row) for name, row in rows.items()}, {}


def _check_exact(likelihood: Record) -> None:
    """Raises where an order, a step or how many examples are missing, or a figure is no number."""
    protocol = likelihood.protocol
    if type(protocol["step"]) is not int or type(protocol["N"]) is not int:
        raise ValueError("it names no step, or not how many examples")
    missing = [order for order in ORDERS if "bits_per_dim" not in likelihood.values.get(order, {})]
    if missing:
        raise ValueError(f"it has no figure {missing[0]}")
    for row in likelihood.values.values():
        record.check_numbers(figure.value for figure in row.values())


EXACT = record.Format(
    COMPARED,
    ("step", "examples"),
    _exact_from_keys,
    "{path} is damaged ({why}): delete it, `d3pm eval --chain-rule` writes it again",
    _check_exact,
)
