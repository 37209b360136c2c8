"""Chooses the steps of a process where fewer are asked for: grids for `processes.respace`."""

from fractions import Fraction
from functools import cache
from math import ceil

from torch import Tensor

from torch_ref.checks import declared


@declared(T="count", steps="count")
def even_grid(T: int, steps: int) -> list[int]:
    """ceil(i T / steps) for i = 1..steps."""
    return [ceil(Fraction(i * T, steps)) for i in range(1, steps + 1)]


@declared(steps="count")
def best_grid(costs: Tensor, steps: int) -> list[int]:
    """argmin over 0 < t_1 < .. < t_steps = T of sum_i costs[t_{i-1}, t_i], t_0 = 0."""

    @cache
    def best(t: int, left: int) -> tuple[float, list[int]]:
        """Returns the least sum of so many steps that lead from t to 0, and their grid."""
        if left == 1:
            return float(costs[0, t]), [t]

        # The last of them comes from some s. Of equal sums the smallest s wins.
        candidates = []
        for s in range(left - 1, t):
            cost, grid = best(s, left - 1)
            candidates.append((cost + float(costs[s, t]), [*grid, t]))
        return min(candidates, key=lambda candidate: candidate[0])

    return best(len(costs) - 1, steps)[1]
