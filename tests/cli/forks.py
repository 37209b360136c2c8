"""Commands as forks, with a table for a network; a signal comes where a test says."""

import functools
import os

from d3pm_jax.cli.main import main
from d3pm_jax.program.loop import metrics
from d3pm_jax.program.measure import examples, samples
from d3pm_jax.program.parts import build, network
from d3pm_jax.program.storage import checkpoint
from tests import tiny

# Where a signal comes: (owner, name of a function, which call of it).
PLACES = {
    "early": (build, "build", 1),
    "step": (metrics.Window, "add", 6),
    # Of step 8: its arrays are written, its manifest is not, in the background.
    "save": (checkpoint, "_hash_files", 2),
    "evaluation": (examples, "evaluate_bound", 1),
    "sampling": (samples, "make_labels", 1),
}


def signalled(function, number, call):
    """The function, which sends the process a signal when it is called for the call-th time."""
    calls = []

    @functools.wraps(function)
    def wrapped(*args, **options):
        calls.append(0)
        if len(calls) == call:
            os.kill(os.getpid(), number)
        return function(*args, **options)

    return wrapped


def run_command(words, number=None, place=None):
    """Runs a command, which gets a signal at a place, if one is given."""
    network.split_network = tiny.split
    if place is not None:
        owner, name, call = PLACES[place]
        setattr(owner, name, signalled(getattr(owner, name), number, call))
    main([str(word) for word in words])
