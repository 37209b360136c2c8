"""Writes what a training leaves on the way: metrics, pictures of samples, checkpoints."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import jax
import numpy as np

from d3pm_jax.config.objective import logits_keywords
from d3pm_jax.evaluation.bound import elements, evaluate_bound, few_terms
from d3pm_jax.likelihood import bits_per_dim
from d3pm_jax.loop import speed
from d3pm_jax.loop.metrics import Window, leaf_names
from d3pm_jax.loop.sinks import Logging
from d3pm_jax.losses import posterior_kl
from d3pm_jax.machine.devices import batched
from d3pm_jax.machine.terminal import Terminal
from d3pm_jax.measure.samples import make_sampler
from d3pm_jax.parts.build import Parts, caption
from d3pm_jax.storage import checkpoint
from d3pm_jax.storage.names import CHECKPOINTS, SAMPLES
from d3pm_jax.training.state import TrainState
from d3pm_jax.training.step import Metrics
from d3pm_jax.types import Params

NUM_SAMPLES = 64  # in a picture of samples
CALLS = 10  # of the network for each example, in an estimate of the bound


class Outputs:
    """Writes everything that a training writes.

    Args:
        parts: of the run, with the state that training begins with.
        workdir: where to write.
        log: takes a step and its metrics, see `logs.opened`.
        saver: of checkpoints.
        valid: examples to estimate the bound of, see `make_estimate`.
    """

    def __init__(
        self,
        parts: Parts,
        workdir: Path,
        log: Logging,
        saver: checkpoint.Saver,
        valid: Mapping[str, np.ndarray] | None = None,
    ):
        first = int(parts.state.step)
        self.terminal = Terminal("step", parts.config.train.steps, first)
        self._parts = parts
        self._workdir, self._log_to, self._saver = workdir, log, saver
        self._sampler = make_sampler(parts, NUM_SAMPLES)
        self.speed = speed.of_run(parts)
        self._window = Window(
            parts.process.T, leaf_names(parts.state.params), parts.config.train.max_nonfinite
        )
        self._valid = None if valid is None else make_estimate(parts, valid)
        self._saved = first if checkpoint.steps(workdir / CHECKPOINTS) else None

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
                means |= self._evaluated(state.ema)
                self._window.restart()
            if "loss" in means:
                self._log_to(step, means)
                self.terminal.metrics(means)
            else:  # no step since the last line was finite
                found = "".join(f"; {name} {value:.4g}" for name, value in means.items())
                self.terminal.say(f"no metrics at step {step}: all steps since the last were skipped{found}")
        if draws:
            samples, _ = self._sampler(state.ema, NUM_SAMPLES, jax.random.key(config.seed))
            path = self._workdir / SAMPLES / f"step_{step:07d}"
            path.parent.mkdir(exist_ok=True)
            words = caption(self._workdir, self._parts, step)
            path = self._parts.kind.save_examples(path, samples, words)
            self.terminal.say(f"samples: {path}")
            self._window.restart()
        if ends:
            self._window.check_any(self._saved)
        if stopping or saves:
            skipped = self._window.skipped_last()
            if skipped:
                words = f"steps {step - skipped + 1} to {step} were not finite, and skipped"
                self.terminal.say(words if stopping else f"{words}: no checkpoint is written")
            if stopping or not skipped:  # in a row of skipped steps the checkpoints from before it stay
                self._saver.save(step, state)
                self._saved = step
                self._window.restart()
            if stopping:
                self._saver.wait()
        self._saver.check()

    def _evaluated(self, params: Params) -> dict[str, float]:
        """Returns the bound of the held-out examples; says so, and returns nothing, where it is infinite."""
        assert self._valid is not None
        found = self._valid(params)
        if math.isinf(found):
            self.terminal.say("the bound of the held-out examples is infinite: is beta 1 at the end?")
            return {}
        return {"valid_bits_per_dim": found}


def make_estimate(parts: Parts, examples: Mapping[str, np.ndarray]) -> Callable[[Params], float]:
    """Makes params -> the bound of examples in bits/dim, estimated from a few steps for each.

    Args:
        parts: of the run.
        examples: "x" int32 [N, *S], "label" [N] and "weight" [N, *S] if there are any.
    """
    term = partial(posterior_kl, **logits_keywords(parts.config.loss))
    compiled = few_terms(parts.predict, min(CALLS, parts.process.T), parts.config.train.seed, term)
    D = elements(examples["x"], examples.get("weight"))
    x0, told, sharding = examples["x"], parts.told(examples), batched(parts.mesh)
    batch_size = parts.config.train.batch_size

    def estimate(params: Params) -> float:
        nats = evaluate_bound(compiled, params, parts.process, x0, batch_size, sharding, told)
        return float(bits_per_dim(np.mean(nats, dtype=np.float64) / np.mean(D), 1))

    return estimate


def _due(step: int, every: int) -> bool:
    """Tells whether something that happens every so many steps, or with 0 never, happens after this one."""
    return every > 0 and step % every == 0
