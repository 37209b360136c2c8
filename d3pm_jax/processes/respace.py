"""Makes the same process in fewer steps, from its float64 numbers before they were rounded."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from d3pm_jax.checks import declared
from d3pm_jax.processes.base import Process

SpecOfProcess = TypeVar("SpecOfProcess")


@declared()
def respace(process: Process, grid: Sequence[int]) -> Process:
    """Makes the same process with fewer steps: each is the product of the steps between two of the grid.

    Made from the one-step probabilities in float64, as the process itself was. Its `time` is that of the
    steps of the grid, so a network trained on the process serves it: strided sampling and strided bounds are
    the ordinary functions on this process.

    Args:
        process: what a constructor returned.
        grid: the steps to keep, increasing, in 1..T; the last is T.

    Returns:
        A process of len(grid) steps, with the Qbar of the process at these.

    Raises:
        ValueError: the grid does not increase from at least 1 to T; the process has been through a JAX
            transformation, which keeps only its rounded tables; or a process of your own forgets its `time`.
    """
    steps = list(grid)
    if not steps or steps[0] < 1 or steps[-1] != process.T or steps != sorted(set(steps)):
        raise ValueError(f"grid = {steps}: it must increase from at least 1 and end at T = {process.T}")
    respaced = process.respaced(steps)
    expected_time = np.asarray(process.time)[[0, *steps]]
    if not np.array_equal(respaced.time, expected_time):
        raise ValueError(
            f"{type(process).__name__}.respaced returned a process with time = "
            f"{np.asarray(respaced.time)}, expected {expected_time}: keep the steps of the original "
            "process in time, as the network is called with them"
        )
    return respaced


def require_spec(spec: SpecOfProcess | None) -> SpecOfProcess:
    """Returns the float64 numbers that a process was made from. Raises ValueError where it lost them."""
    if spec is None:
        raise ValueError(
            "this process came out of a JAX transformation (jit, device_put, tree.map), which keeps only its "
            "rounded tables: respace the one that the constructor returned"
        )
    return spec


def steps_between(grid: Sequence[int]) -> list[range]:
    """Lists for each step of the grid the steps since the one before, itself the last of them."""
    return [range(a + 1, b + 1) for a, b in zip([0, *grid], grid, strict=False)]


def compose(p: np.ndarray, grid: Sequence[int]) -> np.ndarray:
    """1 - prod(1 - p_t) over the steps between those of the grid, float64 [len(grid)], from p [T]."""
    # In logs, as 1 - prod(1 - p) would lose the digits of small probabilities.
    with np.errstate(divide="ignore"):
        log_never = np.log1p(-p)  # [T]
    log_products = [sum(log_never[t - 1] for t in steps) for steps in steps_between(grid)]
    return -np.expm1(np.array(log_products))
