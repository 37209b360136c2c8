"""Computes all that is known of -log p of examples of a run: bounds, exact likelihoods, and the truth.

Each row says what it is the likelihood of. All rows are of the same examples, so that differences are paired.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from d3pm_jax import enumeration
from d3pm_jax.config import (
    ContinuousAbsorbing,
    ContinuousUniform,
    Count,
    Objective,
    Seed,
    checks_arguments,
)
from d3pm_jax.evaluation.bound import (
    Compiled,
    compile_path_weights,
    count_elements,
    evaluate_bound,
    left_to_right,
    real_time_terms,
    summarize_bound,
    summarize_mixture,
)
from d3pm_jax.orders import MOST_PLACES, mixture
from d3pm_jax.processes import Process
from d3pm_jax.program.machine.devices import batch_sharding
from d3pm_jax.program.measure import record
from d3pm_jax.program.measure.bounds import describe_protocol
from d3pm_jax.program.measure.filling import (
    Examples,
    Orders,
    compute_in_orders,
    compute_nats,
    find_absorbing_mask,
    find_fillable_mask,
    list_orders,
)
from d3pm_jax.program.parts.build import Parts
from d3pm_jax.program.parts.diffusion import call_at_whole_steps
from d3pm_jax.program.parts.recipe import require
from d3pm_jax.program.storage import names

DRAWS = 8  # orders or paths of each example
STAGES = 3  # of the progress
OF_ALL_ORDERS = "-log p of the mixture of all orders, the law of random_order and first_hitting"


class Row(NamedTuple):
    """Holds a row of a certificate."""

    name: str
    law: str
    """what it is the likelihood of"""
    nats: np.ndarray
    """of each example, [N]"""
    figures: dict[str, Any] | None = None
    """beside those of `summarize_bound`"""


class Job(NamedTuple):
    """Holds what is measured on which examples, and how."""

    parts: Parts
    examples: Examples
    draws: int
    batch_size: int
    seed: int
    progress: Callable[[int], Any]

    @property
    def num_elements(self) -> int | np.ndarray:
        """Returns D, or the sum of the weights of each example."""
        return count_elements(self.examples["x"], self.examples.get("weight"))

    def report(self, stage: int) -> Callable[[int], Any]:
        """Returns the progress of a stage, whose examples count as a part of one."""
        N = len(self.examples["x"])
        return lambda done: self.progress((stage * N + done) // STAGES)

    def evaluate(self, compiled: Compiled, stage: int) -> Any:
        """Returns what a jitted function of a batch computes of all examples."""
        return evaluate_bound(
            compiled,
            self.parts.params,
            self.parts.recipe.process,
            self.examples["x"],
            self.batch_size,
            batch_sharding(self.parts.mesh),
            self.parts.extra_inputs(self.examples),
            self.report(stage),
        )


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
        progress: is called with the number of examples that are done, where one is done in all rows.
        split: of the data that the examples are of; None where they are others.

    Returns:
        "rows", each with its "name", what it is the likelihood of ("law"), the entries of
        `evaluation.bound.summarize_bound`, and its "difference" to the row named "reference", paired over the
        examples; "notes" of what is not known; and step, N, draws, seed and protocol.

    Raises:
        UserError: the run trains no diffusion, or its weights are not finite.
    """
    require(parts.recipe.diffusion, "a diffusion", parts.config)
    job = Job(parts, examples, draws, batch_size, seed, progress)
    rows = _compute_bounds(job)
    if find_fillable_mask(parts) is not None:
        rows += _compute_chain_rules(job)
    elif "weight" not in examples:
        rows.append(_compute_paths(job))
    reference = rows[-1]
    truths = _enumerate(job)
    rows += truths

    result_rows = []
    for row in rows:
        with np.errstate(invalid="ignore"):  # both may be infinite
            difference = row.nats - reference.nats
        figures: dict[str, Any] = {**summarize_bound(row.nats, job.num_elements), **(row.figures or {})}
        paired = {"difference": summarize_bound(difference, job.num_elements)}
        result_rows.append({"name": row.name, "law": row.law} | figures | paired)
    result = {
        "step": parts.step,
        "examples": len(examples["x"]),
        "draws": draws,
        "seed": seed,
        "rows": result_rows,
        "reference": reference.name,
        "notes": _list_notes(job, bool(truths)),
        "protocol": describe_protocol(parts, examples, seed, split, "all"),
    }
    return record.Record(CERTIFICATE, result)


