"""Commands of several processes, with a table for a network, all arrays of which FSDP cuts.

Each is a fork of one process that has imported what commands import, which takes longer than they do.
"""

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import traceback

import jax

from d3pm_jax.cli.main import main
from d3pm_jax.loop import sinks as logs
from d3pm_jax.machine import cluster, devices
from d3pm_jax.parts import network
from tests import tiny
from tests.cli import forks

forks.imported()
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload([__name__])


def broken(error):
    """A function that raises in the first process."""

    def function(*_, **__):
        if cluster.is_first():
            raise error

    return function


def run_command(words, devices_each, broken_part, outputs):
    """Runs a command as if it were all that this process does."""
    for number, path in zip((1, 2), outputs, strict=True):
        os.dup2(os.open(path, os.O_WRONLY), number)
    os.environ["JAX_NUM_CPU_DEVICES"] = str(devices_each)
    jax.config.update("jax_num_cpu_devices", devices_each)  # which was imported without it
    if broken_part == "logs":
        logs.Lines.log = broken(ValueError("broken"))
    if broken_part == "standard output":
        logs.Lines.log = broken(BrokenPipeError())
    network.split_network = tiny.split
    devices.WORTH_CUTTING = 1
    status = 0
    try:
        main(words)
    except SystemExit as ended:
        status = ended.code
    except BaseException:
        traceback.print_exc()
        status = 1
    # A process that multiprocessing has begun ends without these, one of which leaves the cluster.
    sys.stdout.flush()
    atexit._run_exitfuncs()
    sys.exit(status)


class Command:
    """A command in a process of its own, used as a `subprocess.Popen` of it would be."""

    def __init__(self, words, folder, devices_each, broken_part):
        self.outputs = [folder / f"{time.monotonic_ns()}.{end}" for end in ("out", "err")]
        for path in self.outputs:
            path.touch()
        arguments = ([str(word) for word in words], devices_each, broken_part, self.outputs)
        self.process = SERVER.Process(target=run_command, args=arguments)
        self.process.start()

    @property
    def returncode(self):
        return self.process.exitcode

    def poll(self):
        return self.process.exitcode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.process.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def printed(self):
        """What it has printed so far, and to its errors."""
        output, errors = self.outputs
        return output.read_text(), errors.read_text()

    def communicate(self, timeout=None):
        """What it has printed, and to its errors, when it has ended."""
        self.process.join(timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired("d3pm", timeout)
        return self.printed()
