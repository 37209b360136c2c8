"""Where processes meet. Real processes are in tests/cli."""

import socket

import jax
import pytest

from d3pm_jax.errors import UserError
from d3pm_jax.program.machine import cluster


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (
            (None, 2),
            r"^--num-processes is only for a run of several processes: pass --coordinator HOST:PORT too$",
        ),
        ((None, None, 0), r"^--process-id is only for a run of several"),
        (("somewhere", 2, 0), r"^--coordinator somewhere: write HOST:PORT of process 0, or auto$"),
        (("host:0", 2, 0), r"^--coordinator host:0: write HOST:PORT"),
        (("host:65536", 2, 0), r"^--coordinator host:65536: write HOST:PORT"),
        ((":123", 2, 0), r"^--coordinator :123: write HOST:PORT"),
        (("host:123", 2), r"^--coordinator HOST:PORT needs --num-processes N and --process-id I"),
        (("host:123", None, 1), r"^--coordinator HOST:PORT needs"),
        (
            ("host:123", 2, 2),
            r"^--process-id 2 of --num-processes 2: it must be below that number, as processes count from 0$",
        ),
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
