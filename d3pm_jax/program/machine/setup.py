"""Sets all state of a process that a command needs: its devices, its caches, its malloc, its cluster."""

from collections.abc import Callable
from pathlib import Path

from d3pm_jax.cpu.malloc import keep_freed_memory
from d3pm_jax.program.machine import cache, cluster, devices

# Seconds without a sign of life after which a process is taken for dead, where a command has no number of its
# own for it.
HEARTBEAT = 30
# The address of a process that no other joins.
ALONE = cluster.Address(None)


def set_up(
    batch_size: int | None = None,
    fsdp: int = 1,
    features: Callable[[], int] | None = None,
    address: cluster.Address = ALONE,
    workdir: Path | None = None,
    heartbeat: int = HEARTBEAT,
    saves: bool = False,
) -> None:
    """Sets the state of the process, once, before the first computation of JAX.

    JAX reads most of it when it first computes, and never again.

    Args:
        batch_size: examples that are computed at a time, by all processes together: it decides how many
            devices a CPU has; None where that is decided elsewhere.
        fsdp: devices that hold the parts of one copy of the parameters.
        features: counts the numbers in a layer of a network that is trained, for one batch; see
            `keep_freed_memory`. It is called when the devices are set: what it reads may compute.
        address: where the processes of a run meet.
        workdir: folder of the run, which the first process writes; see `cluster.join_processes`.
        heartbeat: seconds without a sign of life after which a process is taken for dead; likewise.
        saves: whether SIGTERM is left to JAX.

    Raises:
        UserError: the address is none, or nobody answers there in time.
    """
    cache.keep_programs()
    if batch_size is not None:
        devices.use_all_cores(batch_size // (address.num_processes or 1), fsdp)
    if features is not None:
        keep_freed_memory(features())
    cluster.join_processes(address, workdir, heartbeat, saves)
