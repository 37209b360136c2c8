"""Trains and opens runs from Python, as the commands do from a shell."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from d3pm_jax import likelihood
from d3pm_jax.checks.arrays import describe
from d3pm_jax.config import Config, from_data
from d3pm_jax.config.checks import Count, check_number
from d3pm_jax.config.data import move_data
from d3pm_jax.config.io import check_config_type
from d3pm_jax.data import ArraySource, read_batch
from d3pm_jax.errors import UserError, one_line
from d3pm_jax.loop import loop
from d3pm_jax.loop.sinks import Log
from d3pm_jax.machine.devices import mesh_of, use_all_cores
from d3pm_jax.measure import bounds
from d3pm_jax.measure.samples import Drawn, Given, Options, choose_inputs, draw_samples, read_strength
from d3pm_jax.measure.steered import BestSamples, Score, SteeredSamples, draw_best, steer_samples
from d3pm_jax.parts import build, reading
from d3pm_jax.parts.begin import weights_of
from d3pm_jax.parts.build import describe_conditions, make_caption
from d3pm_jax.parts.guidance import Guidance
from d3pm_jax.processes import Process
from d3pm_jax.sampling import Sampler
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
        """Returns the averaged parameters, with which samples are drawn and bounds are computed."""
        return self.parts.params

    @property
    def step(self) -> int:
        """Returns how many updates the parameters have seen."""
        return self.parts.step

    @property
    def caption(self) -> str:
        """Returns a caption for pictures of this run: its name, process and step."""
        return make_caption(self.workdir, self.parts, self.step)

    def predict(self, xt: Any, t: Any, label: Any = None, condition: Any = None) -> jax.Array:
        """Returns logits of x_0 [B, *S, K] for x_t int32 [B, *S] at t int32 [B], a step of process.time."""
        xt = jnp.asarray(xt)
        t = jnp.asarray(t)
        if t.shape != xt.shape[:1]:
            raise UserError(f"t has shape {list(t.shape)}: pass {list(xt.shape[:1])}, a step for each of xt")
        if label is not None and self.parts.classes is None:
            raise UserError("label is passed, but the network of this run takes no labels: leave it out")
        if condition is not None:
            condition = jnp.asarray(condition)
        return jax.jit(self.parts.network)(self.params, xt, t, label=label, condition=condition)

    def classify(self, xt: Any, t: Any) -> jax.Array:
        """Returns log p(label | x_t, t) [B, classes] for x_t int32 [B, *S] at t int32 [B], of a classifier.

        Args:
            xt: noised examples.
            t: of each, a step of process.time; 0 for clean examples.

        Raises:
            UserError: the run trains no classifier, xt are no examples of its data, or t is not a step for
                each of them.
        """
        classifier = self.parts.classifier
        xt = _read_integers("xt", xt, classifier.K - 1)
        t = _read_integers("t", t, int(classifier.state_times()[-1]))
        shape = self.parts.description.shape
        if xt.shape[1:] != shape:
            sizes = ", ".join(map(str, shape))
            raise UserError(f"xt has shape {list(xt.shape)}: pass [N, {sizes}], as the data has")
        if t.shape != xt.shape[:1]:
            raise UserError(f"t has shape {list(t.shape)}: pass {list(xt.shape[:1])}, a step for each of xt")
        classify = self.parts.once("classify", lambda: jax.jit(classifier.classify))
        return classify(self.params, xt, t)

    def sample(
        self,
        key: jax.Array,
        n: int,
        label: int | np.ndarray | None = None,
        batch_size: int = 128,
        record: Sequence[int] = (),
        progress: Callable[[int], Any] = lambda done: None,
        chains: int | None = None,
        known_elements: Given | tuple[Any, Any] | None = None,
        shape: tuple[int, ...] | None = None,
        *,
        condition: Any = None,
        given: Given | tuple[Any, Any] | None = None,
        sampler: Sampler | str | None = None,
        guidance: Guidance | float | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws n samples.

        Args:
            key: a typed key. Sample i depends on its number, on the key, its label, its condition and the
                known elements alone, not on n or the batch size.
            n: how many.
            label: the class of all samples, or int [M], of which sample i has row i modulo M; without it
                sample i is of class i modulo the number of classes, if the network takes labels.
            batch_size: how many at a time.
            record: the t whose x_t to return as well.
            progress: is called with the number of samples that are done.
            chains: return x_t of so many samples alone, the first ones.
            known_elements: elements that every sample has, (x0, known): see `sampling.infill`. Either may
                have an axis of N in front, and sample i has row i modulo N then.
            shape: *S of a sample, where it is not that of the data.
            condition: [N, *C] where the network takes one; sample i has row i modulo N.
            given: the old name of `known_elements`.
            sampler: a `sampling.Sampler`, as `sampling.named.maskgit(rows=8)`, or a name of
                `sampling.named.SAMPLERS`; without it that of the config, which draws ancestrally by default.
                `record` is of the numbers of rows left, which are t for a sampler that takes the steps one by
                one.
            guidance: towards the label or the condition, `runs.ClassifierFreeGuidance(2.0)` or gamma alone,
                of a run that was trained with `train.drop_condition` above 0; or
                `runs.ClassifierGuidance(classifier_run, 2.0)`, towards the label alone, of any run.

        Returns:
            x_0 int32 [n, *S], and x_t [R, n, *S] at the recorded t, or of the first `chains` samples alone.

        Raises:
            UserError: the network gave NaN, takes no such label or condition, the sampler or the guidance is
                not for this run, or an argument cannot be used.
            ValueError: both `known_elements` and `given` are passed.
        """
        drawn = self.draw(
            key,
            n,
            label,
            batch_size,
            record,
            progress,
            chains,
            known_elements,
            shape,
            condition=condition,
            given=given,
            sampler=sampler,
            guidance=guidance,
        )
        return drawn.x0, drawn.states

    def draw(
        self,
        key: jax.Array,
        n: int,
        label: int | np.ndarray | None = None,
        batch_size: int = 128,
        record: Sequence[int] = (),
        progress: Callable[[int], Any] = lambda done: None,
        chains: int | None = None,
        known_elements: Given | tuple[Any, Any] | None = None,
        shape: tuple[int, ...] | None = None,
        *,
        condition: Any = None,
        given: Given | tuple[Any, Any] | None = None,
        sampler: Sampler | str | None = None,
        guidance: Guidance | float | None = None,
    ) -> Drawn:
        """Draws n samples as `sample` does, and returns as well how many calls of the network they took."""
        if given is not None:
            if known_elements is not None:
                raise ValueError("given is the old name of known_elements: pass one of them")
            known_elements = given
        options = Options(
            label=label,
            batch_size=batch_size,
            progress=progress,
            known_elements=_read_known_elements(known_elements),
            shape=shape,
            condition=condition,
            sampler=sampler,
            guidance=guidance,
        )
        return draw_samples(self.parts, key, n, options, record, chains)

    def edit(
        self,
        key: jax.Array,
        x0: Any,
        strength: float,
        n: int | None = None,
        label: int | np.ndarray | None = None,
        batch_size: int = 128,
        record: Sequence[int] = (),
        progress: Callable[[int], Any] = lambda done: None,
        chains: int | None = None,
        *,
        known: Any = None,
        shape: tuple[int, ...] | None = None,
        condition: Any = None,
        sampler: Sampler | str | None = None,
        guidance: Guidance | float | None = None,
    ) -> Drawn:
        """Edits examples: noises them to t = round(strength T), and draws the way back: see `sampling.edit`.

        Args:
            key: a typed key; edit i depends on its number, on the key, its example, label and condition.
            x0: an example [*S], or [N, *S], of which edit i has row i modulo N.
            strength: in (0, 1]: 1 leaves next to nothing of an example.
            n: how many edits, one of each example by default.
            known: elements that stay as they are, bool of the shape of x0 or of an example; none by default.
            label, batch_size, record, progress, chains, shape, condition, sampler, guidance: as for `sample`.

        Returns:
            Edits int32 [n, *S], the states of their chains, and how many calls of the network they took.

        Raises:
            UserError: as `sample`; strength is outside (0, 1], or the sampler begins with all masked.
        """
        try:
            x0 = np.asarray(x0)
        except ValueError as error:
            raise UserError(f"x0 is {describe(x0)}: pass integers, an example or [N, ..] of them") from error
        size_of_example = len(shape or self.parts.description.shape)
        if n is None:
            n = len(x0) if x0.ndim > size_of_example else 1
        options = Options(
            label=label,
            batch_size=batch_size,
            progress=progress,
            known_elements=Given(x0, np.zeros((), bool) if known is None else known),
            shape=shape,
            condition=condition,
            sampler=sampler,
            guidance=guidance,
        )
        return draw_samples(self.parts, key, n, options, record, chains, read_strength(strength))

    def best_of(
        self,
        key: jax.Array,
        n: int,
        score: Score,
        candidates: int,
        label: int | np.ndarray | None = None,
        batch_size: int = 128,
        progress: Callable[[int], Any] = lambda done: None,
        *,
        known_elements: Given | tuple[Any, Any] | None = None,
        shape: tuple[int, ...] | None = None,
        condition: Any = None,
        sampler: Sampler | str | None = None,
        guidance: Guidance | float | None = None,
    ) -> BestSamples:
        """Draws n samples: each is the candidate of the largest score, and of equal ones the first.

        Args:
            key: a typed key; sample i depends on its number, on the key, its label and its condition.
            n: how many.
            score: of clean examples, x int32 [M, *S] -> [M], larger for what you prefer; in JAX or NumPy.
            candidates: how many for each sample.
            label, progress, known_elements, shape, condition, sampler, guidance: as for `sample`.
            batch_size: candidates at a time.

        Returns:
            Samples int32 [n, *S], all candidates with their scores, and calls of the network.

        Raises:
            UserError: as `sample`; a score cannot be used, or all candidates of a sample have -inf.
        """
        options = Options(
            label=label,
            batch_size=batch_size,
            progress=progress,
            known_elements=_read_known_elements(known_elements),
            shape=shape,
            condition=condition,
            sampler=sampler,
            guidance=guidance,
        )
        return draw_best(self.parts, key, n, score, candidates, options)

    def steer(
        self,
        key: jax.Array,
        n: int,
        score: Score,
        particles: int,
        label: int | np.ndarray | None = None,
        batch_size: int = 128,
        progress: Callable[[int], Any] = lambda done: None,
        *,
        known_elements: Given | tuple[Any, Any] | None = None,
        shape: tuple[int, ...] | None = None,
        condition: Any = None,
        sampler: Sampler | str | None = None,
        guidance: Guidance | float | None = None,
    ) -> SteeredSamples:
        """Draws n samples of p(x_0) exp(score(x_0)) / Z, in the limit of many particles: `sampling.steer`.

        Args:
            key: a typed key; sample i depends on its number, on the key, its label and its condition.
            n: how many.
            score: of clean examples, x int32 [M, *S] -> [M], in JAX and in nats; -inf means never.
            particles: how many of each sample, which are drawn side by side.
            label, progress, known_elements, shape, condition, sampler, guidance: as for `sample`.
            batch_size: particles at a time, and at least those of one sample.

        Returns:
            Samples int32 [n, *S], all particles with their scores, the effective size of each row, and calls
            of the network.

        Raises:
            UserError: as `sample`; a score cannot be used, or all particles of a sample have -inf.
        """
        options = Options(
            label=label,
            batch_size=batch_size,
            progress=progress,
            known_elements=_read_known_elements(known_elements),
            shape=shape,
            condition=condition,
            sampler=sampler,
            guidance=guidance,
        )
        return steer_samples(self.parts, key, n, score, particles, options)

    def respaced(self, steps: int | Sequence[int]) -> "Run":
        """Returns the run with some of the steps of its process: so many, evenly spaced, or these.

        Raises:
            UserError: the process has no such steps.
        """
        return dataclasses.replace(self, parts=build.respace_parts(self.parts, steps))

    def evaluate(
        self, limit: int | None = None, batch_size: int = 128, seed: int = 0, calls: int | None = None
    ) -> dict[str, Any]:
        """Computes the bound on the test split, or on its first examples: see `evaluate_on`."""
        if limit is not None:
            check_number("limit", limit, Count)
        return bounds.compute_bound(self.parts, self.read_batch("test", limit), batch_size, seed, calls=calls)

    def read_batch(self, split: str, limit: int | None = None) -> dict[str, np.ndarray]:
        """Reads examples of the data: "x" [N, *S], and "label" [N], "weight" and "condition" if any.

        Raises:
            UserError: the data cannot be read.
        """
        return reading.read_batch(self.parts, self.workdir, split, limit)

    def read_sample_inputs(self, limit: int | None = None) -> dict[str, Any]:
        """Reads conditions and labels of test examples, as inputs for samples: see `samples.choose_inputs`.

        Raises:
            UserError: the data cannot be read.
        """
        if self.parts.description.condition is None:
            return {}
        return choose_inputs(self.parts, self.read_batch("test", limit))

    def read_split(self, split: str, limit: int | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """Reads examples of the data [N, *S], and their labels if there are any.

        Raises:
            UserError: the data cannot be read, or has weights, which `read_batch` gives.
        """
        return reading.read_split(self.parts, self.workdir, split, limit)

    def read_last(self, split: str, n: int) -> dict[str, np.ndarray]:
        """Reads the last n examples of a split, or all if there are fewer; see `read_batch`."""
        check_number("n", n, Count)
        return reading.read_last(self.parts, self.workdir, split, n)

    def about(self) -> dict[str, Any]:
        """Describes what a figure of this run depends on, besides data and noise."""
        return describe_conditions(self.parts)

    @property
    def term(self) -> likelihood.Term:
        """Returns the function of logits whose value is the term of the bound at a step, in nats."""
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
        condition: Any = None,
    ) -> dict[str, Any]:
        """Computes the bound on x0 int32 [N, *S] and labels int32 [N]: see `measure.bounds.compute_bound`.

        Raises:
            UserError: they are not what the data is described as, but for the size of an example; the weight
                is no weight; or the network takes labels, and there are none.
        """
        x0 = np.asarray(x0)
        if labels is not None:
            labels = np.asarray(labels)
        elif self.parts.classes is not None:
            raise UserError("the network of this run takes labels: pass labels, an integer for each example")
        source = ArraySource(x0, labels, "x0")
        description = dataclasses.replace(
            self.parts.description,
            shape=x0.shape[1:],
            classes=None if labels is None else self.parts.description.classes,
            padded=False,
            condition=None,
        )
        examples = read_batch(source, self.parts.categories, None, description)
        if weight is not None:
            if np.shape(weight) != x0.shape:
                raise UserError(
                    f"the weight has shape {list(np.shape(weight))}: pass {list(x0.shape)}, as x0"
                )
            examples["weight"] = _check_weight(np.asarray(weight))
        condition = self.parts.convert_condition(condition, len(x0))
        if condition is not None:
            examples["condition"] = condition
        return bounds.compute_bound(self.parts, examples, batch_size, seed, progress, calls)


