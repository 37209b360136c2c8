"""Trains and opens runs from Python: what the commands do, without a shell."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from d3pm_jax import data, losses
from d3pm_jax.config import Config, from_data
from d3pm_jax.config.objective import logits_keywords
from d3pm_jax.errors import UserError
from d3pm_jax.evaluation.bound import evaluate_bound, summary
from d3pm_jax.processes import Process
from d3pm_jax.runs import build, loop
from d3pm_jax.runs import workdir as folders
from d3pm_jax.runs.begin import weights_of
from d3pm_jax.runs.devices import batched, use_all_cores
from d3pm_jax.runs.samples import Sampler, make_sampler
from d3pm_jax.types import Params


@dataclasses.dataclass(frozen=True)
class Run:
    """Holds a run at a checkpoint."""

    workdir: Path
    parts: build.Parts
    _samplers: dict[Any, Sampler] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

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
        return self.parts.state.ema

    @property
    def step(self) -> int:
        """Returns how many updates the parameters have seen."""
        return int(self.parts.state.step)

    @property
    def caption(self) -> str:
        """Says in a few words what a picture of this run is of."""
        return build.caption(self.workdir, self.parts, self.step)

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
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws n samples; see `samples.make_sampler`.

        Returns:
            x_0 int32 [n, *S], and x_t [R, n, *S] at the recorded t.
        """
        compiled = min(batch_size, n), tuple(record)
        if compiled not in self._samplers:
            self._samplers[compiled] = make_sampler(self.parts, *compiled)
        return self._samplers[compiled](self.params, n, key, label, progress)

    def evaluate(self, limit: int | None = None, batch_size: int = 128, seed: int = 0) -> dict[str, Any]:
        """Computes the bound on the test split, and its parts, in bits/dim: `evaluation.bound.summary`."""
        x0, labels = self.read_split("test", limit)
        return self.evaluate_on(x0, labels, batch_size, seed)

    def read_split(self, split: str, limit: int | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """Reads examples of the data [N, *S], and their labels if there are any.

        Raises:
            UserError: the data cannot be read, or has weights, which a bound would have to respect.
        """
        source = self.config.data.open(split)
        if "weight" in source[0]:
            raise UserError("the examples have weights: bounds of such data are not computed yet")
        return data.read_all(source, self.parts.categories, limit, self.parts.description)

    def evaluate_on(
        self,
        x0: np.ndarray,
        labels: np.ndarray | None = None,
        batch_size: int = 128,
        seed: int = 0,
        progress: Callable[[int], Any] = lambda done: None,
    ) -> dict[str, Any]:
        """Computes the bound in bits/dim on x0 int32 [N, *S]; labels int32 [N] for a network that takes them.

        Returns:
            What `evaluation.bound.summary` gives, with the step, N, the seed and the times of the terms.
        """
        term = partial(losses.posterior_kl, **logits_keywords(self.config.loss))
        told = None if self.parts.classes is None else labels
        place = batched(self.parts.mesh)
        bound = evaluate_bound(
            self.parts.predict, self.params, self.process, x0, batch_size, seed, term, place, told, progress
        )
        result = summary(bound, D=x0[0].size)
        result |= {"step": self.step, "examples": len(x0), "seed": seed}
        return result | {"times": np.asarray(self.process.time[1:]).tolist()}


def train(config: Config, workdir: Path | str, resume: bool = False, start: Run | None = None) -> Run:
    """Trains a config, or goes on with the run in a folder, and opens it at its end.

    An interrupt is taken after the step that runs: it is saved, and the run of that step is returned.

    Args:
        config: of the run; when resuming it must be that of the run, but for `runs.workdir.may_change`.
        workdir: where everything is written.
        resume: go on with the run in the folder.
        start: a run whose averaged weights the new one begins with, as its weights and as their average;
            nothing else is taken over.

    Raises:
        UserError: a value cannot be used, the data cannot be read, or the loss is no longer finite.
    """
    loop.train(config, Path(workdir), resume, None if start is None else weights_of(start.parts))
    return open_run(workdir, config)


def open_run(
    workdir: Path | str,
    config: Config | Path | str | None = None,
    step: int | None = None,
    steps: int | None = None,
    batch_size: int = 128,
) -> Run:
    """Opens the run in a folder at a checkpoint; its data is not needed.

    Args:
        workdir: that of a training.
        config: for a run with parts of your own, the file that defines them, or the config itself.
        step: which checkpoint; the last by default.
        steps: take only so many of the steps of the process, evenly spaced.
        batch_size: decides how many devices are used.

    Raises:
        UserError: there is no such run or checkpoint, or it needs a config.
    """
    workdir, own = Path(workdir), Path(config) if isinstance(config, str) else config
    found = folders.read_config(workdir, own)
    if isinstance(own, Config):
        own = from_data.like(found, own)
        folders.check_resume(found, own)
        found = own
    use_all_cores(batch_size)
    description = folders.read_description(workdir)
    if description is None:
        found.data.check_kept()
        description = found.data.describe()
    parts = build.build(found, description, batch_size, steps)
    return Run(workdir, build.restore(workdir, parts, step))
