"""Defines what a run trains, as a record of functions: of a diffusion, a flow or a classifier.

What one of them does not have is None, and `require` says so to whoever needs it.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Array

from d3pm_jax.config import FLOW, Config, LogisticHead
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError
from d3pm_jax.evaluation.bound import Compiled
from d3pm_jax.likelihood import Term
from d3pm_jax.processes import Process
from d3pm_jax.program.parts.draw import Draw, Inputs, Settled
from d3pm_jax.program.parts.network import Init
from d3pm_jax.sampling import Chain, Steered
from d3pm_jax.training.diffusion import Predict
from d3pm_jax.training.dropping import Dropping
from d3pm_jax.training.loss import BatchLoss

Part = TypeVar("Part")
Figures = dict[str, Any]


class Bound(NamedTuple):
    """Says how a bound is computed, or the figures that a classifier has in its place.

    Below, `calls` is how many calls of the network each example takes; None: as many as the whole bound does.
    """

    calls: int
    """of the whole bound"""
    compile: Callable[[int | None, int], Compiled]
    """(calls, seed) -> the jitted function of a batch; UserError where so many calls cannot be made"""
    times: Callable[[int | None], list[int]]
    """calls -> the times of its terms, or of other figures"""
    summarize: Callable[[Any, int | np.ndarray, int | None], Figures]
    """(what `evaluation.bound.evaluate_bound` returns, elements of an example or the sum of the weights of
    each, [N], calls) -> figures by name"""
    describe: Callable[[Figures, str], str]
    """(figures, the bound in words: "2.1 bits/dim, 90 nats") -> a line that says what it consists of"""
    main_figures: tuple[str, ...]
    """the figures that stand for all, as in lines of metrics"""
    nats: Callable[[dict[str, float | int]], float | None]
    """means of metrics -> nats per element of the bound; None of what has no bound"""
    some_terms: str
    """what it is made of with so many {calls}, in words for its protocol"""
    all_terms: str = "all"
    """the same of the whole bound"""

    def describe_terms(self, calls: int | None) -> str:
        """Returns what it is made of in words, for its protocol."""
        if calls is None:
            return self.all_terms
        return self.some_terms.format(calls=calls)


class Drawing(NamedTuple):
    """Says how samples are drawn."""

    name: str
    """of the way that they are drawn by default"""
    settle: Callable[[Draw, Settled], Settled]
    """(what is asked for, what is read of it) -> the same with its sampler, the rows of that from T to 0, and
    what the guidance leaves open filled in; UserError for what is not for this run, or not for edits"""
    draw_batch: Callable[[Settled, Inputs], Chain | Steered]
    """draws a batch, of candidates all chains; sample i depends on the key, i, its label, its condition and
    its known elements alone"""
    explain_failure: Callable[[int, Settled], str]
    """(`Chain.failed_at`, what was drawn) -> why there are no samples, and what to do"""


class Diffusion(NamedTuple):
    """Holds what only a diffusion has."""

    predict: Predict
    """the network, spread over the devices"""
    network: Predict
    """the same for batches of any size, which are not spread over the devices"""
    term: Term
    """the function of logits whose value is the term of the bound at a step, in nats"""


class Classifier(NamedTuple):
    """Holds what only a classifier has, without dropout, for batches of any size."""

    log_probs: Callable[..., Array]
    """(params, one-hots of x_t [B, *S, K], steps of the original process [B]; 0 of clean examples)
    -> log p(label | x_t, t) of every label, [B, classes]"""
    classify: Callable[..., Array]
    """the same of categories x_t int32 [B, *S]"""


@dataclasses.dataclass(frozen=True, eq=False)
class Recipe:
    """Holds what a run trains, as functions and numbers."""

    name: str
    """for captions: "Uniform, K = 17, T = 100\""""
    K: int
    """number of categories, a mask among them"""
    times: np.ndarray
    """int [num_steps + 1], the step of the whole process at every state of a sample, 0 of the data first"""
    conditions: Mapping[str, Any]
    """what a figure depends on: "steps", their "grid", and the "belief" of the network"""
    init: Init
    loss: BatchLoss
    bound: Bound
    process: Any = None
    """a `processes.Process`, an argument of all compiled functions; None of a flow"""
    respace: Callable[[int | Sequence[int]], "Recipe"] | None = None
    """a number of steps, or the steps themselves -> the recipe with these steps of its whole process"""
    draw: Drawing | None = None
    diffusion: Diffusion | None = None
    classifier: Classifier | None = None
    classes: int | None = None
    """how many classes labels may name; None where the network takes no labels"""
    dropping: Dropping | None = None
    """of labels and conditions in training; it knows the null inputs"""
    extra_mask: int | None = None
    """a mask that the data never has and the network never predicts"""

    @property
    def categories(self) -> int:
        """Counts the categories that the data may have: an extra mask is none of them."""
        return self.K - (self.extra_mask is not None)

    @property
    def num_steps(self) -> int:
        """Returns in how many steps a sample is drawn from noise: T of a diffusion, 0 of a flow."""
        return len(self.times) - 1


