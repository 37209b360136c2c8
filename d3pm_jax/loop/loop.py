"""Runs the training loop: data in, steps, and what is written on the way."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from d3pm_jax import data
from d3pm_jax.config import Config, Data, io as config_io
from d3pm_jax.errors import as_user_error
from d3pm_jax.loop import presampled, sinks
from d3pm_jax.loop.outputs import Outputs
from d3pm_jax.loop.speed import traced
from d3pm_jax.machine import cluster
from d3pm_jax.machine.devices import (
    batched,
    check_batch,
    use_all_cores,
)
from d3pm_jax.parts import begin, build, splits
from d3pm_jax.placing import place, place_part
from d3pm_jax.storage import checkpoint, lock
from d3pm_jax.storage.names import CHECKPOINTS, LAYOUTS, PROFILE
from d3pm_jax.storage.workdir import (
    NUM_EXAMPLES,
    claim,
    read_config,
    resumed,
)
from d3pm_jax.training.step import make_step


def train(
    config: Config,
    workdir: Path,
    resume: bool,
    start: begin.Weights | None = None,
    wandb: str | None = None,
    own_logs: Sequence[sinks.Log] = (),
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
    config = parts.config
    folder = workdir / CHECKPOINTS
    # What could be refused is read before anything is written.
    test = data.read_batch(config.data.open("test"), parts.categories, NUM_EXAMPLES, parts.description)
    kept_examples = np.where(test["weight"] > 0, test["x"], -1) if "weight" in test else test["x"]
    held_out = splits.validation(config)
    valid = None
    if held_out is not None:
        valid = data.read_batch(held_out, parts.categories, None, parts.description)
    noise_file = None
    if config.train.noise is not None:  # else each step draws its own
        noise_file = presampled.open_for(parts, Path(config.train.noise))
    params = None if start is None else begin.fitted(parts, start)

    def claim_folder() -> int:
        claim(config, workdir, resume or start is not None, parts.description, kept_examples)
        return len(checkpoint.steps(folder))

    with cluster.held_by_first(lock.held(workdir)):
        if params is not None:
            begin.write(parts, workdir, params)
        parts = build.restore(workdir, parts) if cluster.by_first(claim_folder) else build.start(parts)
        state = parts.state
        first = parts.step
        if cluster.is_first():
            checkpoint.set_aside(folder, first)
            _record_layout(workdir, parts)
        with (
            sinks.opened(config, workdir, first, wandb, own_logs) as log,
            checkpoint.Saver(folder, config.train.keep_checkpoints) as saver,
            cluster.stopping() as stop,
        ):
            outputs = Outputs(parts, workdir, log, saver, valid)
            batches = _batches(parts, source)
            sharding = batched(parts.mesh)
            update = make_step(**build.step_arguments(parts), sharding=sharding)
            trace = workdir / PROFILE if profile and cluster.is_first() else None
            with outputs.terminal.shown():
                for step in traced(range(first + 1, config.train.steps + 1), trace, outputs.speed.wait):
                    with outputs.speed.waiting():
                        batch = place_part(next(batches), sharding)
                        noise = None if noise_file is None else place(noise_file(step - 1), sharding)
                    state, row = update(state, parts.process, batch, parts.key, noise)
                    outputs.add(step, row)
                    # A signal since then is seen after the next step, or too late to matter.
                    stopped = stop(step)
                    outputs.write(step, state, stopped is not None)
                    if stopped is not None:
                        outputs.terminal.say(f"stopped by {stopped}, saved step {step}")
                        return step == config.train.steps
    return True


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


def _record_layout(workdir: Path, parts: build.Parts) -> None:
    """Adds a line to layouts.jsonl: over what the steps after that of the parts are laid out."""
    row = {
        "step": parts.step,
        "processes": jax.process_count(),
        "mesh": dict(parts.mesh.shape),
        "device": parts.mesh.devices.flat[0].device_kind,
    }
    with (workdir / LAYOUTS).open("a") as file:
        file.write(json.dumps(row) + "\n")


def _batches(parts: build.Parts, source: data.Source) -> Iterator[dict[str, Any]]:
    """Makes the batches of a run from the step of the parts on."""
    spec, train = parts.config.data, parts.config.train
    random_map = None if type(spec).random_map is Data.random_map else spec.random_map
    return data.train_batches(
        source,
        train.batch_size,
        train.seed,
        parts.categories,
        parts.step,
        random_map,
        parts.description,
        part=jax.process_index(),
        parts=jax.process_count(),
    )
