"""d3pm report writes a page about runs, for a browser and no network: figures, curves, samples, chains."""

import dataclasses
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from d3pm_jax import report
from d3pm_jax.cli.arguments import DataFolder, name_option
from d3pm_jax.config.checks import Natural
from d3pm_jax.errors import UserError
from d3pm_jax.program.storage.names import REPORT
from d3pm_jax.runs.run import open_run

# Endings of files of other kinds; a name without an ending may have a dot too, as run.2024.
OTHER_FORMATS = (".md", ".png", ".pdf", ".txt", ".json")


@dataclasses.dataclass(frozen=True)
class ReportCommand:
    """Writes a page about runs: figures, curves, samples, chains.

    Compare two runs: d3pm report runs/first runs/second --out comparison.html
    """

    workdirs: Annotated[
        Positional[tuple[Path, ...]],
        name_option(metavar="DIR [DIR ...]", help_behavior_hint="(required)"),
    ]
    """folders of runs: --workdir of `d3pm train`; several runs are compared"""
    step: Annotated[Natural | None, name_option(metavar="N")] = None
    """use the checkpoint of step N of each run (default: the last)"""
    out: Annotated[Path | None, name_option(metavar="FILE")] = None
    """the HTML file to write (default: report.html in the first DIR)"""
    own_file: Annotated[Path | None, name_option(name="config", metavar="FILE")] = None
    """only for runs with parts of your own: the Python file that defines them"""
    data_dir: DataFolder = None
    """the folder where the data lies now; if it has moved since the training"""


def execute(command: ReportCommand, words: list[str]) -> int:
    """Writes the page; returns the exit status."""
    if command.out is not None and command.out.suffix.lower() in OTHER_FORMATS:
        raise UserError(f"--out {command.out}: an HTML page is written, so name it FILE.html")
    runs = [
        open_run(workdir, command.own_file, command.step, data_dir=command.data_dir)
        for workdir in command.workdirs
    ]
    replaced = report.read_title(command.out or command.workdirs[0] / REPORT)
    path = report.write(runs, command.out)
    ending = ""
    if replaced not in (None, report.read_title(path)):
        ending = f", replaces the {replaced}"
    print(f"report: {path}{ending}")
    return 0