def _check_weight(weight: np.ndarray) -> np.ndarray:
    """Returns the weights of a bound. Raises UserError where it would be no mean by them."""
    # The comparisons are written so that NaN fails them.
    if not (np.all((weight >= 0) & (weight < np.inf)) and weight.any()):
        raise UserError(
            f"the weight holds {weight.min():g}..{weight.max():g}: pass finite numbers of at least 0, one of "
            f"them above 0"
        )
    return weight


def _read_integers(name: str, values: Any, largest: int) -> jax.Array:
    """Returns integers in 0..largest as an array. Raises UserError where they are none.

    Of what JAX traces, as in a score, the values are not known, and the type is checked alone.
    """
    cure = f"pass integers in 0..{largest}"
    is_traced = isinstance(values, Tracer)
    try:
        array = values if is_traced else np.asarray(values)
    except ValueError as error:
        raise UserError(f"{name} is {describe(values)}: {cure}") from error
    if not np.issubdtype(array.dtype, np.integer):
        raise UserError(f"{name} is {describe(array)}: {cure}")
    if not is_traced and np.any((array < 0) | (array > largest)):
        raise UserError(f"{name} holds {array.min()}..{array.max()}: {cure}")
    return jnp.asarray(array, jnp.int32)


def _read_known_elements(known_elements: Any) -> Given | None:
    """Returns the elements that samples have as a pair. Raises UserError where they are none."""
    if known_elements is None:
        return None
    if not isinstance(known_elements, tuple | list) or len(known_elements) != 2:
        raise UserError(
            f"known_elements is {describe(known_elements)}: pass a pair (x0, known), integers and booleans "
            f"of the shape of a sample"
        )
    return Given(*known_elements)