PartName = Literal["a diffusion", "a classifier", "samples", "steps"]

# What follows "the run trains a flow", by what is asked for.
ABSENT: dict[PartName, str] = {
    "a diffusion": (
        ", {model}, but this needs a diffusion: take a run that trains one, such as with process = "
        "Absorbing(..)"
    ),
    "a classifier": (
        ", {model}, but this needs a classifier: take a run with loss = LabelLoss(), as in "
        "configs/digits_noisy_classifier.py"
    ),
    "samples": (
        ", which draws no samples but guides those of a diffusion: name a run of a diffusion, and pass this "
        "one by --classifier or guidance"
    ),
    "steps": ", which draws a sample at once: leave steps out",
}


def require(part: Part | None, what: PartName, config: Config, asked: str = "") -> Part:
    """Returns a part of the recipe of a config.

    Args:
        part: of the recipe.
        what: it is, an entry of `ABSENT`.
        config: of the run.
        asked: the value that needs it, before the words of the error: "steps = 5: ".

    Raises:
        UserError: the recipe has no such part.
    """
    if part is None:
        why = ABSENT[what].format(model=type(config.model).__name__)
        raise UserError(f"{asked}the run trains a {config.trains.name}{why}")
    return part


def check_config(config: Config, description: Description) -> None:
    """Raises ValueError for what the recipe of a config cannot have, or has no use for."""
    trained = config.trains
    model = type(config.model).__name__
    of_model = config.model.trains
    if of_model not in (None, trained):
        if trained.models:
            raise ValueError(
                f"model = {model} builds no {trained.name}, as {trained.setting} needs: take {trained.models}"
            )
        raise ValueError(
            f"model = {model} builds a {of_model.name}: set {of_model.setting}, and leave out "
            f"{', '.join(of_model.unused_parts)}"
        )
    defaults = {field.name: field.default for field in dataclasses.fields(Config)}
    for name in trained.unused_parts:
        value = getattr(config, name)
        if value != defaults[name]:
            raise ValueError(
                f"{name} = {value} is for a diffusion, but {trained.setting} trains a {trained.name}: "
                f"leave {name} out"
            )
    for name, why in trained.unused_train.items():
        value = getattr(config.train, name)
        if value:
            raise ValueError(f"train.{name} = {value!r}{why}")
    if trained == FLOW and description.sizes is not None:
        raise ValueError(
            "the data has a number of categories for each place, but a flow has one K for all: take a "
            "diffusion, with process = ByPlace(Absorbing(..))"
        )
    if not trained.whole_examples:
        return
    if description.padded:
        raise ValueError(
            f"the data is padded, but a {trained.name} takes whole examples: take packing='wrapped'"
        )
    if description.condition is not None:
        raise ValueError(
            f"the data has a condition, but a {trained.name} takes none: take data without one, or a "
            f"diffusion"
        )


def check_process(config: Config, process: Process, extra_mask: int | None, description: Description) -> None:
    """Raises ValueError for a process that data or loss of a config cannot be trained with.

    Args:
        config: of a diffusion or a classifier.
        process: that it describes.
        extra_mask: the mask of the process, where the data never has it.
        description: of the data.
    """
    check_categories(process.K, description)
    if process.places or description.sizes is not None:
        process.check_places(description.place_sizes)
        if isinstance(config.head, LogisticHead):
            raise ValueError("head = LogisticHead is for one K at all places, not one at each: take Head()")
    categories = description.categories
    if config.loss.needs_mask_of(process) and extra_mask is None:
        raise ValueError(
            f"loss = {type(config.loss).__name__} needs an extra mask, one more category than the data has, "
            f"which has {categories}: take a process that masks, as Absorbing, with K = {categories + 1} and "
            f"mask_id = {categories}"
        )
    config.loss.check_process(process)


def check_categories(K: int, description: Description) -> None:
    """Raises ValueError for fewer categories than the data has."""
    if description.categories > K:
        raise ValueError(
            f"process.K = {K}, but the data has {description.categories} categories: set it to at least "
            f"{description.categories}"
        )
