"""Computes all that is known of -log p of examples of a run: bounds, exact likelihoods, and the truth.

Each row says what it is the likelihood of. All rows are of the same examples, so that differences are paired.
"""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from d3pm_jax import enumeration
from d3pm_jax.config import ContinuousAbsorbing, ContinuousUniform, Count, Seed, checks_arguments
from d3pm_jax.errors import UserError
from d3pm_jax.evaluation.bound import (
    Compiled,
    count_elements,
    left_to_right,
    mixture_nats,
    path_nats,
    real_time_nats,
    summarize_bound,
)
from d3pm_jax.orders import MOST_PLACES
from d3pm_jax.processes import Process
from d3pm_jax.program.measure import record
from d3pm_jax.program.measure.bounds import describe_protocol
from d3pm_jax.program.measure.examples import Examples, check_examples, evaluate
from d3pm_jax.program.measure.filling import (
    Orders,
    compute_in_all_orders,
    compute_in_orders,
    draw_orders,
    find_absorbing_mask,
    find_fillable_mask,
)
from d3pm_jax.program.parts.build import Parts
from d3pm_jax.program.parts.recipe import require
from d3pm_jax.program.storage import names

DRAWS = 8  # orders or paths of each example
OF_ALL_ORDERS = "-log p of the mixture of all orders, the law of random_order and first_hitting"

CONTINUOUS = (ContinuousAbsorbing, ContinuousUniform)  # objectives whose loss is a bound in continuous time

# Computes a jitted function of all examples.
Measure = Callable[[Compiled], Any]


class Row(NamedTuple):
    """Holds a row of a certificate."""

    name: str
    law: str
    """what it is the likelihood of"""
    nats: np.ndarray
    """of each example, [N]"""


