"""Says what a step costs: before a run, compiled and not computed; in a run, by its speed and a trace."""

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
from d3pm_jax.parts import build
from d3pm_jax.training.step import StepNoise, batch_loss, draw_noise, make_update

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


class Cost(NamedTuple):
    """Holds what a step takes: memory in bytes, of one device."""

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
    """Compiles the step of a run; returns what it costs, and the program."""
    start = time.monotonic()
    batch, noise = abstract_inputs(parts)
    update = make_update(**build.step_arguments(parts))
    compiled = update.lower(parts.state, parts.process, batch, noise, parts.key).compile()
    seconds = time.monotonic() - start
    memory = compiled.memory_analysis()
    added = memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    parameters = sum(x.size for x in jax.tree.leaves(parts.state.params))
    cost = Cost(parameters, flops_of_step(parts), memory.argument_size_in_bytes, added, seconds)
    return cost, compiled


def flops_of_step(parts: build.Parts) -> int:
    """Counts the floating-point operations of a step on one device."""
    loss = partial(batch_loss, parts.config.loss, parts.predict)
    inputs = parts.state.params, parts.process, *abstract_inputs(parts), parts.key, 1.0
    return flops.count_flops(loss, *inputs) // parts.mesh.size


def abstract_inputs(parts: build.Parts) -> tuple[dict[str, Any], StepNoise]:
    """Returns what a batch and its noise are, without numbers."""
    description, B = parts.description, parts.config.train.batch_size
    shape, sharding = (B, *description.shape), batch_sharding(parts.mesh)
    x = {"x": jax.ShapeDtypeStruct(shape, jnp.int32)}
    x |= {"label": jax.ShapeDtypeStruct((B,), jnp.int32)} if description.classes else {}
    x |= {"weight": jax.ShapeDtypeStruct(shape, jnp.float32)} if description.padded else {}
    draw = partial(draw_noise, parts.config.timesteps, shape=shape, T=parts.process.T)
    noise = jax.eval_shape(draw, parts.key, parts.state.step, parts.state.history)
    return jax.tree.map(lambda x: x.update(sharding=sharding), (x, noise))


def describe_cost(cost: Cost, parts: build.Parts) -> str:
    """Says what a step costs, and whether it fits, in lines."""
    devices = parts.mesh.devices.flatten()
    stored = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(parts.state.params))
    return "\n".join(
        [
            f"parameters: {cost.parameters:,}, {_size(stored)}",
            f"devices: {len(devices)} x {devices[0].device_kind}; compiled in {cost.seconds:.1f} s",
            f"work of a step: {cost.flops:.4g} FLOPs on each device (products of matrices and",
            "  convolutions, forward and backward; what is computed again counts once)",
            f"memory of a step: {_size(cost.memory)} on each device, {_size(cost.arguments)} of arguments "
            f"and {_size(cost.added)} that it adds",
            _whether_it_fits(cost, devices[0], len(devices)),
        ]
    )


def _whether_it_fits(cost: Cost, device: Any, number: int) -> str:
    """Compares the memory of a step with what there is."""
    told = (device.memory_stats() or {}).get("bytes_limit")
    if told is not None:
        needs, room = cost.memory, told
        where = f"a device has {_size(told)}"
    elif device.platform == "cpu" and hasattr(os, "sysconf"):
        room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        needs = number * cost.memory
        where = f"this machine has {_size(room)} for all devices"
    else:
        return "whether it fits is not known: the device does not tell its memory"
    return f"it {'fits' if needs <= room else 'does not fit'}: {_size(needs)} needed, {where}"


def _size(number: int) -> str:
    """Writes bytes in GB, or MB below one."""
    return f"{number / 1e9:.2f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


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


def make_speed(parts: build.Parts) -> Speed:
    """Makes the measure of a run; counts its operations, where the peak is known, before steps are timed."""
    peak = parts.config.mesh.peak_flops or PEAKS.get(parts.mesh.devices.flat[0].device_kind)
    return Speed(parts.config.train.batch_size, flops_of_step(parts) / peak if peak else None)


def trace_steps(steps: range, folder: Path | None, wait: Callable[[], None]) -> Iterator[int]:
    """Yields the steps, and traces some after the first, which compiles, into a folder; none without one.

    Args:
        steps: of a training.
        folder: where to write the trace.
        wait: returns when what was yielded last is computed.
    """
    before = max(0, min(AFTER, len(steps) - 1))
    running = False
    chosen = steps[before : before + STEPS] if folder is not None else range(0)
    try:
        for step in steps:
            if step in chosen[:1]:
                options = jax.profiler.ProfileOptions()
                # Calls of Python would be most of the trace, and slow what is traced.
                options.python_tracer_level = 0
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
