"""Builds the optimizers of a config, of Optax, and says what part of their learning rate each update has."""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from optax.contrib import MuonDimensionNumbers, muon

from d3pm_jax.config.checks import (
    CheckedPart,
    Count,
    Free,
    FreeFields,
    Natural,
    NonEmptyStr,
    NotNegative,
    Positive,
    UnitInterval,
    check_value,
    field_values,
    undefined_method,
)
from d3pm_jax.errors import wrong_return
from d3pm_jax.types import Params

# Of so many updates of a training the learning rate is looked at before it starts.
CHECKED_RATES = 10_000


@dataclasses.dataclass(frozen=True)
class Rate(CheckedPart):
    """Describes the learning rate of every update, as a part of the `lr` of its optimizer.

    Warm-up is not in it: the optimizer multiplies by that. No state keeps a rate: a run may be resumed with
    any other, which then holds as if it had been that from the start.
    """

    def check_steps(self, steps: int) -> None:
        """Raises ValueError if the rate is 0 before the last of this number of steps."""

    def build(self) -> optax.Schedule:
        """Builds n -> the part of lr that update n has, counted from 0: a scalar of at least 0."""
        raise undefined_method(self, "build")


@dataclasses.dataclass(frozen=True)
class ConstantRate(Rate):
    """r(n) = 1."""

    def build(self) -> optax.Schedule:
        return optax.constant_schedule(1.0)


@dataclasses.dataclass(frozen=True)
class _EndingRate(Rate):
    """Describes a rate that comes to an end."""

    steps: Count
    """updates after which the rate is 0"""

    def check_steps(self, steps: int) -> None:
        check_end("optimizer.rate.steps", self.steps, steps)


@dataclasses.dataclass(frozen=True)
class CosineRate(_EndingRate):
    """r(n) = (1 + cos(pi n / steps)) / 2 (Loshchilov and Hutter 2017, arXiv 1608.03983)."""

    def build(self) -> optax.Schedule:
        return optax.cosine_decay_schedule(1.0, self.steps)


@dataclasses.dataclass(frozen=True)
class InverseSqrtRate(Rate):
    """r(n) = sqrt(hold_steps / max(hold_steps, n + 1)), which has no end.

    With as many steps of warm-up it is the rate of Vaswani et al. 2017 (arXiv 1706.03762).
    """

    hold_steps: Count
    """updates at the full rate"""

    def build(self) -> optax.Schedule:
        def rate(count: ArrayLike) -> ArrayLike:
            return jnp.sqrt(self.hold_steps / jnp.maximum(self.hold_steps, jnp.asarray(count) + 1.0))

        return rate


@dataclasses.dataclass(frozen=True)
class WSDRate(_EndingRate):
    """r(n) = 1 - x or 1 - sqrt(x), x = max(0, 1 - (steps - n) / decay_steps): 1 but for the last decay_steps.

    With a warm-up it is warm-up, stable, decay (Hu et al. 2024, arXiv 2404.06395): a run is made longer from
    any checkpoint before its decay. The square root is of Hägele et al. 2024 (arXiv 2405.18392).
    """

    decay_steps: Count
    """number of the last updates, in which it falls"""
    decay: Literal["linear", "sqrt"] = "sqrt"
    """shape of the fall"""

    def check(self) -> None:
        if self.decay_steps > self.steps:
            raise ValueError(
                f"optimizer.rate.decay_steps = {self.decay_steps} is more than optimizer.rate.steps = "
                f"{self.steps}: pass fewer"
            )

    def build(self) -> optax.Schedule:
        def rate(count: ArrayLike) -> ArrayLike:
            # Adding 0.0 to the whole number makes it a float of the default width. Dividing it as it is would
            # give float32 even where x64 is enabled.
            steps_left = self.steps - jnp.asarray(count) + 0.0
            x = jnp.clip(1.0 - steps_left / self.decay_steps, 0.0, 1.0)
            if self.decay == "linear":
                return 1.0 - x
            return 1.0 - jnp.sqrt(x)

        return rate


def check_end(field: str, end: int, steps: int) -> None:
    """Raises ValueError where more steps are asked for than there are until the rate is 0."""
    if steps > end:
        flag = field.replace("_", "-")
        raise ValueError(
            f"{field} = {end}: the learning rate is 0 after that, but train.steps = {steps}; pass --{flag} "
            f"{steps}, or fewer steps"
        )


@dataclasses.dataclass(frozen=True)
class Optimizer(CheckedPart):
    """Describes the rule by which gradients change parameters."""

    may_change: ClassVar[tuple[str, ...]] = FreeFields()  # pyright: ignore[reportAssignmentType]
    """fields that may change when a run is resumed: those that the state of the built rule does not keep"""

    def check_steps(self, steps: int) -> None:
        """Raises ValueError if the learning rate is 0 before the last of this number of steps."""

    def build(self) -> optax.GradientTransformation:
        """Builds the rule."""
        raise undefined_method(self, "build")


