"""No program of a draw takes minutes to compile: LLVM's vectoriser did not end with JAX 0.12."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    jax.__version_info__ < (0, 11), reason="the older JAX compiled each in seconds"
)


@pytest.mark.parametrize(
    ("K", "programs"),
    [
        # A draw that did not end; those that took 30 to 40 s are among all.
        ("241", ["rows that all share"]),
        pytest.param("241", [""], marks=pytest.mark.slow),
        pytest.param("17", [""], marks=pytest.mark.slow),
    ],
)
def test_programs_compile_as_users_compile_them(K, programs):
    """Each in at most 20 s: the process is killed where one takes longer."""
    as_users_do = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    words = ["benchmarks/compile_times.py", K, "--only", *programs, "--most", "20"]
    environment = as_users_do | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    process = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert process.stdout.count(f"K = {K}: ") >= len(programs)
