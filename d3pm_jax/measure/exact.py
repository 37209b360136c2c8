"""Computes the exact likelihood of a run whose network fills in masks and sees no time, and writes it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from d3pm_jax.config import Absorbing
from d3pm_jax.errors import UserError
from d3pm_jax.evaluation.bound import (
    at_random,
    elements,
    evaluate_bound,
    exact_nats,
    left_to_right,
    summary,
)
from d3pm_jax.machine.devices import batched
from d3pm_jax.measure import bounds, record
from d3pm_jax.parts.build import Parts


def mask_of(parts: Parts) -> int | None:
    """Returns the extra mask of a network that sees no time, so that anything may be known; else None."""
    forbidden = parts.config.head.forbid
    sees_time = getattr(parts.config.model, "see_time", True)
    process = parts.config.process
    is_mask = isinstance(process, Absorbing) and process.mask_id == forbidden
    return forbidden if isinstance(forbidden, int) and is_mask and not sees_time else None


def likelihood(
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
        What `evaluation.bound.summary` gives "left to right" and "in random orders"; and step, N and seed.

    Raises:
        UserError: the network sees time, or has no extra mask.
    """
    mask = mask_of(parts)
    if mask is None:
        raise UserError(
            "the network sees time, or has no extra mask, so it has a bound and no chain rule: take "
            "Absorbing, Head(forbid=) of its mask, and Transformer(see_time=False)"
        )
    x0, told, sharding = examples["x"], parts.told(examples), batched(parts.mesh)
    orders = {"left to right": left_to_right, "in random orders": at_random(seed)}
    found: dict[str, Any] = {"step": parts.step, "examples": len(x0), "seed": seed}
    for i, (name, order) in enumerate(orders.items()):
        compiled = exact_nats(parts.predict, mask, order)

        def done(n: int, before: int = i * len(x0)) -> None:
            progress(before + n)

        nats = evaluate_bound(compiled, parts.params, parts.process, x0, batch_size, sharding, told, done)
        found[name] = summary(nats, elements(x0, examples.get("weight")))
    return found


def write(
    parts: Parts,
    workdir: Path,
    examples: Mapping[str, np.ndarray],
    result: Mapping[str, Any],
    suffix: str = "",
) -> str:
    """Writes what `likelihood` computed on examples to the folder of a run.

    Returns:
        Words about the result that it replaces, see `record.write`.
    """
    known = bounds.protocol(parts, examples, result["seed"])
    return record.write(workdir / f"exact{suffix}.json", EXACT, result, known)


def _from_keys(content: dict[str, Any]) -> tuple[Any, ...]:
    known = {"N": content["examples"], "step": content["step"], "seed": content["seed"]}
    rows = {name: row for name, row in content.items() if isinstance(row, dict)}
    return known, {name: record.figures(row) for name, row in rows.items()}, {}


def _check(found: record.Record) -> None:
    """Raises where a figure is no number."""
    record.check_numbers(figure.value for row in found.values.values() for figure in row.values())


EXACT = record.Format(
    ("N", "examples"),
    ("step", "examples"),
    _from_keys,
    "{path} is damaged ({why}): delete it, `d3pm eval` writes it again",
    _check,
)
