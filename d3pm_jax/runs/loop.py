"""Runs the training loop: data in, steps, and what is written on the way."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from d3pm_jax import data, signals
from d3pm_jax.config import Config, Data
from d3pm_jax.config import io as config_io
from d3pm_jax.errors import UserError
from d3pm_jax.runs import begin, build, checkpoint, lock, metrics, presampled, splits
from d3pm_jax.runs.begin import Weights
from d3pm_jax.runs.devices import batched, use_all_cores
from d3pm_jax.runs.outputs import Outputs
from d3pm_jax.runs.profile import traced
from d3pm_jax.runs.workdir import (
    CHECKPOINTS,
    NUM_EXAMPLES,
    claim,
    resumed,
)
from d3pm_jax.training.step import StepNoise, make_step


def train(
    config: Config, workdir: Path, resume: bool, start: Weights | None = None, profile: bool = False
) -> bool:
    """Trains to config.train.steps, from the start or from the last checkpoint in workdir.

    Args:
        config: of the run; when resuming it must be that of the run, but for `workdir.may_change`.
        workdir: where everything is written.
        resume: go on with the run in workdir.
        start: weights to begin a new run from; they are its step 0.
        profile: write a trace of some steps to workdir/profile.

    Returns:
        Whether it got to the end; False when it was interrupted and saved.

    Raises:
        UserError: a value cannot be used, the data cannot be read, or the loss is no longer finite.
    """
    config_io.check(config)
    use_all_cores(config.train.batch_size)
    source, description = splits.training(config, config.data.open_training()), config.data.describe()
    if resume:
        config = resumed(workdir, config, description)
    config = build.fill_in(config, description)
    parts = build.build(config, description, config.train.batch_size)
    _check_steps(config)
    examples = _read_examples(parts)
    valid = _read_valid(parts)
    noise_of = _drawn if config.train.noise is None else presampled.open_for(parts, Path(config.train.noise))
    params = None if start is None else begin.fitted(parts, start)
    step = max(checkpoint.steps(workdir / CHECKPOINTS), default=0)
    batches = _batches(parts, source, step)
    with lock.held(workdir):
        if params is not None:
            begin.write(parts, workdir, params)
        claim(config, workdir, resume or start is not None, description, examples)
        begun = checkpoint.steps(workdir / CHECKPOINTS)
        parts = build.restore(workdir, parts) if begun else build.start(parts)
        if int(parts.state.step) != step:
            raise UserError(f"another `d3pm train` has just gone on with {workdir}: run the command again")
        with metrics.Writer(workdir, step) as writer, signals.noted() as stop:
            outputs = Outputs(parts, workdir, writer, valid)
            return _loop(parts, batches, noise_of, outputs, stop, workdir / "profile" if profile else None)


def _read_examples(parts: build.Parts) -> np.ndarray:
    """Reads the test examples that the run keeps; -1 is padding."""
    source = parts.config.data.open("test")
    batch = data.read_batch(source, parts.categories, NUM_EXAMPLES, parts.description)
    return np.where(batch["weight"] > 0, batch["x"], -1) if "weight" in batch else batch["x"]


def _read_valid(parts: build.Parts) -> dict[str, np.ndarray] | None:
    """Reads what the bound is estimated of during training, if anything."""
    source = splits.validation(parts.config)
    return None if source is None else data.read_batch(source, parts.categories, None, parts.description)


def _check_steps(config: Config) -> None:
    """Refuses a training that would change nothing at its end."""
    try:
        config.optimizer.check_steps(config.train.steps)
    except ValueError as error:
        raise UserError(str(error)) from error


def _batches(parts: build.Parts, source: data.Source, start: int) -> Iterator[dict[str, Any]]:
    """Makes the batches of a run from step `start` on."""
    spec, train = parts.config.data, parts.config.train
    random_map = None if type(spec).random_map is Data.random_map else spec.random_map
    return data.train_batches(
        source, train.batch_size, train.seed, parts.categories, start, random_map, parts.description
    )


def _drawn(step: int) -> None:
    """Returns no noise: the step draws its own."""


def _loop(
    parts: build.Parts,
    batches: Iterator,
    noise_of: Callable[[int], StepNoise | None],
    outputs: Outputs,
    stop: list[str],
    trace: Path | None,
) -> bool:
    config, state, sharding = parts.config, parts.state, batched(parts.mesh)
    rule = config.optimizer.build()
    update = make_step(config.loss, config.timesteps, rule, parts.predict, config.train.ema_decay, sharding)
    with outputs.terminal.shown():
        for step in traced(range(int(state.step) + 1, config.train.steps + 1), trace):
            with outputs.speed.waiting():
                batch, noise = jax.device_put((next(batches), noise_of(step - 1)), sharding)
            state, row = update(state, parts.process, batch, parts.key, noise)
            outputs.add(step, row)
            stopping = bool(stop)  # a signal since then is seen after the next step, or too late to matter
            outputs.write(step, state, stopping)
            if stopping:
                outputs.terminal.say(f"stopped by {stop[0]}, saved step {step}")
                return step == config.train.steps
    return True
