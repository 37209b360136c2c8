"""Chooses which steps of a process to take when fewer are wanted: grids for `processes.respace`."""

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
    if not 1 <= steps <= T:
        raise ValueError(f"steps = {steps}: it must be in 1..{T}, the steps of the process")
    return [-(-i * T // steps) for i in range(1, steps + 1)]
