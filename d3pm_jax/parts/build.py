"""Builds what a config describes: process, network and state, placed on the devices; says what it is."""

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from d3pm_jax import kinds, likelihood, losses
from d3pm_jax.config import Config, from_data, io as config_io
from d3pm_jax.config.checks import check_fields
from d3pm_jax.config.objective import logits_keywords
from d3pm_jax.data import Description, count_categories
from d3pm_jax.errors import UserError, as_user_error, one_line
from d3pm_jax.machine import cluster
from d3pm_jax.machine.devices import batch_sharding, mesh_of, replicated_sharding, state_sharding
from d3pm_jax.parts import network, splits
from d3pm_jax.placing import place
from d3pm_jax.processes import Process, respace
from d3pm_jax.sampling import even_grid
from d3pm_jax.storage import checkpoint
from d3pm_jax.storage.names import CHECKPOINTS
from d3pm_jax.training.state import TrainState, init_state
from d3pm_jax.training.step import Predict
from d3pm_jax.types import Params

Made = TypeVar("Made")


@dataclasses.dataclass(frozen=True)
class Parts:
    """Holds what a config builds, placed on the devices. `state` is abstract until `start` or `restore`."""

    config: Config
    description: Description  # of the data
    kind: kinds.Kind  # of the data
    mesh: jax.sharding.Mesh
    process: Process
    predict: Predict
    init: Callable[[], TrainState]
    state: TrainState
    network: Predict  # as predict, for batches of any size
    key: jax.Array  # of the noise of training
    classes: int | None  # that the network is told
    _compiled: dict[Any, Any] = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def params(self) -> Params:
        """Returns the averaged parameters, which samples and bounds are of."""
        return self.state.ema

    @property
    def step(self) -> int:
        """Returns how many updates the parameters have seen."""
        return int(self.state.step)

    @property
    def term(self) -> likelihood.Term:
        """Returns what logits of the network cost at a step."""
        return partial(losses.posterior_kl, **logits_keywords(self.config.loss))

    def once(self, name: Hashable, make: Callable[[], Made]) -> Made:
        """Returns what `make` returned for this name the first time: it holds compiled programs."""
        if name not in self._compiled:
            self._compiled[name] = make()
        return self._compiled[name]

    @property
    def categories(self) -> int:
        """Counts the categories that the data may have."""
        return self.config.head.data_categories(self.process.K)

    def extra_inputs(self, examples: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Takes what is told of examples beside x: "label" to a network of classes, and "weight"."""
        names = ("weight",) if self.classes is None else ("label", "weight")
        return {name: examples[name] for name in names if name in examples}


def fill_in(config: Config, description: Description) -> Config:
    """Returns the config with the numbers of its data in place of every "data".

    Raises:
        UserError: the data cannot be read.
    """

    def counts() -> np.ndarray:
        return count_categories(
            splits.take_training_examples(config, config.data.open("train")), description.categories
        )

    return from_data.fill(config, description.categories, counts) if from_data.needs_data(config) else config


def with_steps(whole: Process, steps: int | Sequence[int] | None) -> Process:
    """Returns a process with so many of its steps, evenly spaced, or with these, or with all of them.

    Raises:
        ValueError: it has no such steps.
    """
    if steps is None:
        return whole
    return respace(whole, even_grid(whole.T, steps) if isinstance(steps, int) else steps)


def respace_parts(parts: Parts, steps: int | Sequence[int]) -> Parts:
    """Returns the parts with so many of the steps of their process, evenly spaced, or with these.

    Raises:
        UserError: the process has no such steps.
    """
    with as_user_error():
        process = with_steps(parts.config.process.build(), steps)
    return dataclasses.replace(parts, process=place(process, replicated_sharding(parts.mesh)))


def build(
    config: Config,
    description: Description,
    steps: int | Sequence[int] | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> Parts:
    """Builds the process, the network and the shape of the state of a config.

    Args:
        config: of the run.
        description: of the data.
        steps: take only so many of the steps of the process, evenly spaced, or only these; all by default.
        mesh: of the devices; that which the config asks for by default.

    Raises:
        UserError: a value of the config cannot be used, or there are too few devices for it.
    """
    config_io.check_values(config)
    mesh = mesh_of(config.mesh.fsdp) if mesh is None else mesh
    try:
        check_fields("data.describe()", description)
        kind = kinds.of(description, config.data)
        whole = config.process.build()
        config.loss.check_process(whole)
        x0, t = (jax.ShapeDtypeStruct(shape, np.int32) for shape in (description.shape, ()))
        jax.eval_shape(whole.log_q_probs, x0, t)  # may refuse a shape
        config.head.check(whole.K, getattr(config.process, "mask_id", None))
        process = with_steps(whole, steps)
        predict, init_params = network.split_network(config, description, whole)
        classes = network.network_classes(config, description)

        def init() -> TrainState:
            return _first_state(config, whole.T, init_params(_keys(config)[0]))

        shapes = jax.eval_shape(init)
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        raise UserError(one_line(error, 1000)) from error
    process = place(process, replicated_sharding(mesh))
    key = jax.jit(lambda: _keys(config)[1], out_shardings=replicated_sharding(mesh))()
    state = jax.tree.map(lambda x: x.update(sharding=state_sharding(mesh, x.shape)), shapes)
    spread = network.on_mesh(predict, batch_sharding(mesh))
    return Parts(config, description, kind, mesh, process, spread, init, state, predict, key, classes)


def _keys(config: Config) -> jax.Array:
    """Makes the key of the first parameters, and that of the noise of training."""
    return jax.random.split(jax.random.key(config.train.seed))


def initialize_state(parts: Parts) -> Parts:
    """Returns the parts with the state before the first step."""
    # Random numbers of many shapes compile three times faster without optimisation, and run once.
    fast: dict[str, Any] = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}
    init = jax.jit(parts.init, out_shardings=state_shardings(parts)).lower().compile(compiler_options=fast)
    return dataclasses.replace(parts, state=init())


def initialize_state_from(parts: Parts, params: Params) -> Parts:
    """Returns the parts with the state before the first step of a run that starts from these parameters."""
    layout = state_shardings(parts)
    begin = jax.jit(partial(_first_state, parts.config, parts.process.T), out_shardings=layout)
    return dataclasses.replace(parts, state=begin(jax.tree.map(place, params, layout.params)))


def state_shardings(parts: Parts) -> TrainState:
    """Returns where each array of the state is."""
    return jax.tree.map(lambda x: x.sharding, parts.state)


def _first_state(config: Config, T: int, params: Params) -> TrainState:
    history = config.timesteps.start(T)
    return init_state(params, config.optimizer.build(), history)


def step_arguments(parts: Parts) -> dict[str, Any]:
    """Returns what `training.step.make_update` takes of a run, by name."""
    config = parts.config
    return {
        "objective": config.loss,
        "timesteps": config.timesteps,
        "optimizer": config.optimizer.build(),
        "predict": parts.predict,
        "ema_decay": config.train.ema_decay,
        "accumulate": config.train.accumulate,
        "layout": state_shardings(parts),
    }


def restore_state(workdir: Path, parts: Parts, step: int | None = None) -> Parts:
    """Returns the parts with the state of a checkpoint, the last whole one by default.

    Raises:
        UserError: there is none, or a training has deleted the one that was asked for, or it is damaged.
    """
    folder = workdir / CHECKPOINTS

    def find_step() -> int:
        known = checkpoint.list_steps(folder)
        if step is None or not known:
            return checkpoint.find_newest_step(folder)
        if step not in known:
            raise UserError(
                f"{workdir} has no checkpoint of step {step}: it has {', '.join(map(str, known))}"
            )
        checkpoint.check_checkpoint(folder, step)
        return step

    try:
        state = checkpoint.restore_state(folder, cluster.run_on_first(find_step), parts.state)
    except checkpoint.CheckpointGone:
        if step is not None or jax.process_count() > 1:  # others may have read it
            raise
        return restore_state(workdir, parts)  # a training has a newer one by now
    return dataclasses.replace(parts, state=state)


def make_caption(workdir: Path, parts: Parts, step: int) -> str:
    """Says in a few words what a picture is of: the run, its process and the step of its weights."""
    return f"{workdir.resolve().name}: {name_process(parts.config, parts.process)}; weights of step {step:,}"


def name_process(config: Config, process: Process) -> str:
    """Names a process: "Uniform, K = 17, T = 100"."""
    T = int(process.time[-1])
    steps = f"T = {T}" if process.T == T else f"{process.T} of T = {T} steps"
    return f"{type(config.process).__name__}, K = {process.K}, {steps}"


def describe_conditions(parts: Parts) -> dict[str, Any]:
    """Says what a figure of these parts depends on, besides data and noise."""
    T = int(parts.process.time[-1])
    times = np.asarray(parts.process.time[1:]).tolist()
    return {
        "step": parts.step,
        "ema": parts.config.train.ema_decay,
        "steps": parts.process.T,
        "grid": f"even, of {T}" if times == even_grid(T, len(times)) else f"{times} of {T}",
        **logits_keywords(parts.config.loss),
        "dtype": getattr(parts.config.model, "compute", "float32"),
    }
