"""Trains and opens runs from Python: what the commands do, without a shell."""

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from d3pm_jax import data, likelihood, losses
from d3pm_jax.config import Config, from_data
from d3pm_jax.config.objective import logits_keywords
from d3pm_jax.errors import UserError
from d3pm_jax.evaluation.bound import all_terms, elements, evaluate_bound, few_terms, parts, summary
from d3pm_jax.placing import place
from d3pm_jax.processes import Process
from d3pm_jax.runs import build, loop
from d3pm_jax.runs import workdir as folders
from d3pm_jax.runs.begin import weights_of
from d3pm_jax.runs.devices import batched, fitting_mesh, replicated, use_all_cores
from d3pm_jax.runs.logs import Log
from d3pm_jax.runs.samples import Given, make_sampler
from d3pm_jax.sampling import even_grid
from d3pm_jax.types import Params

Made = TypeVar("Made")

MOVED = (  # a text, or the file of its tokenizer
    "; where they lie now the run is told by d3pm train --workdir RUN --resume --data.train PATH, and "
    "--data.tokenizer PATH"
)


@dataclasses.dataclass(frozen=True)
class Run:
    """Holds a run at a checkpoint."""

    workdir: Path
    parts: build.Parts
    _compiled: dict[Any, Any] = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)

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
        chains: int | None = None,
        given: Given | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws n samples; see `samples.make_sampler`.

        Returns:
            x_0 int32 [n, *S], and x_t [R, n, *S] at the recorded t, or of the first `chains` samples alone.
        """
        size, record = min(batch_size, n), tuple(record)
        name = ("sample", size, record, shape)
        sampler = self._once(name, lambda: make_sampler(self.parts, size, record, shape))
        return sampler(self.params, n, key, label, progress, chains, given)

    def respaced(self, steps: int | Sequence[int]) -> "Run":
        """Returns the run with so many of the steps of its process, evenly spaced, or with these.

        Raises:
            UserError: the process has no such steps.
        """
        try:
            process = build.with_steps(self.config.process.build(), steps)
        except ValueError as error:
            raise UserError(str(error)) from error
        placed = place(process, replicated(self.parts.mesh))
        return dataclasses.replace(self, parts=dataclasses.replace(self.parts, process=placed))

    def evaluate(
        self, limit: int | None = None, batch_size: int = 128, seed: int = 0, calls: int | None = None
    ) -> dict[str, Any]:
        """Computes the bound on the test split, or on its first examples: see `evaluate_on`."""
        found = self.read_batch("test", limit)
        labels, weight = found.get("label"), found.get("weight")
        return self.evaluate_on(found["x"], labels, batch_size, seed, calls=calls, weight=weight)

    def read_batch(self, split: str, limit: int | None = None) -> dict[str, np.ndarray]:
        """Reads examples of the data: "x" [N, *S], and if there are any "label" [N] and "weight" [N, *S].

        Raises:
            UserError: the data cannot be read.
        """
        return self._read(self._open(split), limit)

    def read_split(self, split: str, limit: int | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """Reads examples of the data [N, *S], and their labels if there are any.

        Raises:
            UserError: the data cannot be read, or has weights, which `read_batch` gives.
        """
        found = self.read_batch(split, limit)
        if "weight" in found:
            raise UserError("the examples have weights: take Run.read_batch, and respect them")
        return found["x"], found.get("label")

    def read_last(self, split: str, n: int) -> dict[str, np.ndarray]:
        """Reads the last n examples of a split, or all if there are fewer; see `read_batch`."""
        source = self._open(split)
        return self._read(data.Part(source, max(0, len(source) - n), len(source)), None)

    def _open(self, split: str) -> data.Source:
        """Opens the data. Raises UserError where it is known to be another than the run had."""
        spec, kept = self.config.data, self.parts.description
        try:
            if kept.digest is not None:
                folders.check_digest(self.workdir, spec.describe(), kept)
            return spec.open(split)
        except data.DatasetError as error:
            raise UserError(f"{error}{MOVED if kept.kind == 'text' else ''}") from error

    def _read(self, source: data.Source, limit: int | None) -> dict[str, np.ndarray]:
        return data.read_batch(source, self.parts.categories, limit, self.parts.description)

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
        """Computes the bound on x0 int32 [N, *S]; labels int32 [N] for a network that takes them.

        Args:
            x0, labels, weight: the examples; each element counts as often as its weight [N, *S] says.
            batch_size: how many at a time.
            seed: of the noise.
            progress: is called with the number of examples that are done.
            calls: estimate the sum over t from so many calls of the network per example, without bias; by
                default every t is computed.

        Returns:
            What `evaluation.bound.summary` gives, with the step, N, the seed and the times of the terms; and
            without `calls` what `evaluation.bound.parts` gives.
        """
        told = {} if labels is None else {"label": labels}
        told |= {} if weight is None else {"weight": weight}
        found = self._bound(x0, self.parts.told(told), batch_size, seed, progress, calls)
        about = {"step": self.step, "examples": len(x0), "seed": seed}
        D, times = elements(x0, weight), np.asarray(self.process.time[1:]).tolist()
        if calls is not None:
            return summary(found, D) | about | {"times": times, "calls": calls}
        return summary(np.asarray(found.total()), D) | parts(found, D) | about | {"times": times}

    def _bound(
        self,
        x0: np.ndarray,
        told: dict[str, np.ndarray],
        batch_size: int,
        seed: int,
        progress: Callable[[int], Any],
        calls: int | None,
    ) -> Any:
        predict, term = self.parts.predict, self.term
        if calls is None:
            compiled = self._once(("bound", seed), lambda: all_terms(predict, seed, term))
        elif 1 <= calls <= self.process.T:
            compiled = self._once(("bound", seed, calls), lambda: few_terms(predict, calls, seed, term))
        else:
            raise UserError(f"calls = {calls}: it must be in 1..{self.process.T}, the steps of the process")
        sharding = batched(self.parts.mesh)
        return evaluate_bound(compiled, self.params, self.process, x0, batch_size, sharding, told, progress)

    def about(self) -> dict[str, Any]:
        """Says what a figure of this run depends on, besides data and noise."""
        T, times = int(self.process.time[-1]), np.asarray(self.process.time[1:]).tolist()
        return {
            "step": self.step,
            "ema": self.config.train.ema_decay,
            "steps": self.process.T,
            "grid": f"even, of {T}" if times == even_grid(T, len(times)) else f"{times} of {T}",
            **logits_keywords(self.config.loss),
            "dtype": getattr(self.config.model, "compute", "float32"),
        }

    @property
    def term(self) -> likelihood.Term:
        """Returns what logits of this run's network cost at a step."""
        return partial(losses.posterior_kl, **logits_keywords(self.config.loss))

    def _once(self, name: Hashable, make: Callable[[], Made]) -> Made:
        """Returns what `make` returned for this name the first time: it holds compiled programs."""
        if name not in self._compiled:
            self._compiled[name] = make()
        return self._compiled[name]


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
        config: of the run; when resuming it must be that of the run, but for `runs.workdir.may_change`.
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
    loop.train(config, Path(workdir), resume, weights, wandb, logs)
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
    parts = build.build(found, description, steps, fitting_mesh(found.mesh.fsdp))
    return Run(workdir, build.restore(workdir, parts, step))
