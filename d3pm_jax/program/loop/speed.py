"""Measures how fast the steps of a training are: rates beside its metrics, and a trace."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jax

from d3pm_jax.program.compiled.cost import flops_of_step
from d3pm_jax.program.parts import build

# FLOP per second of products of dense matrices in bfloat16 (float16 on a V100), by the kind that JAX names.
# These are the numbers that the makers publish, without the factor 2 of sparsity. None was measured here.
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
UNTRACED_STEPS = 5  # before those that are traced, where there are so many
TRACED_STEPS = 5


class Speed:
    """Adds rates to the metrics of an interval, which follow from its `seconds_per_step`.

    The rates are `examples_per_second`; `waiting`, an upper bound on the share of time that the loop waited
    for a batch while no step was computed; and, where the peak of the device is known, `mfu`, the share of it
    that the steps reach.

    Args:
        batch_size: examples of a step, on all devices.
        seconds_at_peak: what a step would take at the peak of a device, where that is known.
    """

    def __init__(self, batch_size: int, seconds_at_peak: float | None):
        self._batch_size = batch_size
        self._seconds_at_peak = seconds_at_peak
        self._waits: list[float] = []  # seconds, one for each step since the last line
        self._is_first_interval = True
        self._loss: Any = None  # of the step that is computed now

    @contextmanager
    def time_wait(self) -> Iterator[None]:
        """Counts the time of the block as lost to data, unless the last step is still computed at its end."""
        start = time.monotonic()
        yield
        # JAX computes a step while the loop prepares the next batch. If the step is done when the batch is
        # ready, the device has been idle. Nothing says since when, so the time of the whole block is counted:
        # the share is an upper bound.
        is_idle = self._loss is None or self._loss.is_ready()
        if is_idle:
            self._waits.append(time.monotonic() - start)
        else:
            self._waits.append(0.0)

    def note_dispatch(self, row: Mapping[str, Any]) -> None:
        """Notes the metrics of the step that is computed from now on."""
        self._loss = row["loss"]

    def wait(self) -> None:
        """Waits until the step that was noted last is computed."""
        jax.block_until_ready(self._loss)

    def add_rates(self, means: Mapping[str, float | int]) -> dict[str, float | int]:
        """Returns the means of an interval with its rates, and begins the next interval."""
        waits = self._waits
        if self._is_first_interval:
            waits = waits[1:]  # the first step compiles, and is not timed
        self._waits = []
        self._is_first_interval = False

        seconds = means.get("seconds_per_step")
        if not seconds:
            return dict(means)
        rates = {
            "examples_per_second": self._batch_size / seconds,
            "waiting": sum(waits) / len(waits) / seconds,
        }
        if self._seconds_at_peak is not None:
            rates["mfu"] = self._seconds_at_peak / seconds
        return {**means, **rates}


def make_speed(parts: build.Parts) -> Speed:
    """Makes the `Speed` of a run, and counts the operations of a step where the peak is known."""
    peak = parts.config.mesh.peak_flops or PEAKS.get(parts.mesh.devices.flat[0].device_kind)
    # Counting operations traces the step. It is done here, before the clock starts.
    seconds_at_peak = flops_of_step(parts) / peak if peak else None
    return Speed(parts.config.train.batch_size, seconds_at_peak)


def trace_steps(steps: range, folder: Path | None, wait: Callable[[], None]) -> Iterator[int]:
    """Yields the steps of a training, and writes a trace of some of them.

    Args:
        steps: of a training.
        folder: where to write the trace; None for no trace.
        wait: returns when the step that was yielded last is computed.
    """
    # The first step compiles, and is not traced if there is another one.
    untraced = max(0, min(UNTRACED_STEPS, len(steps) - 1))
    traced_steps = range(0)
    if folder is not None:
        traced_steps = steps[untraced : untraced + TRACED_STEPS]
    # A training that is stopped between the first and the last of these steps leaves its trace too.
    with ExitStack() as trace:
        for step in steps:
            if step in traced_steps[:1]:
                options = jax.profiler.ProfileOptions()
                # Traces of Python calls would fill most of the file, and slow down the training.
                options.python_tracer_level = 0
                jax.profiler.start_trace(str(folder), profiler_options=options)
                trace.callback(jax.profiler.stop_trace)
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                yield step
            if step in traced_steps[-1:]:
                # The loop runs ahead of the device, but the trace has to hold all of its last step.
                wait()
                trace.close()
