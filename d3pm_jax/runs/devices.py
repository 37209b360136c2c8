"""The devices of this host as one mesh, over which batches are spread."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def data_mesh(batch_size: int) -> Mesh:
    """A mesh with the axis "data" over as many local devices as divide the batch."""
    devices = jax.local_devices()
    used = max(n for n in range(1, len(devices) + 1) if batch_size % n == 0)
    return jax.make_mesh((used,), ("data",), axis_types=(AxisType.Auto,), devices=devices[:used])


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole."""
    return NamedSharding(mesh, PartitionSpec())


def batched(mesh: Mesh) -> NamedSharding:
    """Every device holds its part of the first axis."""
    return NamedSharding(mesh, PartitionSpec("data"))
