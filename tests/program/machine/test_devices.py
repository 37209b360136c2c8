"""Meshes, and how batches and arrays are cut over their devices."""

import pytest
from jax.sharding import PartitionSpec

from d3pm_jax.errors import UserError
from d3pm_jax.program.machine import devices


def test_a_mesh_has_all_devices():
    assert devices.make_mesh().shape == {"data": 2, "fsdp": 1}
    assert devices.make_mesh(2).shape == {"data": 1, "fsdp": 2}
    for fsdp, why in ((3, "there are 2 devices"), (4, "there are 2 devices")):
        with pytest.raises(UserError, match=rf"^mesh.fsdp = {fsdp}: {why}; set it to a number that divides"):
            devices.make_mesh(fsdp)
    assert [devices.mesh_of(n, asked=False).shape["fsdp"] for n in (1, 2, 3, 6)] == [1, 2, 1, 2]


def test_a_batch_has_to_divide_over_the_devices():
    mesh = devices.make_mesh()
    devices.check_batch(mesh, 16, 8)
    for batch_size, accumulate, message in (
        (7, 1, "train.batch_size = 7 does not divide over 2 devices: set it to a multiple of 2,"),
        (
            12,
            4,
            "train.batch_size = 12 does not divide over 2 devices in 4 parts: set it to a multiple of 8,",
        ),
    ):
        with pytest.raises(UserError, match=f"^{message}"):
            devices.check_batch(mesh, batch_size, accumulate)


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((256, 128), PartitionSpec("fsdp")),
        ((128, 128), PartitionSpec(None, "fsdp")),
        ((8, 128, 384), PartitionSpec(None, None, "fsdp")),
        ((3, 3, 128, 127), PartitionSpec(None, None, "fsdp")),
        ((16385,), PartitionSpec()),  # odd
        ((127, 128), PartitionSpec()),  # small
    ],
)
def test_arrays_are_cut_along_their_longest_axis(shape, spec):
    assert devices.state_sharding(devices.make_mesh(2), shape).spec == spec
    assert devices.state_sharding(devices.make_mesh(1), shape).spec == PartitionSpec()
