"""What an H100 would run: programs of benchmarks/compiled.py, by Python of an environment with [compiled]."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = "D3PM_COMPILED_PYTHON"
CURE = (
    f"python -m venv compiled && compiled/bin/pip install -e '.[compiled,train]' && "
    f"{PYTHON}=$PWD/compiled/bin/python make slow"
)
# Passes over the logits, at most. Those of Optax's cross entropy with its gradient are 6.1.
MOST_PASSES = {
    "loss, uniform, d3pm": 6.5,
    "categorical": 2.8,
    "p_sample, uniform, d3pm": 9.6,
    "q_sample, uniform": 0.1,
}


@pytest.mark.slow
@pytest.mark.skipif(PYTHON not in os.environ, reason=CURE)
def test_passes_over_the_logits():
    words = [os.environ[PYTHON], "benchmarks/compiled.py", "loss", "draw", "uniform"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    process = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert process.returncode == 0, process.stderr
    cells = [line.strip("| ").split(" | ") for line in process.stdout.splitlines() if line.startswith("|")]
    rows = {row[0]: row for row in cells[2:]}
    assert set(rows) == set(MOST_PASSES), process.stdout
    for name, most in MOST_PASSES.items():
        assert 0 < float(rows[name][3]) <= most, rows[name]
    assert rows["loss, uniform, d3pm"][7].endswith("; 0 B")  # spills
