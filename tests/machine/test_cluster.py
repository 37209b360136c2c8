"""Where processes meet, and how arrays are cut over devices. Real processes are in tests/cli."""

import socket

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from d3pm_jax import files
from d3pm_jax.errors import UserError
from d3pm_jax.machine import cluster, devices


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ((None, 2), r"^--num-processes is of a run of several processes: pass --coordinator HOST:PORT too$"),
        ((None, None, 0), r"^--process-id is of a run of several"),
        (("somewhere", 2, 0), r"^--coordinator somewhere: write HOST:PORT of process 0, or auto$"),
        (("host:0", 2, 0), r"^--coordinator host:0: write HOST:PORT"),
        (("host:65536", 2, 0), r"^--coordinator host:65536: write HOST:PORT"),
        ((":123", 2, 0), r"^--coordinator :123: write HOST:PORT"),
        (("host:123", 2), r"^--coordinator HOST:PORT needs --num-processes N and --process-id I"),
        (("host:123", None, 1), r"^--coordinator HOST:PORT needs"),
        (("host:123", 2, 2), r"^--process-id 2 of --num-processes 2: they count from 0$"),
    ],
)
def test_a_place_that_is_none_is_refused(place, message, tmp_path):
    with pytest.raises(UserError, match=message):
        cluster.join_processes(cluster.Address(*place), tmp_path, 30, saves=False)
    jax.config.update("jax_enable_preemption_service", True)


def test_a_port_that_is_taken_is_told(tmp_path):
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(UserError, match=rf"port {port} cannot be taken here .*; choose another one"):
            cluster.join_processes(cluster.Address(f"127.0.0.1:{port}", 2, 0), tmp_path, 30, saves=True)


def test_without_a_place_there_is_one_process(tmp_path):
    cluster.join_processes(cluster.Address(None), tmp_path, 30, saves=True)
    assert cluster.is_first()
    assert cluster.run_on_first(lambda: 7) == 7
    assert not jax.distributed.is_initialized()


def test_what_another_process_writes_is_not_replaced(tmp_path, monkeypatch):
    files.write_text(tmp_path / "one", "before")
    monkeypatch.setattr(files, "folder_of_another_process", tmp_path.resolve())
    for name in ("one", "two"):
        files.write_text(tmp_path / name, "after")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("one", "before")]


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


def test_arrays_come_back_as_they_were():
    from d3pm_jax.placing import fetch, place, place_part

    tree = {"x": np.arange(8), "y": None}
    for put in (place, place_part):
        assert put(tree, devices.batch_sharding(devices.make_mesh()))["x"].sharding.num_devices == 2
        np.testing.assert_array_equal(
            fetch(put(tree, devices.batch_sharding(devices.make_mesh())))["x"], tree["x"]
        )
    assert fetch({"a": 1, "b": np.ones(2)})["a"] == 1
