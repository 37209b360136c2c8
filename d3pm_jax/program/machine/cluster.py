"""Joins the processes of a run to one program of JAX, and lets them agree.

All of them run the same code. The first process alone prints, and writes what stands in the folder of the
run, but for checkpoints, to which all processes write. What the first one reads there it sends to the others,
so that all of them decide alike: one that took another branch would wait for ever in a computation that the
others never join.
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
from d3pm_jax.program.machine import signals

AUTO = "auto"
# Bytes of the message that the others get where the first process fails: an array has one shape everywhere.
MESSAGE_BYTES = 1000
# Seconds that a process which is done waits for the first one to write its results.
PATIENCE = 24 * 3600


class Address(NamedTuple):
    """Says where the processes of a run meet, and which of them this is.

    Attributes:
        coordinator: HOST:PORT of the first process, or "auto"; None where there is one process alone.
        num_processes: how many there are.
        process_id: which of them this is, from 0 on.
        connect_timeout: seconds to wait for the others.
    """

    coordinator: str | None
    num_processes: int | None = None
    process_id: int | None = None
    connect_timeout: int = 60


class OtherProcessFailed(UserError):
    """Error of the other processes where the first one has failed, with its message."""


def join_processes(address: Address, workdir: Path | None, heartbeat: int, saves: bool) -> None:
    """Joins the other processes of a run; must come before the first JAX computation.

    Args:
        address: where they meet.
        workdir: of the run, which the first process writes; None where one process writes none.
        heartbeat: seconds without a sign of life after which a process is taken for dead.
        saves: whether SIGTERM is left to JAX, and reported by `jax.experimental.multihost_utils`; else it
            ends the process.

    Raises:
        UserError: the address is not valid, nobody answers there in time, or the processes have different
            numbers of devices.
    """
    if address.coordinator is None:
        _refuse_numbers(address)
        return

    # The preemption service of JAX takes SIGTERM in C++, for all of the process. A training needs it, so that
    # all processes agree after which step they save. A command that saves nothing leaves it off, and SIGTERM
    # ends it as it would end any program.
    jax.config.update("jax_enable_preemption_service", saves)

    is_auto = address.coordinator == AUTO
    if not is_auto:
        _wait_for_first(address)
    try:
        # A process that gives no sign of life for `heartbeat` seconds is taken for dead, and JAX ends the
        # others: none of them is left waiting for it in a collective operation.
        jax.distributed.initialize(
            None if is_auto else address.coordinator,
            address.num_processes,
            address.process_id,
            initialization_timeout=address.connect_timeout,
            heartbeat_timeout_seconds=heartbeat,
            shutdown_timeout_seconds=PATIENCE,
        )
    except (ValueError, RuntimeError) as error:
        # JAX has no error class for this: its text is "coordinator_address should be defined."
        if is_auto and "should be defined" in str(error):
            raise UserError(
                "--coordinator auto: JAX finds no SLURM, Open MPI, Kubernetes or TPU pod here; pass "
                "--coordinator HOST:PORT, --num-processes and --process-id"
            ) from error
        raise UserError(f"--coordinator {address.coordinator}: {one_line(error)}") from error

    if not is_first():
        # The first process writes the files of the run: `files.replacing` throws away what this one writes.
        files.folder_of_another_process = workdir and workdir.resolve()

        # The first process alone prints. Until this one ends, its standard output leads nowhere: the file
        # descriptor itself, not only `sys.stdout`, since Gloo prints from C++.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    # Each process reads an equal part of every batch and puts it on its own devices, and all devices hold
    # equally many rows. So all processes have to have equally many devices.
    devices = Counter(device.process_index for device in jax.devices())
    if len(set(devices.values())) > 1:
        numbers = [devices[i] for i in sorted(devices)]
        raise UserError(f"the processes have {numbers} devices: give each the same number")

    # The first collective operation connects the processes, and that has a limit of time. Once they are
    # connected, they wait for a late one as long as it takes.
    wait_for_all()


def _refuse_numbers(address: Address) -> None:
    """Raises UserError where one process alone is said to be of several."""
    numbers = {"num-processes": address.num_processes, "process-id": address.process_id}
    for flag, number in numbers.items():
        if number is not None:
            raise UserError(
                f"--{flag} is only for a run of several processes: pass --coordinator HOST:PORT too"
            )


def _wait_for_first(address: Address) -> None:
    """Waits until the first process can be reached.

    JAX waits too, but where nobody answers it gives up in C++, by abort(): the process ends with a trace of
    the stack, which no handler of Python can turn into a message. So an address that is wrong has to be
    noticed here.

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
            f"--process-id {address.process_id} of --num-processes {address.num_processes}: it must be "
            "below that number, as processes count from 0"
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
    reason = ""
    while (seconds_left := end - time.monotonic()) > 0:
        try:
            socket.create_connection((host.strip("[]"), int(port)), seconds_left).close()
            return
        except OSError as error:
            reason = error.strerror or one_line(error)
        time.sleep(min(0.2, seconds_left))
    raise UserError(
        f"nobody answers at {address.coordinator} within {address.connect_timeout} s ({reason}): start "
        "process 0 there, or correct --coordinator; a larger --connect-timeout waits longer"
    )


def is_first() -> bool:
    """Says whether this process is the first, which writes and prints."""
    return jax.process_index() == 0


def run_on_first(compute: Callable[[], int | None]) -> int:
    """Computes a whole number only in the first process, and returns it in all of them.

    Args:
        compute: returns the number, or None for 0; may raise UserError and OSError.

    Raises:
        UserError, OSError: in the first process, what `compute` raised.
        OtherProcessFailed: in the others, with the message of what it raised.
    """
    if jax.process_count() == 1:
        return compute() or 0

    number = 0
    error = None
    if is_first():
        try:
            number = compute() or 0
        except (UserError, OSError) as raised:
            error = raised

    # The others are waiting for the number, so they have to hear of a failure too. All processes have to pass
    # arrays of the same shapes, so there is a message also where there is none to tell.
    text = str(error or "").encode()[:MESSAGE_BYTES].ljust(MESSAGE_BYTES)
    message = np.frombuffer(text, np.uint8)  # [MESSAGE_BYTES]
    has_failed, number, message = multihost_utils.broadcast_one_to_all(
        (np.int32(error is not None), np.int32(number), message)
    )
    if error is not None:
        raise error
    if has_failed:
        raise OtherProcessFailed(bytes(message).decode(errors="replace").rstrip())
    return int(number)


def wait_for_all() -> None:
    """Waits until all processes are here."""
    run_on_first(lambda: None)


@contextlib.contextmanager
def enter_on_first(context: contextlib.AbstractContextManager[Any]) -> Iterator[None]:
    """Enters a context only in the first process; what it raises there is raised in all.

    Raises:
        UserError: of the context.
    """
    with contextlib.ExitStack() as stack:
        run_on_first(lambda: stack.enter_context(context))
        yield


@contextlib.contextmanager
def watch_for_stop() -> Iterator[Callable[[int], str | None]]:
    """Yields step -> the name of the signal that stops the run after this step; None to go on.

    All processes have to ask after every step, and get the same answer. One process notes signals itself. Of
    several, each may get its signal at another time, and one that stopped a step earlier than the others
    would leave them waiting in the next one. JAX watches SIGTERM for that, and lets all of them agree on a
    step; other signals are turned into SIGTERM.
    """
    if jax.process_count() == 1:
        with signals.note_signals() as received:
            yield lambda step: next(iter(received), None)
        return
    with signals.turn_into_sigterm():
        yield lambda step: "SIGTERM" if multihost_utils.reached_preemption_sync_point(step) else None
