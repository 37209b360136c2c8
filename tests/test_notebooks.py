"""The notebooks are their sources with outputs, and run anywhere; progress and interrupts in one."""

import json
import re
from pathlib import Path

import nbformat
import pytest

from notebooks import execute

FOLDER = Path(execute.__file__).parent
LARGEST = 1_000_000  # bytes
SMALL = {
    "train_bin_mnist": {"STEPS": 4, "MORE": 4, "LIMIT": 20},
}
MACHINE = re.compile(r"/tmp/|/home/|/root/|/Users/|site-packages|Traceback|Warning|WARNING")


def test_all_are_tested():
    assert set(SMALL) == set(execute.NAMES)
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(execute.NAMES)


@pytest.mark.parametrize("name", SMALL)
def test_what_is_kept_is_of_its_source(name):
    """`make notebooks` makes it so again."""
    path = FOLDER / f"{name}.ipynb"
    kept, source = nbformat.read(path, 4), execute.source(name)
    nbformat.validate(kept)
    assert [(c.cell_type, c.source) for c in kept.cells] == [(c.cell_type, c.source) for c in source.cells]
    code = [cell for cell in kept.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert {output.name for output in outputs if output.output_type == "stream"} <= {"stdout"}
    assert path.stat().st_size < LARGEST
    assert MACHINE.findall(json.dumps(outputs)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_each_runs_small_in_an_empty_folder(name, tmp_path):
    notebook = execute.source(name)
    execute.execute(notebook, tmp_path, **SMALL[name])
    assert not any(
        output.get("name") == "stderr" for cell in notebook.cells for output in cell.get("outputs", ())
    )
