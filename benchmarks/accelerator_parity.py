"""Rows of `accelerator.py` that compare everything with PyTorch on the CPU, on a GPU only."""

import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax
from measuring import Row, Rows, in_time

SECONDS = {"bfloat16": 90, "float32": 300, "float64": 300}  # that a type may take


def parity(small: bool, end: float) -> Rows:
    """One type after the other, each in a process of its own."""
    for dtype, seconds in SECONDS.items():
        what = f"parity_tests --device gpu --dtype {dtype}"
        command = [sys.executable, "-m", *what.split(), "--matmul-precision", "highest"]
        row = partial(in_time, seconds, end, partial(compare, command, end))
        if small or jax.default_backend() != "gpu":
            row = partial(Row, correct="NOT COMPARED: needs a GPU, not --small; `make parity` is for CPUs")
        yield what, row


def compare(command: list[str], end: float) -> Row:
    """Runs a comparison, and says how many comparisons there were, and failed."""
    limit = end - time.monotonic()
    root = Path(__file__).parents[1]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return Row(correct=f"NOT COMPARED: no time, not done in {limit:.0f} s; --minutes 30")
    counts = re.search(r"([\d,]+) comparisons, (\d+) failed", done.stdout)
    if not counts:
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        return Row(correct=f"DID NOT RUN: {last}", ok=False)
    if done.returncode == 0 and counts[2] == "0":
        return Row(correct=f"yes: {counts[0]}", ok=True)
    return Row(correct=f"WRONG: {counts[0]}", ok=False)
