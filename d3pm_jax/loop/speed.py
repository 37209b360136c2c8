"""Measures how fast a training goes, how long it waits for data, what it uses of a device; traces it."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from d3pm_jax.loop import cost
from d3pm_jax.parts.build import Parts

# FLOP per second of products of dense matrices in bfloat16 (float16 on a V100), by the kind that JAX names.
# As their makers publish them, without the sparsity that doubles them; none was measured here.
PEAKS = {
    "Tesla V100-SXM2-16GB": 125e12,
    "Tesla V100-SXM2-32GB": 125e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H200": 989e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,  # v5e
    "TPU v5": 459e12,  # v5p
    "TPU v6 lite": 918e12,  # v6e
}
AFTER = 5  # steps before those that are traced, where there are so many
STEPS = 5  # that are traced


class Speed:
    """Adds to the metrics of an interval what follows from its `seconds_per_step`.

    That is `examples_per_second`; `waiting`, at most this share of the time the loop waited for a batch
    while no step was computed; and `mfu`, where the peak of the device is known: the share of it that steps
    take.

    Args:
        batch_size: examples of a step, on all devices.
        at_peak: seconds that a step would take at the peak of a device, where that is known.
    """

    def __init__(self, batch_size: int, at_peak: float | None):
        self._batch_size, self._at_peak = batch_size, at_peak
        self._waits: list[float] = []
        self._first, self._last = True, None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Takes the block for time lost to data, unless the step before is still computed at its end.

        When in the block that step ended is not known, so this is an upper bound.
        """
        start = time.monotonic()
        yield
        idle = self._last is None or self._last.is_ready()
        self._waits.append(time.monotonic() - start if idle else 0.0)

    def dispatched(self, row: Mapping[str, Any]) -> None:
        """Takes the metrics of the step that is computed now."""
        self._last = row["loss"]

    def wait(self) -> None:
        """Waits for that step."""
        jax.block_until_ready(self._last)

    def added(self, means: Mapping[str, float | int]) -> dict[str, float | int]:
        """Returns the metrics of the steps since the last call, and these."""
        timed, self._waits = self._waits[self._first :], []
        self._first = False  # the first step compiles, and is not timed
        seconds = means.get("seconds_per_step")
        if not seconds:
            return dict(means)
        found = {"examples_per_second": self._batch_size / seconds}
        found["waiting"] = sum(timed) / len(timed) / seconds
        if self._at_peak is not None:
            found["mfu"] = self._at_peak / seconds
        return {**means, **found}


def of_run(parts: Parts) -> Speed:
    """Makes the measure of a run; counts its operations, where the peak is known, before steps are timed."""
    peak = parts.config.mesh.peak_flops or PEAKS.get(parts.mesh.devices.flat[0].device_kind)
    return Speed(parts.config.train.batch_size, cost.flops_of_step(parts) / peak if peak else None)


def traced(steps: range, folder: Path | None, wait: Callable[[], None]) -> Iterator[int]:
    """Yields the steps, and traces some after the first, which compiles, into a folder; none without one.

    Args:
        steps: of a training.
        folder: where to write the trace.
        wait: returns when what was yielded last is computed.
    """
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # calls of Python would be most of the trace, and slow what is traced
    before = max(0, min(AFTER, len(steps) - 1))
    running = False
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
