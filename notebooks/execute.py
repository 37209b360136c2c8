"""Executes the notebooks: of each NAME.py it writes NAME.ipynb, the same cells with what they print and draw.

python notebooks/execute.py [NAME ...]
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode, v4

FOLDER = Path(__file__).resolve().parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path != Path(__file__).resolve())
LONG = 3600  # seconds that no cell should take
PYTHON = {"display_name": "Python 3", "language": "python", "name": "python3"}


def source(name: str) -> NotebookNode:
    """Reads the cells of a notebook from its NAME.py."""
    notebook = jupytext.read(FOLDER / f"{name}.py")
    notebook.metadata = v4.new_notebook(metadata={"kernelspec": PYTHON}).metadata
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"{name}-{i}"  # not at random
    return notebook


def execute(notebook: NotebookNode, folder: Path, **parameters: Any) -> None:
    """Executes a notebook in a folder, in a kernel of its own, with the library that lies beside it.

    Args:
        notebook: gets the outputs.
        folder: where the kernel works.
        parameters: take the place of names in its cell of that tag.

    Raises:
        CellExecutionError: a cell raised.
    """
    cells = notebook.cells
    if parameters:
        first = next(i for i, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", ()))
        lines = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
        notebook.cells = [*cells[: first + 1], v4.new_code_cell(lines), *cells[first + 1 :]]
    env = {**os.environ, "PYTHONPATH": str(FOLDER.parent), "JAX_PLATFORMS": "cpu"}  # what is everywhere
    env.pop("TFDS_DATA_DIR", None)  # the same: digits, not MNIST
    client = NotebookClient(notebook, timeout=LONG, kernel_name="python3", record_timing=False)
    client.coalesce_streams = True
    client.resources = {"metadata": {"path": str(folder)}}
    client.execute(env=env)


def clean(notebook: NotebookNode) -> NotebookNode:
    """Leaves out of an executed notebook what differs between machines; stderr is printed here instead."""
    for cell in notebook.cells:
        for output in [*cell.get("outputs", ())]:
            if output.get("name") == "stderr":
                print(output.text, end="", file=sys.stderr)
                cell.outputs.remove(output)
            elif "image/png" in output.get("data", {}):
                output.data.pop("image/jpeg", None)  # PIL gives both, larger
    notebook.metadata = {"kernelspec": PYTHON, "language_info": {"name": "python"}}
    return notebook


def main(names: list[str]) -> None:
    """Executes notebooks, each in an empty folder, and writes them beside their sources."""
    for name in names or NAMES:
        notebook = source(name)
        with tempfile.TemporaryDirectory() as folder:
            execute(notebook, Path(folder))
        path = FOLDER / f"{name}.ipynb"
        nbformat.write(clean(notebook), path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