def train(
    config: Config,
    workdir: Path | str,
    resume: bool = False,
    start: Run | None = None,
    *,
    wandb: str | None = None,
    logs: Iterable[Log] = (),
) -> Run:
    """Trains a config, or goes on with the run in a folder, and opens it at its end.

    An interrupt is taken after the step that runs: it is saved, and the run of that step is returned.

    Args:
        config: of the run; when resuming it must be that of the run, but for `run_folder.may_change`.
        workdir: where everything is written.
        resume: go on with the run in the folder.
        start: a run whose averaged weights the new one begins with, as its weights and as their average;
            nothing else is taken over.
        wandb: a project of Weights & Biases, where the metrics are logged too, in a run of the folder's name.
        logs: further logs of the metrics: each has log(step, values) and close(), which is called at the end.

    Raises:
        UserError: a value cannot be used, the data cannot be read, or the loss is no longer finite.
    """
    check_config_type(config)
    try:
        logs = tuple(logs)
    except TypeError as error:
        raise UserError(f"logs is {describe(logs)}: pass a list of logs, each with log and close") from error
    for log in logs:
        if not (hasattr(log, "log") and hasattr(log, "close")):
            raise UserError(f"logs holds {describe(log)}: a log has methods log and close")
    if not isinstance(workdir, str | Path):
        raise UserError(f"workdir is {one_line(repr(workdir), 80)}: pass the folder to write to")
    weights = None
    if start is not None:
        if not isinstance(start, Run):
            raise UserError(
                f"start is {one_line(repr(start), 80)}: pass a run, as runs.open(folder) gives it"
            )
        weights = weights_of(start.parts)
    loop.run_training(config, Path(workdir), resume, weights, wandb, logs)
    return open_run(workdir, config)


