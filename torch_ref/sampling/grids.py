"""Which steps of a process to take when fewer are wanted: grids for `processes.respace`."""

from fractions import Fraction
from math import ceil


def even_grid(T: int, steps: int) -> list[int]:
    """ceil(i T / steps) for i = 1..steps."""
    return [ceil(Fraction(i * T, steps)) for i in range(1, steps + 1)]
