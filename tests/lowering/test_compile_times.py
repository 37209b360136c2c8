"""No program of a draw takes minutes to compile: LLVM's vectoriser did not end with JAX 0.12."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("K", "programs"),
    [
        pytest.param("256", "rows that all share", id="rows that all share"),
        # A draw and a loss in one loop took a minute.
        pytest.param("256", "uniform: loss", id="loss"),
        # A search by bisection, which took 90 s where K is no power of two.
        pytest.param("241", "", id="all of 241", marks=pytest.mark.slow),
        pytest.param("17", "", id="all of 17", marks=pytest.mark.slow),
    ],
)
def test_programs_compile_as_users_compile_them(K, programs):
    """Each in at most 60 s: the process is killed where one takes longer."""
    as_users_do = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    words = ["benchmarks/compile_times.py", K, "--only", programs, "--most", "60"]
    environment = as_users_do | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    process = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert f"K = {K}" in process.stdout
