"""Runs the training loop: data in, steps, and what is written on the way."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from d3pm_jax import data, kinds
from d3pm_jax.config import Config, Data, io as config_io
from d3pm_jax.errors import as_user_error
from d3pm_jax.evaluation.bound import count_elements, evaluate_bound, few_terms
from d3pm_jax.likelihood import bits_per_dim
from d3pm_jax.loop import cost, presampled, sinks
from d3pm_jax.loop.metrics import Window, leaf_names
from d3pm_jax.machine import cluster
from d3pm_jax.machine.devices import batch_sharding, check_batch, mesh_of, use_all_cores
from d3pm_jax.machine.terminal import Terminal
from d3pm_jax.measure.samples import make_sampler
from d3pm_jax.parts import begin, build, splits
from d3pm_jax.placing import place, place_part
from d3pm_jax.storage import checkpoint, lock
from d3pm_jax.storage.names import CHECKPOINTS, LAYOUTS, PROFILE, SAMPLES
from d3pm_jax.storage.run_folder import NUM_EXAMPLES, claim_folder, prepare_resume, read_config
from d3pm_jax.training.state import TrainState
from d3pm_jax.training.step import Metrics, make_step
from d3pm_jax.types import Params

NUM_SAMPLES = 64  # in a picture of samples
CALLS = 10  # of the network for each example, in an estimate of the bound


def run_training(
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
        config: of the run; when resuming it must be that of the run, but for `run_folder.may_change`.
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
    parts, source = build_run(config, workdir if resume else None)
    config = parts.config
    folder = workdir / CHECKPOINTS
    # What could be refused is read before anything is written.
    test = data.read_batch(config.data.open("test"), parts.categories, NUM_EXAMPLES, parts.description)
    kept_examples = np.where(test["weight"] > 0, test["x"], -1) if "weight" in test else test["x"]
    held_out = splits.open_validation(config)
    valid = None
    if held_out is not None:
        valid = data.read_batch(held_out, parts.categories, None, parts.description)
    noise_file = None
    if config.train.noise is not None:  # else each step draws its own
        noise_file = presampled.open_noise(parts, Path(config.train.noise))
    params = None if start is None else begin.match_weights(parts, start)

    def claim_and_count_steps() -> int:
        claim_folder(config, workdir, resume or start is not None, parts.description, kept_examples)
        return len(checkpoint.list_steps(folder))

    with cluster.enter_on_first(lock.hold_folder(workdir)):
        if params is not None:
            begin.write_first_step(parts, workdir, params)
        if cluster.run_on_first(claim_and_count_steps):
            parts = build.restore_state(workdir, parts)
        else:
            parts = build.initialize_state(parts)
        state = parts.state
        done = parts.step
        if cluster.is_first():
            checkpoint.set_aside_later_steps(folder, done)
            _record_layout(workdir, parts)
        with (
            sinks.open_logs(config, workdir, done, wandb, own_logs) as log,
            checkpoint.Saver(folder, config.train.keep_checkpoints) as saver,
            cluster.watch_for_stop() as stop,
        ):
            outputs = Outputs(parts, workdir, log, saver, valid)
            batches = _batches(parts, source)
            sharding = batch_sharding(parts.mesh)
            update = make_step(**build.step_arguments(parts), sharding=sharding)
            trace = workdir / PROFILE if profile and cluster.is_first() else None
            with outputs.terminal.show_bar():
                for step in cost.trace_steps(
                    range(done + 1, config.train.steps + 1), trace, outputs.speed.wait
                ):
                    with outputs.speed.waiting():
                        batch = place_part(next(batches), sharding)
                        noise = None if noise_file is None else place(noise_file(step - 1), sharding)
                    state, row = update(state, parts.process, batch, parts.key, noise)
                    outputs.add(step, row)
                    # A signal since then is seen after the next step, or too late to matter.
                    stopped = stop(step)
                    outputs.write(step, state, stopped is not None)
                    if stopped is not None:
                        outputs.terminal.print_line(f"stopped by {stopped}, saved step {step}")
                        return step == config.train.steps
    return True


def build_run(config: Config, workdir: Path | None = None) -> tuple[build.Parts, data.Source]:
    """Builds a run, or that of a folder to go on with, and opens its data; refuses what would fail later."""
    config_io.check_config(config)
    use_all_cores(config.train.batch_size // config.train.accumulate, config.mesh.fsdp)
    source, description = (
        splits.take_training_examples(config, config.data.open_training()),
        config.data.describe(),
    )
    asked = True  # for just this layout
    if workdir is not None:
        config = prepare_resume(workdir, config, description)
        asked = config.mesh.fsdp != read_config(workdir, config).mesh.fsdp
    mesh = mesh_of(config.mesh.fsdp, asked)
    kinds.of(description, config.data)  # may refuse it, before all of the data is counted
    parts = build.build(build.fill_in(config, description), description, mesh=mesh)
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


class Outputs:
    """Writes everything that a training writes.

    Args:
        parts: of the run, with the state that training begins with.
        workdir: where to write.
        log: takes a step and its metrics, see `sinks.open_logs`.
        saver: of checkpoints.
        valid: examples to estimate the bound of, see `make_estimate`.
    """

    def __init__(
        self,
        parts: build.Parts,
        workdir: Path,
        log: sinks.Logging,
        saver: checkpoint.Saver,
        valid: Mapping[str, np.ndarray] | None = None,
    ):
        first = int(parts.state.step)
        self.terminal = Terminal("step", parts.config.train.steps, first)
        self._parts = parts
        self._workdir, self._log_to, self._saver = workdir, log, saver
        self._sampler = make_sampler(parts, NUM_SAMPLES)
        self.speed = cost.make_speed(parts)
        self._window = Window(
            parts.process.T, leaf_names(parts.state.params), parts.config.train.max_nonfinite
        )
        self._valid = None if valid is None else make_estimate(parts, valid)
        self._saved = first if checkpoint.list_steps(workdir / CHECKPOINTS) else None

    def add(self, step: int, row: Metrics) -> None:
        """Takes the metrics of a step.

        Raises:
            UserError: `train.max_nonfinite` steps in a row were not finite.
        """
        self.terminal.advance(step)
        self.speed.dispatched(row)
        self._window.add(step, row, self._saved)

    def write(self, step: int, state: TrainState, stopping: bool) -> None:
        """Writes what is due after a step; metrics and a checkpoint after the last one and before a stop.

        Raises:
            UserError: too many steps in a row were not finite, or all of a training, or the network gives no
                samples.
        """
        config = self._parts.config.train
        ends = step == config.steps
        stopping |= ends
        draws, saves = _due(step, config.sample_every), _due(step, config.checkpoint_every)
        evaluates = self._valid is not None and _due(step, config.eval_every)
        if stopping or draws or saves or evaluates or _due(step, config.log_every):
            means = self.speed.added(self._window.close(self._saved))
            if self._valid is not None and evaluates:
                bound = self._valid(state.ema)
                if math.isinf(bound):
                    self.terminal.print_line(
                        "the bound of the held-out examples is infinite: is beta 1 at the end?"
                    )
                else:
                    means["valid_bits_per_dim"] = bound
                self._window.restart()
            if "loss" in means:
                self._log_to(step, means)
                self.terminal.show_metrics(means)
            else:  # no step since the last line was finite
                found = "".join(f"; {name} {value:.4g}" for name, value in means.items())
                self.terminal.print_line(
                    f"no metrics at step {step}: all steps since the last were skipped{found}"
                )
        if draws:
            samples, _ = self._sampler(state.ema, NUM_SAMPLES, jax.random.key(config.seed))
            path = self._workdir / SAMPLES / f"step_{step:07d}"
            path.parent.mkdir(exist_ok=True)
            words = build.make_caption(self._workdir, self._parts, step)
            path = self._parts.kind.save_examples(path, samples, words)
            self.terminal.print_line(f"samples: {path}")
            self._window.restart()
        if ends:
            self._window.check_any(self._saved)
        if stopping or saves:
            skipped = self._window.skipped_last()
            if skipped:
                words = f"steps {step - skipped + 1} to {step} were not finite, and skipped"
                self.terminal.print_line(words if stopping else f"{words}: no checkpoint is written")
            if stopping or not skipped:  # in a row of skipped steps the checkpoints from before it stay
                self._saver.save(step, state)
                self._saved = step
                self._window.restart()
            if stopping:
                self._saver.wait()
        self._saver.check()


def make_estimate(parts: build.Parts, examples: Mapping[str, np.ndarray]) -> Callable[[Params], float]:
    """Makes params -> the bound of examples in bits/dim, estimated from a few steps for each.

    Args:
        parts: of the run.
        examples: "x" int32 [N, *S], "label" [N] and "weight" [N, *S] if there are any.
    """
    compiled = few_terms(parts.predict, min(CALLS, parts.process.T), parts.config.train.seed, parts.term)
    D = count_elements(examples["x"], examples.get("weight"))
    x0, told, sharding = examples["x"], parts.extra_inputs(examples), batch_sharding(parts.mesh)
    batch_size = parts.config.train.batch_size

    def estimate(params: Params) -> float:
        nats = evaluate_bound(compiled, params, parts.process, x0, batch_size, sharding, told)
        return float(bits_per_dim(np.mean(nats, dtype=np.float64) / np.mean(D), 1))

    return estimate


def _due(step: int, every: int) -> bool:
    """Tells whether something that happens every so many steps, or with 0 never, happens after this one."""
    return every > 0 and step % every == 0
