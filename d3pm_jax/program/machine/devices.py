"""Lays a run out over devices: a mesh of two axes, "data" and "fsdp", also where there is one device.

A batch is spread over both axes; parameters, their average and the state of the optimizer are cut into parts
over "fsdp" and repeated over "data".
"""

import contextlib
import logging
import math
import os
from collections.abc import Sequence, Sized
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from d3pm_jax.errors import UserError
from d3pm_jax.projection import Spread

# Elements of the smallest array that is cut. A smaller one is on every device: to fetch its parts would take
# longer than to read it.
WORTH_CUTTING = 2**14

_chosen: list[int] = []  # the number of CPU devices that `use_all_cores` chose last, if it did


def make_mesh(fsdp: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """Makes the mesh of all devices of all processes, those of a process beside each other.

    So each process holds whole examples of a batch, one after the other.

    Args:
        fsdp: devices that hold the parts of one copy of the parameters.
        devices: those of the mesh, such as described ones; all that there are by default.

    Raises:
        UserError: there are not as many, or not a multiple of them.
    """
    if devices is None:
        devices = jax.devices()
    devices = sorted(devices, key=lambda device: (device.process_index, device.id))
    if len(devices) % fsdp:
        if fsdp < len(devices):
            reason = "it does not divide"
        elif len(devices) == 1:
            reason = "there is"
        else:
            reason = "there are"
        raise UserError(
            f"mesh.fsdp = {fsdp}: {reason} {_count_in_words(devices)}; set it to a number that divides them"
        )
    return Mesh(np.array(devices).reshape(-1, fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def mesh_of(fsdp: int, asked: bool = True) -> Mesh:
    """Decides the mesh of a run.

    Args:
        fsdp: of its config.
        asked: whether just this layout is asked for, as for a training; else the parameters are cut over as
            many devices as they can be, at most so many.

    Raises:
        UserError: it is asked for, and there are not as many, or not a multiple of them.
    """
    if asked:
        return make_mesh(fsdp)
    return make_mesh(math.gcd(fsdp, jax.device_count()))


def check_batch(mesh: Mesh, batch_size: int, accumulate: int = 1) -> None:
    """Raises UserError where a batch, or a part that is taken of it, does not divide over the devices."""
    n = mesh.size * accumulate
    if batch_size % n:
        parts = ""
        if accumulate > 1:
            parts = f" in {accumulate} parts"
        raise UserError(
            f"train.batch_size = {batch_size} does not divide over "
            f"{_count_in_words(mesh.devices.ravel())}{parts}: "
            f"set it to a multiple of {n}, or use fewer devices (on a CPU JAX_NUM_CPU_DEVICES=N)"
        )


def _count_in_words(devices: Sized) -> str:
    """Returns how many devices there are, in words: "8 devices of 2 processes"."""
    words = f"{len(devices)} devices"
    if len(devices) == 1:
        words = "1 device"
    if jax.process_count() > 1:
        words += f" of {jax.process_count()} processes"
    return words


def find_memory(devices: Sequence[Any]) -> int | None:
    """Returns the bytes that devices have together; those of a CPU share the memory of the machine.

    None where they do not tell.
    """
    # A device tells its memory to its own process alone.
    device = next(device for device in devices if device.process_index == jax.process_index())
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit is not None:
        return len(devices) * limit
    if device.platform == "cpu" and hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def format_bytes(number: int) -> str:
    """Writes a number of bytes in GB, or in MB where it is less than one GB."""
    if number >= 1e9:
        return f"{number / 1e9:.2f} GB"
    return f"{number / 1e6:.1f} MB"


def replicated_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array that every device holds as a whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch, of whose first axis every device holds a part."""
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def state_sharding(mesh: Mesh, shape: tuple[int, ...]) -> NamedSharding:
    """Returns the sharding of an array of the state: its longest axis is cut into parts over "fsdp".

    Only axes are cut that divide; an array of none, or a small one, is on every device as a whole.
    """
    n = mesh.shape["fsdp"]
    divisible = [axis for axis, size in enumerate(shape) if size % n == 0]
    if n == 1 or not divisible or math.prod(shape) < WORTH_CUTTING:
        return replicated_sharding(mesh)
    # Of axes as long as each other the last is cut: the first may count layers, which a scan takes one by
    # one, and would have to fetch from another device each.
    longest = max(divisible, key=lambda axis: (shape[axis], axis))
    return NamedSharding(mesh, PartitionSpec(*(None,) * longest, "fsdp"))


def projection_spread(mesh: Mesh | AbstractMesh) -> Spread:
    """Returns how projected logits lie over the devices: their places as a batch, the kernel as the state.

    A kernel that is cut over "fsdp" along K stays so, and places meet there.
    """
    return Spread(mesh, tuple(mesh.axis_names), "fsdp" if mesh.shape["fsdp"] > 1 else None)


def use_all_cores(batch_size: int, fsdp: int = 1) -> None:
    """Makes one CPU device per core, as many as divide the batch: XLA uses several better than one.

    Must come before the first JAX computation. Without effect where there is a GPU or TPU, or where the
    user says how many: by JAX_NUM_CPU_DEVICES, by `jax_num_cpu_devices` of JAX, or in XLA_FLAGS.
    """
    logging.getLogger("absl").setLevel(logging.ERROR)
    # -1 means unset. JAX sets the option from the variable when it is imported, which a notebook may have
    # done before. A number that an earlier call of this function chose may be changed.
    is_set_by_variable = "JAX_NUM_CPU_DEVICES" in os.environ
    is_set_for_jax = jax.config.values["jax_num_cpu_devices"] not in (-1, *_chosen)
    is_set_for_xla = "--xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if is_set_by_variable or is_set_for_jax or is_set_for_xla:
        return
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    divisors = [n for n in range(1, cores + 1) if batch_size % n == 0]
    divisible_by_fsdp = [n for n in divisors if n % fsdp == 0]
    # JAX refuses where it runs already, in a notebook say: then its devices are used as they are.
    with contextlib.suppress(RuntimeError):
        num_devices = max(divisible_by_fsdp or divisors)
        jax.config.update("jax_num_cpu_devices", num_devices)
        _chosen[:] = [num_devices]
