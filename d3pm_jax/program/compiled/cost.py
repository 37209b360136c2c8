"""Says what a step costs on the devices of a run, from its program, which is compiled and not run."""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from d3pm_jax.models.variables import split_variables
from d3pm_jax.program.compiled import flops
from d3pm_jax.program.machine.devices import batch_sharding, find_memory, format_bytes as format_bytes
from d3pm_jax.program.parts import build
from d3pm_jax.training.loss import Noise
from d3pm_jax.training.step import make_update


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
    return make_update(**build.step_arguments(parts)).trace(
        parts.state, parts.recipe.process, batch, noise, parts.key
    )


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
    inputs = (*split_variables(parts.state.params), parts.recipe.process, batch, noise, parts.key, total)
    return flops.count_flops(parts.recipe.loss.compute, *inputs) // parts.mesh.size


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
    draw_noise = partial(parts.recipe.loss.draw_noise, parts.recipe.process, shape=shape)
    noise = jax.eval_shape(draw_noise, parts.key, parts.state.step, parts.state.history)
    sharding = batch_sharding(parts.mesh)
    return jax.tree.map(lambda leaf: leaf.update(sharding=sharding), (batch, noise))


def describe_cost(cost: Cost, parts: build.Parts) -> str:
    """Writes what a step costs, and whether it fits into memory, as lines for a terminal."""
    devices = parts.mesh.devices.ravel().tolist()
    stored = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(parts.state.params))
    return "\n".join(
        [
            f"parameters: {cost.parameters:,}, {format_bytes(stored)}",
            f"devices: {len(devices)} x {devices[0].device_kind}; compiled in {cost.seconds:.1f} s",
            f"work of a step: {cost.flops:.4g} FLOPs on each device (products of matrices and",
            "  convolutions, forward and backward; what is computed again counts once)",
            f"memory of a step: {format_bytes(cost.memory)} on each device, "
            f"{format_bytes(cost.arguments)} of arguments and {format_bytes(cost.added)} that it adds",
            _whether_it_fits(cost, devices),
        ]
    )


def _whether_it_fits(cost: Cost, devices: Sequence[Any]) -> str:
    """Compares the memory that a step needs with that of the devices, or of the machine."""
    available = find_memory(devices)
    if available is None:
        return "whether it fits is not known: the device does not tell its memory"
    needed = len(devices) * cost.memory
    verdict = "fits" if needed <= available else "does not fit"
    return f"it {verdict}: {format_bytes(needed)} needed, {format_bytes(available)} there for all devices"
