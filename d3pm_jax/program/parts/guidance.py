"""Says in numbers how samples of a run are guided; `sampling.guidance` has the rules."""

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Array

from d3pm_jax.checks.arrays import describe, shorten_value
from d3pm_jax.config import Config, Natural, check_number
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError, as_user_error
from d3pm_jax.sampling import Conditioned, Network, Place, Sampler, guidance
from d3pm_jax.training.dropping import Dropping
from d3pm_jax.types import Params


# A class of the user's own that is no dataclass may hold anything: each of it is another one.
@dataclasses.dataclass(frozen=True, eq=False)
class Guidance(abc.ABC):
    """Says how samples of a run are guided; it is hashable, as programs are compiled for it."""

    @property
    def classes(self) -> int | None:
        """Returns how many labels it may guide towards; None where it takes those of the network."""
        return None

    @property
    def params(self) -> Params | None:
        """Returns parameters of its own, which are arguments of a program and no constants in it."""
        return None

    def with_params(self, params: Params) -> "Guidance":
        """Returns the guidance with these parameters in place of its own."""
        return self

    def check_run(self, description: Description, config: Config, shape: tuple[int, ...] | None) -> None:
        """Raises UserError where it is not for the data or the process of a run.

        Args:
            description: of the data.
            config: of the run.
            shape: *S of samples, where it is not that of the data.
        """

    @abc.abstractmethod
    def settle(self, extra_mask: int | None, dropping: Dropping | None, sampler: Sampler) -> "Guidance":
        """Returns the guidance with what it leaves open filled in for a run.

        Args:
            extra_mask: a mask that the network never predicts, if there is one.
            dropping: of labels and conditions in training.
            sampler: by which samples are drawn.

        Raises:
            UserError: it is not for this run.
        """

    @abc.abstractmethod
    def guide(
        self,
        network: Conditioned,
        inputs: Mapping[str, Array],
        label: Array | None,
        dropping: Dropping | None,
    ) -> Network:
        """Returns what takes the place of the network in a sampler.

        Args:
            network: (x, time, inputs) -> logits of x_0.
            inputs: "label" [B] and "condition" [B, *C], if the network takes any, and "weight" [B, *S] of
                padded samples.
            label: [B], also of a network that takes none, where the guidance does.
            dropping: of labels and conditions in training.
        """

    @abc.abstractmethod
    def options(self) -> dict[str, Any]:
        """Returns what tells it apart in names of files, see `record.file_suffix`."""

    def describe(self) -> dict[str, Any]:
        """Returns what the file beside samples says of it."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"class": type(self).__name__, **fields}

    @abc.abstractmethod
    def in_words(self) -> str:
        """Says what is guided, and how far: "gamma = 2 on x_s"."""


@dataclasses.dataclass(frozen=True)
class ClassifierFreeGuidance(Guidance):
    """Guides by a network that was trained with and without labels or conditions, by `train.drop_condition`.

    See `sampling.guidance.classifier_free` for the rule, and docs/control.md for how far from exact it is.
    """

    gamma: float
    """0: without label and condition, 1: with them, as they were learnt, above 1: more of them"""
    on: Place | None = None
    """the law that is guided; None: x_0 of a process with an extra mask, and x_s of others"""
    late: int | None = None
    """guide at steps up to this one alone, of the process with all of its steps; None: at all"""

    def __post_init__(self) -> None:
        """Raises UserError for a field that cannot be used."""
        object.__setattr__(self, "gamma", read_gamma(self.gamma))
        check_number("on", self.on, Place | None)
        if self.late is not None:
            check_number("late", self.late, Natural)

    def check_run(self, description: Description, config: Config, shape: tuple[int, ...] | None) -> None:
        if self.on == "x_0" and config.loss.head_gives != "logits":
            raise UserError(
                f"guidance of x_0 takes logits of it, and the network gives {config.loss.head_gives}: guide "
                f"x_s"
            )

    def settle(
        self, extra_mask: int | None, dropping: Dropping | None, sampler: Sampler
    ) -> "ClassifierFreeGuidance":
        if dropping is None:
            raise UserError(
                "classifier-free guidance compares a network with and without its label or condition, and "
                "this run never dropped them: train one that does, by d3pm train CONFIG "
                "--train.drop-condition 0.1, and --model.classes N too if it took no label"
            )
        on = self.on or ("x_s" if extra_mask is None else "x_0")
        # Where it is the network with the condition, or without it, at every step, no law has to be guided.
        is_one_law = self.gamma == 1 or (self.gamma == 0 and self.late is None)
        if not is_one_law and on == "x_s":
            with as_user_error():
                sampler.law_step(guidance.ClassifierFree)
        return dataclasses.replace(self, on=on)

    def guide(
        self,
        network: Conditioned,
        inputs: Mapping[str, Array],
        label: Array | None,
        dropping: Dropping | None,
    ) -> Network:
        assert dropping is not None  # as `settle` has seen
        B = len(next(iter(inputs.values())))
        network_inputs = dict(inputs)
        if "condition" in network_inputs:
            network_inputs["condition"] = dropping.extend_condition(network_inputs["condition"])
        null_inputs = network_inputs | dropping.null_inputs(B)
        return guidance.classifier_free(
            network, network_inputs, null_inputs, self.gamma, self.on or "x_s", self.late
        )

    def options(self) -> dict[str, Any]:
        late = "" if self.late is None else f"_late{self.late}"
        return {"guidance": f"{format_number(self.gamma)}_{self.on}{late}"}

    def in_words(self) -> str:
        steps = ""
        if self.late is not None:
            steps = f" at steps up to {self.late}"
        return f"gamma = {format_number(self.gamma)} on {self.on}{steps}"


def read_gamma(gamma: Any) -> float:
    """Returns gamma as a number of Python. Raises UserError unless it is a finite number."""
    if not is_number(gamma):
        raise UserError(f"gamma is {describe(gamma)}: it must be a finite number, as 2.0")
    try:
        number = float(gamma)
    except OverflowError:  # of an integer that is larger than any float
        number = math.inf
    if not math.isfinite(number):
        raise UserError(f"gamma is {shorten_value(gamma)}: it must be a finite number, as 2.0")
    return number


def is_number(value: Any) -> bool:
    """Tells whether a value is a real number, of Python or of NumPy, and no truth value."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def read_guidance(value: Any) -> Guidance | None:
    """Returns the guidance that a caller asks for: one of these classes, or a gamma alone; None for none.

    Raises:
        UserError: it is something else.
    """
    if value is None or isinstance(value, Guidance):
        return value
    if is_number(value):
        return ClassifierFreeGuidance(read_gamma(value))
    raise UserError(
        f"guidance is {describe(value)}: pass gamma, as 2.0, or runs.ClassifierFreeGuidance(gamma=2.0, ..)"
    )


def format_number(x: float) -> str:
    """Writes a number with all of its digits, and whole ones without a point."""
    return repr(float(x)).removesuffix(".0")
