"""Reads what the commands have left in the folder of a run, for its report."""

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from d3pm_jax.config import io as config_io
from d3pm_jax.files import check_is_file
from d3pm_jax.program.loop import metrics
from d3pm_jax.program.measure import bounds, record, sample_quality, samples
from d3pm_jax.program.measure.certificate import CERTIFICATE
from d3pm_jax.program.measure.record import Record
from d3pm_jax.program.storage import names, run_folder
from d3pm_jax.runs.run import Run


class Made(NamedTuple):
    """Holds samples that were made from examples, by `d3pm sample --given`."""

    record: Record
    samples: np.ndarray  # int32 [N, *S]
    made_from: np.ndarray  # int32 [N, *S], a mask where an element was drawn from noise


@dataclasses.dataclass(frozen=True)
class Reported:
    """Holds a run and the results in its folder."""

    name: str  # no other on the page has it
    run: Run
    metrics: list[dict[str, float | int]]
    bounds: list[Record]  # the one to show first is first
    quality: list[Record]
    examples: np.ndarray | None  # of the test split int32 [N, *S]
    likelihoods: Sequence[Record] = ()  # of `d3pm eval --chain-rule`; the one to show first is first
    certificates: Sequence[Record] = ()  # of `d3pm eval --certify`
    made: Sequence[Made] = ()
    accuracies: Sequence[Record] = ()  # of `d3pm eval` of a classifier, those of this checkpoint first

    @property
    def draws_samples(self) -> bool:
        """Returns whether the run draws samples, and has a bound; a classifier has an accuracy."""
        return self.run.parts.recipe.draw is not None

    @property
    def bound(self) -> Record | None:
        """Returns the bound of this checkpoint with all steps and terms on most examples, if there is one."""
        return next((x for x in self.bounds if x.protocol["step"] == self.run.step), None)

    @property
    def likelihood(self) -> Record | None:
        """Returns the exact likelihood of most examples by this checkpoint, if there is one."""
        return next((x for x in self.likelihoods if x.protocol["step"] == self.run.step), None)

    @property
    def is_imported(self) -> bool:
        """Returns whether the run is imported weights, with which no training has begun."""
        return self.run.step == 0 and not self.metrics and self.examples is None

    @property
    def is_finished(self) -> bool:
        """Returns whether the training has come to its end, so that going on with it adds nothing."""
        return self.run.config.train.steps in self.run.list_steps()

    def evaluate(self, options: str = "") -> str:
        """Returns the command that evaluates this checkpoint."""
        command = f"d3pm eval {shlex.quote(str(self.run.workdir))}"
        if self.run.list_steps()[-1:] != [self.run.step]:  # it is not the last one
            command += f" --step {self.run.step}"
        return f"{command}{options}{self._config_option}"

    @property
    def resume(self) -> str | None:
        """Returns the command that goes on with the training; None where it would begin one."""
        if self.is_imported:
            return None
        return f"d3pm train --workdir {shlex.quote(str(self.run.workdir))} --resume{self._config_option}"

    @property
    def _config_option(self) -> str:
        """Returns the option that names the file of the user's own parts, if the run has any."""
        file = config_io.own_file(self.run.config)
        if file is None:
            return ""
        return f" --config {shlex.quote(str(file))}"


def read_folders(runs: Sequence[Run]) -> list[Reported]:
    """Reads the folders of runs.

    Raises:
        UserError: a file in one of them is damaged.
    """
    return [
        Reported(
            name,
            run,
            metrics.read_metrics(run.workdir),
            read_results(run, bounds.EVAL),
            record.read_records(run.workdir, sample_quality.QUALITY),
            (run_folder.read_examples(run.workdir, run.parts.description) or {}).get("x"),
            read_results(run, bounds.EXACT),
            read_results(run, CERTIFICATE),
            read_made(run),
            read_results(run, bounds.LABELS),
        )
        for name, run in zip(name_runs(runs), runs, strict=True)
    ]


