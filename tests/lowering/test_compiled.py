"""What an H100 would run: programs of benchmarks/compiled.py, by Python of an environment with [compiled].

Its JAX compiles, whatever JAX runs the tests: on Python 3.11 the oldest of the range, above the newest. The
name of each test says which, as in test_memory_of_the_gaussian_loss[jax 0.12.0.1].
"""

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
# Passes over the logits, at most. Those of Optax's cross entropy with its gradient are 4.1.
MOST_PASSES = {
    "loss, uniform, d3pm": 3.2,
    "categorical": 1.2,
    "p_sample, uniform, d3pm": 1.2,
    "q_sample, uniform": 0.1,
}
# Those of a dense process, of which a part counts that is mostly not run; and its temporaries in MB.
MOST_PASSES_OF_GAUSSIAN = 26
MOST_TEMPORARIES_OF_GAUSSIAN = 250
# Of the training step of mnist_uniform, at most.
MOST_KERNELS = 1200
MOST_MB = 3200


pytestmark = [pytest.mark.slow, pytest.mark.skipif(PYTHON not in os.environ, reason=CURE)]


def run_python(*words):
    """Returns what a program prints that the Python of that environment runs."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    # It compiles as users do. Another version of XLA may not know the flags of this one either.
    for name in ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS"):
        environment.pop(name, None)
    process = subprocess.run(
        [os.environ[PYTHON], *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def read_version():
    """Returns which JAX compiles, for the names of the tests."""
    if PYTHON not in os.environ:
        return "no jax"
    return "jax " + run_python("-c", "import importlib.metadata as m; print(m.version('jax'))").strip()


@pytest.fixture(autouse=True, params=[read_version()])
def version(request):
    return request.param


def read_rows(printed):
    """Returns the cells of each row of a table by the first of them."""
    cells = [line.strip("| ").split(" | ") for line in printed.splitlines() if line.startswith("|")]
    return {row[0]: row for row in cells[2:]}


def test_a_step_on_described_cards():
    printed = run_python(
        "-m",
        "d3pm_jax",
        "train",
        "configs/digits_uniform.py",
        "--dry-run",
        "--on",
        "h100:8",
        "--mesh.fsdp",
        "8",
    )
    assert "compiled, not run: 8 x NVIDIA H100 80GB HBM3" in printed
    assert "it fits: " in printed
    collectives = next(line for line in printed.splitlines() if line.startswith("collectives: "))
    assert "all-gather" in collectives  # of the parameters, of which each card holds a part


def test_passes_over_the_logits():
    printed = run_python("benchmarks/compiled.py", "loss", "draw", "uniform")
    rows = read_rows(printed)
    assert set(rows) == set(MOST_PASSES), printed
    for name, most in MOST_PASSES.items():
        assert 0 < float(rows[name][3]) <= most, rows[name]
    assert rows["loss, uniform, d3pm"][7].endswith("; 0 B")  # spills


def test_passes_of_rows_of_samplers():
    rows = read_rows(run_python("benchmarks/compiled.py", "chain", "absorbing"))
    leaps = rows.pop("tau_leaping, absorbing")
    assert len(rows) == 6
    for name, row in rows.items():
        assert 1 <= float(row[3]) <= 1.3, (name, row)
    assert float(leaps[3]) <= 15


def test_passes_of_a_gaussian_reverse_step():
    row = read_rows(run_python("benchmarks/compiled.py", "draw", "gaussian"))["p_sample, gaussian, d3pm"]
    assert float(row[3]) <= 8
    assert int(row[4]) <= 213


def test_no_registers_are_an_error(tmp_path, version):
    """A program whose PTX was not written has none to read, which is no figure."""
    (tmp_path / "empty.ptx").touch()
    words = f"import compiled, pathlib; compiled.count_registers(pathlib.Path({str(tmp_path)!r}), "
    words += "compiled.cards.CARDS['h100'])"
    process = subprocess.run(
        [os.environ[PYTHON], "-c", words],
        cwd=ROOT / "benchmarks",
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert process.returncode == 1
    assert f"no registers read, of 1 files of PTX that XLA of {version} wrote: change DUMP" in process.stderr


def test_registers_of_a_loss_in_bfloat16():
    """The kernel that spilled first where a block had 1,024 elements."""
    row = read_rows(run_python("benchmarks/compiled.py", "loss", "marginal", "--bf16"))[
        "loss, marginal, d3pm"
    ]
    assert row[7].endswith("; 0 B"), row


def test_memory_of_the_gaussian_loss():
    row = read_rows(run_python("benchmarks/compiled.py", "loss", "gaussian"))["loss, gaussian, d3pm"]
    assert float(row[3]) <= MOST_PASSES_OF_GAUSSIAN, row
    assert int(row[4]) <= MOST_TEMPORARIES_OF_GAUSSIAN, row


def test_the_step_of_a_network_with_skips():
    row = read_rows(run_python("benchmarks/compiled.py", "step", "mnist_uniform"))["step of mnist_uniform"]
    assert not row[1].startswith("FAILS"), row
    kernels, megabytes = (int(cell.replace(",", "")) for cell in row[1:3])
    assert kernels <= MOST_KERNELS, row
    assert megabytes <= MOST_MB, row
    assert "left to cuBLAS" not in row[-1]


# The step of the text network of benchmarks/compiled.py, for a TPU that is only described.
STEP_ON_TPU = """
import argparse, functools
import compiled
from d3pm_jax.program.compiled import cost
card, devices = compiled.cards.describe_devices("v5e")
config, mesh = compiled.open_config(compiled.TEXT, argparse.Namespace(bf16=True, fsdp=1), devices)
with compiled.cards.as_default(mesh):
    parts = compiled.loop.build_described_run(config, mesh)
print(compiled.cards.compile_for(card, mesh, functools.partial(cost.trace_step, parts)).executable.as_text())
"""


def test_a_tpu_has_no_scores_of_attention_in_memory(tmp_path):
    needed = run_python("-c", "import importlib.util as u; print(*map(u.find_spec, ('libtpu', 'tokamax')))")
    if "None" in needed:
        pytest.skip("needs libtpu and tokamax: pip install 'jax[tpu]' tokamax, on Python 3.12 or newer")
    script = tmp_path / "step.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(ROOT / 'benchmarks')!r})\n{STEP_ON_TPU}")
    program = run_python(str(script))
    assert "splash_mha" in program  # the kernel of attention
    assert "[12,32,1024,768]" in program  # what all layers keep
    assert ",1024,1024]" not in program