def build_optimizer(spec: Optimizer) -> optax.GradientTransformation:
    """Builds the rule of an optimizer, and checks that it is one.

    Raises:
        UserError: `build` returns something else.
    """
    return _check_rule(spec.build, spec.build())


def _check_rule(method: Callable[..., Any], rule: Any) -> optax.GradientTransformation:
    """Returns what a method that builds a rule returned, if it is one of Optax."""
    # A rule of another package is one too, if it has both of these functions.
    if not (callable(getattr(rule, "init", None)) and callable(getattr(rule, "update", None))):
        raise wrong_return(method, rule, "an optax.GradientTransformation, as optax.adam(1e-3)")
    return rule


@dataclasses.dataclass(frozen=True)
class RatedOptimizer(Optimizer):
    """Clips by the global norm, then applies a rule whose learning rate has a warm-up and a `Rate`.

    The update after n others has the learning rate lr r(n) min(1, (n + 1) / warmup_steps), r being the rate.
    """

    # The state counts steps and keeps no rate.
    lr: Annotated[NotNegative, Free] = 2e-4
    """largest learning rate; with 0 nothing is learnt"""
    warmup_steps: Natural = 0
    """steps in which the rate rises from 0"""
    rate: Annotated[Rate, Free] = ConstantRate()
    """the learning rate of each update, as a part of lr"""
    clip: Positive = 1.0
    """largest global norm of a gradient"""

    def check(self) -> None:
        self.rate.check()

    def check_steps(self, steps: int) -> None:
        self.rate.check_steps(steps)
        rate = self.rate.build()
        if not callable(rate):
            raise wrong_return(self.rate.build, rate, "a function of the number of updates before")
        check_value("rate of the first update", rate(jnp.zeros((), jnp.int32)), NotNegative)
        # Of a longer training these are some of the updates, the first and the last among them.
        counts = np.linspace(0, steps - 1, min(steps, CHECKED_RATES), dtype=np.int32)
        rates = np.asarray(jax.jit(jax.vmap(self.learning_rate))(counts))
        # An lr of 0 is meant so.
        if not np.all((rates >= 0) & (rates < np.inf)) or (self.lr != 0 and not np.any(rates)):
            raise ValueError(
                f"the learning rate, optimizer.lr by optimizer.rate, is {rates.min():g} to {rates.max():g} "
                f"in {steps} updates: it must be finite and at least 0, and above 0 in some of them"
            )

    def build(self) -> optax.GradientTransformation:
        rule = _check_rule(self.rule, self.rule(self.learning_rate))
        return optax.chain(optax.clip_by_global_norm(self.clip), rule)

    def rule(self, learning_rate: optax.Schedule) -> optax.GradientTransformation:
        """Builds the rule that is applied to clipped gradients."""
        raise undefined_method(self, "rule")

    def learning_rate(self, count: ArrayLike) -> ArrayLike:
        """Returns the learning rate of update number count, counted from 0."""
        # As in `WSDRate`, 1.0 is added before the division, for the width of the result.
        warmup = jnp.minimum(1.0, (jnp.asarray(count) + 1.0) / max(1, self.warmup_steps))
        return self.lr * self.rate.build()(count) * warmup


@dataclasses.dataclass(frozen=True)
class AdamW(RatedOptimizer):
    """Builds Adam with decoupled decay of weights (Loshchilov and Hutter 2019, arXiv 1711.05101)."""

    b1: UnitInterval = 0.9
    """decay of the first moment"""
    b2: UnitInterval = 0.999
    """decay of the second moment"""
    weight_decay: NotNegative = 0.0
    """each step also subtracts learning rate * weight_decay * kernel; biases and scales do not decay"""

    def rule(self, learning_rate: optax.Schedule) -> optax.GradientTransformation:
        return optax.adamw(
            learning_rate, b1=self.b1, b2=self.b2, weight_decay=self.weight_decay, mask=_decays
        )


@dataclasses.dataclass(frozen=True)
class Adam(Optimizer):
    """Builds `AdamW` with a cosine decay, or at a constant rate."""

    lr: Annotated[NotNegative, Free] = 2e-4
    """learning rate after warm-up; with 0 nothing is learnt"""
    b1: UnitInterval = 0.9
    """decay of the first moment"""
    b2: UnitInterval = 0.999
    """decay of the second moment"""
    warmup_steps: Natural = 0
    """steps in which the rate rises from 0 to lr"""
    decay_steps: Annotated[Count | None, Free] = None
    """step at which a cosine decay reaches 0; None: constant lr"""
    clip: Positive = 1.0
    """largest global norm of a gradient"""
    weight_decay: NotNegative = 0.0
    """that of AdamW: each step also subtracts lr * weight_decay * kernel; biases and scales do not decay"""

    def check_steps(self, steps: int) -> None:
        if self.decay_steps is not None:
            check_end("optimizer.decay_steps", self.decay_steps, steps)

    def build(self) -> optax.GradientTransformation:
        fields = field_values(self)
        decay_steps = fields.pop("decay_steps")
        rate = ConstantRate() if decay_steps is None else CosineRate(decay_steps)
        return AdamW(rate=rate, **fields).build()


