"""Finds which few steps of a run's process have the lowest bound, and keeps what that follows from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from d3pm_jax.errors import UserError, one_line
from d3pm_jax.evaluation.jumps import jump_costs
from d3pm_jax.files import read_json, write_text
from d3pm_jax.runs.run import Run
from d3pm_jax.sampling import best_grid, even_grid

FILE = "jumps.json"
EXAMPLES = 64  # the last of the train split
MANY = 100  # times between which steps go; half as many where a pair of them takes products of large matrices
SEED = 0


class Jumps(NamedTuple):
    """Holds the costs of steps between some times of a process, for the weights of one checkpoint."""

    step: int  # the checkpoint
    times: list[int]  # increasing, the last is T
    costs: np.ndarray  # float64 [n + 1, n + 1], see `evaluation.jumps`

    def grid(self, steps: int) -> list[int]:
        """Returns the times of so many steps with the lowest bound.

        Raises:
            UserError: there are fewer times than that.
        """
        if steps > len(self.times):
            raise UserError(
                f"steps = {steps}: the best grid is one of {len(self.times)} times at most; take the even one"
            )
        return [self.times[i - 1] for i in best_grid(self.costs, steps)]


def measure(run: Run, progress: Callable[[int], Any] = lambda done: None) -> Jumps:
    """Computes the costs of a run with all of its steps, on the last examples of its train split.

    `progress` is called with the number of times that are done, of `num_times`.

    Raises:
        UserError: the data cannot be read, or a cost is NaN.
    """
    x0, labels = run.read_last("train", EXAMPLES)
    told = None if run.parts.classes is None else labels
    denoise = jax.jit(lambda xt, t: run.parts.network(run.params, xt, t, label=told))
    process, times = run.config.process.build(), even_grid(run.process.T, num_times(run))
    costs = jump_costs(denoise, process, x0, times, jax.random.key(SEED), run.term, progress)
    if np.isnan(costs).any():
        raise UserError("the bound is NaN: the weights of this checkpoint are not finite; use another one")
    return Jumps(run.step, times, costs)


def num_times(run: Run) -> int:
    """Returns between how many times steps go: all, or fewer where so many pairs would take too long."""
    return min(run.process.T, MANY if run.process.K <= 64 else MANY // 2)


def write(workdir: Path, jumps: Jumps) -> None:
    """Keeps the costs in the folder of a run."""
    columns = [jumps.costs[:t, t].tolist() for t in range(1, len(jumps.times) + 1)]
    about = {"step": jumps.step, "times": jumps.times, "examples": EXAMPLES, "seed": SEED, "costs": columns}
    write_text(workdir / FILE, json.dumps(about))


def read(workdir: Path, step: int) -> Jumps | None:
    """Reads the costs of a checkpoint; None where there are none, or those of another.

    Raises:
        UserError: the file is damaged.
    """
    path = workdir / FILE
    if not path.is_file():
        return None
    try:
        found = read_json(path)
        times, columns = found["times"], found["costs"]
        costs = np.full((len(times) + 1, len(times) + 1), np.inf)
        for t, column in enumerate(columns, 1):
            costs[:t, t] = column
        if np.isnan(costs).any() or len(columns) != len(times) or type(found["step"]) is not int:
            raise ValueError("it holds no costs")
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise UserError(f"{path} is damaged ({one_line(error)}): delete it, it is computed again") from error
    return Jumps(found["step"], times, costs) if found["step"] == step else None
