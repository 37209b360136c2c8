"""Reads what the commands have left in the folder of a run, for its report."""

import dataclasses
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from d3pm_jax.config import io as config_io
from d3pm_jax.errors import UserError, one_line
from d3pm_jax.files import read_json
from d3pm_jax.loop import metrics
from d3pm_jax.measure import protocol
from d3pm_jax.report.plots import LARGE
from d3pm_jax.runs.run import Run
from d3pm_jax.storage import checkpoint
from d3pm_jax.storage import workdir as folders
from d3pm_jax.storage.names import CHECKPOINTS

EVAL = re.compile(r"eval(_.*)?\.json")
NUMBERS = ("bits_per_dim", "standard_error", "nats", "nats_standard_error", "reconstruction", "prior")


@dataclasses.dataclass(frozen=True)
class Bound:
    """Holds a file of `d3pm eval`; a number that is None was infinite, or is of one example alone."""

    path: Path
    result: dict[str, Any]

    @property
    def protocol(self) -> dict[str, Any]:
        """Returns what the bound depends on, by the names of `d3pm eval`; the file's own of old runs."""
        old = {"N": self.result.get("examples"), "seed": self.result.get("seed"), "step": self.result["step"]}
        return old | {"steps": self.steps} | self.result.get("protocol", {})

    @property
    def steps(self) -> int:
        """Counts the steps of the process."""
        return len(self.result["times"])

    @property
    def terms(self) -> list[float | None]:
        """Returns the term of every t in bits per dimension; none where they were not all computed."""
        return self.result.get("steps", [])


@dataclasses.dataclass(frozen=True)
class Record:
    """Holds a run and what is in its folder."""

    name: str  # no other on the page has it
    run: Run
    metrics: list[dict[str, float | int]]
    bounds: list[Bound]  # the one to show first is first
    quality: list[protocol.Figures]
    examples: np.ndarray | None  # of the test split int32 [N, *S]

    @property
    def bound(self) -> Bound | None:
        """Returns the bound of this checkpoint with all steps and terms on most examples, if there is one."""
        return next((x for x in self.bounds if x.result["step"] == self.run.step), None)

    def evaluate(self, options: str = "") -> str:
        """Returns the command that evaluates this checkpoint."""
        there = checkpoint.steps(self.run.workdir / CHECKPOINTS)
        step = "" if there[-1:] == [self.run.step] else f" --step {self.run.step}"
        return f"d3pm eval {shlex.quote(str(self.run.workdir))}{step}{options}{self._own}"

    @property
    def resume(self) -> str:
        """Returns the command that goes on with the training."""
        return f"d3pm train --workdir {shlex.quote(str(self.run.workdir))} --resume{self._own}"

    @property
    def _own(self) -> str:
        """Returns the option that names the file of the user's own parts, if the run has any."""
        file = config_io.own_file(self.run.config)
        return "" if file is None else f" --config {shlex.quote(str(file))}"


def read(runs: Sequence[Run]) -> list[Record]:
    """Reads the folders of runs.

    Raises:
        UserError: a file in one of them is damaged.
    """
    return [_record(name, run) for name, run in zip(names(runs), runs, strict=True)]


def names(runs: Sequence[Run]) -> list[str]:
    """Returns a name for each run that no other has: of its folder, or with all that tells runs apart."""
    short = [run.workdir.resolve().name for run in runs]
    if len({*short}) == len(short):
        return short
    long = [f"{run.workdir}, step {run.step}, {run.process.T} steps" for run in runs]
    return [
        name if long.count(name) == 1 else f"{name} ({long[: i + 1].count(name)})"
        for i, name in enumerate(long)
    ]


def _record(name: str, run: Run) -> Record:
    folder = run.workdir
    return Record(
        name,
        run,
        metrics.read(folder),
        read_bounds(run),
        protocol.read([folder]),
        folders.read_examples(folder, run.parts.description),
    )


def read_bounds(run: Run) -> list[Bound]:
    """Reads all files of `d3pm eval`: those of this checkpoint first, and of them the most complete.

    Raises:
        UserError: one is damaged.
    """
    paths = [path for path in sorted(run.workdir.glob("eval*.json")) if EVAL.fullmatch(path.name)]
    found = [_bound(path) for path in paths]

    def order(bound: Bound) -> tuple[Any, ...]:
        examples = bound.result.get("examples") or 0
        return bound.result["step"] != run.step, -bound.steps, not bound.terms, -examples

    return sorted(found, key=order)


def _bound(path: Path) -> Bound:
    try:
        tree = read_json(path)
        if not isinstance(tree, dict) or {type(tree["step"]), type(tree.get("examples", 0))} != {int}:
            raise ValueError("it names no step, or not how many examples")
        steps = tree.get("steps", [])
        times = tree.setdefault("times", list(range(1, len(steps) + 1)))  # files of old runs have none
        if not isinstance(times, list) or not times or len(steps) not in (0, len(times)):
            raise ValueError("its times are not those of its terms")
        rows = [tree.get(name) for name in NUMBERS], times, steps, tree.get("baselines", {}).values()
        if "bits_per_dim" not in tree or not all(map(_is_number, [x for row in rows for x in row])):
            raise ValueError("a figure is no number")
        if not isinstance(tree.get("protocol", {}), dict):
            raise ValueError("its protocol is no table")
        return Bound(path, tree)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        cure = "delete it, `d3pm eval` writes it again"
        raise UserError(f"{path} is damaged ({one_line(error)}): {cure}") from error


def _is_number(x: Any) -> bool:
    return x is None or (type(x) in (int, float) and abs(x) < LARGE)


def read_samples(run: Run, n: int) -> np.ndarray | None:
    """Returns the first n samples that `d3pm sample` has left; None where they are fewer, or others.

    Raises:
        UserError: a file is damaged.
    """
    about, path = run.workdir / "samples.json", run.workdir / "samples.npy"
    if not about.is_file() or not path.is_file():
        return None
    try:
        tree = read_json(about)
        wanted = {"step": run.step, "steps": run.process.T, "grid": "even", "seed": 0, "label": None}
        if {name: tree[name] for name in wanted} != wanted or tree["num"] < n:
            return None
        x = np.load(path, allow_pickle=False)
        if x.dtype != np.int32 or x.shape != (tree["num"], *run.parts.description.shape):
            raise ValueError(f"it holds {x.dtype} {list(x.shape)}")
        if x.min() < 0 or x.max() >= run.process.K:
            raise ValueError(f"it holds {x.min()}..{x.max()}, of {run.process.K} categories")
        return x[:n]
    except (OSError, ValueError, TypeError, KeyError, EOFError) as error:
        why = f"{path} or {about.name} is damaged ({one_line(error)})"
        raise UserError(f"{why}: delete both, `d3pm sample` writes them again") from error
