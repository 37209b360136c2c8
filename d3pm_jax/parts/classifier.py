"""Builds a classifier of noised examples, and what a run asks of it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Key

from d3pm_jax.checks import bare
from d3pm_jax.config import Config, ScoreNet, Spec, Transformer, UNet
from d3pm_jax.config.process import build_process
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError, as_user_error, locate_statement, wrong_return
from d3pm_jax.evaluation.bound import Compiled
from d3pm_jax.evaluation.label_terms import compile_label_terms, summarize_labels
from d3pm_jax.machine.devices import batch_sharding, replicated_sharding
from d3pm_jax.models import variables
from d3pm_jax.parts.diffusion import describe_steps, name_process, with_steps
from d3pm_jax.parts.draw import Draw, Inputs, Settled
from d3pm_jax.parts.guidance import Guidance
from d3pm_jax.parts.network import Init
from d3pm_jax.placing import place
from d3pm_jax.processes import Process
from d3pm_jax.sampling import Chain, Row, Sampler
from d3pm_jax.training.classifier import ClassifierLoss
from d3pm_jax.types import Params


@dataclasses.dataclass(frozen=True)
class Classifier:
    """Holds a process and a classifier of what it makes of examples, as a `parts.method.Method`."""

    config: Config
    process: Process
    module: variables.SplitModule
    init: Init
    classes: int
    mesh: jax.sharding.Mesh
    dropping: None = None
    extra_mask: None = None
    subject: str = "a classifier"
    draws_samples: bool = False
    sampler: str = "-"
    main_figures: tuple[str, ...] = ("cross_entropy", "accuracy")

    def name(self) -> str:
        """Returns the name for captions: "Uniform, K = 17, T = 100, 10 classes"."""
        return f"{name_process(self.config, self.process)}, {self.classes} classes"

    @property
    def K(self) -> int:
        """Returns the number of categories, a mask among them."""
        return self.process.K

    @property
    def num_steps(self) -> int:
        """Returns the number of steps of the process, T."""
        return self.process.T

    def state_times(self) -> np.ndarray:
        """Returns the steps of the original process, [T + 1]."""
        return np.asarray(self.process.time)

    def log_probs(
        self, params: Params, one_hots: Float[Array, "B *S K"], time: Array
    ) -> Float[Array, "B classes"]:
        """Computes log p(label | x_t, t) of every label, without dropout, for batches of any size.

        Args:
            params: of the network.
            one_hots: of x_t.
            time: [B], steps of the original process: 0 for clean examples.
        """
        logits = bare(self.module.merge(params))(one_hots, time)
        return jax.nn.log_softmax(logits)

    def classify(self, params: Params, xt: Array, time: Array) -> Float[Array, "B classes"]:
        """Computes `log_probs` of categories x_t int32 [B, *S]."""
        return self.log_probs(params, jax.nn.one_hot(xt, self.K), time)

    def make_loss(self) -> ClassifierLoss:
        """Makes the loss: the cross entropy of the label."""
        sharding = batch_sharding(self.mesh)

        def train_predict(params: Params, xt: Array, time: Array, key: Key[Array, ""]) -> tuple[Array, Any]:
            xt = jax.lax.with_sharding_constraint(xt, sharding)
            one_hots = jax.nn.one_hot(xt, self.K)  # [B, *S, K]
            return _call(self.module, params, key, one_hots, time)

        return ClassifierLoss(self.config.loss, self.config.timesteps, train_predict)

    def respaced(self, steps: int | Sequence[int]) -> "Classifier":
        """Returns the classifier with some of all steps of its process: so many, evenly spaced, or these.

        Raises:
            UserError: the process has no such steps.
        """
        with as_user_error():
            process = with_steps(build_process(self.config.process), steps)
        return dataclasses.replace(self, process=place(process, replicated_sharding(self.mesh)))

    def describe(self) -> dict[str, Any]:
        """Describes what a figure depends on: its steps and their grid; it has no belief of x_0."""
        return {**describe_steps(self.process), "belief": "-"}

    def draw(self, settled: Settled, inputs: Inputs) -> Chain:
        """Raises UserError, as it draws nothing."""
        raise _draws_nothing()

    def settle_guidance(self, guidance: Guidance, sampler: Sampler | None) -> Guidance:
        """Raises UserError, as it draws nothing."""
        raise _draws_nothing()

    def settle_sampler(
        self, sampler: Sampler | None, shape: tuple[int, ...], strength: float | None
    ) -> tuple[None, tuple[Row, ...]]:
        """Raises UserError for a sampler, as it draws nothing."""
        if sampler is not None:
            raise _draws_nothing()
        return None, ()

    def check_draw(self, draw: Draw) -> None:
        """Raises UserError, as it draws nothing."""
        raise _draws_nothing()

    def explain_failure(self, failed_at: int, settled: Settled) -> str:
        """Says what a chain of a diffusion that failed would mean; a classifier has no chain."""
        return "the classifier draws no samples"

    @property
    def calls_of_bound(self) -> int:
        """Returns T + 1, as each of the steps 0..T is called once."""
        return self.process.T + 1

    def times_of_terms(self, calls: int | None) -> list[int]:
        """Returns the times at which the labels are told: all of them, 0 among them, or so many."""
        return self.state_times()[self._choose_steps(calls)].tolist()

    def _choose_steps(self, calls: int | None) -> list[int]:
        """Returns all steps 0..T, or so many of them, evenly spread from 0 to T."""
        if calls is None:
            return list(range(self.process.T + 1))
        return np.linspace(0, self.process.T, calls).round().astype(int).tolist()

    def compile_bound(self, calls: int | None, seed: int) -> Compiled:
        """Makes the jitted function of a batch whose results `summarize` takes: a call for each step.

        Raises:
            UserError: there are fewer steps than calls.
        """
        if calls is not None and not 1 <= calls <= self.calls_of_bound:
            raise UserError(f"calls = {calls}: it must be in 1..{self.calls_of_bound}, the steps 0..T")
        sharding = batch_sharding(self.mesh)

        def classify(params: Params, xt: Array, time: Array) -> Array:
            return self.classify(params, jax.lax.with_sharding_constraint(xt, sharding), time)

        return compile_label_terms(classify, self._choose_steps(calls), seed)

    def summarize(self, bound: Any, D: int | np.ndarray, calls: int | None) -> dict[str, Any]:
        """Returns the cross entropy and the accuracy, over all steps and at each."""
        return summarize_labels(bound)

    def describe_terms(self, calls: int | None) -> str:
        """Says at which steps the label is told."""
        if calls is None:
            return "all"
        return f"{calls} steps, evenly spread"

    def describe_bound(self, figures: dict[str, Any], amount: str) -> str:
        """Says how many steps a figure is the mean of."""
        return f"{len(figures['times'])} steps: {amount}"

    def nats_of_means(self, means: dict[str, float | int]) -> None:
        """Returns None, as a classifier has no bound."""
        return None


def _draws_nothing() -> UserError:
    """Makes the error of whatever asks a classifier for samples."""
    return UserError(
        "the run trains a classifier, which draws no samples but guides those of a diffusion: name a "
        "run of a diffusion, and pass this one by --classifier or guidance"
    )


def _call(
    module: variables.SplitModule, params: Params, key: Key[Array, ""], one_hots: Array, time: Array
) -> tuple[Array, Any]:
    """Calls the network in training mode; returns its logits, and its buffers after the call."""
    if module.takes_keyword("key"):
        return module.call(params, key, one_hots, time, key=key)
    return module.call(params, key, one_hots, time)


def make_classifier(
    config: Config, description: Description, steps: int | Sequence[int] | None, mesh: jax.sharding.Mesh
) -> Classifier:
    """Builds the process and the classifier of a config.

    Args:
        config: of the run.
        description: of the data.
        steps: take only so many of the steps of the process, evenly spaced, or only these; all by default.
        mesh: of the devices.

    Raises:
        ValueError, UserError: a value of the config cannot be used.
    """
    full_process = build_process(config.process)
    config.loss.check_process(full_process)
    _check_config(config, description, full_process.K)
    classes = description.classes
    assert classes is not None
    spec = Spec(
        description.shape,
        full_process.K,
        outputs=None,
        classes=classes,
        T=full_process.T,
        remat=config.train.remat,
    )

    def build(key: Key[Array, ""]) -> nnx.Module:
        return config.model.build(spec, nnx.Rngs(key))

    module, shapes = variables.split_module(build)

    def init(key: Key[Array, ""]) -> Params:
        return variables.init_variables(build, key)

    _check_call(config, module, shapes, spec)
    return Classifier(
        config=config,
        process=place(with_steps(full_process, steps), replicated_sharding(mesh)),
        module=module,
        init=init,
        classes=classes,
        mesh=mesh,
    )


def _check_config(config: Config, description: Description, K: int) -> None:
    """Raises ValueError for what a classifier cannot have, or has no use for."""
    if isinstance(config.model, UNet | ScoreNet | Transformer):
        raise ValueError(
            f"model = {type(config.model).__name__} builds no classifier, as loss = LabelLoss() needs: take "
            f"NoisyClassifier"
        )
    if description.classes is None:
        raise ValueError(
            "the data has no labels, which loss = LabelLoss() trains to predict: take data with labels"
        )
    if description.padded:
        raise ValueError("the data is padded, but a classifier takes whole examples: take packing='wrapped'")
    if description.condition is not None:
        raise ValueError(
            "the data has a condition, but a classifier takes none: take data without a condition"
        )
    if description.categories > K:
        raise ValueError(
            f"process.K = {K}, but the data has {description.categories} categories: set it to at least "
            f"{description.categories}"
        )
    for name in config.loss.unused_parts:
        default = next(field.default for field in dataclasses.fields(Config) if field.name == name)
        if getattr(config, name) != default:
            raise ValueError(
                f"{name} = {getattr(config, name)} is for a diffusion, but loss = LabelLoss() trains a "
                f"classifier: leave {name} out"
            )
    if config.train.drop_condition:
        raise ValueError(
            f"train.drop_condition = {config.train.drop_condition} drops labels, but a classifier is "
            "trained to predict them: leave it out"
        )
    if config.train.sample_every:
        raise ValueError(
            f"train.sample_every = {config.train.sample_every}: a classifier draws no samples, leave it out"
        )
    if config.train.noise is not None:
        raise ValueError(f"train.noise = {config.train.noise!r} is only for a diffusion: leave it out")


def _check_call(config: Config, module: variables.SplitModule, shapes: Params, spec: Spec) -> None:
    """Raises ValueError where the network does not give logits of the label for one-hots and times.

    It is called once on shapes without numbers, before a run begins.
    """
    try:
        module.signature.bind("one_hots", "t")
    except TypeError as error:
        place_of_call = locate_statement(module.called_method, "def __call__")
        raise ValueError(
            f"{place_of_call}: the network of {type(config.model).__name__} is called as f(one_hots, t): "
            f"{error}; write f(one_hots, t, *, key=None)"
        ) from error
    # Two examples show what one would hide: logits without an axis of examples.
    one_hots = jnp.zeros((2, *spec.shape, spec.K))
    time = jnp.zeros(2, jnp.int32)

    def call(params: Params, key: Key[Array, ""], one_hots: Array, time: Array) -> tuple[Array, Any]:
        return _call(module, params, key, one_hots, time)

    logits, _ = jax.eval_shape(call, shapes, jax.random.key(0), one_hots, time)
    is_float = jnp.issubdtype(getattr(logits, "dtype", np.int32), jnp.floating)
    if not is_float or logits.shape != (2, spec.classes):
        cure = f"logits of the label, of a float type, [2, {spec.classes}]"
        raise wrong_return(module.called_method, logits, cure, f" for one_hots {list(one_hots.shape)}")
