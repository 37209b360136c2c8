"""Runs commands in forks of one process, which imports only once; a signal comes where a case says.

python -m tests.cli.forks CASES.json: a list of {"name", "args", "signal", "place"}, the last two null for
none. Each command has a table for a network. What it prints goes to NAME.out and NAME.err beside the file,
and the exit statuses to statuses.json; minus the number of a signal that ended it.
"""

import functools
import json
import os
import sys
import traceback
from pathlib import Path

from d3pm_jax.cli.main import COMMANDS, main
from d3pm_jax.loop import metrics
from d3pm_jax.measure import bounds, samples
from d3pm_jax.parts import build, network
from d3pm_jax.storage import checkpoint
from tests import tiny

# Where a signal comes: (owner, name of a function, which call of it).
PLACES = {
    "early": (build, "build", 1),
    "step": (metrics.Window, "add", 6),
    # Of step 8: its arrays are written, its manifest is not, in the background.
    "save": (checkpoint, "_hash_files", 2),
    "evaluation": (bounds, "evaluate_bound", 1),
    "sampling": (samples, "_make_labels", 1),
}


def imported():
    """Everything that commands import."""
    for command in COMMANDS.values():
        __import__(f"d3pm_jax.cli.{command.module}")
    for name in ("grain", "matplotlib.figure", "tensorboardX"):
        __import__(name)


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


def child(case, folder):
    """Runs a case, and does not return."""
    for number, end in ((1, "out"), (2, "err")):
        file = os.open(folder / f"{case['name']}.{end}", os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
    network.split_network = tiny.split
    if case["place"]:
        owner, name, call = PLACES[case["place"]]
        setattr(owner, name, signalled(getattr(owner, name), case["signal"], call))
    status = 1
    try:
        main(case["args"])
    except SystemExit as ended:
        status = ended.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def run_all(path):
    """Runs the cases one after the other."""
    imported()
    statuses = {}
    for case in json.loads(path.read_text()):
        pid = os.fork()
        if pid == 0:
            child(case, path.parent)
        statuses[case["name"]] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    (path.parent / "statuses.json").write_text(json.dumps(statuses))


if __name__ == "__main__":
    run_all(Path(sys.argv[1]))
