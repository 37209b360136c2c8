"""Sets the state of the process that a command needs, before its first computation."""

from pathlib import Path

from d3pm_jax.cpu.malloc import keep_freed_memory
from d3pm_jax.machine import cluster
from d3pm_jax.machine.cache import keep_programs
from d3pm_jax.machine.devices import use_all_cores


def set_up(
    batch_size: int | None = None,
    fsdp: int = 1,
    features: int = 0,
    address: cluster.Address | None = None,
    workdir: Path | None = None,
    heartbeat: int = 30,
    saves: bool = False,
) -> None:
    """Sets what a command needs of the process; must come before the first JAX computation."""
    keep_programs()
    if batch_size is not None:
        use_all_cores(batch_size, fsdp)
    keep_freed_memory(features)
    if address is not None:
        cluster.join(address, workdir, heartbeat, saves)
