"""Says before a run what a step of it costs: compiled, not computed."""

import os
import time
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from d3pm_jax.machine import flops
from d3pm_jax.machine.devices import batched
from d3pm_jax.parts import build
from d3pm_jax.training.step import StepNoise, batch_loss, draw_noise, make_update


class Cost(NamedTuple):
    """Holds what a step takes: memory in bytes, of one device."""

    parameters: int  # numbers
    flops: int  # of one device, see `flops.of_gradient`
    arguments: int  # the state, the process and the batch
    added: int  # temporaries and results, but for results in the place of arguments
    seconds: float  # to compile

    @property
    def memory(self) -> int:
        """Returns the bytes that one device needs."""
        return self.arguments + self.added


def measure(parts: build.Parts) -> tuple[Cost, Any]:
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
    return flops.of_gradient(loss, *inputs) // parts.mesh.size


def abstract_inputs(parts: build.Parts) -> tuple[dict[str, Any], StepNoise]:
    """Returns what a batch and its noise are, without numbers."""
    description, B = parts.description, parts.config.train.batch_size
    shape, sharding = (B, *description.shape), batched(parts.mesh)
    x = {"x": jax.ShapeDtypeStruct(shape, jnp.int32)}
    x |= {"label": jax.ShapeDtypeStruct((B,), jnp.int32)} if description.classes else {}
    x |= {"weight": jax.ShapeDtypeStruct(shape, jnp.float32)} if description.padded else {}
    draw = partial(draw_noise, parts.config.timesteps, shape=shape, T=parts.process.T)
    noise = jax.eval_shape(draw, parts.key, parts.state.step, parts.state.history)
    return jax.tree.map(lambda x: x.update(sharding=sharding), (x, noise))


def in_words(cost: Cost, parts: build.Parts) -> str:
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