def name_runs(runs: Sequence[Run]) -> list[str]:
    """Returns a name for each run that no other has.

    These are the names of their folders. Where two are the same, all runs are named by path, step and number
    of steps, if they have any.
    """
    folder_names = [run.workdir.resolve().name for run in runs]
    if len({*folder_names}) == len(folder_names):
        return folder_names

    long_names = []
    for run in runs:
        name = f"{run.workdir}, step {run.step}"
        num_steps = run.parts.recipe.num_steps
        if num_steps:
            name += f", {num_steps} steps"
        long_names.append(name)

    unique_names = []
    for i, name in enumerate(long_names):
        # The same run may be on the page several times, and is then told apart by its number.
        number = ""
        if long_names.count(name) > 1:
            number = f" ({long_names[: i + 1].count(name)})"
        unique_names.append(f"{name}{number}")
    return unique_names


def read_results(run: Run, file_format: record.Format) -> list[Record]:
    """Reads all results of one sort: those of this checkpoint first, and of them the most complete.

    These are bounds of most steps, with terms by t, on most examples, from most calls for each, and other
    results on most examples.

    Raises:
        UserError: one is damaged.
    """

    # Smaller keys come first.
    def order(result: Record) -> tuple[Any, ...]:
        is_of_other_step = result.protocol["step"] != run.step
        N = result.protocol["N"]
        if result.format.name != bounds.EVAL.name:
            return is_of_other_step, -N
        return (
            is_of_other_step,
            -len(result["times"]),
            not result.get("steps"),
            -N,
            -(result.get("calls") or 0),
        )

    return sorted(record.read_records(run.workdir, file_format), key=order)


def read_samples(run: Run, n: int) -> np.ndarray | None:
    """Returns the first n samples that `d3pm sample` has left; None where they are fewer, or others.

    Raises:
        UserError: a file is damaged.
    """
    protocol_path = run.workdir / "samples.json"
    path = run.workdir / "samples.npy"
    if not protocol_path.is_file() or not path.is_file():
        return None

    # The protocol of the samples that this page would draw itself.
    protocol = {
        "step": run.step,
        "num": n,
        "steps": run.parts.recipe.num_steps,
        "grid": "even",
        "seed": 0,
        "label": None,
    }
    try:
        stored = record.read_record(protocol_path, samples.SAMPLES)
        num = stored.protocol["num"]
        if record.list_incomparable(stored, Record(samples.SAMPLES, protocol)) or num < n:
            return None
        least = -1 if run.parts.description.padded else 0
        return _load_samples(path, (num, *run.parts.description.shape), run.parts.recipe.K, least)[:n]
    except (OSError, ValueError, TypeError, KeyError, EOFError) as error:
        raise record.damaged_error(protocol_path, samples.SAMPLES, error) from error


def read_made(run: Run) -> list[Made]:
    """Reads what `d3pm sample --given` has left, samples of this checkpoint alone.

    Raises:
        UserError: a file is damaged.
    """
    made = []
    for protocol_path in sorted(run.workdir.glob(f"{names.SAMPLES}*_given*.json")):
        made_from_path = run.workdir / f"{protocol_path.stem.replace(names.SAMPLES, names.MADE_FROM, 1)}.npy"
        if not made_from_path.is_file():
            continue
        stored = record.read_record(protocol_path, samples.SAMPLES)
        if stored.protocol["step"] != run.step:
            continue
        try:
            num = stored.protocol["num"]
            length = stored.protocol.get("length")
            shape = run.parts.description.shape if length is None else (length,)
            x = _load_samples(protocol_path.with_suffix(".npy"), (num, *shape), run.parts.recipe.K)
            made_from = np.load(made_from_path, allow_pickle=False)
            if made_from.dtype != np.int32 or made_from.shape[1:] != shape:
                raise ValueError(f"{made_from_path.name} holds {made_from.dtype} {list(made_from.shape)}")
        except (OSError, ValueError, TypeError, KeyError, EOFError) as error:
            raise record.damaged_error(protocol_path, samples.SAMPLES, error) from error
        made.append(Made(stored, x, made_from))
    return made


def _load_samples(path: Path, shape: tuple[int, ...], K: int, least: int = 0) -> np.ndarray:
    """Loads samples int32 [N, *S] of a shape and in least..K - 1; ValueError where there are others."""
    check_is_file(path)
    x = np.load(path, allow_pickle=False)
    if x.dtype != np.int32 or x.shape != shape:
        raise ValueError(f"it holds {x.dtype} {list(x.shape)}")
    if x.min() < least or x.max() >= K:
        raise ValueError(f"it holds {x.min()}..{x.max()}, of {K} categories")
    return x
