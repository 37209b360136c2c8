"""The training loop: data in, steps, and what is written on the way."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import jax
import numpy as np

from d3pm_jax import data, plots
from d3pm_jax.config import Config
from d3pm_jax.errors import UserError
from d3pm_jax.training import bank, checkpoint, metrics, run
from d3pm_jax.training.devices import batched
from d3pm_jax.training.samples import make_sampler
from d3pm_jax.training.step import Metrics, StepNoise, build_optimizer, make_step

SAMPLES = 64  # images in a picture of samples


def train(config: Config, workdir: Path, resume: bool) -> bool:
    """Train to config.train.steps, from the start or from the last checkpoint in workdir.

    Args:
        config: of the run; when resuming it must be that of the run, but for `run.FREE`.
        workdir: where everything is written.
        resume: go on with the run in workdir.

    Returns:
        Whether it got to the end; False when it was interrupted and saved.

    Raises:
        UserError: a value cannot be used, the data cannot be read, or the loss is no longer finite.
    """
    source = data.open_split(config.data.name, config.data.train_split, config.data.dir)
    parts = run.build(config, source[0]["image"].shape, config.train.batch_size)
    noise_of = _drawn if config.train.noise is None else bank.open_for(parts, Path(config.train.noise))
    _claim(config, workdir, resume)
    begun = checkpoint.steps(workdir / run.CHECKPOINTS)
    parts = run.restore(workdir, parts) if begun else run.start(parts)
    start = int(parts.state.step)
    batches = data.train_batches(
        source, config.train.batch_size, config.train.seed, run.num_levels(config), start
    )
    with metrics.Writer(workdir, start) as writer, _stop_signals() as stop:
        return _loop(parts, batches, noise_of, workdir, writer, stop)


def _drawn(step: int) -> None:
    """No noise: the step draws its own."""


def _claim(config: Config, workdir: Path, resume: bool) -> None:
    """Make workdir this run's, without touching another's.

    Raises:
        UserError: it holds a run, or holds none to resume, or cannot be written to.
    """
    begun = checkpoint.steps(workdir / run.CHECKPOINTS)
    if begun and not resume:
        raise UserError(f"{workdir} holds a run already: pass --resume to go on, or another --workdir")
    if begun and begun[-1] > config.train.steps:
        raise UserError(f"the run is at step {begun[-1]} already: set train.steps to that or more")
    if resume and not (workdir / run.CONFIG).exists():
        raise UserError(f"{workdir} holds no run to resume: check --workdir, or leave out --resume")
    if resume:
        run.check_resume(run.read_config(workdir), config)
    try:
        (workdir / run.CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        run.write_config(workdir, config)
    except OSError as error:
        raise UserError(f"cannot write to {workdir}: {error.strerror}; pass another --workdir") from error


def _loop(
    parts: run.Parts,
    batches: Iterator,
    noise_of: Callable[[int], StepNoise | None],
    workdir: Path,
    writer: metrics.Writer,
    stop: list,
) -> bool:
    config, state, tr = parts.config.train, parts.state, parts.tr
    sharding, sampler = batched(parts.mesh), make_sampler(parts, SAMPLES)
    step_fn = make_step(parts.config, parts.predict, build_optimizer(parts.config.optimizer), sharding)
    first = int(state.step)
    terminal = metrics.Terminal(first, config.steps)
    window = Window(parts.config.process.steps)
    saved = first if checkpoint.steps(workdir / run.CHECKPOINTS) else None
    with terminal.shown():
        for step in range(first + 1, config.steps + 1):
            x0, noise = jax.device_put((next(batches)["image"], noise_of(step - 1)), sharding)
            state, row = step_fn(state, tr, x0, parts.key, noise)
            window.add(row)
            terminal.advance(step)
            stopping, last = bool(stop), step == config.steps
            draws, saves = _due(step, config.sample_every), _due(step, config.checkpoint_every)
            if stopping or last or draws or saves or _due(step, config.log_every):
                means = window.close(step, saved)
                writer.write(step, means)
                terminal.metrics(step, means)
            if draws:
                images, _ = sampler(state.ema, SAMPLES, config.seed)
                terminal.say(f"samples: {_picture(images, parts.config, workdir, step)}")
                window.restart()
            if stopping or last or saves:
                checkpoint.save(workdir / run.CHECKPOINTS, step, state, config.keep_checkpoints)
                saved = step
                window.restart()
            if stopping:  # a signal since then is seen after the next step, or too late to matter
                terminal.say(f"stopped by {stop[0]}, saved step {step}")
                return last
    return True


def _due(step: int, every: int) -> bool:
    """Whether something that happens every so many steps, or with 0 never, happens after this one."""
    return every > 0 and step % every == 0


def _picture(images: np.ndarray, config: Config, workdir: Path, step: int) -> Path:
    """Writes the samples of a step, and says where."""
    path = workdir / "samples" / f"step_{step:07d}.png"
    path.parent.mkdir(exist_ok=True)
    plots.save_grid(path, plots.to_rgb(images, run.num_levels(config)), columns=round(SAMPLES**0.5))
    return path


class Window:
    """The metrics of the steps since the last report."""

    def __init__(self, T: int):
        self._rows: list[Metrics] = []
        self._T, self._since, self._timed = T, 0.0, 0

    def add(self, row: Metrics) -> None:
        """Takes the metrics of a step, and waits for the step before it."""
        if self._rows:
            jax.block_until_ready(self._rows[-1]["loss"])
        self._rows.append(row)
        if not self._since:  # the first step compiles
            jax.block_until_ready(row["loss"])
            self.restart()
        else:
            self._timed += 1

    def restart(self) -> None:
        """Starts the clock again after something that is not training."""
        self._since, self._timed = time.monotonic(), 0

    def close(self, step: int, saved: int | None) -> dict[str, float | int]:
        """Their means, and the bound that kl stands for; empties the window.

        Raises:
            UserError: one of them is not finite.
        """
        rows = jax.device_get(self._rows)
        for i, row in enumerate(rows, step - len(rows) + 1):
            for name, value in row.items():
                if not np.isfinite(value):
                    kept = (
                        "there is no checkpoint yet"
                        if saved is None
                        else f"the checkpoint of step {saved} is kept"
                    )
                    raise UserError(
                        f"{name} is {value} at step {i}; {kept}: start anew with a lower optimizer.lr"
                    )
        means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        means["bound_bits_per_dim"] = means["kl"] * self._T / float(np.log(2))
        if self._timed:
            means["seconds_per_step"] = (time.monotonic() - self._since) / self._timed
        self._rows = []
        self.restart()
        return means


@contextmanager
def _stop_signals() -> Iterator[list[str]]:
    """A list that SIGINT and SIGTERM append their name to, in place of ending the process."""
    received: list[str] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(signal.Signals(number).name)
        signal.signal(number, old[number])  # a second one ends the process

    old = {int(number): signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