@dataclasses.dataclass(frozen=True)
class Adafactor(RatedOptimizer):
    """Builds Adafactor (Shazeer and Stern 2018, arXiv 1804.04235): second moments of rows and columns only.

    An array with two axes of 128 or more keeps their means over these two, not one of each entry: next to no
    memory. lr is relative: an update is lr times the root mean square of its array, or times 0.001 if that is
    less.
    """

    lr: Annotated[NotNegative, Free] = 1e-2
    """largest learning rate, relative to an array's size; with 0 nothing is learnt"""
    momentum: UnitInterval | None = None
    """decay of a moving average of updates, which needs as much memory as the parameters; None: no average"""
    decay_rate: UnitInterval = 0.8
    """c of the decay 1 - n^-c of the second moments at update n"""

    def rule(self, learning_rate: optax.Schedule) -> optax.GradientTransformation:
        return optax.adafactor(learning_rate, decay_rate=self.decay_rate, momentum=self.momentum)


@dataclasses.dataclass(frozen=True)
class Lion(RatedOptimizer):
    """Builds Lion (Chen et al. 2023, arXiv 2302.06675): the sign of a moment, and half of the memory of Adam.

    Every entry moves by the learning rate, so that it is three to ten times smaller than that of Adam.
    """

    lr: Annotated[NotNegative, Free] = 5e-5
    """largest learning rate; with 0 nothing is learnt"""
    b1: UnitInterval = 0.9
    """weight of the moment, against the gradient, in the sign"""
    b2: UnitInterval = 0.99
    """decay of the moment"""
    weight_decay: NotNegative = 0.0
    """each step also subtracts learning rate * weight_decay * kernel; biases and scales do not decay"""

    def rule(self, learning_rate: optax.Schedule) -> optax.GradientTransformation:
        return optax.lion(learning_rate, b1=self.b1, b2=self.b2, weight_decay=self.weight_decay, mask=_decays)


@dataclasses.dataclass(frozen=True)
class Muon(RatedOptimizer):
    """Builds Muon: kernels move along their orthogonalised moment, and everything else by Adam.

    The rule of Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/), by five steps of Newton and
    Schulz. The last two axes of a kernel [..., n, m] are a matrix, which is taken by itself: that of a layer
    of a Transformer, whose layers are stacked, or of a place of a convolution, as Bernstein and Newhouse 2024
    (arXiv 2410.21265) do. It is scaled by rms sqrt(max(n, m)) (Liu et al. 2025, arXiv 2502.16982): then one
    learning rate, that of `AdamW`, is for all. Adam looks ahead as Nesterov does here, like the moment.
    """

    beta: UnitInterval = 0.95
    """decay of the moment of a kernel"""
    rms: Positive = 0.2
    """root mean square of the update of a kernel, for a learning rate of 1; with 0.2 about that of Adam"""
    weight_decay: NotNegative = 0.0
    """each step also subtracts learning rate * weight_decay * kernel; only these kernels decay"""
    adam: tuple[NonEmptyStr, ...] = ("class_emb", "conv_in", "conv_out", "head")
    """parts of the network whose kernels Adam updates, like all embeddings: its first and last layers"""
    b1: UnitInterval = 0.9
    """decay of the first moment of Adam"""
    b2: UnitInterval = 0.999
    """decay of the second moment of Adam"""

    def rule(self, learning_rate: optax.Schedule) -> optax.GradientTransformation:
        return muon(
            learning_rate,
            beta=self.beta,
            weight_decay=self.weight_decay,
            adam_b1=self.b1,
            adam_b2=self.b2,
            muon_weight_dimension_numbers=self._matrices,
            consistent_rms=self.rms,
        )

    def _matrices(self, params: Any) -> Any:
        """Returns for each array which axes are those of a matrix, or None where Adam changes it."""

        def matrix_axes(path: tuple, x: Any) -> MuonDimensionNumbers | None:
            names = [entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey)]
            is_kernel = names[-1:] == ["kernel"] and x.ndim > 1
            if is_kernel and names[0] not in self.adam:
                return MuonDimensionNumbers(-2, -1)
            return None

        return jax.tree_util.tree_map_with_path(matrix_axes, params)


def _decays(params: Params) -> Params:
    """Says of each array whether its weights decay: kernels do, not biases, scales or frequencies of time.

    A kernel has two axes or more. Where layers are stacked, so have their biases and scales, which are told
    from kernels by their names.
    """

    def decays(path: tuple, x: Any) -> bool:
        name = jax.tree_util.keystr(path).removesuffix(".value")
        return x.ndim > 1 and not name.endswith(("['bias']", "['scale']"))

    return jax.tree_util.tree_map_with_path(decays, params)
