"""Takes the signals that stop a program: notes them, for what has to save first, or ends the process soon.

A handler of Python runs when the main thread is back from compiled code, and compiling, or drawing a batch of
samples, may take minutes. So a thread is told of signals too, and ends a process that does not end by itself.
"""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType

STOPPED = 130  # the exit status
GRACE = 1.0  # seconds in which a process may end by itself
# A terminal that is closed sends SIGHUP, often twice, and a Windows knows none.
SIGHUP = getattr(signal, "SIGHUP", None)
STOPPING = tuple(number for number in (signal.SIGINT, signal.SIGTERM, SIGHUP) if number is not None)


@contextlib.contextmanager
def note_signals() -> Iterator[list[str]]:
    """Yields a list that takes the name of a signal in place of an end; a second one interrupts."""
    received: list[str] = []

    def note(number: int, frame: FrameType | None) -> None:
        if not received:
            received.append(signal.Signals(number).name)
        elif number != SIGHUP:
            raise KeyboardInterrupt(received[0])

    with _handled(note):
        yield received


@contextlib.contextmanager
def turn_into_sigterm() -> Iterator[None]:
    """Makes SIGTERM of each other signal that stops, and leaves that one to who watches it."""

    def send(number: int, frame: FrameType | None) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with _handled(send, but=signal.SIGTERM):
        yield


@contextlib.contextmanager
def end_on_signals(tell: Callable[[str], None]) -> Iterator[None]:
    """Makes a signal interrupt the block, and ends the process where that takes long or a second one comes.

    Args:
        tell: prints that the signal of this name ends the process.
    """
    if not _in_main_thread():
        yield
        return
    read, write = socket.socketpair()
    write.setblocking(False)
    threading.Thread(target=_watch, args=(read, tell), daemon=True).start()
    with write, _handled(_interrupt):
        before = signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def _watch(read: socket.socket, tell: Callable[[str], None]) -> None:
    """Reads the numbers of signals until the block has ended, and ends the process where it has to."""
    first = 0
    with read, contextlib.suppress(TimeoutError):
        while True:
            number = (read.recv(1) or b"\0")[0]
            if not number:
                return
            if number not in STOPPING or (first and number == SIGHUP):
                continue
            if first:
                break
            first = number
            if signal.getsignal(number) is _interrupt:
                read.settimeout(GRACE)
    with contextlib.suppress(OSError):  # of a terminal that is gone
        if os.isatty(1):
            os.write(1, b"\x1b[?25h\n")  # shows the cursor, which a bar hides
        tell(signal.Signals(first).name)
    os._exit(STOPPED)


@contextlib.contextmanager
def _handled(handler: Callable[[int, FrameType | None], None], but: int | None = None) -> Iterator[None]:
    """Handles the signals that stop in the block; SIGHUP not where it is ignored, as nohup has it."""
    if not _in_main_thread():
        yield
        return
    ignored = SIGHUP is not None and signal.getsignal(SIGHUP) is signal.SIG_IGN
    taken = [n for n in STOPPING if n != but and not (n == SIGHUP and ignored)]
    old = {number: signal.signal(number, handler) for number in taken}
    try:
        yield
    finally:
        for number, before in old.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)


def _in_main_thread() -> bool:
    """Tells whether handlers can be set here."""
    return threading.current_thread() is threading.main_thread()
