"""Runs the training loop, and writes metrics, samples and checkpoints on the way."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from d3pm_jax import data
from d3pm_jax.config import Config, Data, describe_data, describe_with_digest, say_where_it_lies
from d3pm_jax.errors import UserError, as_user_error
from d3pm_jax.files import write_npy
from d3pm_jax.keys import make_key
from d3pm_jax.kinds import Samples, files
from d3pm_jax.models.variables import check_precision, check_sizes, name_leaves, split_variables
from d3pm_jax.placing import place, place_part
from d3pm_jax.program.loop import metrics, presampled, sinks, speed
from d3pm_jax.program.machine import cluster, devices, terminal
from d3pm_jax.program.measure import bounds
from d3pm_jax.program.measure.samples import check_sampler, choose_inputs, draw_samples
from d3pm_jax.program.parts import begin, build, completed, splits
from d3pm_jax.program.parts.draw import Draw
from d3pm_jax.program.storage import checkpoint, lock
from d3pm_jax.program.storage.names import CHECKPOINTS, LAYOUTS, PROFILE, SAMPLES
from d3pm_jax.program.storage.run_folder import (
    SavedRun,
    adopt_numbers,
    check_description,
    check_is_no_file,
    check_settings,
    claim_folder,
)
from d3pm_jax.training.state import TrainState
from d3pm_jax.training.step import Metrics, make_loss_step

NUM_SAMPLES = 64  # in a picture of samples
CALLS = 10  # of the network for each example, in an estimate of the bound


def run_training(
    config: Config,
    workdir: Path,
    saved: SavedRun | None = None,
    start: begin.StartWeights | None = None,
    wandb: str | None = None,
    user_logs: Sequence[sinks.Log] = (),
    profile: bool = False,
) -> build.Parts:
    """Trains to config.train.steps, from the start or from the last checkpoint in workdir.

    Args:
        config: of the run, which was checked; when resuming it must be that of the run, but for
            `run_folder.may_change`.
        workdir: where everything is written.
        saved: the run in workdir to go on with; None for a new run.
        start: weights to begin a new run from; they are its step 0.
        wandb: a project of Weights & Biases to log to as well.
        user_logs: further logs, which are closed at the end.
        profile: write a trace of some steps to workdir/profile.

    Returns:
        The parts of the run with its last state, which is saved: that of config.train.steps, or of an
        earlier step where it was interrupted.

    Raises:
        UserError: a value cannot be used, the data cannot be read, or the loss is no longer finite.
    """
    # Everything that may be refused is read before anything is written: the data, the file of noise and the
    # weights to begin from. A refusal then leaves the folder as it was.
    check_is_no_file(workdir)
    parts, sources = build_run(config, saved)
    config = parts.config
    folder = workdir / CHECKPOINTS
    test = data.read_batch(sources.test, parts.recipe.categories, parts.kind.examples_kept, parts.description)
    examples = {"x": test["x"]}  # which reports and samples show
    if "weight" in test:
        examples["x"] = np.where(test["weight"] > 0, test["x"], -1)  # -1 is padding
    if "condition" in test:
        examples |= {name: test[name] for name in ("condition", "label") if name in test}
    valid_examples = None
    if sources.valid is not None:
        valid_examples = data.read_batch(sources.valid, parts.recipe.categories, None, parts.description)
    read_noise = None  # each step draws its own noise
    if config.train.noise is not None:
        read_noise = presampled.open_noise(parts, Path(config.train.noise))
    params = None if start is None else begin.match_weights(parts, start)

    def claim_and_count_steps() -> int:
        # A run that begins from weights has written its step 0 by now.
        holds_run = saved is not None or start is not None
        kept_examples = examples if config.data.keep_examples else {}
        claim_folder(config, workdir, holds_run, parts.description, kept_examples)
        return len(checkpoint.list_steps(folder))

    with cluster.enter_on_first(lock.hold_folder(workdir)):
        # In this order a run that begins from weights writes its step 0, the folder is claimed, which writes
        # what the run is, later checkpoints are set aside, and the logs are opened. A run that is killed in
        # between leaves a folder that a new start clears, or one that can be resumed.
        if params is not None:
            begin.write_first_step(parts, workdir, params)
        if cluster.run_on_first(claim_and_count_steps):
            parts = build.restore_state(workdir, parts)
        else:
            parts = build.initialize_state(parts)
        state = parts.state
        first_step = parts.step  # updates done before
        if cluster.is_first():
            # A resume starts from the last checkpoint that is whole; those of later steps are damaged.
            checkpoint.set_aside_later_steps(folder, first_step)
            _record_layout(workdir, parts)
        with (
            sinks.open_logs(config, workdir, first_step, wandb, user_logs) as log,
            checkpoint.Saver(folder, config.train.keep_checkpoints) as saver,
            cluster.watch_for_stop() as stopping_signal,
        ):
            outputs = Outputs(parts, workdir, log, saver, valid_examples, choose_inputs(parts, test))
            batches = _make_batches(parts, sources.train)
            sharding = devices.batch_sharding(parts.mesh)
            update = make_loss_step(**build.step_arguments(parts), sharding=sharding)
            trace = workdir / PROFILE if profile and cluster.is_first() else None
            steps = range(first_step + 1, config.train.steps + 1)
            if not steps:
                outputs.terminal.print_line(
                    f"nothing left to do: the run is at step {first_step}; --train.steps N trains it to "
                    "step N"
                )
            with outputs.terminal.show_bar():
                for step in speed.trace_steps(steps, trace, outputs.speed.wait):
                    with outputs.speed.time_wait():
                        batch = place_part(next(batches), sharding)
                        noise = None if read_noise is None else place(read_noise(step - 1), sharding)
                    state, row = update(state, parts.recipe.process, batch, parts.key, noise)
                    outputs.add(step, row)

                    # Asked once after each step, before anything is written, so that what is written and
                    # whether the loop ends follow from one answer, which in a run of several processes all
                    # of them get. A signal that comes while outputs are written is seen after the next step;
                    # after the last step there is nothing left to stop.
                    signal = stopping_signal(step)
                    outputs.write(step, state, signal is not None)
                    if signal is not None:
                        outputs.terminal.print_line(f"stopped by {signal}, saved step {step}")
                        break
    return parts.with_state(state)


def build_run(config: Config, saved: SavedRun | None = None) -> tuple[build.Parts, splits.Sources]:
    """Builds the parts of a run and opens its data, and refuses what would fail later.

    Args:
        config: of the run, which was checked.
        saved: the run to go on with; None for a new run.

    Returns:
        The parts, and the examples of its data.

    Raises:
        UserError: a value cannot be used, or the data cannot be read.
    """
    devices.use_all_cores(config.train.batch_size // config.train.accumulate, config.mesh.fsdp)
    if saved is not None:
        # Another config, or other settings, are refused before the data is read, which may take long.
        check_settings(saved)
        config = adopt_numbers(saved, config)
    with explain_missing_data(config, saved):
        sources = splits.open_sources(config)
        description = describe_with_digest(config.data)

    # A new run needs the very layout of its config. One that goes on needs it only where its config differs
    # from the one in the folder, since the machine may have other devices than the run began on.
    needs_layout = True
    if saved is not None:
        check_description(saved, description)
        needs_layout = config.mesh.fsdp != saved.config.mesh.fsdp
    mesh = devices.mesh_of(config.mesh.fsdp, asked=needs_layout)

    parts = _build_parts(config, description, mesh, saved is None)
    if cluster.is_first():
        for line in parts.kind.describe_data():
            print(line, flush=True)
        form = config.model.attention_form()
        if form is not None:
            print(f"attention: {form}", flush=True)
    data.check_batch_size(sources.train, config.train.batch_size)
    return parts, sources


def build_described_run(config: Config, mesh: jax.sharding.Mesh) -> build.Parts:
    """Builds the parts of a new run for devices that are only described, and refuses what would fail there.

    Its data is opened only where the config takes numbers from it.

    Raises:
        UserError: a value cannot be used, or the data cannot be read.
    """
    with explain_missing_data(config, None):
        return _build_parts(config, describe_data(config.data), mesh, begins=True)


def _build_parts(
    config: Config, description: data.Description, mesh: jax.sharding.Mesh, begins: bool
) -> build.Parts:
    """Builds the parts of a run, which begins or goes on, and refuses what would fail in a training."""
    parts = build.build(completed.complete(config, description), mesh=mesh)
    if begins:
        build.check_mask(parts)
    # What draws no samples of the process would say so after hours, at the first picture.
    check_sampler(parts, None)
    params, _ = split_variables(parts.state.params)
    if not jax.tree.leaves(params):
        raise UserError(
            f"the network of {type(config.model).__name__} has no nnx.Param, so that nothing is trained: "
            f"make what it learns one, as nnx.Param(jnp.zeros(3))"
        )
    with as_user_error():
        check_precision(params)
        check_sizes(parts.state.params)
    devices.check_batch(parts.mesh, config.train.batch_size, config.train.accumulate)

    # A learning rate that has fallen to 0 before the last step is refused: the last steps would change
    # nothing.
    with as_user_error():
        config.optimizer.check_steps(config.train.steps)
    return parts


@contextmanager
def explain_missing_data(config: Config, saved: SavedRun | None) -> Iterator[None]:
    """Adds to an error of the data of a run how to say where it lies.

    Args:
        config: of the run.
        saved: the run to go on with; None for a new run.
    """
    try:
        yield
    except data.DatasetError as error:
        # Where the user has just said where the data lies, it is that of a run that begins.
        begins = saved is None or saved.config.data != config.data
        raise UserError(say_where_it_lies(config.data, str(error), begins)) from error


def _record_layout(workdir: Path, parts: build.Parts) -> None:
    """Adds a line to layouts.jsonl with the devices that the steps from here on are laid out over."""
    row = {
        "step": parts.step,
        "processes": jax.process_count(),
        "mesh": dict(parts.mesh.shape),
        "device": parts.mesh.devices.flat[0].device_kind,
    }
    with (workdir / LAYOUTS).open("a") as file:
        file.write(json.dumps(row) + "\n")


def _make_batches(parts: build.Parts, source: data.Source) -> Iterator[dict[str, Any]]:
    """Makes the batches of a run from the step of the parts on."""
    spec = parts.config.data
    train = parts.config.train

    # A `random_map` that changes nothing is not called at all.
    random_map = spec.random_map
    if type(spec).random_map is Data.random_map:
        random_map = None
    return data.train_batches(
        source,
        train.batch_size,
        train.seed,
        parts.recipe.categories,
        parts.step,
        random_map,
        parts.description,
        part=jax.process_index(),
        parts=jax.process_count(),
    )


class Outputs:
    """Writes everything that a training writes on the way.

    Args:
        parts: of the run, with the state that training begins with.
        workdir: where to write.
        log: is called with a step and its metrics, see `sinks.open_logs`.
        saver: of checkpoints.
        valid_examples: examples to estimate the bound of, see `estimate_bound`; None for none.
        sample_inputs: of the samples that it draws, of `measure.samples.choose_inputs`.
    """

    def __init__(
        self,
        parts: build.Parts,
        workdir: Path,
        log: sinks.Logging,
        saver: checkpoint.Saver,
        valid_examples: Mapping[str, np.ndarray] | None,
        sample_inputs: Mapping[str, Any],
    ):
        first_step = parts.step
        self.terminal = terminal.Terminal("step", parts.config.train.steps, first_step)
        self.speed = speed.make_speed(parts)
        self._parts = parts
        self._workdir = workdir
        self._log = log
        self._saver = saver
        self._sample_inputs = sample_inputs
        params, _ = split_variables(parts.state.params)
        leaves = name_leaves(params)
        self._window = metrics.Window(parts.recipe.bound.nats, leaves, parts.config.train.max_nonfinite)
        self._valid_examples = valid_examples
        # The step of the last checkpoint, if there is one.
        self._saved_step = first_step if checkpoint.list_steps(workdir / CHECKPOINTS) else None

    def add(self, step: int, row: Metrics) -> None:
        """Takes the metrics of a step.

        Raises:
            UserError: `train.max_nonfinite` steps in a row were not finite.
        """
        self.terminal.advance(step)
        self.speed.note_dispatch(row)
        self._window.add(step, row, self._saved_step)

    def write(self, step: int, state: TrainState, stopping: bool) -> None:
        """Writes what is due after a step; after the last one and before a stop, metrics and a checkpoint.

        Metrics come before a checkpoint of the same step. Where the run is killed in between, its resume
        starts from an older checkpoint and writes the line again; in the other order the line would be lost.

        Raises:
            UserError: too many steps in a row were not finite, or all of a training, or the network gives no
                samples.
        """
        parts = self._parts.with_state(state)
        config = parts.config.train
        is_last = step == config.steps
        ends = stopping or is_last
        draws = _is_due(step, config.sample_every)
        saves = _is_due(step, config.checkpoint_every)
        evaluates = self._valid_examples is not None and _is_due(step, config.eval_every)

        # All other output is preceded by a line of metrics, as it interrupts the training and restarts the
        # clock. So the speed in each line is that of steps without an interruption.
        if ends or draws or saves or evaluates or _is_due(step, config.log_every):
            self._write_metrics(step, parts, evaluates)
        if draws:
            self._write_samples(step, parts)
        if is_last:
            # `_write_metrics` has waited for the last step, so that it is counted. A training without a
            # finite step fails here, with its samples written, but before its last checkpoint, which would
            # look like that of a finished training.
            self._window.check_any(self._saved_step)
        if ends or saves:
            self._write_checkpoint(step, state, stopping=ends)
        self._saver.check()

    def _write_metrics(self, step: int, parts: build.Parts, evaluates: bool) -> None:
        """Logs the means of the metrics since the last line, with the bound of held-out examples if due."""
        means = self.speed.add_rates(self._window.close(self._saved_step))
        # `evaluates` is true only where there are examples; the first condition tells the type checker.
        if self._valid_examples is not None and evaluates:
            figures = estimate_bound(parts, self._valid_examples)
            if any(map(math.isinf, figures.values())):
                self.terminal.print_line(
                    "the bound of the held-out examples is infinite: check that process.beta ends at 1"
                )
            else:
                means |= {f"valid_{name}": value for name, value in figures.items()}
            self._window.restart_clock()
        if "loss" in means:
            self._log(step, means)
            self.terminal.show_metrics(means)
            return

        # No step since the last line was finite, so that there are no means to log. Every line of
        # metrics.jsonl has a loss, and readers count on that.
        others = "".join(f"; {name} {value:.4g}" for name, value in means.items())
        self.terminal.print_line(f"no metrics at step {step}: all steps since the last were skipped{others}")

    def _write_samples(self, step: int, parts: build.Parts) -> None:
        """Draws samples of the averaged parameters and writes them as their kind does, or as an array."""
        key = make_key(parts.config.train.seed)
        draw = Draw(**self._sample_inputs)
        samples = draw_samples(parts, key, NUM_SAMPLES, draw, batch_size=NUM_SAMPLES).x0
        path = self._workdir / SAMPLES / f"step_{step:07d}"
        path.parent.mkdir(exist_ok=True)
        caption = build.make_caption(self._workdir, parts)
        # A category that the data lacks is a mask.
        shown = Samples(samples, parts.description.categories, self._sample_inputs.get("condition"))
        file = files.write_block(path, files.show_beside(parts.kind, shown), caption)
        if file is None:
            file = path.with_suffix(".npy")
            write_npy(file, samples)
        self.terminal.print_line(f"samples: {file}")
        self._window.restart_clock()

    def _write_checkpoint(self, step: int, state: TrainState, stopping: bool) -> None:
        """Starts to write a checkpoint, or says why there is none; before a stop it waits for the end."""
        skipped = self._window.count_skipped_in_a_row()
        if skipped:
            words = f"steps {step - skipped + 1} to {step} were not finite, and skipped"
            if not stopping:
                words = f"{words}: no checkpoint is written"
            self.terminal.print_line(words)

        # During a row of skipped steps no checkpoint is written. Its state would be the one before the row,
        # and it would replace older checkpoints, from which a user may want to start again. Before a stop one
        # is written nonetheless, as the state counts the steps.
        if stopping or not skipped:
            self._saver.save(step, state)
            self._saved_step = step
            self._window.restart_clock()
        if stopping:
            self._saver.wait()


def estimate_bound(parts: build.Parts, examples: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Estimates the bound of examples, as {"bits_per_dim": ..}; of a classifier cross entropy and accuracy.

    The bound of each example is estimated from a few of its terms, drawn with the same noise in every call,
    so that two estimates of a run differ by their parameters alone.

    Args:
        parts: of the run.
        examples: "x" int32 [N, *S], and "label", "weight" and "condition" if there are any.
    """
    bound = parts.recipe.bound
    train = parts.config.train
    figures = bounds.evaluate_examples(
        parts, examples, train.batch_size, train.seed, calls=min(CALLS, bound.calls)
    )
    return {name: figures[name] for name in bound.main_figures}


def _is_due(step: int, every: int) -> bool:
    """Says whether something that happens every so many steps, or with 0 never, happens after this one."""
    return every > 0 and step % every == 0
