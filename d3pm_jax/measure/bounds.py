"""Computes the bound of the parts of a run on examples, and writes it with what it depends on.

Of a network that fills in masks and sees no time, it computes the exact likelihood as well.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from d3pm_jax import show
from d3pm_jax.config import Absorbing, io as config_io
from d3pm_jax.errors import UserError
from d3pm_jax.evaluation.bound import (
    all_terms,
    count_elements,
    evaluate_bound,
    exact_nats,
    few_terms,
    left_to_right,
    random_order,
    summarize_bound,
    summarize_parts as parts_of_bound,
)
from d3pm_jax.machine.devices import batch_sharding
from d3pm_jax.measure import record
from d3pm_jax.measure.record import Record
from d3pm_jax.parts.build import Parts, describe_conditions, make_caption
from d3pm_jax.storage import names

NUMBERS = ("nats", "reconstruction", "prior")
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
        examples: "x" int32 [N, *S], "label" int32 [N] for a network that takes them, and "weight" [N, *S] if
            each element counts as often as that says.
        batch_size: how many at a time.
        seed: of the noise.
        progress: is called with the number of examples that are done.
        calls: estimate the sum over t from so many calls of the network per example, without bias; by
            default every t is computed.

    Returns:
        What `evaluation.bound.summarize_bound` gives, with the step, N, the seed and the times of the terms;
        without `calls` what `evaluation.bound.summarize_parts` gives; and the bound in units of the kind of
        data.

    Raises:
        UserError: the process has fewer steps than calls.
    """
    process, predict, x0 = parts.process, parts.predict, examples["x"]
    if calls is None:
        compiled = parts.once(("bound", seed), lambda: all_terms(predict, seed, parts.term))
    elif 1 <= calls <= process.T:
        compiled = parts.once(("bound", seed, calls), lambda: few_terms(predict, calls, seed, parts.term))
    else:
        raise UserError(f"calls = {calls}: it must be in 1..{process.T}, the steps of the process")
    sharding = batch_sharding(parts.mesh)
    found = evaluate_bound(
        compiled, parts.params, process, x0, batch_size, sharding, parts.extra_inputs(examples), progress
    )
    D = count_elements(x0, examples.get("weight"))
    times = np.asarray(process.time[1:]).tolist()
    known = {"step": parts.step, "examples": len(x0), "seed": seed, "times": times}
    if calls is None:
        result = summarize_bound(np.asarray(found.total()), D) | parts_of_bound(found, D) | known
    else:
        result = summarize_bound(found, D) | known | {"calls": calls}
    return result | parts.kind.extra_figures(result, examples)


def seconds_per_call(parts: Parts, examples: Mapping[str, np.ndarray], batch_size: int = 128) -> float:
    """Measures how long a call of the network takes for one of the examples, once all is compiled."""
    few = {name: x[:batch_size] for name, x in examples.items()}
    n = len(few["x"])
    compute_bound(parts, few, n, calls=1)  # compiles
    start = time.monotonic()
    compute_bound(parts, few, n, calls=1)
    return (time.monotonic() - start) / n


