"""Sets up the devices of this host: one for each core, and a mesh of them, over which batches are spread."""

import contextlib
import logging
import os

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def data_mesh(batch_size: int) -> Mesh:
    """Makes a mesh with the axis "data" over as many local devices as divide the batch."""
    devices = jax.local_devices()
    used = max(n for n in range(1, len(devices) + 1) if batch_size % n == 0)
    return jax.make_mesh((used,), ("data",), axis_types=(AxisType.Auto,), devices=devices[:used])


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole."""
    return NamedSharding(mesh, PartitionSpec())


def batched(mesh: Mesh) -> NamedSharding:
    """Every device holds its part of the first axis."""
    return NamedSharding(mesh, PartitionSpec("data"))


def use_all_cores(batch_size: int) -> None:
    """Makes one CPU device per core, as many as divide the batch: XLA uses several better than one.

    Must come before the first JAX computation. Without effect where there is a GPU or TPU.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    devices = max(n for n in range(1, cores + 1) if batch_size % n == 0)
    with contextlib.suppress(RuntimeError):  # JAX runs already, in a notebook say: use what it has
        jax.config.update("jax_num_cpu_devices", devices)
    logging.getLogger("absl").setLevel(logging.ERROR)
