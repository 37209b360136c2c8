"""Measures what a step costs: before a run by compiling it, and in a run by its speed and a trace."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from d3pm_jax.machine import flops
from d3pm_jax.machine.devices import batch_sharding
from d3pm_jax.models.variables import split_variables
from d3pm_jax.parts import build
from d3pm_jax.training.loss import Noise
from d3pm_jax.training.step import make_update

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


class Cost(NamedTuple):
    """Holds the cost of a step on one device; memory is in bytes."""

    parameters: int  # numbers
    flops: int  # of one device, see `flops.count_flops`
    arguments: int  # the state, the process and the batch
    added: int  # temporaries and results, but for results in the place of arguments
    seconds: float  # to compile

    @property
    def memory(self) -> int:
        """Returns the bytes that one device needs."""
        return self.arguments + self.added


def measure_step(parts: build.Parts) -> tuple[Cost, Any]:
    """Compiles the step of a run, and returns its cost and the compiled program."""
    start = time.monotonic()
    compiled = trace_step(parts).lower().compile()
    return read_cost(parts, compiled, time.monotonic() - start), compiled


def trace_step(parts: build.Parts) -> Any:
    """Traces the step of a run: lowered, it is the very program that a training compiles."""
    batch, noise = abstract_inputs(parts)
    update = make_update(**build.step_arguments(parts))
    return update.trace(parts.state, parts.method.process, batch, noise, parts.key)


def read_cost(parts: build.Parts, compiled: Any, seconds: float) -> Cost:
    """Reads the cost of a step from its program, which took so many seconds to compile."""
    # Results that reuse the memory of arguments, such as the new state that of the old one, need none of
    # their own.
    memory = compiled.memory_analysis()
    added = memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    params, _ = split_variables(parts.state.params)
    parameters = sum(x.size for x in jax.tree.leaves(params))
    return Cost(parameters, flops_of_step(parts), memory.argument_size_in_bytes, added, seconds)


def flops_of_step(parts: build.Parts) -> int:
    """Counts the floating-point operations of a step on one device."""
    batch, noise = abstract_inputs(parts)
    total = 1.0  # by which means are divided: its value does not change what is computed
    inputs = (*split_variables(parts.state.params), parts.method.process, batch, noise, parts.key, total)
    return flops.count_flops(parts.method.make_loss().compute, *inputs) // parts.mesh.size


def abstract_inputs(parts: build.Parts) -> tuple[dict[str, Any], Noise]:
    """Returns the shapes, types and shardings of a batch and of its noise."""
    description = parts.description
    B = parts.config.train.batch_size
    shape = (B, *description.shape)
    batch = {"x": jax.ShapeDtypeStruct(shape, jnp.int32)}
    if description.classes:
        batch["label"] = jax.ShapeDtypeStruct((B,), jnp.int32)
    if description.padded:
        batch["weight"] = jax.ShapeDtypeStruct(shape, jnp.float32)
    if description.condition is not None:
        condition_type = jnp.dtype(description.condition_type)
        batch["condition"] = jax.ShapeDtypeStruct((B, *description.condition), condition_type)
    draw = partial(parts.method.make_loss().draw_noise, parts.method.process, shape=shape)
    noise = jax.eval_shape(draw, parts.key, parts.state.step, parts.state.history)
    sharding = batch_sharding(parts.mesh)
    return jax.tree.map(lambda leaf: leaf.update(sharding=sharding), (batch, noise))


def describe_cost(cost: Cost, parts: build.Parts) -> str:
    """Writes what a step costs, and whether it fits into memory, as lines for a terminal."""
    devices = parts.mesh.devices.flatten()
    stored = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(parts.state.params))
    return "\n".join(
        [
            f"parameters: {cost.parameters:,}, {format_bytes(stored)}",
            f"devices: {len(devices)} x {devices[0].device_kind}; compiled in {cost.seconds:.1f} s",
            f"work of a step: {cost.flops:.4g} FLOPs on each device (products of matrices and",
            "  convolutions, forward and backward; what is computed again counts once)",
            f"memory of a step: {format_bytes(cost.memory)} on each device, "
            f"{format_bytes(cost.arguments)} of arguments and {format_bytes(cost.added)} that it adds",
            _whether_it_fits(cost, devices[0], len(devices)),
        ]
    )


def _whether_it_fits(cost: Cost, device: Any, number: int) -> str:
    """Compares the memory that a step needs with that of the device, or of the machine."""
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit is not None:
        needed = cost.memory
        available = limit
        where = f"a device has {format_bytes(available)}"
    elif device.platform == "cpu" and hasattr(os, "sysconf"):
        # The devices of a CPU report no limit: they share the memory of the machine.
        needed = number * cost.memory
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        where = f"this machine has {format_bytes(available)} for all devices"
    else:
        return "whether it fits is not known: the device does not tell its memory"
    verdict = "fits" if needed <= available else "does not fit"
    return f"it {verdict}: {format_bytes(needed)} needed, {where}"


def format_bytes(number: int) -> str:
    """Writes a number of bytes in GB, or in MB where it is less than one GB."""
    if number >= 1e9:
        return f"{number / 1e9:.2f} GB"
    return f"{number / 1e6:.1f} MB"


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
        rates = {"examples_per_second": self._batch_size / seconds}
        rates["waiting"] = sum(waits) / len(waits) / seconds
        if self._seconds_at_peak is not None:
            rates["mfu"] = self._seconds_at_peak / seconds
        return {**means, **rates}


def make_speed(parts: build.Parts) -> Speed:
    """Makes the `Speed` of a run, and counts the operations of a step where the peak is known."""
    peak = parts.config.mesh.peak_flops or PEAKS.get(parts.mesh.devices.flat[0].device_kind)
    seconds_at_peak = None
    if peak:
        # Counting operations traces the step. It is done here, before the clock starts.
        seconds_at_peak = flops_of_step(parts) / peak
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
    running = False
    try:
        for step in steps:
            if step in traced_steps[:1]:
                options = jax.profiler.ProfileOptions()
                # Traces of Python calls would fill most of the file, and slow down the training.
                options.python_tracer_level = 0
                jax.profiler.start_trace(str(folder), profiler_options=options)
                running = True
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                yield step
            if step in traced_steps[-1:]:
                # The loop runs ahead of the device, but the trace has to hold all of its last step.
                wait()
                jax.profiler.stop_trace()
                running = False
    finally:
        # A training that is stopped between the first and the last of these steps leaves its trace too.
        if running:
            jax.profiler.stop_trace()
