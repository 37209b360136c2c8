"""Lays a run out over devices: a mesh of two axes, "data" and "fsdp", also where there is one device.

A batch is spread over both axes; parameters, their average and the state of the optimizer are cut into parts
over "fsdp" and repeated over "data".
"""

import contextlib
import logging
import math
import os
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from d3pm_jax.errors import UserError

WORTH_CUTTING = 2**14  # elements; a smaller array is on every device: to fetch its parts takes longer


def make_mesh(fsdp: int = 1) -> Mesh:
    """Makes the mesh of all devices of all processes, those of a process beside each other.

    So each process holds whole examples of a batch, one after the other.

    Args:
        fsdp: devices that hold the parts of one copy of the parameters.

    Raises:
        UserError: there are not as many, or not a multiple of them.
    """
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    if len(devices) % fsdp:
        few = "it does not divide" if fsdp < len(devices) else f"there {'is' if len(devices) == 1 else 'are'}"
        raise UserError(f"mesh.fsdp = {fsdp}: {few} {_count(devices)}; set it to a number that divides them")
    return Mesh(np.array(devices).reshape(-1, fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def mesh_of(fsdp: int, asked: bool = True) -> Mesh:
    """Decides the mesh of a run.

    Args:
        fsdp: of its config.
        asked: whether just this layout is asked for, as by who trains; else the parameters are cut over as
            many devices as they can be, at most so many.

    Raises:
        UserError: it is asked for, and there are not as many, or not a multiple of them.
    """
    return make_mesh(fsdp if asked else math.gcd(fsdp, jax.device_count()))


def check_batch(mesh: Mesh, batch_size: int, accumulate: int = 1) -> None:
    """Raises UserError where a batch, or a part that is taken of it, does not divide over the devices."""
    n = mesh.size * accumulate
    if batch_size % n:
        parts = f" in {accumulate} parts" if accumulate > 1 else ""
        raise UserError(
            f"train.batch_size = {batch_size} does not divide over {_count(mesh.devices.ravel())}{parts}: "
            f"set it to a multiple of {n}, or use fewer devices (on a CPU JAX_NUM_CPU_DEVICES=N)"
        )


def _count(devices: Any) -> str:
    n, processes = len(devices), jax.process_count()
    of = f" of {processes} processes" if processes > 1 else ""
    return f"{n} device{'' if n == 1 else 's'}{of}"


def replicated_sharding(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Every device holds its part of the first axis."""
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def state_sharding(mesh: Mesh, shape: tuple[int, ...]) -> NamedSharding:
    """Every device along "fsdp" holds its part of the longest axis; of a small array the whole.

    Only axes are cut that divide, and of axes as long as each other the last: the first may count layers,
    which a scan takes one by one.
    """
    n = mesh.shape["fsdp"]
    axes = [axis for axis, size in enumerate(shape) if size % n == 0]
    if n == 1 or not axes or math.prod(shape) < WORTH_CUTTING:
        return replicated_sharding(mesh)
    longest = max(axes, key=lambda axis: (shape[axis], axis))
    return NamedSharding(mesh, PartitionSpec(*(None,) * longest, "fsdp"))


def use_all_cores(batch_size: int, fsdp: int = 1) -> None:
    """Makes one CPU device per core, as many as divide the batch: XLA uses several better than one.

    Must come before the first JAX computation. Without effect where there is a GPU or TPU, or where
    JAX_NUM_CPU_DEVICES says how many.
    """
    logging.getLogger("absl").setLevel(logging.ERROR)
    if "JAX_NUM_CPU_DEVICES" in os.environ:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    fit = [n for n in range(1, cores + 1) if batch_size % n == 0]
    devices = max([n for n in fit if n % fsdp == 0] or fit)
    with contextlib.suppress(RuntimeError):  # JAX runs already, in a notebook say: use what it has
        jax.config.update("jax_num_cpu_devices", devices)
