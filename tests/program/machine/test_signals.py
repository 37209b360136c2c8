"""How a signal ends a program, or is noted until it has saved."""

import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from d3pm_jax.program.machine import signals

STOPPING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]

# The main thread stays in C, where it waits for a lock that it has already, which no signal interrupts: a
# handler of Python would wait for it. It is there when another thread says so: a signal that came between its
# last line and C would be handled by Python.
PROGRAM = """
import contextlib, ctypes, threading
from d3pm_jax.program.machine import signals
def tell(name):
    print("ended by", name, flush=True)
libc = ctypes.CDLL(None)
mutex = ctypes.create_string_buffer(256)
libc.pthread_mutex_init(mutex, None)
libc.pthread_mutex_lock(mutex)
with signals.end_on_signals(tell), {block}:
    threading.Timer(1, lambda: print("ready", flush=True)).start()
    libc.pthread_mutex_lock(mutex)
"""


@pytest.fixture(autouse=True)
def _hanging_up_ends():
    """SIGHUP does what it does in a terminal, also where the tests run under nohup, which ignores it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", STOPPING)
def test_the_first_signal_is_noted_and_the_second_interrupts(number):
    before = [signal.getsignal(n) for n in STOPPING]
    with signals.note_signals() as received:
        signal.raise_signal(number)
        assert received == [number.name]
        signal.raise_signal(signal.SIGHUP)  # a terminal that is closed sends two
        assert received == [number.name]
        with pytest.raises(KeyboardInterrupt, match=number.name):
            signal.raise_signal(signal.SIGTERM)
    assert [signal.getsignal(n) for n in STOPPING] == before


def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.end_on_signals(print), signals.note_signals() as received:
            signal.raise_signal(signal.SIGHUP)
            assert received == []
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_block_that_ends_by_itself_is_not_ended():
    def print_stopped(name):
        raise AssertionError

    for number in STOPPING:
        with pytest.raises(KeyboardInterrupt, match=number.name), signals.end_on_signals(print_stopped):
            signal.raise_signal(number)


def test_an_interrupt_that_python_swallows_prints_no_trace(monkeypatch):
    printed = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: printed.append(str(unraisable.exc_value)))

    class Deleted:
        def __init__(self, deletion):
            self.deletion = deletion

        def __del__(self):
            self.deletion()

    # The block ends before the process is ended, which it is where an interrupt was swallowed.
    with signals.end_on_signals(print):
        Deleted(lambda: signal.raise_signal(signal.SIGTERM))
        Deleted(lambda: [].index("another"))
    Deleted(lambda: signals._interrupt(signal.SIGTERM, None))
    assert printed == ["'another' is not in list", "SIGTERM"]


@pytest.mark.slow
def test_compiled_code_does_not_keep_a_process_alive():
    programs = [
        PROGRAM.format(block=block) for block in ("contextlib.nullcontext()", "signals.note_signals()")
    ]
    processes = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        for program in programs
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    interrupted, noting = processes
    interrupted.send_signal(signal.SIGTERM)
    for _ in range(2):  # a terminal that is closed sends two
        noting.send_signal(signal.SIGHUP)
        time.sleep(2 * signals.GRACE)
        assert noting.poll() is None
    noting.send_signal(signal.SIGTERM)
    for process, name in ((interrupted, "SIGTERM"), (noting, "SIGHUP")):
        output, _ = process.communicate(timeout=10 * signals.GRACE)
        assert output == f"ended by {name}\n"
        assert process.returncode == signals.STOPPED


def test_a_signal_ends_a_process_without_a_standard_output(monkeypatch):
    ended = []
    signal_names = []
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(signals.os, "_exit", ended.append)
    read, write = socket.socketpair()
    with write:
        write.send(bytes([signal.SIGTERM, signal.SIGTERM]))
        signals._watch(read, signal_names.append, threading.Event())
    assert (ended, signal_names) == ([130], ["SIGTERM"])