def describe_protocol(
    parts: Parts, examples: Mapping[str, np.ndarray], seed: int, calls: int | None = None
) -> dict[str, Any]:
    """Says all that a bound depends on."""
    config, data = parts.config, config_io.to_json(parts.config.data)
    content = b"".join(examples[name].tobytes() for name in ("x", "weight") if name in examples)
    return {
        "N": len(examples["x"]),
        "split": getattr(config.data, "test_split", "test"),
        "data": {name: value for name, value in data.items() if name not in config.data.places},
        "examples": f"sha256 {hashlib.sha256(content).hexdigest()}",
        "terms": "all" if calls is None else f"{calls} for each example, stratified",
        "seed": seed,
        **describe_conditions(parts),
    }


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
        parts: which it was computed of.
        workdir: of the run.
        examples: which it was computed on.
        result: of `evaluate`.
        baselines: bits per dimension of what a model of the data has to beat, by name.
        limit: how many examples were asked for, if not all.
        suffix: of the names of files, of `record.file_suffix`.

    Returns:
        The path of the file, that of the picture if there is one, and words about the bound that it
        replaces, see `record.write_record`.
    """
    known = describe_protocol(parts, examples, result["seed"], result.get("calls"))
    path = workdir / f"{names.EVAL}{suffix}.json"
    content = {**result, "baselines": baselines, "limit": limit, "protocol": known}
    replaced = record.write_record(path, EVAL, content)
    if "steps" not in result:
        return path, None, replaced
    picture = workdir / f"{names.BOUND_TERMS}{suffix}.png"
    show.save_bound_terms(picture, {"": result}, make_caption(workdir, parts, parts.step))
    return path, picture, replaced


def _from_keys(content: dict[str, Any]) -> tuple[Any, ...]:
    terms = content.get("steps", [])
    times = content.get("times", list(range(1, len(terms) + 1)))  # files of old runs have none
    known = {name: content.get(name) for name in ("seed", "calls")}
    known |= {"N": content.get("examples"), "step": content["step"], "steps": len(times)}
    values = {
        "bound": record.take_figures(content),
        "baselines": record.take_figures(content.get("baselines", {}), "bits/dim"),
    }
    return {**known, **content.get("protocol", {})}, values, {"bound": {"times": times, "steps": terms}}


def _check(found: Record) -> None:
    """Raises where it says not what it is of, or lacks a figure."""
    known, bound, arrays = found.protocol, found.values["bound"], found.arrays["bound"]
    if type(known["step"]) is not int or type(known["N"]) not in (int, type(None)):
        raise ValueError("it names no step, or not how many examples")
    times, terms = arrays["times"], arrays["steps"]
    if not isinstance(times, list) or not times or len(terms) not in (0, len(times)):
        raise ValueError("its times are not those of its terms")
    optional = [bound[name] for name in NUMBERS if name in bound]
    figures = [bound["bits_per_dim"], *optional, *found.values["baselines"].values()]
    numbers = [x for figure in figures for x in (figure.value, figure.error)]
    record.check_numbers([*numbers, *times, *terms])


EVAL = record.Format(
    ("N", "examples"),
    ("step", "examples"),
    _from_keys,
    DAMAGED,
    _check,
)


def find_mask(parts: Parts) -> int | None:
    """Returns the extra mask of a network that sees no time, so that anything may be known; else None."""
    forbidden = parts.config.head.forbid
    sees_time = getattr(parts.config.model, "see_time", True)
    process = parts.config.process
    is_mask = isinstance(process, Absorbing) and process.mask_id == forbidden
    return forbidden if isinstance(forbidden, int) and is_mask and not sees_time else None


def compute_likelihood(
    parts: Parts,
    examples: Mapping[str, np.ndarray],
    batch_size: int = 128,
    seed: int = 0,
    progress: Callable[[int], Any] = lambda done: None,
) -> dict[str, Any]:
    """Computes -log p of examples whose elements are filled in one after the other: `likelihood.chain_rule`.

    Args:
        parts: of a run with a network that `mask_of` has a mask of.
        examples: "x" [N, *S], and "label" and "weight" if there are any, as `Run.read_batch` gives them.
        batch_size: how many at a time.
        seed: of the random orders.
        progress: is called with the number of examples that are done, twice N in the end.

    Returns:
        What `evaluation.bound.summarize_bound` gives "left to right" and "in random orders"; and step, N and
        seed.

    Raises:
        UserError: the network sees time, or has no extra mask.
    """
    mask = find_mask(parts)
    if mask is None:
        raise UserError(
            "the network sees time, or has no extra mask, so it has a bound and no chain rule: take "
            "Absorbing, Head(forbid=) of its mask, and Transformer(see_time=False)"
        )
    x0, told, sharding = examples["x"], parts.extra_inputs(examples), batch_sharding(parts.mesh)
    orders = {"left to right": left_to_right, "in random orders": random_order(seed)}
    found: dict[str, Any] = {"step": parts.step, "examples": len(x0), "seed": seed}
    for i, (name, order) in enumerate(orders.items()):
        compiled = exact_nats(parts.predict, mask, order)

        def done(n: int, before: int = i * len(x0)) -> None:
            progress(before + n)

        nats = evaluate_bound(compiled, parts.params, parts.process, x0, batch_size, sharding, told, done)
        found[name] = summarize_bound(nats, count_elements(x0, examples.get("weight")))
    return found


def write_likelihood(
    parts: Parts,
    workdir: Path,
    examples: Mapping[str, np.ndarray],
    result: Mapping[str, Any],
    suffix: str = "",
) -> str:
    """Writes what `likelihood` computed on examples to the folder of a run.

    Returns:
        Words about the result that it replaces, see `record.write_record`.
    """
    known = describe_protocol(parts, examples, result["seed"])
    return record.write_record(workdir / f"{names.EXACT}{suffix}.json", EXACT, result, known)


def _exact_from_keys(content: dict[str, Any]) -> tuple[Any, ...]:
    known = {"N": content["examples"], "step": content["step"], "seed": content["seed"]}
    rows = {name: row for name, row in content.items() if isinstance(row, dict)}
    return known, {name: record.take_figures(row) for name, row in rows.items()}, {}


def _check_exact(found: Record) -> None:
    """Raises where a figure is no number."""
    record.check_numbers(figure.value for row in found.values.values() for figure in row.values())


EXACT = record.Format(
    ("N", "examples"),
    ("step", "examples"),
    _exact_from_keys,
    DAMAGED,
    _check_exact,
)
