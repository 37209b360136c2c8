"""Gives what `measure` does with the parts of a run, and with its folder, as functions of the run itself."""

import functools
import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from d3pm_jax.measure import bounds, grids as grids_of_parts, quality as quality_of_parts
from d3pm_jax.runs.run import Run


def of_run(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a function of (parts, ...) or of (parts, workdir, ...) one of (run, ...), else as it is."""
    takes_folder = "workdir" in inspect.signature(function).parameters

    @functools.wraps(function)
    def measure(run: Run, *args: Any, **options: Any) -> Any:
        if takes_folder:
            return function(run.parts, run.workdir, *args, **options)
        return function(run.parts, *args, **options)

    return measure


exact = SimpleNamespace(mask_of=of_run(bounds.mask_of), likelihood=of_run(bounds.likelihood))
grids = SimpleNamespace(
    measure=of_run(grids_of_parts.measure),
    write=of_run(grids_of_parts.write),
    read=of_run(grids_of_parts.read),
)
quality = SimpleNamespace(prepare=of_run(quality_of_parts.prepare), measure=of_run(quality_of_parts.measure))
