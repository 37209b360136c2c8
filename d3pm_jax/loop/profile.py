"""Traces some steps of a training, to see what its time goes into."""

from collections.abc import Callable, Iterator
from pathlib import Path

import jax

AFTER, STEPS = 5, 5  # steps before those that are traced, where there are so many, and how many are


def traced(steps: range, folder: Path | None, wait: Callable[[], None]) -> Iterator[int]:
    """Yields the steps, and traces some after the first, which compiles, into a folder; none without one.

    Args:
        steps: of a training.
        folder: where to write the trace.
        wait: returns when what was yielded last is computed.
    """
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # calls of Python would be most of the trace, and slow what is traced
    before, running = max(0, min(AFTER, len(steps) - 1)), False
    chosen = steps[before : before + STEPS] if folder is not None else range(0)
    try:
        for step in steps:
            if step in chosen[:1]:
                jax.profiler.start_trace(str(folder), profiler_options=options)
                running = True
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                yield step
            if step in chosen[-1:]:
                wait()
                jax.profiler.stop_trace()
                running = False
    finally:  # also where the training was stopped meanwhile
        if running:
            jax.profiler.stop_trace()
