"""Runs the training loop: data in, steps, and what is written on the way."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from d3pm_jax import data
from d3pm_jax.config import Config, Data, io as config_io
from d3pm_jax.errors import as_user_error
from d3pm_jax.loop import presampled, sinks as logs
from d3pm_jax.loop.outputs import Outputs
from d3pm_jax.loop.profile import traced
from d3pm_jax.loop.sinks import Log, Logging
from d3pm_jax.machine import cluster
from d3pm_jax.machine.devices import (
    batched,
    check_batch,
    use_all_cores,
)
from d3pm_jax.parts import begin, build, splits
from d3pm_jax.parts.begin import Weights
from d3pm_jax.placing import place, place_part
from d3pm_jax.storage import checkpoint, lock
from d3pm_jax.storage.names import CHECKPOINTS, LAYOUTS, PROFILE
from d3pm_jax.storage.workdir import (
    NUM_EXAMPLES,
    claim,
    read_config,
    resumed,
)
from d3pm_jax.training.step import StepNoise, make_step


def train(
    config: Config,
    workdir: Path,
    resume: bool,
    start: Weights | None = None,
    wandb: str | None = None,
    own_logs: Sequence[Log] = (),
    profile: bool = False,
) -> bool:
    """Trains to config.train.steps, from the start or from the last checkpoint in workdir.

    Args:
        config: of the run; when resuming it must be that of the run, but for `workdir.may_change`.
        workdir: where everything is written.
        resume: go on with the run in workdir.
        start: weights to begin a new run from; they are its step 0.
        wandb: a project of Weights & Biases to log to as well.
        own_logs: more logs, which are closed at the end.
        profile: write a trace of some steps to workdir/profile.

    Returns:
        Whether it got to the end; False when it was interrupted and saved.

    Raises:
        UserError: a value cannot be used, the data cannot be read, or the loss is no longer finite.
    """
    parts, source = built(config, workdir if resume else None)
    examples, valid, noise_of = _read_examples(parts), _read_valid(parts), _noise_of(parts)
    params = None if start is None else begin.fitted(parts, start)

    def claimed() -> int:
        claim(parts.config, workdir, resume or start is not None, parts.description, examples)
        return len(checkpoint.steps(workdir / CHECKPOINTS))

    with cluster.held_by_first(lock.held(workdir)):
        if params is not None:
            begin.write(parts, workdir, params)
        parts = build.restore(workdir, parts) if cluster.by_first(claimed) else build.start(parts)
        opened = partial(logs.opened, parts.config, workdir, project=wandb, own=own_logs)
        trace = workdir / PROFILE if profile and cluster.is_first() else None
        return _train(parts, workdir, source, noise_of, valid, opened, trace)


def built(config: Config, workdir: Path | None = None) -> tuple[build.Parts, data.Source]:
    """Builds a run, or that of a folder to go on with, and opens its data; refuses what would fail later."""
    config_io.check(config)
    use_all_cores(config.train.batch_size // config.train.accumulate, config.mesh.fsdp)
    source, description = splits.training(config, config.data.open_training()), config.data.describe()
    asked = True  # for just this layout
    if workdir is not None:
        config = resumed(workdir, config, description)
        asked = config.mesh.fsdp != read_config(workdir, config).mesh.fsdp
    parts = build.build(build.fill_in(config, description), description, asked=asked)
    check_batch(parts.mesh, config.train.batch_size, config.train.accumulate)
    data.check_batch_size(source, config.train.batch_size)
    with as_user_error():  # nothing would change at the end of the training
        config.optimizer.check_steps(config.train.steps)
    return parts, source


def _train(
    parts: build.Parts,
    workdir: Path,
    source: data.Source,
    noise_of: Callable[[int], StepNoise | None],
    valid: dict[str, np.ndarray] | None,
    opened: Callable[[int], AbstractContextManager[Logging]],
    trace: Path | None,
) -> bool:
    """Trains from the state of the parts on, for who holds the lock."""
    step, folder, keep = int(parts.state.step), workdir / CHECKPOINTS, parts.config.train.keep_checkpoints
    if cluster.is_first():
        checkpoint.set_aside(folder, step)
        _record_layout(workdir, parts, step)
    with opened(step) as log, checkpoint.Saver(folder, keep) as saver, cluster.stopping() as stop:
        outputs = Outputs(parts, workdir, log, saver, valid)
        return _loop(parts, _batches(parts, source, step), noise_of, outputs, stop, trace)


def _record_layout(workdir: Path, parts: build.Parts, step: int) -> None:
    """Adds a line to layouts.jsonl: over what the steps after this one were laid out."""
    row = {
        "step": step,
        "processes": jax.process_count(),
        "mesh": dict(parts.mesh.shape),
        "device": parts.mesh.devices.flat[0].device_kind,
    }
    with (workdir / LAYOUTS).open("a") as file:
        file.write(json.dumps(row) + "\n")


def _read_examples(parts: build.Parts) -> np.ndarray:
    """Reads the test examples that the run keeps; -1 is padding."""
    source = parts.config.data.open("test")
    batch = data.read_batch(source, parts.categories, NUM_EXAMPLES, parts.description)
    return np.where(batch["weight"] > 0, batch["x"], -1) if "weight" in batch else batch["x"]


def _read_valid(parts: build.Parts) -> dict[str, np.ndarray] | None:
    """Reads what the bound is estimated of during training, if anything."""
    source = splits.validation(parts.config)
    return None if source is None else data.read_batch(source, parts.categories, None, parts.description)


def _batches(parts: build.Parts, source: data.Source, start: int) -> Iterator[dict[str, Any]]:
    """Makes the batches of a run from step `start` on."""
    spec, train = parts.config.data, parts.config.train
    random_map = None if type(spec).random_map is Data.random_map else spec.random_map
    return data.train_batches(
        source,
        train.batch_size,
        train.seed,
        parts.categories,
        start,
        random_map,
        parts.description,
        part=jax.process_index(),
        parts=jax.process_count(),
    )


def _noise_of(parts: build.Parts) -> Callable[[int], StepNoise | None]:
    """Returns the noise of the step after so many updates, where that comes from a file."""
    file = parts.config.train.noise
    if file is None:
        return lambda step: None  # the step draws its own
    return presampled.open_for(parts, Path(file))


def _loop(
    parts: build.Parts,
    batches: Iterator,
    noise_of: Callable[[int], StepNoise | None],
    outputs: Outputs,
    stop: Callable[[int], str | None],
    trace: Path | None,
) -> bool:
    config, state, sharding = parts.config, parts.state, batched(parts.mesh)
    update = make_step(**build.step_arguments(parts), sharding=sharding)
    with outputs.terminal.shown():
        for step in traced(range(int(state.step) + 1, config.train.steps + 1), trace, outputs.speed.wait):
            with outputs.speed.waiting():
                batch, noise = place_part(next(batches), sharding), place(noise_of(step - 1), sharding)
            state, row = update(state, parts.process, batch, parts.key, noise)
            outputs.add(step, row)
            stopped = stop(step)  # a signal since then is seen after the next step, or too late to matter
            outputs.write(step, state, stopped is not None)
            if stopped is not None:
                outputs.terminal.say(f"stopped by {stopped}, saved step {step}")
                return step == config.train.steps
    return True
