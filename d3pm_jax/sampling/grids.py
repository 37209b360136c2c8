"""Chooses grids for `processes.respace`: which steps of a process to take, of a number that is given."""

import numpy as np

from d3pm_jax.checks import NUM_STEPS, declared


@declared(T=NUM_STEPS)
def even_grid(T: int, steps: int) -> list[int]:
    """ceil(i T / steps) for i = 1..steps.

    Args:
        T: number of steps of the process.
        steps: how many to keep, 1..T.

    Returns:
        Increasing step numbers, the last of them T.

    Raises:
        ValueError: steps is outside 1..T.
    """
    _check_steps(steps, T)
    return [-(-i * T // steps) for i in range(1, steps + 1)]


@declared()
def best_grid(costs: np.ndarray, steps: int) -> list[int]:
    """argmin over 0 < t_1 < .. < t_steps = T of sum_i costs[t_{i-1}, t_i], t_0 = 0 (Watson et al. 2021).

    By dynamic programming, O(steps T^2). With the terms of the bound as costs it is the grid with the lowest
    bound.

    Args:
        costs: [T + 1, T + 1]; [s, t] is the cost of one step from t to s < t, inf for one that cannot be
            taken; the others do not count.
        steps: how many to take, 1..T.

    Returns:
        Increasing step numbers, the last of them T. Of equal sums, that whose last steps are the longest.

    Raises:
        ValueError: steps is outside 1..T, a cost is NaN or -inf, or every grid has an infinite sum.
    """
    if costs.ndim != 2 or costs.shape[0] != costs.shape[1] or len(costs) < 2:
        raise ValueError(f"costs have shape {costs.shape}: expected [T + 1, T + 1] with T >= 1")
    T = len(costs) - 1
    _check_steps(steps, T)
    if np.any(np.isnan(costs) | (costs == -np.inf)):
        raise ValueError("costs hold NaN or -inf: no grid is the best; compute them from finite weights")
    allowed = np.where(np.triu(np.ones(costs.shape, bool), 1), costs, np.inf)

    # After i rounds least[t] is the least cost of going from 0 to t in i steps, and best_previous[i - 1][t]
    # the step before t on that way. Of equal sums argmin takes the lowest s, so the longest last step.
    least = np.full(T + 1, np.inf)
    least[0] = 0.0
    best_previous = []
    for _ in range(steps):
        sums = least[:, None] + allowed  # [s, t]
        best_previous.append(np.argmin(sums, axis=0))
        least = np.min(sums, axis=0)
    if least[T] == np.inf:
        raise ValueError(f"every grid of {steps} steps has an infinite cost")

    # Back from T along the steps before; the first round leads to 0, which is not of the grid.
    grid = [T]
    for previous in best_previous[:0:-1]:
        grid.append(int(previous[grid[-1]]))
    return grid[::-1]


def _check_steps(steps: int, T: int) -> None:
    """Raises ValueError for a number of steps that a process of T steps has not."""
    if not 1 <= steps <= T:
        raise ValueError(f"steps = {steps}: it must be in 1..{T}, the steps of the process")
