"""Functions in processes of their own, as forks of one that has imported what commands import.

To import it takes longer than most of what these functions do.
"""

import atexit
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import traceback

import jax

from d3pm_jax.cli.main import COMMANDS

# What conftest.py sets for tests, as JAX has it where nothing is set.
JAX_DEFAULTS = {
    "jax_disable_most_optimizations": False,
    "jax_compilation_cache_dir": None,
    "jax_persistent_cache_min_compile_time_secs": 1.0,
    "jax_persistent_cache_min_entry_size_bytes": 0,
}


def import_all():
    """Imports everything that commands import."""
    for command in COMMANDS.values():
        __import__(f"d3pm_jax.cli.{command.module}")
    for name in ("grain", "matplotlib.figure", "tensorboardX"):
        __import__(name)


import_all()
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload([__name__])


def set_environment(variables):
    """Sets variables of the environment; JAX, which was imported without them, is told of its own."""
    for name, value in variables.items():
        os.environ[name] = str(value)
        if name.startswith("JAX_"):
            jax.config.update(name.lower(), value)


def forget_test_settings():
    """Leaves nothing set of JAX and of malloc, as it is for users."""
    for name in list(os.environ):
        if name.startswith(("JAX_", "XLA_", "MALLOC_", "GLIBC_")):
            del os.environ[name]
    for name, value in JAX_DEFAULTS.items():
        jax.config.update(name, value)


def run(function, arguments, outputs, as_users, variables):
    """Calls a function as if it were all that this process does."""
    gc.freeze()  # what was imported is no garbage: to look through all of it takes a fifth of a second
    gc.set_threshold(20_000)
    for number, path in zip((1, 2), outputs, strict=True):
        os.dup2(os.open(path, os.O_WRONLY), number)
    if as_users:
        forget_test_settings()
    set_environment(variables)
    status = 0
    try:
        function(*arguments)
    except SystemExit as ended:
        status = ended.code
    except BaseException:
        traceback.print_exc()
        status = 1
    # A process that multiprocessing has begun ends without these, one of which leaves the cluster.
    sys.stdout.flush()
    atexit._run_exitfuncs()
    sys.exit(status)


class Fork:
    """A function in a process of its own, used as a `subprocess.Popen` would be.

    Args:
        folder: where files for what it prints are made.
        function: of a module, called with the arguments.
        as_users: whether JAX has no settings but those that are given, as where users run it.
        variables: of its environment; those of JAX with values as JAX reads them.
    """

    def __init__(self, folder, function, *arguments, as_users=False, **variables):
        self.outputs = [folder / f"{time.monotonic_ns()}.{end}" for end in ("out", "err")]
        for path in self.outputs:
            path.touch()
        arguments = (function, arguments, self.outputs, as_users, variables)
        self.process = SERVER.Process(target=run, args=arguments)
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

    def wait(self, timeout=None):
        """The exit status, when it has ended."""
        self.process.join(timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired("a fork", timeout)
        return self.returncode

    def printed(self):
        """What it has printed so far, and to its errors."""
        output, errors = self.outputs
        return output.read_text(), errors.read_text()

    def communicate(self, timeout=None):
        """What it has printed, and to its errors, when it has ended."""
        self.wait(timeout)
        return self.printed()
