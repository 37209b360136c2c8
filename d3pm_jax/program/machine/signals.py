"""Takes the signals that stop a program: notes them, for what has to save first, or ends the process soon.

A handler of Python runs when the main thread is back from compiled code, and compiling, or drawing a batch of
samples, may take minutes. So a thread is woken by signals too, and ends a process that does not end by
itself. It learns of them by `signal.set_wakeup_fd`: the handler in C, which runs at once, writes the number
of the signal to a socket, from which the thread reads.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from d3pm_jax.cpu.malloc import in_first_arena

STOPPED = 130  # the exit status
GRACE = 1.0  # seconds in which a process may end by itself
# Closing a terminal sends SIGHUP, often twice. Windows has no SIGHUP.
SIGHUP = getattr(signal, "SIGHUP", None)
STOPPING = tuple(number for number in (signal.SIGINT, signal.SIGTERM, SIGHUP) if number is not None)


@contextlib.contextmanager
def note_signals() -> Iterator[list[str]]:
    """Yields a list, to which the first signal in the block adds its name; a second signal interrupts."""
    received: list[str] = []

    def note(number: int, frame: FrameType | None) -> None:
        if not received:
            received.append(signal.Signals(number).name)
        elif number != SIGHUP:  # of which a terminal sends two
            raise KeyboardInterrupt(received[0])

    with _handled(note):
        yield received


@contextlib.contextmanager
def turn_into_sigterm() -> Iterator[None]:
    """Sends the process SIGTERM for each other signal that stops, and leaves SIGTERM itself to JAX."""

    def send(number: int, frame: FrameType | None) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with _handled(send, excluded=signal.SIGTERM):
        yield


@contextlib.contextmanager
def end_on_signals(print_stopped: Callable[[str], None]) -> Iterator[None]:
    """Interrupts the block by a signal, and ends the process where that takes long or a second signal comes.

    Args:
        print_stopped: prints that the signal of this name ends the process.
    """
    if not _in_main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    # A handler in C must not wait, whatever is in the socket.
    writer.setblocking(False)
    has_arena = threading.Event()
    with in_first_arena():
        threading.Thread(target=_watch, args=(reader, print_stopped, has_arena), daemon=True).start()
        has_arena.wait()
    # At the end of the block the writer is closed, by which the thread ends too.
    with writer, _handled(_interrupt), _without_traces_of_swallowed_interrupts():
        previous = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(previous)


@contextlib.contextmanager
def _without_traces_of_swallowed_interrupts() -> Iterator[None]:
    """Prints nothing of an interrupt from which Python raises nothing: in a `__del__`, in a callback.

    The thread ends the process soon then, with its one line.
    """
    previous = sys.unraisablehook

    def print_others(unraisable: "sys.UnraisableHookArgs") -> None:
        if not isinstance(unraisable.exc_value, KeyboardInterrupt):
            previous(unraisable)

    sys.unraisablehook = print_others
    try:
        yield
    finally:
        sys.unraisablehook = previous


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def _watch(reader: socket.socket, print_stopped: Callable[[str], None], has_arena: threading.Event) -> None:
    """Reads the numbers of signals until the block has ended, and ends the process where it has to."""
    # The first memory that a thread takes from malloc decides its arena. Small objects are taken elsewhere.
    bytearray(4096)
    has_arena.set()
    first = 0
    # The timeout is set by the first signal: who goes on for so long is in compiled code, and is ended below.
    with reader, contextlib.suppress(TimeoutError):
        while True:
            received = reader.recv(1)
            if not received:
                return  # the writer is closed
            number = received[0]
            if number not in STOPPING or (first and number == SIGHUP):
                continue
            if first:
                break
            first = number
            # Under another handler, as that of `note_signals`, the program saves first, as long as it takes.
            if signal.getsignal(number) is _interrupt:
                reader.settimeout(GRACE)
    with contextlib.suppress(OSError):  # of a terminal that is gone
        if os.isatty(1):
            os.write(1, b"\x1b[?25h\n")  # shows the cursor, which a bar hides
        print_stopped(signal.Signals(first).name)
    # sys.exit would end only this thread, and wait for the main one.
    os._exit(STOPPED)


@contextlib.contextmanager
def _handled(handler: Callable[[int, FrameType | None], None], excluded: int | None = None) -> Iterator[None]:
    """Handles the signals that stop by a function in the block, and as before after it.

    Args:
        handler: of the signals.
        excluded: a signal that keeps its handler.
    """
    if not _in_main_thread():
        yield
        return
    handled = [number for number in STOPPING if number != excluded]
    # Under nohup SIGHUP is ignored, and has to stay ignored.
    if SIGHUP is not None and SIGHUP in handled and signal.getsignal(SIGHUP) is signal.SIG_IGN:
        handled.remove(SIGHUP)
    previous = {number: signal.signal(number, handler) for number in handled}
    try:
        yield
    finally:
        for number, old_handler in previous.items():
            # None was set in C, and Python cannot set it again.
            signal.signal(number, old_handler or signal.SIG_DFL)


def _in_main_thread() -> bool:
    """Says whether handlers can be set here, which Python allows in the main thread alone."""
    return threading.current_thread() is threading.main_thread()
