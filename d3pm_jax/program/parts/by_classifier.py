"""Guides samples of a run by the classifier of another run; `sampling.guidance` has the rule."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from d3pm_jax.checks.arrays import describe, shorten_value
from d3pm_jax.config import Config, check_number, io as config_io
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError, as_user_error
from d3pm_jax.files import describe_content
from d3pm_jax.placing import fetch
from d3pm_jax.program.parts.build import Parts
from d3pm_jax.program.parts.guidance import Guidance, format_number, read_gamma
from d3pm_jax.program.parts.recipe import Classifier, require
from d3pm_jax.sampling import Conditioned, Network, Sampler, guidance
from d3pm_jax.training.dropping import Dropping
from d3pm_jax.types import Params

CURE = "train a classifier with the data and the process of this run"


@dataclasses.dataclass(frozen=True, eq=False)
class ClassifierGuidance(Guidance):
    """Guides towards a label by a classifier of noised examples: a run with loss = LabelLoss().

    See `sampling.guidance.by_classifier` for the rule, and docs/control.md for how far from exact it is.
    """

    classifier: Any
    """the run, as `runs.open` gives it"""
    gamma: float = 1.0
    """0: without the classifier, 1: as by Bayes' rule, above 1: more of the label"""
    exact: bool = False
    """try every change of every element, in place of the gradient: for small examples"""
    bound_params: Params | None = dataclasses.field(default=None, repr=False)
    """parameters of the classifier in place of those of its run, as a program has them that is given them"""

    def __post_init__(self) -> None:
        """Raises UserError for a field that cannot be used."""
        if not isinstance(getattr(self.classifier, "parts", None), Parts):
            raise UserError(
                f"classifier is {describe(self.classifier)}: pass a run, as runs.open(folder) gives it"
            )
        self._classifier  # noqa: B018  raises where the run trains something else
        object.__setattr__(self, "gamma", read_gamma(self.gamma))
        check_number("exact", self.exact, bool)

    # A program is compiled for a classifier and two numbers, however often they are written down.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClassifierGuidance) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[int, float, bool]:
        return id(self.parts), self.gamma, self.exact

    @property
    def parts(self) -> Parts:
        """Returns the parts of the run of the classifier."""
        return self.classifier.parts

    @property
    def _classifier(self) -> Classifier:
        return require(self.parts.recipe.classifier, "a classifier", self.parts.config)

    @property
    def classes(self) -> int | None:
        return self.parts.recipe.classes

    @property
    def params(self) -> Params:
        return self.parts.params if self.bound_params is None else self.bound_params

    def with_params(self, params: Params) -> "ClassifierGuidance":
        return dataclasses.replace(self, bound_params=params)

    def check_run(self, description: Description, config: Config, shape: tuple[int, ...] | None) -> None:
        data_of_classifier = self.parts.description
        for field in dataclasses.fields(Description):
            value = getattr(data_of_classifier, field.name)
            of_run = getattr(description, field.name)
            if field.compare and value != of_run:
                raise UserError(
                    f"the classifier was trained on other data: its {field.name} is "
                    f"{shorten_value(value)}, that of this run is {shorten_value(of_run)}; {CURE}"
                )
        if shape is not None and shape != data_of_classifier.shape:
            raise UserError(
                f"samples of shape {list(shape)}: the classifier takes only examples of shape "
                f"{list(data_of_classifier.shape)}"
            )
        for name, (value, of_run) in config_io.differences(self.parts.config, config).items():
            if name.startswith("process."):
                raise UserError(
                    f"the classifier was trained for another process: its {name} is "
                    f"{shorten_value(value)}, that of this run is {shorten_value(of_run)}; {CURE}"
                )

    def settle(
        self, extra_mask: int | None, dropping: Dropping | None, sampler: Sampler
    ) -> "ClassifierGuidance":
        if self.gamma != 0:
            with as_user_error():
                sampler.law_step(guidance.ByClassifier)
        return self

    def guide(
        self,
        network: Conditioned,
        inputs: Mapping[str, Array],
        label: Array | None,
        dropping: Dropping | None,
    ) -> Network:
        assert label is not None  # as it says how many classes there are
        classifier = self._classifier
        params = self.params

        def log_prob(one_hots: Array, time: Array) -> Float[Array, " N"]:
            log_p = classifier.log_probs(params, one_hots, time)  # [N, classes]
            # Rows i, i + B, .. are of example i.
            labels = jnp.tile(label, len(one_hots) // len(label))
            return jnp.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]

        return guidance.by_classifier(
            lambda x, time: network(x, time, inputs), log_prob, self.gamma, self.exact
        )

    def options(self) -> dict[str, Any]:
        law = "_exact" if self.exact else ""
        return {"guidance": f"{format_number(self.gamma)}_classifier{law}"}

    def describe(self) -> dict[str, Any]:
        return {
            "class": type(self).__name__,
            "gamma": self.gamma,
            "exact": self.exact,
            "step": self.parts.step,
            "classifier": describe_content(*jax.tree.leaves(fetch(self.params))),
        }

    def in_words(self) -> str:
        law = "of every change" if self.exact else "to first order"
        return f"gamma = {format_number(self.gamma)} by a classifier, {law}"