@checks_arguments
def compute_certificate(
    parts: Parts,
    examples: Examples,
    draws: Count = DRAWS,
    batch_size: Count = 128,
    seed: Seed = 0,
    progress: Callable[[int], Any] = lambda done: None,
    split: str | None = None,
) -> record.Record:
    """Computes bounds and likelihoods of the same examples, and their differences.

    Args:
        parts: of a run that trains a diffusion, at a checkpoint.
        examples: "x" int32 [N, *S], and "label", "weight" and "condition" if any.
        draws: of how many orders of each example a mixture is; of a network that has no chain rule, of how
            many paths a multi-sample bound is.
        batch_size: how many at a time.
        seed: of the noise and the orders.
        progress: is called with the number of examples that are done, anew for each computation.
        split: of the data that the examples are of; None where they are others.

    Returns:
        "rows", each with its "name", what it is the likelihood of ("law"), the entries of
        `evaluation.bound.summarize_bound`, and its "difference" in nats, with "difference_error", to the row
        named "reference", paired over the examples. That is the last row, before the truth, that is finite
        for all examples. "notes" of what is not known; and step, N, draws, seed and protocol.

    Raises:
        UserError: the run trains no diffusion, its weights are not finite, or the examples are no such dict,
            or none.
    """
    require(parts.recipe.diffusion, "a diffusion", parts.config)
    loss = parts.config.loss
    if loss.estimates_bound:
        raise UserError(
            f"loss = {type(loss).__name__} has one bound, in continuous time, and no others to compare it "
            f"with: `d3pm eval` computes it"
        )
    check_examples(examples)
    measure = partial(evaluate, parts, examples=examples, batch_size=batch_size, progress=progress)
    rows = _compute_bounds(parts, measure, seed)
    if find_fillable_mask(parts) is not None:
        drawn = draw_orders(Orders(draws, own=True), seed, len(examples["x"]), examples["x"].shape[1:])
        rows += _compute_chain_rules(
            parts, examples, drawn, batch_size, lambda done: progress(done // (1 + draws))
        )
    elif "weight" not in examples:
        rows.append(_compute_paths(parts, measure, draws, seed))
    finite_rows = [row for row in rows if np.isfinite(row.nats).all()]
    reference = (finite_rows or rows)[-1]
    truths, limits = _enumerate(parts, examples, batch_size)

    D = count_elements(examples["x"], examples.get("weight"))
    result_rows = []
    for row in rows + truths:
        with np.errstate(invalid="ignore"):  # both may be infinite
            difference = summarize_bound(row.nats - reference.nats, D)
        paired = {"difference": difference["nats"], "difference_error": difference["nats_standard_error"]}
        result_rows.append({"name": row.name, "law": row.law} | summarize_bound(row.nats, D) | paired)
    result = {
        "step": parts.step,
        "examples": len(examples["x"]),
        "draws": draws,
        "seed": seed,
        "rows": result_rows,
        "reference": reference.name,
        "notes": _list_notes(parts, "weight" in examples, [] if truths else limits),
        "protocol": describe_protocol(parts, examples, seed, split, "all"),
    }
    return record.Record(CERTIFICATE, result)


def _name_law_of_steps(parts: Parts) -> str:
    return f"-log p of ancestral sampling in {parts.recipe.num_steps} steps"


def _compute_bounds(parts: Parts, measure: Measure, seed: int) -> list[Row]:
    """Computes the bound by all steps, and that in continuous time where the network can tell it."""
    compiled = parts.once(("bound", seed, None), lambda: parts.recipe.bound.compile(None, seed))
    nats = np.asarray(measure(compiled).total())
    rows = [Row(f"bound, {parts.recipe.num_steps} steps", f"bound on {_name_law_of_steps(parts)}", nats)]
    objective = parts.config.loss
    law = "-log p of sampling in infinitely many steps"
    if find_fillable_mask(parts) is not None:
        # To a network that sees no time all schedules are one.
        objective = ContinuousAbsorbing()
        law = OF_ALL_ORDERS
    if isinstance(objective, CONTINUOUS):
        nats = measure(_compile_continuous(parts, objective, seed))
        rows.append(Row("bound, continuous time", f"bound on {law}", nats))
    return rows


def _compile_continuous(
    parts: Parts, objective: ContinuousAbsorbing | ContinuousUniform, seed: int
) -> Compiled:
    """Makes the jitted function of a batch that estimates the bound in continuous time, at T times."""
    diffusion = require(parts.recipe.diffusion, "a diffusion", parts.config)
    return real_time_nats(diffusion.predict, objective.compute, parts.recipe.num_steps, seed)


def _compute_chain_rules(
    parts: Parts,
    examples: Examples,
    drawn: Iterable[jax.Array],
    batch_size: int,
    progress: Callable[[int], Any],
) -> list[Row]:
    """Computes the exact likelihood from left to right, and the mean and the mixture of random orders."""
    first = left_to_right(jnp.zeros(1, jnp.int32), examples["x"].shape[1:])
    nats = compute_in_orders(parts, examples, chain([first], drawn), batch_size, progress)
    M = len(nats) - 1
    law = f"bound on {OF_ALL_ORDERS}"
    return [
        Row("left to right", "-log p of filling in from left to right, exact", nats[0]),
        Row(f"mean over {M} orders", law, nats[1:].mean(0, dtype=np.float64)),
        Row(f"mixture of {M} orders", law, mixture_nats(nats[1:])),
    ]


def _compute_paths(parts: Parts, measure: Measure, draws: int, seed: int) -> Row:
    """Computes the multi-sample bound of some paths of each example."""
    diffusion = require(parts.recipe.diffusion, "a diffusion", parts.config)
    compiled = path_nats(diffusion.predict, parts.recipe.conditions["belief"], draws, seed)
    law = f"bound on {_name_law_of_steps(parts)}"
    return Row(f"bound of {draws} paths", law, mixture_nats(measure(compiled)))


def _enumerate(parts: Parts, examples: Examples, batch_size: int) -> tuple[list[Row], list[str]]:
    """Computes the truth where there are few orders, or states of a chain; lists what stands against it."""
    x0 = examples["x"]
    inputs = parts.extra_inputs(examples)
    D = x0[0].size
    rows = []
    limits = []
    if find_fillable_mask(parts) is not None:
        if D > MOST_PLACES:
            limits.append(f"all orders are of at most {MOST_PLACES} elements, and an example has {D}")
        elif "weight" not in inputs:
            nats = compute_in_all_orders(parts, examples, batch_size)
            rows.append(Row("all orders", f"{OF_ALL_ORDERS}, exact", nats))

    # The law of a chain is that of all examples, which then share their inputs.
    K = parts.recipe.K
    T = parts.recipe.num_steps
    against_chain = {
        f"one law of all examples is enumerated, and these have {', '.join(inputs)}": bool(inputs),
        f"at most {enumeration.MOST_STATES:,} states are enumerated, and there are {K}^{D}": (
            K**D > enumeration.MOST_STATES
        ),
        f"at most {enumeration.MOST_STEPS} steps are enumerated, and there are {T}": (
            T > enumeration.MOST_STEPS
        ),
    }
    limits_of_chain = [why for why, holds in against_chain.items() if holds]
    if not limits_of_chain:
        diffusion = require(parts.recipe.diffusion, "a diffusion", parts.config)
        belief = parts.recipe.conditions["belief"]

        @jax.jit
        def compute_law(params: Any, process: Process) -> Array:
            return enumeration.chain_law(partial(diffusion.network, params), process, x0.shape[1:], belief)

        log_law = np.asarray(compute_law(parts.params, parts.recipe.process))  # [K^D]
        number = np.ravel_multi_index(tuple(x0.reshape(len(x0), D).T), (K,) * D)
        rows.append(Row("all paths", f"{_name_law_of_steps(parts)}, exact", -log_law[number]))
    return rows, limits + limits_of_chain


def _list_notes(parts: Parts, is_padded: bool, limits: list[str]) -> list[str]:
    """Lists in words what the rows do not tell; limits are why there is no truth."""
    needs_bounds = find_fillable_mask(parts) is None
    has_masks = find_absorbing_mask(parts) is not None
    is_continuous = isinstance(parts.config.loss, CONTINUOUS)
    notes = {
        "a chain rule needs a network that sees no time, as with see_time=False": needs_bounds and has_masks,
        "no bound in continuous time: it takes a network that was trained by ContinuousAbsorbing or "
        "ContinuousUniform": needs_bounds and not is_continuous,
        "paths are of whole examples, and these are padded: no bound of several paths": (
            needs_bounds and is_padded
        ),
        f"the truth is not enumerated: {'; '.join(limits)}": len(limits) > 0,
        "no lower bound of -log p is known: it may be far below these bounds": (
            needs_bounds and len(limits) > 0
        ),
    }
    return [note for note, holds in notes.items() if holds]


def _check_certificate(certificate: record.Record) -> None:
    """Raises where a row, a step or how many examples are missing, or a figure is no number."""
    record.check_protocol(certificate)
    names_of_rows = [row["name"] for row in certificate["rows"]]
    if certificate["reference"] not in names_of_rows:
        raise ValueError("it has not the row that the others are compared with")
    for row in certificate["rows"]:
        record.check_figures(row, ("bits_per_dim", "difference"))


CERTIFICATE = record.Format(
    names.CERTIFICATE,
    _check_certificate,
    damaged="{path} is damaged ({why}): delete it, `d3pm eval --certify` writes it again",
)