def _name_law_of_steps(parts: Parts) -> str:
    return f"-log p of ancestral sampling in {parts.recipe.num_steps} steps"


def _compute_bounds(job: Job) -> list[Row]:
    """Computes the bound by all steps, and that in continuous time where the process has such a form."""
    parts = job.parts
    compiled = parts.once(("bound", job.seed, None), lambda: parts.recipe.bound.compile(None, job.seed))
    nats = np.asarray(job.evaluate(compiled, 0).total())
    rows = [Row(f"bound, {parts.recipe.num_steps} steps", f"bound on {_name_law_of_steps(parts)}", nats)]
    objective = _find_continuous_objective(parts)
    if objective is not None:
        law = "-log p of sampling in infinitely many steps"
        if find_fillable_mask(parts) is not None:
            law = OF_ALL_ORDERS
        nats = job.evaluate(_compile_continuous(job, objective), 1)
        rows.append(Row("bound, continuous time", f"bound on {law}", nats))
    return rows


def _find_continuous_objective(parts: Parts) -> Objective | None:
    """Returns the objective in continuous time whose bound is that of the run; None where there is none."""
    if find_fillable_mask(parts) is not None:
        # To a network that sees no time all schedules are one.
        return ContinuousAbsorbing()
    schedule = getattr(parts.config.process, "beta", None)
    if schedule is None:
        return None
    objective = ContinuousUniform(schedule)
    if find_absorbing_mask(parts) is not None:
        objective = ContinuousAbsorbing(schedule)
    elif parts.recipe.conditions["belief"] == "denoiser":
        return None
    try:
        objective.check()
        objective.check_process(parts.recipe.process)
    except ValueError:
        return None
    return objective


def _compile_continuous(job: Job, objective: Objective) -> Compiled:
    """Makes the jitted function of a batch that estimates the bound in continuous time, at T times."""
    parts = job.parts
    diffusion = require(parts.recipe.diffusion, "a diffusion", parts.config)

    def predict(params: Any, xt: Array, time: Array, **inputs: Array) -> Array:
        network = partial(diffusion.predict, params)
        if not parts.config.timesteps.real:
            network = call_at_whole_steps(network, jnp.asarray(parts.recipe.times[-1]))
        return network(xt, time, **inputs)

    def term(process: Process, logits: Array, x0: Array, xt: Array, t: Array) -> Array:
        terms = objective.terms(process, logits, x0, xt, t, jnp.ones_like(t))
        return terms.kl * process.T  # of a step it is a T-th

    return real_time_terms(predict, objective.draw, term, parts.recipe.num_steps, job.seed)


def _compute_chain_rules(job: Job) -> list[Row]:
    """Computes the exact likelihood from left to right, and the mean and the mixture of random orders."""
    x0 = job.examples["x"]
    index = jnp.arange(len(x0), dtype=jnp.int32)
    random_orders = list_orders(Orders(job.draws, own=True), job.seed, len(x0), x0.shape[1:])
    every_order = [left_to_right(index, x0.shape[1:]), *random_orders]
    nats = compute_in_orders(
        job.parts, job.examples, every_order, job.batch_size, job.report(2)
    )  # [1 + M, N]
    summary = summarize_mixture(nats[1:], job.num_elements, common=False)
    law = f"bound on {OF_ALL_ORDERS}"
    return [
        Row("left to right", "-log p of filling in from left to right, exact", nats[0]),
        Row(f"mean over {job.draws} orders", law, nats[1:].mean(0, dtype=np.float64), summary["mean"]),
        _make_mixture(f"mixture of {job.draws} orders", law, nats[1:], job),
    ]


