"""Commands of several processes, with a table for a network, all arrays of which FSDP cuts."""

from contextlib import nullcontext

from d3pm_jax.cli.main import main
from d3pm_jax.program.loop import sinks as logs
from d3pm_jax.program.machine import cluster, devices
from d3pm_jax.program.parts import network
from tests import tiny
from tests.forked import Fork


def broken(error):
    """A function that raises in the first process."""

    def function(*_, **__):
        if cluster.is_first():
            raise error

    return function


def run_command(words, broken_part):
    """Runs a command of one of the processes."""
    if broken_part == "logs":
        logs.append_lines = lambda *_: nullcontext(broken(ValueError("broken")))
    if broken_part == "standard output":
        logs.append_lines = lambda *_: nullcontext(broken(BrokenPipeError()))
    network.split_network = tiny.split
    devices.WORTH_CUTTING = 1
    main(words)


def start_command(words, folder, devices_each, broken_part):
    """Starts a command of one of the processes, with so many devices."""
    words = [str(word) for word in words]
    return Fork(folder, run_command, words, broken_part, JAX_NUM_CPU_DEVICES=devices_each)
