"""Trains and opens runs from Python, as the commands do from a shell."""

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from d3pm_jax import likelihood
from d3pm_jax.checks.arrays import describe
from d3pm_jax.config import (
    AnyPath,
    Config,
    Count,
    Natural,
    NonEmptyStr,
    Seed,
    check_instance,
    checks_arguments,
    io as config_io,
    move_data,
)
from d3pm_jax.data import ArraySource, read_batch
from d3pm_jax.errors import UserError
from d3pm_jax.kinds import Reference
from d3pm_jax.processes import Process
from d3pm_jax.program.loop import loop, sinks
from d3pm_jax.program.machine.devices import mesh_of, use_all_cores
from d3pm_jax.program.measure import (
    bounds,
    certificate,
    filling,
    record,
    sample_quality,
    samples,
    step_costs,
)
from d3pm_jax.program.measure.examples import check_examples
from d3pm_jax.program.parts import begin, build, inputs, reading
from d3pm_jax.program.parts.completed import complete
from d3pm_jax.program.parts.draw import Draw
from d3pm_jax.program.parts.recipe import Diffusion, require
from d3pm_jax.program.storage import checkpoint, names, run_folder, run_format
from d3pm_jax.projection import all_logits
from d3pm_jax.sampling import Sampler
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
        """Returns the forward process of a diffusion, respaced where fewer steps were asked for."""
        self._diffusion  # noqa: B018  raises where the run trains something else
        return self.parts.recipe.process

    @property
    def _diffusion(self) -> Diffusion:
        return require(self.parts.recipe.diffusion, "a diffusion", self.config)

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
        return build.make_caption(self.workdir, self.parts)

    def predict(self, xt: Any, t: Any, label: Any = None, condition: Any = None) -> jax.Array:
        """Returns logits of x_0 [B, *S, K] for x_t int32 [B, *S] at t int32 [B], a step of process.time.

        Of a head that gives log scores it returns these.

        It takes no weight: padding is seen as the category that stands there. Cut padded examples to their
        lengths, or pass the weight to `runs.denoiser` of exported weights.

        Raises:
            UserError: an argument is something else, or the network takes no such label or condition.
        """
        recipe = self.parts.recipe
        network = self._diffusion.network
        xt, t = inputs.read_examples(xt, t, self.parts.description, recipe.K, int(recipe.times[-1]))
        num_labels = recipe.classes if recipe.dropping is None else recipe.dropping.num_labels
        label = inputs.read_label(label, num_labels, len(xt))
        condition = self.parts.convert_condition(condition, len(xt))
        return all_logits(jax.jit(network)(self.params, xt, t, label=label, condition=condition))

    def classify(self, xt: Any, t: Any) -> jax.Array:
        """Returns log p(label | x_t, t) [B, classes] for x_t int32 [B, *S] at t int32 [B], of a classifier.

        Args:
            xt: noised examples.
            t: of each, a step of process.time; 0 for clean examples.

        Raises:
            UserError: the run trains no classifier, xt are no examples of its data, or t is not a step for
                each of them.
        """
        recipe = self.parts.recipe
        classifier = require(recipe.classifier, "a classifier", self.config)
        xt, t = inputs.read_examples(xt, t, self.parts.description, recipe.K, int(recipe.times[-1]))
        classify = self.parts.once("classify", lambda: jax.jit(classifier.classify))
        return classify(self.params, xt, t)

    def sample(
        self,
        key: jax.Array,
        n: int,
        draw: Draw = Draw(),
        *,
        batch_size: int = 128,
        progress: Callable[[int], Any] = lambda done: None,
        chains: int | None = None,
    ) -> samples.Drawn:
        """Draws n samples.

            run.sample(jax.random.key(0), 64, runs.Draw(label=3, sampler="ddim")).x0

        Args:
            key: a typed key. Sample i depends on its number, on the key, its label, its condition and its
                known elements alone, not on n or the batch size.
            n: how many.
            draw: what is asked for: labels, known elements, examples to edit, a sampler, guidance, a score.
            batch_size: how many chains at a time, and at least those of one sample.
            progress: is called with the number of samples that are done.
            chains: return recorded states of so many samples alone, the first ones.

        Returns:
            `Drawn`: x_0 int32 [n, *S], recorded states [R, n, *S], and how many calls of the network they
            took; with a score also all candidates or particles with their scores.

        Raises:
            UserError: the network gave NaN, takes no such label or condition, the sampler or the guidance is
                not for this run, a score cannot be used, or an argument cannot be used.
        """
        if isinstance(draw, Draw) and self.parts.description.padded:
            kept_examples = run_folder.read_examples(self.workdir, self.parts.description)
            draw = samples.pad_as_examples(self.parts, draw, kept_examples)
        return samples.draw_samples(
            self.parts, key, n, draw, batch_size=batch_size, progress=progress, chains=chains
        )

    def make_frame(self, x0: np.ndarray, seed: int = 0) -> Any:
        """Returns samples or examples of a table, int [N, D], as a DataFrame of pandas.

        It has the names and values of the columns, and numbers are drawn uniformly within their bins: from
        the seed of `d3pm sample` those that it writes to samples.csv.

        Args:
            x0: categories.
            seed: of the numbers.

        Raises:
            UserError: the data of the run is no table.
        """
        frame = self.parts.kind.make_frame(np.asarray(x0), seed)
        if frame is None:
            raise UserError(f"the data of this run is of kind {self.parts.kind.name!r}, which is no table")
        return frame

    def respaced(self, steps: int | Sequence[int]) -> "Run":
        """Returns the run with some of the steps of its process: so many, evenly spaced, or these.

        Raises:
            UserError: the process has no such steps.
        """
        return dataclasses.replace(self, parts=build.respace_parts(self.parts, steps))

    @checks_arguments
    def evaluate(
        self, limit: Count | None = None, batch_size: int = 128, seed: int = 0, calls: int | None = None
    ) -> record.Record:
        """Computes the bound on the test split, or on its first examples: see `evaluate_on`."""
        return bounds.compute_bound(
            self.parts,
            self.read_batch("test", limit),
            batch_size,
            seed,
            calls=calls,
            split=bounds.name_test_split(self.parts),
        )

    @checks_arguments
    def read_batch(self, split: NonEmptyStr, limit: Count | None = None) -> dict[str, np.ndarray]:
        """Reads examples of the data: "x" [N, *S], and "label" [N], "weight" and "condition" if any.

        Raises:
            UserError: the data cannot be read.
        """
        return reading.read_batch(self.parts, self.workdir, split, limit)

    @checks_arguments
    def read_sample_inputs(self, limit: Count | None = None) -> dict[str, Any]:
        """Reads conditions, labels and padding of test examples, as fields of a `Draw`.

        Raises:
            UserError: the data cannot be read.
        """
        if self.parts.description.condition is None and not self.parts.description.padded:
            return {}
        return samples.choose_inputs(self.parts, self.read_batch("test", limit))

    @checks_arguments
    def read_split(
        self, split: NonEmptyStr, limit: Count | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Reads examples of the data [N, *S], and their labels if there are any.

        Raises:
            UserError: the data cannot be read, or has weights, which `read_batch` gives.
        """
        return reading.open_whole(self.parts, self.workdir, split).read_unweighted(limit)

    @checks_arguments
    def read_last(self, split: NonEmptyStr, n: Count) -> dict[str, np.ndarray]:
        """Reads the last n examples of a split, or all if there are fewer; see `read_batch`."""
        return reading.read_last(self.parts, self.workdir, split, n)

    def about(self) -> dict[str, Any]:
        """Describes what a figure of this run depends on, besides data and noise."""
        return build.describe_conditions(self.parts)

    def compute_likelihood(
        self,
        examples: Mapping[str, np.ndarray],
        batch_size: int = 128,
        seed: int = 0,
        progress: Callable[[int], Any] = lambda done: None,
        orders: filling.AnyOrders = None,
    ) -> record.Record:
        """Computes -log p of examples by the chain rule, see `measure.bounds.compute_likelihood`.

        Args:
            examples: "x" [N, *S], "label", "weight" and "condition" if any, as `read_batch` gives them.
            batch_size: how many at a time.
            seed: of the random orders.
            progress: is called with the number of examples that are done in the two orders, and then in all
                others.
            orders: more random orders, `runs.Orders(16)`, of which the mean and the mixture are computed;
                "all": the mixture of all orders, of at most 16 elements.

        Raises:
            UserError: the network sees time, or has no extra mask; or the examples are no such dict.
        """
        return bounds.compute_likelihood(self.parts, examples, batch_size, seed, progress, orders=orders)

    @checks_arguments
    def certify(
        self,
        n: Count,
        draws: Count = certificate.DRAWS,
        batch_size: int = 128,
        seed: int = 0,
        progress: Callable[[int], Any] = lambda done: None,
    ) -> record.Record:
        """Computes bounds, likelihoods and where it can be had the truth of the first n test examples.

        Args:
            n: how many.
            draws: how many orders, or paths where the network has no chain rule, of each example.
            batch_size: how many at a time.
            seed: of the noise and the orders.
            progress: is called with the number of examples that are done, anew for each computation.

        Returns:
            `rows`, each with what it is the likelihood of and its paired `difference` to the row that is
            the `reference`: see `measure.certificate.compute_certificate`, and docs/certificate.md.

        Raises:
            UserError: the run trains no diffusion, or the data cannot be read.
        """
        self._diffusion  # noqa: B018  raises before the data is read
        split = bounds.name_test_split(self.parts)
        examples = self.read_batch("test", n)
        return certificate.compute_certificate(self.parts, examples, draws, batch_size, seed, progress, split)

    def measure_jumps(self, progress: Callable[[int], Any] = lambda done: None) -> step_costs.Jumps:
        """Computes what a step between any two times costs, on examples that are not those of the test.

        Raises:
            UserError: the data cannot be read, a cost is NaN, or the process cannot take fewer steps.
        """
        return step_costs.measure_costs(self.parts, self.workdir, progress)

    def prepare_quality(self, num: int, batch_size: int = 128, inception: Path | None = None) -> Reference:
        """Prepares the comparison of samples with the data, and measures what they compete with.

        Args:
            num: how many samples.
            batch_size: examples at a time.
            inception: a file of weights of Inception, in whose features images are compared.

        Raises:
            UserError: there are too few samples or examples, or no way to measure such data.
        """
        return sample_quality.prepare_reference(self.parts, self.workdir, num, batch_size, inception)

    @checks_arguments
    def measure_quality(
        self,
        reference: Reference,
        num: Count,
        seed: int = 0,
        batch_size: int = 128,
        progress: Callable[[int], Any] = lambda done: None,
        sampler: Sampler | str | None = None,
    ) -> sample_quality.SampleQuality:
        """Draws samples and compares them with the data.

        Args:
            reference: of `prepare_quality`, of this run or one on the same data.
            num: how many samples, as many as it was prepared for.
            seed: of their noise.
            batch_size: samples at a time.
            progress: is called with the number of samples that are done.
            sampler: as that of a `Draw`.

        Returns:
            The samples int32 [num, *S], and the record of their figures, beside those of the reference.

        Raises:
            UserError: the sampler is not for this run, or samples or figures cannot be used.
        """
        draw = Draw(sampler=sampler, **self.read_sample_inputs(num))
        return sample_quality.measure_quality(self.parts, reference, num, draw, seed, batch_size, progress)

    def list_steps(self) -> list[int]:
        """Returns the steps of the complete checkpoints in the folder, in order."""
        return checkpoint.list_steps(self.workdir / names.CHECKPOINTS)

    @property
    def term(self) -> likelihood.Term:
        """Returns the function of logits whose value is the term of the bound at a step, in nats.

        Raises:
            UserError: the bound is one in continuous time.
        """
        loss = self.config.loss
        if loss.estimates_bound:
            raise UserError(
                f"loss = {type(loss).__name__} has a bound in continuous time, and no terms of steps: "
                f"`evaluate_on` computes it"
            )
        return self._diffusion.term

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
    ) -> record.Record:
        """Computes the bound on examples, or of a classifier its accuracy.

        The arrays of a batch of `read_batch` are passed one by one.

        Args:
            x0: examples int32 [N, *S].
            labels: int32 [N], where the network takes labels.
            batch_size: examples at a time.
            seed: of the noise.
            progress: is called with the number of examples that are done.
            calls: how many calls of the network, for each example, the bound is estimated from, by default
                one for every t. Of a flow draws of v, of a classifier steps at which it names the class.
            weight: floats [N, *S] of padded data, 0 on padding.
            condition: [N, *C], where the network takes one.

        Returns:
            Bits per dimension, nats per example and their errors, or the accuracy.

        Raises:
            UserError: they are not what the data is described as, but for the size of an example; the weight
                is no weight, or padded data has none; or the network takes labels, and there are none.
        """
        examples = self._check_examples(x0, labels, weight, condition)
        return bounds.compute_bound(self.parts, examples, batch_size, seed, progress, calls)

    @checks_arguments
    def log_prob(
        self, x: Any, given: Any = None, orders: Any = None, batch_size: Count = 128, seed: Seed = 0
    ) -> np.ndarray:
        """Computes log p(x) in nats, float [N], of a network that fills in masks and sees no time.

            run.log_prob(x)  # from left to right
            run.log_prob(x, orders=runs.Orders(16))  # the mixture of 16 random orders, a law that sums to 1
            run.log_prob(x, given=mask, orders="all")  # log p(the rest | what is given)

        With `given`, one order that begins with what is given has log p(the rest | given) exactly. Several,
        or "all", have their mixture over orders of the rest, with the given visible: the law of infilling.

        Args:
            x: examples int32 [N, *S]; or a batch as `read_batch` gives it, with "label", "weight" or
                "condition".
            given: bool [*S] or [N, *S], which elements are given.
            orders: None: from left to right; `runs.Orders(M)`: their mixture; "all": that of all orders, of
                whole examples of at most 16 elements; floats in [0, 1) [*S] or [M, *S], the element of the
                lowest first: the mixture of these orders.
            batch_size: how many at a time.
            seed: of random orders.

        Raises:
            UserError: the network has no chain rule, or an argument cannot be used.
        """
        return filling.compute_log_prob(self.parts, self._check_batch(x), given, orders, batch_size, seed)

    def bayes_conditional(self, x: Any, given: Any) -> np.ndarray:
        """Computes log p(the rest of x | what is given) in nats, float [N], by Bayes' rule.

        The law is the mixture over all orders of whole examples, which is enumerated. What it says more than
        `log_prob(x, given, "all")` is the inconsistency of the network, whose answers need not be of one law.

        Args:
            x: as for `log_prob`, without "label", "weight" and "condition".
            given: bool [*S] or [N, *S], which elements are given.

        Raises:
            UserError: the network has no chain rule, there are more than 2 million partial examples, or an
                argument cannot be used.
        """
        return filling.compute_bayes(self.parts, self._check_batch(x), given)

    def _check_batch(self, x: Any) -> dict[str, np.ndarray]:
        """Returns arrays of a batch, or of x alone, for the chain rule. Raises UserError as `log_prob`."""
        filling.require_fillable_mask(self.parts)
        batch = x if isinstance(x, Mapping) else {"x": x}
        check_examples(batch)
        return self._check_examples(*(batch.get(name) for name in ("x", "label", "weight", "condition")))

    def _check_examples(self, x0: Any, labels: Any, weight: Any, condition: Any) -> dict[str, np.ndarray]:
        """Returns arrays that a user passed as a batch. Raises UserError for what is none of this data."""
        x0 = inputs.to_array("x0", x0, "pass integers [N, *S]")
        if labels is not None:
            labels = np.asarray(labels)
        if weight is None and self.parts.description.padded:
            raise UserError("the data of this run is padded: pass weight too, 0 on padding and 1 elsewhere")
        source = ArraySource(x0, labels, "x0")
        description = dataclasses.replace(
            self.parts.description,
            shape=x0.shape[1:],
            classes=None if labels is None else self.parts.description.classes,
            padded=False,
            condition=None,
        )
        examples = read_batch(source, self.parts.recipe.categories, None, description)
        if labels is None and self.parts.recipe.classes is not None:
            raise UserError(
                "the network of this run takes labels: pass labels, an integer for each example (in a batch "
                '"label")'
            )
        if weight is not None:
            examples["weight"] = inputs.read_weight(weight, x0.shape)
        condition = self.parts.convert_condition(condition, len(x0))
        if condition is not None:
            examples["condition"] = condition
        return examples


@checks_arguments
def train(
    config: Config,
    workdir: AnyPath,
    resume: bool = False,
    start: Run | None = None,
    *,
    wandb: NonEmptyStr | None = None,
    logs: Iterable[sinks.Log] = (),
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
    config_io.check_config(config)
    try:
        logs = tuple(logs)
    except TypeError as error:
        raise UserError(f"logs is {describe(logs)}: pass a list of logs, each with log and close") from error
    for log in logs:
        if not (callable(getattr(log, "log", None)) and callable(getattr(log, "close", None))):
            raise UserError(f"logs holds {describe(log)}: a log has methods log and close")
    weights = None
    if start is not None:
        check_instance("start", start, Run, "pass a run, as runs.open(folder) gives it")
        weights = begin.weights_of(start.parts)
    workdir = Path(workdir)
    saved = run_folder.read_run_to_resume(workdir, config) if resume else None
    return Run(workdir, loop.run_training(config, workdir, saved, weights, wandb, logs))


@checks_arguments
def open_run(
    workdir: AnyPath,
    config: Config | Path | str | None = None,
    step: Natural | None = None,
    steps: build.Steps | None = None,
    batch_size: Count = 128,
    *,
    data_dir: AnyPath | None = None,
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
    workdir = Path(workdir)
    if isinstance(config, str):
        config = Path(config)
    check_instance("config", config, Config | Path | None, "pass a Config, or the file that defines it")

    # The config in the folder is what the run was trained with. One that is passed takes its place, with
    # parts that a file of JSON cannot hold, and has to agree with it.
    if isinstance(config, Config):
        config_io.check_config(config)
    saved = run_folder.read_run(workdir, config)
    if not isinstance(config, Config):
        config = saved.config
    return open_saved(saved, config, step, steps, batch_size, data_dir)


def open_saved(
    saved: run_folder.SavedRun,
    config: Config,
    step: int | None,
    steps: int | Sequence[int] | None,
    batch_size: int,
    data_dir: Path | str | None,
) -> Run:
    """Opens a run as `open_run` does, of which the folder has been read, with a config that was checked."""
    config = run_folder.adopt_numbers(saved, config)
    other_settings = run_format.describe_other_settings(saved.settings)
    if other_settings:
        warnings.warn(f"the run in {saved.workdir} {other_settings}", stacklevel=3)
    if data_dir is not None:
        config = dataclasses.replace(config, data=move_data(config.data, str(data_dir)))
    use_all_cores(batch_size)
    completed = complete(config, run_folder.describe_saved(saved))
    parts = build.build(completed, steps, mesh_of(config.mesh.fsdp, asked=False))
    return Run(saved.workdir, build.restore_state(saved.workdir, parts, step))
