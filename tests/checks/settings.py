"""Runs every command under every setting of JAX that changes what is drawn or forbids something.

    python -m tests.checks.settings [SETTING ...]

A command gives what it gives without the setting, or says that it does not: in the run that it writes, in a
warning, or in one line in place of a result. Anything else is a defect: silent, or unclear. Settings of
compiling, logging and debugging JAX itself were tried too, and change nothing.
"""

import collections
import json
import math
import os
import shutil
import sys
import tempfile
from pathlib import Path

from d3pm_jax.cli.main import main as run_command
from tests import tiny
from tests.forked import Fork

SETTINGS = {
    "JAX_ENABLE_X64": True,
    "JAX_DEFAULT_PRNG_IMPL": "rbg",
    "JAX_THREEFRY_PARTITIONABLE": False,
    "JAX_RANDOM_SEED_OFFSET": 7,
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_DEBUG_KEY_REUSE": True,
    "JAX_HIGH_DYNAMIC_RANGE_GUMBEL": True,
    "JAX_PLATFORMS": "cuda",
    "JAX_DEBUG_INFS": True,
    "JAX_DEBUG_NANS": True,
    "JAX_DISABLE_JIT": True,
    "JAX_ERROR_CHECKING_BEHAVIOR_DIVIDE": "raise",
    "JAX_ERROR_CHECKING_BEHAVIOR_NAN": "raise",
    "JAX_ERROR_CHECKING_BEHAVIOR_OOB": "raise",
    "JAX_NO_EXECUTION": True,
    "JAX_NO_TRACING": True,
    "JAX_TRANSFER_GUARD": "disallow",
    "JAX_TRANSFER_GUARD_DEVICE_TO_DEVICE": "disallow",
    "JAX_TRANSFER_GUARD_DEVICE_TO_HOST": "disallow",
    "JAX_TRANSFER_GUARD_HOST_TO_DEVICE": "disallow_explicit",
}
DEFAULTS = {"jax_enable_x64": False, "jax_threefry_partitionable": True, "jax_random_seed_offset": 0}
RUN = "run"
NEW = "new"
COMMANDS = {
    "train": ["train", tiny.__file__, "--train.steps=2", "--train.log-every=2", "--workdir", NEW],
    "resume": ["train", "--workdir", RUN, "--resume", "--train.steps=10"],
    "eval": ["eval", RUN, "--limit=4", "--batch-size=4"],
    "sample": ["sample", RUN, "--num=2"],
    "report": ["report", RUN],
    "export": ["export", RUN, "--to=torch"],
}
# Files of results: numbers that noise and weights decide.
RESULTS = ("new/metrics.jsonl", "run/metrics.jsonl", "run/eval_limit4.json", "run/samples.npy")
TIMES = ("seconds_per_step", "examples_per_second", "waiting")


def run_in(folder, words):
    os.chdir(folder)
    run_command(words)


def read_results(folder):
    """The contents of files of results, without what was measured of time."""
    for name in RESULTS:
        path = folder / name
        if path.suffix == ".jsonl" and path.exists():
            rows = map(json.loads, path.read_text().splitlines())
            yield [{key: value for key, value in row.items() if key not in TIMES} for row in rows]
        elif path.suffix == ".json" and path.exists():
            yield json.loads(path.read_text())
        elif path.exists():
            yield path.read_bytes()


def agree(a, b):
    """Says whether results are the same but for rounding, which is another one without jit."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(agree(a[name], b[name]) for name in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(agree, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-6)
    return a == b


def try_command(command, variables, scratch, saved):
    """Runs a command in a copy of a run; returns its fork, what it printed to its errors, and its results."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    shutil.copytree(saved, folder / RUN)
    fork = Fork(scratch, run_in, folder, COMMANDS[command], **{"JAX_PLATFORMS": "cpu", **variables})
    _, errors = fork.communicate(timeout=300)
    return folder, fork.returncode, errors


def find_outcome(command, setting, scratch, saved, expected):
    """What comes of a command under a setting, and the last line of its errors.

    Args:
        expected: the results of the command without the setting.
    """
    folder, status, errors = try_command(command, {setting: SETTINGS[setting]}, scratch, saved)
    last_line = errors.strip().splitlines()[-1] if errors.strip() else ""
    if status != 0:
        is_line = last_line.startswith(f"d3pm {COMMANDS[command][0]}: error: ")
        # As it is for a user: it names the setting, so that one can unset it.
        names_it = setting.lower() in last_line.lower()
        return ("clear" if is_line and names_it and "Traceback" not in errors else "UNCLEAR"), last_line
    if agree([*read_results(folder)], expected):
        return "same", last_line
    written = folder / NEW / "format.json"
    if written.exists() and json.loads(written.read_text())["settings"] != DEFAULTS:
        return "written", last_line
    return ("said" if "noise depends on it" in errors else "SILENT"), last_line


def find_outcomes(settings, commands, scratch, say=print):
    """How often each outcome comes."""
    saved = scratch / "saved"
    tiny.write_run(saved, tiny.get_config())
    counts = collections.Counter()
    for command in commands:
        folder, status, errors = try_command(command, {}, scratch, saved)
        assert status == 0, errors
        expected = [*read_results(folder)]
        for setting in settings:
            outcome, line = find_outcome(command, setting, scratch, saved, expected)
            counts[outcome] += 1
            say(f"{outcome:8} {command:7} {setting}: {line[:200]}")
    return counts


def main(settings):
    with tempfile.TemporaryDirectory() as folder:
        counts = find_outcomes(settings or SETTINGS, COMMANDS, Path(folder))
    print(f"{counts.total()} calls: {dict(counts)}, {counts['SILENT']} silent, {counts['UNCLEAR']} unclear")


if __name__ == "__main__":
    main(sys.argv[1:])