def _make_mixture(name: str, law: str, nats: np.ndarray, job: Job) -> Row:
    """Makes the row of a mixture of draws, of their nats [M, N]."""
    summary = summarize_mixture(nats, job.num_elements, common=False)
    figures = summary["mixture"] | {"effective": summary["effective"]}
    return Row(name, law, np.asarray(mixture(jnp.asarray(nats)).nats), figures)


def _compute_paths(job: Job) -> Row:
    """Computes the multi-sample bound of some paths of each example."""
    parts = job.parts
    diffusion = require(parts.recipe.diffusion, "a diffusion", parts.config)
    belief = parts.recipe.conditions["belief"]
    log_weights = job.evaluate(compile_path_weights(diffusion.predict, belief, job.draws, job.seed), 2)
    law = f"bound on {_name_law_of_steps(parts)}"
    return _make_mixture(f"bound of {job.draws} paths", law, -log_weights, job)


def _enumerate(job: Job) -> list[Row]:
    """Computes the truth where there are few enough orders, or states of a chain."""
    parts = job.parts
    x0 = job.examples["x"]
    inputs = parts.extra_inputs(job.examples)
    D = x0[0].size
    rows = []
    if find_fillable_mask(parts) is not None and D <= MOST_PLACES and "weight" not in inputs:
        nats = compute_nats(parts, job.examples, "all", job.batch_size)
        rows.append(Row("all orders", f"{OF_ALL_ORDERS}, exact", nats))

    # The law of a chain is that of all examples, which then share their inputs.
    K = parts.recipe.K
    is_small = K**D <= enumeration.MOST_STATES and parts.recipe.num_steps <= enumeration.MOST_STEPS
    if is_small and not inputs:
        diffusion = require(parts.recipe.diffusion, "a diffusion", parts.config)
        belief = parts.recipe.conditions["belief"]

        @jax.jit
        def compute_law(params: Any, process: Process) -> Array:
            return enumeration.chain_law(partial(diffusion.network, params), process, x0.shape[1:], belief)

        log_law = np.asarray(compute_law(parts.params, parts.recipe.process))  # [K^D]
        number = np.ravel_multi_index(tuple(x0.reshape(len(x0), D).T), (K,) * D)
        rows.append(Row("all paths", f"{_name_law_of_steps(parts)}, exact", -log_law[number]))
    return rows


def _list_notes(job: Job, has_truth: bool) -> list[str]:
    """Lists in words what the rows do not tell."""
    parts = job.parts
    notes = []
    if find_fillable_mask(parts) is None:
        if find_absorbing_mask(parts) is not None:
            notes.append("a chain rule needs a network that sees no time, as with see_time=False")
        if "weight" in job.examples:
            notes.append("paths are of whole examples, and these are padded: no bound of several paths")
    if not has_truth:
        states = f"{parts.recipe.categories}^{job.examples['x'][0].size}"
        notes.append(
            f"the truth is not enumerated: an example is one of {states}, and it has to be one of few, "
            f"whole, without label or condition, and drawn in at most {enumeration.MOST_STEPS} steps"
        )
        if find_fillable_mask(parts) is None:
            notes.append("no lower bound of -log p is known: it may be far below these bounds")
    return notes


def _check_certificate(certificate: record.Record) -> None:
    """Raises where a row, a step or how many examples are missing, or a figure is no number."""
    record.check_protocol(certificate)
    names_of_rows = [row["name"] for row in certificate["rows"]]
    if certificate["reference"] not in names_of_rows:
        raise ValueError("it has not the row that the others are compared with")
    for row in certificate["rows"]:
        record.check_figures(row, ("bits_per_dim",))
        record.check_figures(row["difference"], ("nats",))


CERTIFICATE = record.Format(
    names.CERTIFICATE,
    _check_certificate,
    damaged="{path} is damaged ({why}): delete it, `d3pm eval --certify` writes it again",
)
