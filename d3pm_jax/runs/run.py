"""Trains and opens runs from Python: what the commands do, without a shell."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from d3pm_jax import likelihood
from d3pm_jax.config import Config, from_data
from d3pm_jax.loop import loop
from d3pm_jax.loop.sinks import Log
from d3pm_jax.machine.devices import mesh_of, use_all_cores
from d3pm_jax.measure import bounds
from d3pm_jax.measure.samples import Given, draw_samples
from d3pm_jax.parts import build, reading
from d3pm_jax.parts.begin import weights_of
from d3pm_jax.parts.build import describe_conditions, make_caption
from d3pm_jax.processes import Process
from d3pm_jax.storage import run_folder
from d3pm_jax.types import Params


@dataclasses.dataclass(frozen=True)
class Run:
    """Holds a run at a checkpoint."""

    workdir: Path
    parts: build.Parts

    @property
    def config(self) -> Config:
        """Returns the config of the run."""
        return self.parts.config

    @property
    def process(self) -> Process:
        """Returns the forward process, respaced where fewer steps were asked for."""
        return self.parts.process

    @property
    def params(self) -> Params:
        """Returns the averaged parameters, which samples and bounds are of."""
        return self.parts.params

    @property
    def step(self) -> int:
        """Returns how many updates the parameters have seen."""
        return self.parts.step

    @property
    def caption(self) -> str:
        """Says in a few words what a picture of this run is of."""
        return make_caption(self.workdir, self.parts, self.step)

    def predict(self, xt: Any, t: Any, label: Any = None) -> jax.Array:
        """Returns logits of x_0 [B, *S, K] for x_t int32 [B, *S] at t int32 [B], a step of process.time."""
        return jax.jit(self.parts.network)(self.params, xt, t, label=label)

    def sample(
        self,
        key: jax.Array,
        n: int,
        label: int | None = None,
        batch_size: int = 128,
        record: Sequence[int] = (),
        progress: Callable[[int], Any] = lambda done: None,
        chains: int | None = None,
        given: Given | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws n samples; see `measure.samples.make_sampler`.

        Returns:
            x_0 int32 [n, *S], and x_t [R, n, *S] at the recorded t, or of the first `chains` samples alone.
        """
        return draw_samples(self.parts, key, n, label, batch_size, record, progress, chains, given, shape)

    def respaced(self, steps: int | Sequence[int]) -> "Run":
        """Returns the run with so many of the steps of its process, evenly spaced, or with these.

        Raises:
            UserError: the process has no such steps.
        """
        return dataclasses.replace(self, parts=build.respace_parts(self.parts, steps))

    def evaluate(
        self, limit: int | None = None, batch_size: int = 128, seed: int = 0, calls: int | None = None
    ) -> dict[str, Any]:
        """Computes the bound on the test split, or on its first examples: see `evaluate_on`."""
        return bounds.compute_bound(self.parts, self.read_batch("test", limit), batch_size, seed, calls=calls)

    def read_batch(self, split: str, limit: int | None = None) -> dict[str, np.ndarray]:
        """Reads examples of the data: "x" [N, *S], and if there are any "label" [N] and "weight" [N, *S].

        Raises:
            UserError: the data cannot be read.
        """
        return reading.read_batch(self.parts, self.workdir, split, limit)

    def read_split(self, split: str, limit: int | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """Reads examples of the data [N, *S], and their labels if there are any.

        Raises:
            UserError: the data cannot be read, or has weights, which `read_batch` gives.
        """
        return reading.read_split(self.parts, self.workdir, split, limit)

    def read_last(self, split: str, n: int) -> dict[str, np.ndarray]:
        """Reads the last n examples of a split, or all if there are fewer; see `read_batch`."""
        return reading.read_last(self.parts, self.workdir, split, n)

    def about(self) -> dict[str, Any]:
        """Says what a figure of this run depends on, besides data and noise."""
        return describe_conditions(self.parts)

    @property
    def term(self) -> likelihood.Term:
        """Returns what logits of this run's network cost at a step."""
        return self.parts.term

    def evaluate_on(
        self,
        x0: np.ndarray,
        labels: np.ndarray | None = None,
        batch_size: int = 128,
        seed: int = 0,
        progress: Callable[[int], Any] = lambda done: None,
        calls: int | None = None,
        weight: np.ndarray | None = None,
    ) -> dict[str, Any]:
        """Computes the bound on x0 int32 [N, *S] and labels int32 [N]: see `measure.bounds.compute_bound`."""
        known = {"x": x0, "label": labels, "weight": weight}
        examples = {name: x for name, x in known.items() if x is not None}
        return bounds.compute_bound(self.parts, examples, batch_size, seed, progress, calls)


def train(
    config: Config,
    workdir: Path | str,
    resume: bool = False,
    start: Run | None = None,
    *,
    wandb: str | None = None,
    logs: Sequence[Log] = (),
) -> Run:
    """Trains a config, or goes on with the run in a folder, and opens it at its end.

    An interrupt is taken after the step that runs: it is saved, and the run of that step is returned.

    Args:
        config: of the run; when resuming it must be that of the run, but for `runs.run_folder.may_change`.
        workdir: where everything is written.
        resume: go on with the run in the folder.
        start: a run whose averaged weights the new one begins with, as its weights and as their average;
            nothing else is taken over.
        wandb: a project of Weights & Biases, where the metrics are logged too, in a run of the folder's name.
        logs: more that metrics are logged to: each has log(step, values) and close(), which is called at the
            end.

    Raises:
        UserError: a value cannot be used, the data cannot be read, or the loss is no longer finite.
    """
    weights = None if start is None else weights_of(start.parts)
    loop.run_training(config, Path(workdir), resume, weights, wandb, logs)
    return open_run(workdir, config)


def open_run(
    workdir: Path | str,
    config: Config | Path | str | None = None,
    step: int | None = None,
    steps: int | Sequence[int] | None = None,
    batch_size: int = 128,
) -> Run:
    """Opens the run in a folder at a checkpoint; its data is not needed.

    Args:
        workdir: that of a training.
        config: for a run with parts of your own, the file that defines them, or the config itself.
        step: which checkpoint; the last by default.
        steps: take only so many of the steps of the process, evenly spaced, or only these.
        batch_size: decides how many devices are used.

    Raises:
        UserError: there is no such run or checkpoint, or it needs a config.
    """
    workdir, own = Path(workdir), Path(config) if isinstance(config, str) else config
    found = run_folder.read_config(workdir, own)
    if isinstance(own, Config):
        own = from_data.fill_from_saved(found, own)
        run_folder.check_resume(found, own)
        found = own
    use_all_cores(batch_size)
    description = run_folder.read_description(workdir)
    if description is None:
        found.data.check_kept()
        description = found.data.describe()
    parts = build.build(found, description, steps, mesh_of(found.mesh.fsdp, asked=False))
    return Run(workdir, build.restore_state(workdir, parts, step))
