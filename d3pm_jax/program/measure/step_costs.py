"""Measures the cost of a step between any two times of a run, to find the best grid of few steps."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from d3pm_jax.config import checks_arguments
from d3pm_jax.config.process import build_process
from d3pm_jax.errors import UserError, one_line
from d3pm_jax.evaluation.jumps import jump_costs
from d3pm_jax.files import hash_arrays
from d3pm_jax.keys import make_key
from d3pm_jax.placing import fetch
from d3pm_jax.program.measure import record
from d3pm_jax.program.parts import reading, recipe
from d3pm_jax.program.parts.build import Parts
from d3pm_jax.program.storage import names
from d3pm_jax.sampling import best_grid, even_grid

# Costs are measured on so many examples, for steps between so many times. Of a process with more than LARGE
# categories a cost takes long, and the smaller numbers hold.
EXAMPLES = 512
FEW_EXAMPLES = 64
TIMES = 100
FEW_TIMES = 50
LARGE = 64
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
                f"steps = {steps}: the best grid has at most {len(self.times)} steps; take the even grid"
            )
        try:
            return [self.times[i - 1] for i in best_grid(self.costs, steps)]
        except ValueError as error:
            raise UserError(f"{error}; take the even grid") from error


def num_times(parts: Parts) -> int:
    """Returns the number of times between which costs are measured; where all take too long, fewer."""
    most = TIMES if parts.recipe.K <= LARGE else FEW_TIMES
    return min(parts.recipe.num_steps, most)


@checks_arguments
def measure_costs(parts: Parts, workdir: Path, progress: Callable[[int], Any] = lambda done: None) -> Jumps:
    """Computes the costs of a run with all of its steps, on examples that are not those of the test.

    They are of the data's valid split, or those that were held back, or else the last of the train split.
    `progress` is called with the number of times that are done, of `num_times`.

    Raises:
        UserError: the data cannot be read, a cost is NaN, or the process cannot take fewer steps.
    """
    diffusion = recipe.require(parts.recipe.diffusion, "a diffusion", parts.config)
    loss = parts.config.loss
    if loss.estimates_bound:
        raise UserError(
            f"loss = {type(loss).__name__} has a bound in continuous time, without steps whose costs a grid "
            f"could follow from: take the even grid"
        )
    examples = _read_examples(parts, workdir)
    extra_inputs = parts.extra_inputs(examples)
    # `predict` is spread over the devices, which have to divide the batch; `network` takes any batch.
    predict = jax.jit(diffusion.network)
    times = even_grid(parts.recipe.num_steps, num_times(parts))
    try:
        # The process is built anew with all of its steps: that of the recipe may have fewer of them.
        process = build_process(parts.config.process)
        costs = jump_costs(
            denoise=lambda xt, t: predict(parts.params, xt, t, **extra_inputs),
            process=process,
            x0=examples["x"],
            times=times,
            key=make_key(SEED),
            term=diffusion.term,
            progress=progress,
            weight=examples.get("weight"),
        )
    except ValueError as error:
        raise UserError(one_line(error, 1000)) from error
    if np.isnan(costs).any():
        raise UserError("the bound is NaN: the weights of this checkpoint are not finite; use another one")
    return Jumps(times, costs)


def _read_examples(parts: Parts, workdir: Path) -> dict[str, np.ndarray]:
    """Reads the examples that costs are measured on.

    These are not of the test split: the grid that follows from the costs would be fitted to it.
    """
    n = EXAMPLES if parts.recipe.K <= LARGE else FEW_EXAMPLES
    held_out = parts.config.train.held_out
    if held_out or not parts.config.data.has_valid:
        return reading.read_last(parts, workdir, "train", min(n, held_out or n))
    return reading.read_batch(parts, workdir, "valid", n)


def write_costs(parts: Parts, workdir: Path, jumps: Jumps) -> None:
    """Writes the costs to the folder of a run, with null for those that are infinite."""
    # Column t has a cost for each earlier time; the others are infinite, as no step goes up in time.
    columns = [jumps.costs[:t, t].tolist() for t in range(1, len(jumps.costs))]
    content = {"weights": _hash_weights(parts), "seed": SEED, "times": jumps.times, "costs": columns}
    record.write_record(record.Record(JUMPS, content), workdir, f"_step{parts.step}")


def read_costs(parts: Parts, workdir: Path) -> Jumps | None:
    """Reads the costs of a run's weights; None where there are none, or those of other weights.

    Raises:
        UserError: the file is damaged.
    """
    path = workdir / f"{JUMPS.name}_step{parts.step}.json"
    if not path.is_file():
        return None
    stored = record.read_record(path, JUMPS)
    if stored["weights"] != _hash_weights(parts):
        return None
    times = even_grid(parts.recipe.num_steps, num_times(parts))
    if stored["times"] != times:
        raise record.damaged_error(path, JUMPS, ValueError("it has other times than the process"))
    costs = np.full((len(times) + 1, len(times) + 1), np.inf)
    for t, column in enumerate(stored["costs"], 1):
        costs[:t, t] = [np.inf if cost is None else cost for cost in column]
    return Jumps(times, costs)


def _check_costs(stored: record.Record) -> None:
    """Raises where there are no weights, not a cost for each two times, or a cost is no number."""
    if not isinstance(stored["weights"], str):
        raise ValueError("it does not say of which weights")
    lengths = [len(column) for column in stored["costs"]]
    if lengths != list(range(1, len(stored["times"]) + 1)):
        raise ValueError("it has other times than the process")
    for column in stored["costs"]:
        record.check_numbers(column)


JUMPS = record.Format(
    name=names.JUMPS,
    compared=("weights", "seed"),
    replaced=(),
    damaged="{path} is damaged ({why}): delete it, d3pm eval --grid dp writes it again",
    check=_check_costs,
)


def choose_steps(parts: Parts, workdir: Path, steps: int, grid: str) -> int | list[int]:
    """Returns the number of evenly spaced steps, or the list of the steps with the lowest bound.

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
        command = f"d3pm eval {shlex.quote(str(workdir))} --step {parts.step} --steps {steps} --grid dp"
        raise UserError(
            f"the best grid of step {parts.step} is not known yet: find it from the data of the run by "
            f"{command} --limit 100"
        )
    return jumps.grid(steps)


def _hash_weights(parts: Parts) -> str:
    """Returns the SHA-256 of the averaged weights of a run."""
    return hash_arrays(*jax.tree.leaves(fetch(parts.params)))
