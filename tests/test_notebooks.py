"""The notebooks are their sources with outputs, and run anywhere; one shows a training and is interrupted."""

import json
import os
import re
import signal
import threading
import time

import nbformat
import pytest
from nbclient import NotebookClient

from d3pm_jax.program.storage import checkpoint
from notebooks import execute

LARGEST = 1_000_000  # bytes
SMALL = {
    "evaluate": {"STEPS": 4, "LIMIT": 8, "COUNTS": [2, 5], "SAMPLES": 130},
    "library_tour": {},
    "presampled_noise": {"STEPS": 4},
    "pytorch": {"STEPS": 4, "FURTHER": 2},
    "train_bin_mnist": {"STEPS": 4, "MORE": 4, "LIMIT": 8},
    "train_mnist": {"STEPS": 4, "MORE": 4, "LIMIT": 8},
}
MACHINE = re.compile(r"/(tmp|home|root|Users|work|opt|mnt)/|site-packages|Traceback|Warning|WARNING")
# Fewer layers compile sooner, and fewer steps of a process have fewer pairs to measure: in place of what the
# source has. Networks of two levels, and longer processes, are trained, exported and measured in other tests.
SMALLER = {
    "evaluate": {"steps=50": "steps=20"},
    "library_tour": {"counts = [1, 2, 4, 8, 16, 32, 64]": "counts = [1, 2, 4, 8]"},
    "presampled_noise": {'"num_res_blocks": 1': '"num_res_blocks": 0'},
    "pytorch": {
        "ch=16, ch_mult=(1, 2), num_res_blocks=1": "ch=8, ch_mult=(1,), num_res_blocks=0",
        "steps=50": "steps=20",
    },
    "train_mnist": {
        "ch=32": "ch=8",
        "if mnist else (1, 2)": "if mnist else (1,)",
        "num_res_blocks=1": "num_res_blocks=0",
    },
}
# Networks of these are built, and replaced by a table: that of evaluate is called ten thousand times, and
# with that of train_mnist all is done that is done with the other.
WITH_A_TABLE = ("evaluate", "train_bin_mnist")
# Its classifier takes minutes to train where little is optimised, and half a minute else.
TRAINS_A_CLASSIFIER = ("evaluate",)
TABLE = """
from d3pm_jax.program.parts import network
from tests import tiny
split_network = network.split_network
def split_table(*args):
    split_network(*args)
    return tiny.split(*args)
network.split_network = split_table
"""
# As in conftest.py, for the networks that are built in a kernel.
SHORT_ERRORS = """
from jax._src.interpreters import partial_eval
partial_eval.DynamicJaxprTracer._origin_msg = lambda self: ""
"""
LONG_TRAINING = """
import dataclasses
from d3pm_jax import runs
from d3pm_jax.program.parts import network
from tests import tiny
network.split_network = tiny.split
config = tiny.get_config()
train = dataclasses.replace(config.train, steps=10**6, log_every=1, checkpoint_every=10**6, sample_every=0)
run = runs.train(dataclasses.replace(config, train=train), "run")
"""


def outputs_of(notebook):
    """All outputs, in order."""
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def test_all_are_tested():
    assert sorted(SMALL) == execute.NAMES
    assert {path.stem for path in execute.FOLDER.glob("*.ipynb")} == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_what_is_kept_is_its_source_with_outputs(name):
    """`make notebooks` makes it so again."""
    path = execute.FOLDER / f"{name}.ipynb"
    notebook = nbformat.read(path, 4)
    source = execute.source(name)
    nbformat.validate(notebook)
    assert [(c.cell_type, c.source) for c in notebook.cells] == [
        (c.cell_type, c.source) for c in source.cells
    ]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = outputs_of(notebook)
    assert {output.output_type for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert {output.name for output in outputs if output.output_type == "stream"} == {"stdout"}
    assert MACHINE.findall(json.dumps(outputs)) == []
    assert path.stat().st_size < LARGEST


def small_source(name):
    """The cells of a notebook with smaller parts, and before them what makes a kernel quicker."""
    notebook = execute.source(name)
    for source, smaller in SMALLER.get(name, {}).items():
        (cell,) = (cell for cell in notebook.cells if source in cell.source)
        cell.source = cell.source.replace(source, smaller)
    first = SHORT_ERRORS
    if name in WITH_A_TABLE:
        first += TABLE
    notebook.cells.insert(0, nbformat.v4.new_code_cell(first))
    return notebook


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_each_runs_small_in_an_empty_folder(name, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # PyTorch's second thread mostly waits for the first
    if name in TRAINS_A_CLASSIFIER:
        monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "False")
    notebook = small_source(name)
    execute.execute(notebook, tmp_path, **SMALL[name])
    assert not any("Warning" in output.get("text", "") for output in outputs_of(notebook))


@pytest.mark.slow
def test_an_interrupt_of_a_cell_saves_and_returns_the_run(tmp_path):
    """The kernel is sent SIGINT, as by Kernel > Interrupt; cells after it work, asynchronous ones too."""
    after = ["print(run.step)", "import asyncio; await asyncio.sleep(0.1); print('slept')"]
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(text) for text in (LONG_TRAINING, *after)]
    )
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", coalesce_streams=True)
    client.resources = {"metadata": {"path": str(tmp_path)}}

    def interrupt():
        metrics = tmp_path / "run/metrics.jsonl"
        while not metrics.exists() or metrics.read_text().count("\n") < 3:
            time.sleep(0.1)
        os.kill(client.km.provisioner.pid, signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    client.execute(env={**os.environ, "PYTHONPATH": str(execute.FOLDER.parent)})
    (saved,) = checkpoint.list_steps(tmp_path / "run/checkpoints")
    assert saved >= 3
    outputs = outputs_of(notebook)
    (progress,) = (output for output in outputs if output.output_type == "display_data")
    printed, step, slept = (output for output in outputs if output.get("name") == "stdout")
    assert progress.data["text/plain"].startswith(f"step {saved}/1000000  loss ")  # one line for all steps
    assert printed.text == f"attention: xla\nstopped by SIGINT, saved step {saved}\n"
    assert (step.text, slept.text) == (f"{saved}\n", "slept\n")
