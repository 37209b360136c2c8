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

from d3pm_jax.storage import checkpoint
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
# In place of a network, which the notebook calls ten thousand times; the other notebooks have theirs.
TABLE = """
from d3pm_jax.parts import network
from tests import tiny
network.split_network = tiny.split
"""
LONG_TRAINING = """
import dataclasses
from d3pm_jax import runs
from d3pm_jax.runs import network
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


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_each_runs_small_in_an_empty_folder(name, tmp_path):
    notebook = execute.source(name)
    if name == "evaluate":
        notebook.cells.insert(0, nbformat.v4.new_code_cell(TABLE))
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
    progress, end, step, slept = outputs_of(notebook)
    assert progress.data["text/plain"].startswith(f"step {saved}/1000000  loss ")  # one line for all steps
    assert end.text == f"stopped by SIGINT, saved step {saved}\n"
    assert (step.text, slept.text) == (f"{saved}\n", "slept\n")
