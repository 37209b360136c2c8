"""Defines the options that commands share, and opens the run that they name."""

import dataclasses
import inspect
import os
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from tyro.conf import Positional, arg
from tyro.constructors import PrimitiveConstructorSpec

from d3pm_jax.config.checks import Allowed, Count, Natural
from d3pm_jax.errors import UserError
from d3pm_jax.program.machine.cluster import Address
from d3pm_jax.program.machine.setup import set_up
from d3pm_jax.program.storage.run_folder import SavedRun, read_run
from d3pm_jax.runs.run import Run, open_saved


def name_option(**names: str) -> Any:
    """Returns the names of an option for `Annotated`; its help is silent on a default of None."""
    return arg(**{"help_behavior_hint": _describe_default, **names})


def _describe_default(default: str) -> str:
    if default == "None":
        return ""
    return f"(default: {default})"


# Commands that read a config have this flag for data with a field `dir`, and for all other data too.
DataFolder = Annotated[str | None, name_option(name="data.dir", metavar="DIR")]
Grid = Annotated[
    Literal["even", "dp"],
    name_option(
        help="with --steps: which steps to keep: evenly spaced ones (even), or those with the lowest bound "
        "on validation or training examples, found by dynamic programming (dp)"
    ),
]
# N[,N...], each number once.
Counts = Annotated[
    tuple[Count, ...],
    Allowed("written as 10,50", bool),
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="N[,N...]",
        instance_from_str=lambda words: tuple(dict.fromkeys(map(int, words[0].split(",")))),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(map(str, value))],
    ),
]
AnyCommand = TypeVar("AnyCommand", bound=type)


def list_own_options_first(command: AnyCommand) -> AnyCommand:
    """Puts the options of a command before those that it shares with others, for its help.

    A dataclass has its inherited fields first, and tyro lists options in the order of fields.
    """
    fields = vars(command)["__dataclass_fields__"]
    for name in list(fields):
        if name not in inspect.get_annotations(command):
            fields[name] = fields.pop(name)
    return command


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Names a checkpoint of a run that is read."""

    workdir: Annotated[Positional[Path], name_option(metavar="DIR")]
    """the folder of the run: --workdir of `d3pm train`"""
    step: Annotated[Natural | None, name_option(metavar="N")] = None
    """use the checkpoint of step N (default: the last)"""
    own_file: Annotated[Path | None, name_option(name="config", metavar="FILE")] = None
    """only for a run with parts of your own: the Python file that defines them"""
    data_dir: DataFolder = None
    """the folder where the data lies now, if it has moved since the training"""


@dataclasses.dataclass(frozen=True)
class Processes:
    """Says where several processes meet, each with its own devices, that are one run, and which this is."""

    coordinator: Annotated[str | None, name_option(metavar="HOST:PORT")] = None
    """to compute with several processes: the address of process 0, such as node0:1234;
    or auto, which needs no N and I, under SLURM, Open MPI, Kubernetes or in a TPU pod"""
    num_processes: Annotated[Count | None, name_option(metavar="N")] = None
    """how many processes there are in all; each has its own devices"""
    process_id: Annotated[Natural | None, name_option(metavar="I")] = None
    """the number of this process, in 0..N-1"""
    connect_timeout: Annotated[Count, name_option(metavar="S")] = 60
    """seconds to wait until all processes are connected"""

    @property
    def address(self) -> Address:
        """Returns where the processes meet."""
        return Address(self.coordinator, self.num_processes, self.process_id, self.connect_timeout)


@dataclasses.dataclass(frozen=True)
class Computation(Processes, Checkpoint):
    """Names a checkpoint that several processes may compute with."""


def take_path(words: list[str]) -> Path | None:
    """Removes a path from the front of words and returns it; None where there is none."""
    if not words or words[0].startswith("-"):
        return None
    return Path(words.pop(0))


def check_grid(grid: str, steps: object) -> None:
    """Raises UserError where --grid dp has no number of steps to find the best of."""
    if grid == "dp" and steps is None:
        raise UserError("--grid dp chooses which steps --steps keeps: pass both, as --steps 20 --grid dp")


def open_with_others(command: Computation, batch_size: int) -> Run:
    """Joins the other processes of a command, and opens the run of all of them; see `open_named`."""

    saved = read_run(command.workdir, command.own_file)
    heartbeat = saved.config.mesh.heartbeat
    set_up(batch_size, address=command.address, workdir=command.workdir, heartbeat=heartbeat)
    return open_named(command, batch_size, saved=saved)


def open_named(
    command: Checkpoint, batch_size: int, folder: Path | None = None, saved: SavedRun | None = None
) -> Run:
    """Opens the run that a command names.

    Args:
        command: that names it.
        batch_size: examples at a time.
        folder: where the results go, if not to the run.
        saved: what the folder of the run says, where it has been read.

    Raises:
        UserError: there is no such run or checkpoint, or the results cannot be written.
    """
    if saved is None:
        saved = read_run(command.workdir, command.own_file)
    run = open_saved(saved, saved.config, command.step, None, batch_size, command.data_dir)
    # Commands that compute for hours say now that they could not write what they find.
    results = folder or command.workdir
    if results.is_dir() and not os.access(results, os.W_OK):
        raise UserError(f"cannot write the results to {results}: change its permissions")
    return run


def check_data(command: Checkpoint, run: Run) -> None:
    """Raises UserError where reading the data would write files or import packages.

    Where the command does not say in which folder the data lies, the folder of the run does, which may be
    anybody's.
    """
    if command.data_dir is None:
        run.config.data.check_kept()
