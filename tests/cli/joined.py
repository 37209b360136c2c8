"""A command as one of several processes, with a table for a network, all arrays of which FSDP cuts.

python -m tests.cli.joined WORDS: those of d3pm.
"""

import sys

from d3pm_jax.cli.main import main
from d3pm_jax.runs import devices, network
from tests import tiny

if __name__ == "__main__":
    network.split = tiny.split
    devices.WORTH_CUTTING = 1
    main(sys.argv[1:])
