"""A command as one of several processes, with a table for a network, all arrays of which FSDP cuts.

python -m tests.cli.joined WORDS: those of d3pm. The variable D3PM_BREAK has the first process fail.
"""

import os
import sys

from d3pm_jax.cli.main import main
from d3pm_jax.loop import sinks as logs
from d3pm_jax.machine import cluster, devices
from d3pm_jax.parts import network
from tests import tiny


def broken(error):
    """A function that raises in the first process."""

    def function(*_, **__):
        if cluster.is_first():
            raise error

    return function


if __name__ == "__main__":
    if os.environ.get("D3PM_BREAK") == "logs":
        logs.Lines.log = broken(ValueError("broken"))
    if os.environ.get("D3PM_BREAK") == "standard output":
        logs.Lines.log = broken(BrokenPipeError())
    network.split_network = tiny.split
    devices.WORTH_CUTTING = 1
    main(sys.argv[1:])
