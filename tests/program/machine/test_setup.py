"""What is set before the first computation: a device for each core, and memory that is kept."""

import os
import platform
import resource
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from d3pm_jax.cpu.malloc import keep_freed_memory
from d3pm_jax.program.machine import cache, cluster, devices, setup
from tests.forked import Fork


def print_devices_and_faults(features):
    """Prints how many devices there are, and the page faults of most calls, once several went before."""
    devices.use_all_cores(4)
    keep_freed_memory(features)
    mesh = devices.make_mesh()
    x = jax.device_put(np.ones((4, 1), np.float32), devices.batch_sharding(mesh))

    @jax.jit
    def f(x):  # 48 MB for each row of x
        y = jax.lax.optimization_barrier(jnp.broadcast_to(x, (4, 12_000_000)) + 1.0)
        return jnp.flip(y, axis=1).sum()

    def count_faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        jax.block_until_ready(f(x))
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    for _ in range(20):
        count_faults()
    print(mesh.size, sorted(count_faults() for _ in range(9))[4])


def devices_and_faults(folder, features, **variables):
    """How many devices a process of users has, and how many page faults."""
    variables["JAX_PLATFORMS"] = "cpu"
    process = Fork(folder, print_devices_and_faults, features, as_users=True, **variables)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return map(int, output.split())


def test_a_command_sets_the_state_of_the_process_once_and_in_order(monkeypatch, tmp_path):
    called = []
    for module, name in (cache, "keep_programs"), (devices, "use_all_cores"), (setup, "keep_freed_memory"):
        monkeypatch.setattr(module, name, lambda *args, name=name: called.append((name, *args)))
    monkeypatch.setattr(cluster, "join_processes", lambda *args: called.append(("join", *args)))
    setup.set_up()
    assert called == [("keep_programs",), ("join", setup.ALONE, None, setup.HEARTBEAT, False)]
    called.clear()
    address = cluster.Address("host:1", 3, 0)

    def features():
        called.append(("features",))  # which may compute, as a description of the user's own
        return 5

    setup.set_up(12, 2, features, address, tmp_path, 7, saves=True)
    assert called == [
        ("keep_programs",),
        ("use_all_cores", 4, 2),
        ("features",),
        ("keep_freed_memory", 5),
        ("join", address, tmp_path, 7, True),
    ]


def test_a_number_of_devices_that_the_user_set_stays(monkeypatch):
    values = {"jax_num_cpu_devices": -1}
    config = SimpleNamespace(values=values, update=values.__setitem__)
    monkeypatch.setattr(devices, "jax", SimpleNamespace(config=config))
    monkeypatch.setattr(devices, "_chosen", [])
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(4), raising=False)

    def number_for(batch_size):
        devices.use_all_cores(batch_size)
        return values["jax_num_cpu_devices"]

    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=3")
    assert number_for(4) == -1
    monkeypatch.setenv("XLA_FLAGS", "")
    assert number_for(4) == 4
    assert number_for(6) == 3
    values["jax_num_cpu_devices"] = 2
    assert number_for(4) == 2


def print_devices_of_user():
    jax.config.update("jax_num_cpu_devices", 3)
    devices.use_all_cores(4)
    print(jax.device_count())


@pytest.mark.slow
def test_jax_has_the_number_of_devices_that_the_user_set(tmp_path):
    process = Fork(tmp_path, print_devices_of_user, as_users=True, JAX_PLATFORMS="cpu")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert output.split() == ["3"]


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only malloc of glibc can be told")
def test_a_device_for_each_core_and_memory_of_large_steps_is_kept(tmp_path):
    num_devices, large = devices_and_faults(tmp_path, 2**17)
    assert num_devices == max(n for n in (1, 2, 4) if n <= len(os.sched_getaffinity(0)))
    _, small = devices_and_faults(tmp_path, 2**17 - 1)
    if small < 10_000:
        pytest.skip(f"{small} page faults without: large pages")
    assert large < small / 20
    _, with_user_choice = devices_and_faults(tmp_path, 2**17, MALLOC_ARENA_MAX="8")  # the user's choice
    assert with_user_choice > small / 2
