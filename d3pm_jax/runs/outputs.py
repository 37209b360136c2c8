"""Writes what a training leaves on the way: metrics, pictures of samples, checkpoints."""

from pathlib import Path

import jax

from d3pm_jax import show
from d3pm_jax.runs import checkpoint
from d3pm_jax.runs.build import Parts, caption
from d3pm_jax.runs.metrics import Window, Writer
from d3pm_jax.runs.samples import make_sampler
from d3pm_jax.runs.terminal import Terminal
from d3pm_jax.runs.workdir import CHECKPOINTS
from d3pm_jax.training.state import TrainState
from d3pm_jax.training.step import Metrics

SAMPLES = 64  # in a picture of samples


class Outputs:
    """Writes everything that a training writes.

    Args:
        parts: of the run, with the state that training begins with.
        workdir: where to write.
        writer: of metrics.
    """

    def __init__(self, parts: Parts, workdir: Path, writer: Writer):
        first = int(parts.state.step)
        self.terminal = Terminal("step", parts.config.train.steps, first)
        self._parts, self._config = parts, parts.config
        self._workdir, self._writer = workdir, writer
        self._sampler, self._window = make_sampler(parts, SAMPLES), Window(parts.process.T)
        self._saved = first if checkpoint.steps(workdir / CHECKPOINTS) else None

    def add(self, step: int, row: Metrics) -> None:
        """Takes the metrics of a step."""
        self.terminal.advance(step)
        self._window.add(row)

    def write(self, step: int, state: TrainState, stopping: bool) -> None:
        """Writes what is due after a step; metrics and a checkpoint after the last one and before a stop.

        Raises:
            UserError: a metric is not finite, or the network gives no samples.
        """
        config = self._config.train
        stopping |= step == config.steps
        draws, saves = _due(step, config.sample_every), _due(step, config.checkpoint_every)
        if stopping or draws or saves or _due(step, config.log_every):
            means = self._window.close(step, self._saved)
            self._writer.write(step, means)
            self.terminal.metrics(means)
        if draws:
            samples, _ = self._sampler(state.ema, SAMPLES, jax.random.key(config.seed))
            path = self._workdir / "samples" / f"step_{step:07d}"
            path.parent.mkdir(exist_ok=True)
            words = caption(self._workdir, self._parts, step)
            path = show.save_examples(path, samples, self._parts.description, words)
            self.terminal.say(f"samples: {path}")
            self._window.restart()
        if stopping or saves:
            checkpoint.save(self._workdir / CHECKPOINTS, step, state, config.keep_checkpoints)
            self._saved = step
            self._window.restart()


def _due(step: int, every: int) -> bool:
    """Tells whether something that happens every so many steps, or with 0 never, happens after this one."""
    return every > 0 and step % every == 0
