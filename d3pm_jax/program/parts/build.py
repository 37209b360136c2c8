"""Builds what a config describes: the recipe of what it trains, and its state, on the devices."""

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import jax
import numpy as np
from flax.errors import FlaxError

from d3pm_jax import kinds
from d3pm_jax.config import CLASSIFIER, NOT_EMPTY, Config, Count, build_optimizer, checks_arguments
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError, as_user_error, one_line
from d3pm_jax.keys import make_key
from d3pm_jax.placing import is_described, place
from d3pm_jax.program.machine import cluster, devices
from d3pm_jax.program.parts import inputs
from d3pm_jax.program.parts.classifier import make_classifier
from d3pm_jax.program.parts.completed import Completed
from d3pm_jax.program.parts.diffusion import make_diffusion, with_steps
from d3pm_jax.program.parts.flow import make_flow
from d3pm_jax.program.parts.recipe import Recipe, require
from d3pm_jax.program.storage import checkpoint
from d3pm_jax.program.storage.names import CHECKPOINTS
from d3pm_jax.training.state import TrainState, init_state
from d3pm_jax.types import Params

Steps = Count | Annotated[Sequence[Count], NOT_EMPTY]  # how many, or which
Program = TypeVar("Program")


@dataclasses.dataclass(frozen=True)
class Parts:
    """Holds what a config builds, placed on the devices.

    `state` is shapes without numbers until `initialize_state` or `restore_state` fills it in.
    """

    config: Config
    description: Description  # of the data
    kind: kinds.Kind  # of the data
    mesh: jax.sharding.Mesh
    recipe: Recipe  # of a diffusion, a flow or a classifier
    init: Callable[[], TrainState]
    state: TrainState
    key: Any  # a key of JAX, of the noise of training; its shape where the devices are only described
    _compiled: dict[Any, Any] = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)

    def with_state(self, state: TrainState) -> "Parts":
        """Returns the parts with another state, and with the programs that were compiled: they take any."""
        parts = dataclasses.replace(self, state=state)
        object.__setattr__(parts, "_compiled", self._compiled)
        return parts

    @property
    def params(self) -> Params:
        """Returns the averaged parameters, from which samples and bounds are computed."""
        return self.state.ema

    @property
    def step(self) -> int:
        """Returns how many updates the parameters have seen."""
        return int(self.state.step)

    def null_inputs(self, B: int) -> dict[str, jax.Array]:
        """Returns inputs "label" and "condition" of `predict` that stand for no label and no condition.

        Raises:
            UserError: the network was not trained without labels or conditions.
        """
        dropping = self.recipe.dropping
        if dropping is None:
            raise UserError(
                "the network of this run was not trained without label or condition: train one that "
                "was, by d3pm train CONFIG --train.drop-condition 0.1"
            )
        return dropping.null_inputs(B)

    def once(self, name: Hashable, make: Callable[[], Program]) -> Program:
        """Returns the result of `make`, which is called the first time that this name is asked for.

        So a program is compiled once for all calls on the same parts.
        """
        if name not in self._compiled:
            self._compiled[name] = make()
        return self._compiled[name]

    def extra_inputs(self, examples: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the inputs of the network beside x: "label" if it takes any, "weight" and "condition"."""
        names = ["weight", "condition"]
        if self.recipe.classes is not None:
            names.append("label")
        return {name: examples[name] for name in names if name in examples}

    def convert_condition(self, condition: Any, num: int | None = None) -> np.ndarray | None:
        """Returns conditions [N, *C] in the type that the network takes; None where it takes none.

        Args:
            condition: anything that NumPy makes such an array of.
            num: N, where it has to be so many.

        Raises:
            UserError: the network takes none, or others.
        """
        return inputs.read_condition(condition, self.description, self.recipe.dropping, num)


@checks_arguments
def respace_parts(parts: Parts, steps: Steps) -> Parts:
    """Returns the parts with a number of evenly spaced steps of their process, or with the listed steps.

    Raises:
        UserError: the process has no such steps, or there is none.
    """
    respace = require(parts.recipe.respace, "steps", parts.config, f"steps = {steps}: ")
    with as_user_error():
        return dataclasses.replace(parts, recipe=respace(steps))


def build(
    completed: Completed,
    steps: int | Sequence[int] | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> Parts:
    """Builds what a config trains and the shape of its state.

    Args:
        completed: the config with its data, of `complete`.
        steps: take only so many of the steps of the process, evenly spaced, or only these; all by default.
        mesh: of the devices; that which the config asks for by default.

    Raises:
        UserError: a value of the config cannot be used, or there are too few devices for it.
    """
    config = completed.config
    if mesh is None:
        mesh = devices.mesh_of(config.mesh.fsdp)
    try:
        recipe = make_recipe(completed, steps, mesh)

        def init() -> TrainState:
            return _first_state(config, recipe, recipe.init(_keys(config)[0]))

        shapes = jax.eval_shape(init)
    except (ValueError, TypeError, OverflowError, MemoryError, FlaxError) as error:
        raise UserError(one_line(error, 1000)) from error

    def make_noise_key() -> jax.Array:
        return _keys(config)[1]

    if is_described(mesh):
        key = jax.eval_shape(make_noise_key).update(sharding=devices.replicated_sharding(mesh))
    else:
        key = jax.jit(make_noise_key, out_shardings=devices.replicated_sharding(mesh))()
    state = jax.tree.map(lambda leaf: leaf.update(sharding=devices.state_sharding(mesh, leaf.shape)), shapes)
    return Parts(config, completed.description, completed.kind, mesh, recipe, init, state, key)


def make_recipe(completed: Completed, steps: int | Sequence[int] | None, mesh: jax.sharding.Mesh) -> Recipe:
    """Makes the recipe of a config.

    Raises:
        ValueError, UserError: a value of the config cannot be used.
    """
    config = completed.config
    description = completed.description
    full_process = completed.process
    if full_process is None:
        recipe = make_flow(config, description, mesh)
        if steps is not None:
            require(recipe.respace, "steps", config, f"steps = {steps}: ")
        return recipe
    process = with_steps(full_process, steps)
    if config.trains == CLASSIFIER:
        return make_classifier(config, description, full_process, mesh)(process)
    return make_diffusion(config, description, full_process, completed.extra_mask, mesh)(process)


def check_mask(parts: Parts) -> None:
    """Raises UserError for an extra mask that is not the last category, in a run that begins."""
    mask = parts.recipe.extra_mask
    K = parts.recipe.K
    if mask not in (None, K - 1):
        raise UserError(
            f"category {mask} is a mask that the data, of {parts.description.categories} categories, never "
            f"has, and has to be the last category, but process.K = {K}: set process.K = {mask + 1}"
        )


def _keys(config: Config) -> jax.Array:
    """Makes the key of the first parameters, and that of the noise of training."""
    return jax.random.split(make_key(config.train.seed))


def initialize_state(parts: Parts) -> Parts:
    """Returns the parts with the state before the first step."""
    # Random numbers of many shapes compile three times faster without optimisation, and run once.
    options: dict[str, Any] = {}
    if jax.default_backend() == "cpu":
        options["xla_backend_optimization_level"] = 0
    init = jax.jit(parts.init, out_shardings=state_shardings(parts)).lower().compile(compiler_options=options)
    return dataclasses.replace(parts, state=init())


def initialize_state_from(parts: Parts, params: Params) -> Parts:
    """Returns the parts with the state before the first step of a run that starts from these parameters."""
    layout = state_shardings(parts)
    begin = jax.jit(partial(_first_state, parts.config, parts.recipe), out_shardings=layout)
    return dataclasses.replace(parts, state=begin(jax.tree.map(place, params, layout.params)))


def state_shardings(parts: Parts) -> TrainState:
    """Returns the sharding of each array of the state."""
    return jax.tree.map(lambda x: x.sharding, parts.state)


def _first_state(config: Config, recipe: Recipe, params: Params) -> TrainState:
    history = recipe.loss.start_history(recipe.process)
    return init_state(params, build_optimizer(config.optimizer), history)


def step_arguments(parts: Parts) -> dict[str, Any]:
    """Returns the arguments of `training.step.make_update` for a run, by name."""
    config = parts.config
    return {
        "loss": parts.recipe.loss,
        "optimizer": build_optimizer(config.optimizer),
        "ema_decay": config.train.ema_decay,
        "accumulate": config.train.accumulate,
        "layout": state_shardings(parts),
        "dropping": parts.recipe.dropping,
    }


def restore_state(workdir: Path, parts: Parts, step: int | None = None) -> Parts:
    """Returns the parts with the state of a checkpoint, the last whole one by default.

    Raises:
        UserError: there is none, or a training has deleted the one that was asked for, or it is damaged.
    """
    folder = workdir / CHECKPOINTS

    def find_step() -> int:
        saved_steps = checkpoint.list_steps(folder)
        if step is None or not saved_steps:
            # It raises the error of a folder without checkpoints, too.
            return checkpoint.find_newest_step(folder)
        if step not in saved_steps:
            raise UserError(
                f"{workdir} has no checkpoint of step {step}: it has {', '.join(map(str, saved_steps))}"
            )
        checkpoint.check_checkpoint(folder, step)
        return step

    try:
        state = checkpoint.restore_state(folder, cluster.run_on_first(find_step), parts.state)
    except checkpoint.CheckpointGone:
        # A training that still runs deletes its older checkpoints, and may do so between the choice of the
        # newest one and its reading: there is a newer one by now. With several processes the others may have
        # read the old one, so that all have to stop.
        if step is not None or jax.process_count() > 1:
            raise
        return restore_state(workdir, parts)
    return dataclasses.replace(parts, state=state)


def make_caption(workdir: Path, parts: Parts) -> str:
    """Writes the caption of a picture: the run, what it trains and the step of its weights."""
    weights = f"weights of step {parts.step:,}" if parts.step else "the weights that it began from"
    return f"{workdir.resolve().name}: {parts.recipe.name}; {weights}"


def describe_conditions(parts: Parts) -> dict[str, Any]:
    """Describes what a figure of these parts depends on, besides data and noise."""
    return {
        "step": parts.step,
        "ema": parts.config.train.ema_decay,
        **parts.recipe.conditions,
        "dtype": getattr(parts.config.model, "compute", "float32"),
    }
