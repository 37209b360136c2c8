"""Measures the cost of a step between any two times, see `measure.step_costs`."""

from collections.abc import Callable
from typing import Any

from d3pm_jax.measure import step_costs
from d3pm_jax.measure.step_costs import Jumps
from d3pm_jax.runs.run import Run


def measure(run: Run, progress: Callable[[int], Any] = lambda done: None) -> Jumps:
    """Computes the costs of a run with all of its steps, on examples that are not those of the test."""
    return step_costs.measure_costs(run.parts, run.workdir, progress)


def write(run: Run, jumps: Jumps) -> None:
    """Writes the costs to the folder of a run."""
    step_costs.write_costs(run.parts, run.workdir, jumps)


def read(run: Run) -> Jumps | None:
    """Reads the costs of a run's weights; None where there are none, or those of other weights."""
    return step_costs.read_costs(run.parts, run.workdir)
