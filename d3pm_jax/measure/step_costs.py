"""Finds which few steps of a run's process have the lowest bound, and keeps what that follows from."""

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from d3pm_jax.errors import UserError, one_line
from d3pm_jax.evaluation.jumps import jump_costs
from d3pm_jax.files import read_json, write_text
from d3pm_jax.parts import reading
from d3pm_jax.parts.build import Parts
from d3pm_jax.placing import fetch
from d3pm_jax.sampling import best_grid, even_grid
from d3pm_jax.storage.names import JUMPS

EXAMPLES, FEW_EXAMPLES = 512, 64  # to measure costs on
TIMES, FEW_TIMES = 100, 50  # between which steps go
LARGE = 64  # categories from which on a cost takes long, and few are taken
SEED = 0


class Jumps(NamedTuple):
    """Holds the costs of steps between some times of a process."""

    times: list[int]  # increasing, the last is T
    costs: np.ndarray  # float64 [n + 1, n + 1], see `evaluation.jumps`

    def grid(self, steps: int) -> list[int]:
        """Returns the times of so many steps with the lowest bound.

        Raises:
            UserError: there are fewer times than that, or every grid has an infinite bound.
        """
        if steps > len(self.times):
            raise UserError(
                f"steps = {steps}: the best grid is one of {len(self.times)} times at most; take the even one"
            )
        try:
            return [self.times[i - 1] for i in best_grid(self.costs, steps)]
        except ValueError as error:
            raise UserError(f"{error}; take the even grid") from error


def num_times(parts: Parts) -> int:
    """Returns between how many times steps go: all, or fewer where so many pairs would take too long."""
    return min(parts.process.T, TIMES if parts.process.K <= LARGE else FEW_TIMES)


def measure_costs(parts: Parts, workdir: Path, progress: Callable[[int], Any] = lambda done: None) -> Jumps:
    """Computes the costs of a run with all of its steps, on examples that are not those of the test.

    They are of the data's valid split, or those that were held back, or else the last of the train split.
    `progress` is called with the number of times that are done, of `num_times`.

    Raises:
        UserError: the data cannot be read, a cost is NaN, or the process cannot take fewer steps.
    """
    examples = _examples(parts, workdir)
    told = parts.extra_inputs(examples)
    predict = jax.jit(parts.network)
    times = even_grid(parts.process.T, num_times(parts))
    try:
        process = parts.config.process.build()
        costs = jump_costs(
            lambda xt, t: predict(parts.params, xt, t, **told),
            process,
            examples["x"],
            times,
            jax.random.key(SEED),
            parts.term,
            progress,
            examples.get("weight"),
        )
    except ValueError as error:
        raise UserError(one_line(error, 1000)) from error
    if np.isnan(costs).any():
        raise UserError("the bound is NaN: the weights of this checkpoint are not finite; use another one")
    return Jumps(times, costs)


def _examples(parts: Parts, workdir: Path) -> dict[str, np.ndarray]:
    wanted, held_out = EXAMPLES if parts.process.K <= LARGE else FEW_EXAMPLES, parts.config.train.held_out
    if held_out or not parts.config.data.has_valid:
        return reading.read_last(parts, workdir, "train", min(wanted, held_out or wanted))
    return reading.read_batch(parts, workdir, "valid", wanted)


def costs_path(parts: Parts, workdir: Path) -> Path:
    """Names the file that keeps the costs of a run's weights."""
    return workdir / f"{JUMPS}_step{parts.step}.json"


def write_costs(parts: Parts, workdir: Path, jumps: Jumps) -> None:
    """Keeps the costs in the folder of a run, with null for those that are infinite."""
    columns = [
        [x if math.isfinite(x) else None for x in jumps.costs[:t, t].tolist()]
        for t in range(1, len(jumps.times) + 1)
    ]
    about = {"weights": _weights(parts), "seed": SEED, "times": jumps.times}
    write_text(costs_path(parts, workdir), json.dumps(about | {"costs": columns}, allow_nan=False))


def read_costs(parts: Parts, workdir: Path) -> Jumps | None:
    """Reads the costs of a run's weights; None where there are none, or those of other weights.

    Raises:
        UserError: the file is damaged.
    """
    if not costs_path(parts, workdir).is_file():
        return None
    times = even_grid(parts.process.T, num_times(parts))
    try:
        found = read_json(costs_path(parts, workdir))
        if found["weights"] != _weights(parts):
            return None
        costs = np.full((len(times) + 1, len(times) + 1), np.inf)
        if found["times"] != times or [len(x) for x in found["costs"]] != list(range(1, len(costs))):
            raise ValueError("it has other times than the process")
        for t, column in enumerate(found["costs"], 1):
            costs[:t, t] = [math.inf if x is None else float(x) for x in column]
    except (OSError, ValueError, TypeError, LookupError) as error:
        why = f"{costs_path(parts, workdir)} is damaged ({one_line(error)})"
        raise UserError(f"{why}: delete it, d3pm eval --grid dp writes it again") from error
    return Jumps(times, costs)


def choose_steps(parts: Parts, workdir: Path, steps: int, grid: str) -> int | list[int]:
    """Returns which steps of a process to take: so many, evenly spaced, or those with the lowest bound.

    Args:
        parts: of the run in the folder.
        workdir: of the run.
        steps: how many.
        grid: "even" or "dp".

    Raises:
        UserError: the process has not so many, or `d3pm eval` has not computed what the best follow from.
    """
    if grid == "even":
        return steps
    jumps = read_costs(parts, workdir)
    if jumps is None:
        raise UserError(
            f"the best grid of step {parts.step} is not known yet: d3pm eval {workdir} --step {parts.step} "
            f"--steps {steps} --grid dp --limit 100 finds it, with the data of the run"
        )
    return jumps.grid(steps)


def _weights(parts: Parts) -> str:
    """Hashes the averaged weights of a run."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(fetch(parts.params)):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()
