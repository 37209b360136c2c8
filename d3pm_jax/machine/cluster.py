"""Joins the processes of a run to one program of JAX, and lets them agree.

All of them run the same code. The first one alone writes what stands in the folder of the run, but for
checkpoints, and prints; what it finds there the others are told.
"""

import contextlib
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from d3pm_jax import files
from d3pm_jax.errors import UserError, one_line
from d3pm_jax.machine import signals

AUTO = "auto"
LONGEST = 1000  # bytes of what the others are told
PATIENCE = 24 * 3600  # seconds that a process which is done waits for the first one to write its results


class Address(NamedTuple):
    """Says where the processes of a run meet, and which of them this is."""

    coordinator: str | None  # HOST:PORT of the first process, or "auto"; None: there is one process
    num_processes: int | None = None
    process_id: int | None = None
    connect_timeout: int = 60  # seconds to wait for the others


class OtherProcessFailed(UserError):
    """Another process has failed, and says why."""


def join_processes(address: Address, workdir: Path | None, heartbeat: int, saves: bool) -> None:
    """Joins the other processes of a run; must come before the first JAX computation.

    Args:
        address: where they meet.
        workdir: of the run, which the first process writes; None where one process writes none.
        heartbeat: seconds without a sign of life after which a process is taken for dead.
        saves: whether SIGTERM is left to JAX, and told by `jax.experimental.multihost_utils`; else it ends
            the process.

    Raises:
        UserError: the address is none, or nobody answers there in time.
    """
    if address.coordinator is None:
        for flag, number in (("num-processes", address.num_processes), ("process-id", address.process_id)):
            if number is not None:
                raise UserError(
                    f"--{flag} is of a run of several processes: pass --coordinator HOST:PORT too"
                )
        return
    jax.config.update("jax_enable_preemption_service", saves)
    auto = address.coordinator == AUTO
    if not auto:
        _wait_for_first(address)
    try:
        jax.distributed.initialize(
            None if auto else address.coordinator,
            address.num_processes,
            address.process_id,
            initialization_timeout=address.connect_timeout,
            heartbeat_timeout_seconds=heartbeat,
            shutdown_timeout_seconds=PATIENCE,
        )
    except (ValueError, RuntimeError) as error:
        if auto and "should be defined" in str(error):
            raise UserError(
                "--coordinator auto: JAX finds no cluster here that it knows, as SLURM, Open MPI, Kubernetes "
                "or a TPU pod; pass --coordinator HOST:PORT, --num-processes and --process-id"
            ) from error
        raise UserError(f"--coordinator {address.coordinator}: {one_line(error)}") from error
    if not is_first():
        files.folder_of_another_process = workdir and workdir.resolve()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # until the process ends, also for what Gloo prints
    devices = Counter(device.process_index for device in jax.devices())
    if len(set(devices.values())) > 1:
        numbers = [devices[i] for i in sorted(devices)]
        raise UserError(f"the processes have {numbers} devices: give each the same number")
    wait_for_all()  # connects them now: where one is late later on, the others wait as long as it takes


def _wait_for_first(address: Address) -> None:
    """Waits until the first process can be reached: JAX would end this one without a word where it cannot.

    Raises:
        UserError: the place of this process is not all said, or cannot be; nobody answers in time; of the
            first process: its port is taken.
    """
    host, _, port = str(address.coordinator).rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"--coordinator {address.coordinator}: write HOST:PORT of process 0, or auto")
    if address.num_processes is None or address.process_id is None:
        raise UserError("--coordinator HOST:PORT needs --num-processes N and --process-id I, I from 0 on")
    if address.process_id >= address.num_processes:
        raise UserError(
            f"--process-id {address.process_id} of --num-processes {address.num_processes}: they count from 0"
        )
    if address.process_id == 0:
        try:
            socket.create_server(("", int(port))).close()
        except OSError as error:
            raise UserError(
                f"--coordinator {address.coordinator}: port {port} cannot be taken here "
                f"({error.strerror or one_line(error)}); choose another one, the same for all processes"
            ) from error
        return
    end = time.monotonic() + address.connect_timeout
    why = ""
    while (left := end - time.monotonic()) > 0:
        try:
            socket.create_connection((host.strip("[]"), int(port)), left).close()
            return
        except OSError as error:
            why = error.strerror or one_line(error)
        time.sleep(min(0.2, max(0.0, left)))
    raise UserError(
        f"nobody answers at {address.coordinator} within {address.connect_timeout} s ({why}): start process "
        f"0 there, or mend --coordinator; --connect-timeout waits longer"
    )


def is_first() -> bool:
    """Tells whether this process is the one that writes and prints."""
    return jax.process_index() == 0


def run_on_first(do: Callable[[], int | None]) -> int:
    """Returns what the first process finds, a whole number, in all of them; others do not run it.

    Raises:
        UserError, OSError: of the first process.
        OtherProcessFailed: of the first process, in the others.
    """
    if jax.process_count() == 1:
        return do() or 0
    found, error = 0, None
    if is_first():
        try:
            found = do() or 0
        except (UserError, OSError) as raised:
            error = raised
    message = np.frombuffer(str(error or "").encode()[:LONGEST].ljust(LONGEST), np.uint8)
    failed, found, message = multihost_utils.broadcast_one_to_all(
        (np.int32(error is not None), np.int32(found), message)
    )
    if error is not None:
        raise error
    if failed:
        raise OtherProcessFailed(bytes(message).decode(errors="replace").rstrip())
    return int(found)


def wait_for_all() -> None:
    """Waits until all processes are here."""
    run_on_first(lambda: None)


@contextlib.contextmanager
def enter_on_first(context: contextlib.AbstractContextManager[Any]) -> Iterator[None]:
    """Enters a context in the first process alone; what it raises there is raised in all.

    Raises:
        UserError: of the context.
    """
    with contextlib.ExitStack() as stack:
        run_on_first(lambda: stack.enter_context(context))
        yield


@contextlib.contextmanager
def watch_for_stop() -> Iterator[Callable[[int], str | None]]:
    """Yields step -> the name of the signal that stops the run after this step; None to go on.

    All processes have to ask after every step, and are told the same. In a run of several JAX watches SIGTERM
    and lets them agree on a step; other signals become that one.
    """
    if jax.process_count() == 1:
        with signals.note_signals() as received:
            yield lambda step: received[0] if received else None
        return
    with signals.turn_into_sigterm():
        yield lambda step: "SIGTERM" if multihost_utils.reached_preemption_sync_point(step) else None


# Programs that start their processes themselves call it by the name that it had first.
join = join_processes