def open_run(
    workdir: Path | str,
    config: Config | Path | str | None = None,
    step: int | None = None,
    steps: int | Sequence[int] | None = None,
    batch_size: int = 128,
    *,
    data_dir: Path | str | None = None,
) -> Run:
    """Opens the run in a folder at a checkpoint; its data is not needed.

    Args:
        workdir: that of a training.
        config: for a run with parts of your own, the file that defines them, or the config itself.
        step: which checkpoint; the last by default.
        steps: take only so many of the steps of the process, evenly spaced, or only these.
        batch_size: decides how many devices are used.
        data_dir: the folder where the data lies now, if not where it was: for `Run.evaluate` and whatever
            else reads it.

    Raises:
        UserError: there is no such run or checkpoint, it needs a config, or no data of it is in `data_dir`.
    """
    if not isinstance(workdir, str | Path):
        raise UserError(f"workdir is {one_line(repr(workdir), 80)}: pass the folder of a run")
    workdir = Path(workdir)
    if isinstance(config, str):
        config = Path(config)
    if not isinstance(config, Config | Path | None):
        raise UserError(f"config is {one_line(repr(config), 80)}: pass a Config, or the file that defines it")

    # The config in the folder is what the run was trained with. One that is passed takes its place, with
    # parts that a file of JSON cannot hold, and has to agree with it.
    saved_config = run_folder.read_config(workdir, config)
    if isinstance(config, Config):
        config = from_data.fill_from_saved(saved_config, config)
    else:
        config = saved_config
    run_folder.check_resume(saved_config, config, run_folder.read_files(workdir))
    if data_dir is not None:
        config = dataclasses.replace(config, data=move_data(config.data, str(data_dir)))
    use_all_cores(batch_size)

    description = run_folder.read_description(workdir)
    parts = build.build(config, description, steps, mesh_of(config.mesh.fsdp, asked=False))
    build.warn_of_free_mask(parts)
    return Run(workdir, build.restore_state(workdir, parts, step))
