"""Says what is in the folder of a run, and whose it is."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from d3pm_jax.config import Config
from d3pm_jax.config import io as config_io
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError
from d3pm_jax.files import replacing, write_text
from d3pm_jax.runs import checkpoint

CONFIG = "config.json"
OWN = "config.py"  # a copy of the file that defines the parts of the user's own, if there are any
DESCRIPTION = "description.json"
EXAMPLES = "examples.npy"
NUM_EXAMPLES = 64  # of the test split
CHECKPOINTS = "checkpoints"

Kept = TypeVar("Kept")

# Fields that may change when a run is resumed, as `Data.places` may. Only those of the optimizer change what
# a step computes: its state counts steps, so that the rate of each is that of the new ones.
MAY_CHANGE = (
    "optimizer.decay_steps",
    "optimizer.lr",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.log_every",
    "train.noise",
    "train.sample_every",
    "train.steps",
)


def read_config(workdir: Path, own: Path | Config | None = None) -> Config:
    """Reads the config of the run in a workdir.

    Args:
        workdir: the folder.
        own: the file that defines the parts of the user's own, or a config that has them, if there are any.
            Their copy in the folder is never run.

    Raises:
        UserError: there is no run, its config cannot be read, or it needs a file that is not given.
    """
    path = workdir / CONFIG
    if not path.is_file():
        raise UserError(f"{workdir} holds no run (no {CONFIG}): pass the --workdir of a `d3pm train`")
    try:
        tree = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(
            f"{path} is not JSON ({error}): restore it, or start again in a new workdir"
        ) from error
    names = config_io.own_names(tree)
    if names and own is None:
        raise UserError(
            f"the run in {workdir} has parts of its own, {', '.join(names)}: pass the file that defines "
            f"them, --config FILE; a copy is in {workdir / OWN}"
        )
    return config_io.from_json(tree, _own_module(workdir, own) if names and own else None)


def _own_module(workdir: Path, own: Path | Config) -> ModuleType:
    """Returns the user's own parts, if their file is the one that the run was made with."""
    copy, file = workdir / OWN, config_io.own_file(own) if isinstance(own, Config) else own
    if file and file.is_file() and copy.is_file() and file.read_bytes() != copy.read_bytes():
        raise UserError(
            f"{file} is not what this run was made with: it differs from {copy}; pass --config {copy}, "
            "or start in a new workdir"
        )
    return config_io.own_module(own) if isinstance(own, Config) else config_io.load(own)


def read_description(workdir: Path) -> Description | None:
    """Reads what the data of a run is; None in a run of before it was kept.

    Raises:
        UserError: it cannot be read.
    """
    return _read_kept(workdir / DESCRIPTION, lambda path: description_from_json(json.loads(path.read_text())))


def _read_kept(path: Path, load: Callable[[Path], Kept]) -> Kept | None:
    """Returns load(path), or None where there is no such file. Raises UserError where it is damaged."""
    if not path.is_file():
        return None
    try:
        return load(path)
    except (OSError, ValueError, TypeError) as error:
        cure = "delete it and resume the run with its data, which writes it again"
        raise UserError(f"{path} cannot be read ({error}): {cure}") from error


def check_description(workdir: Path, description: Description) -> None:
    """Raises UserError where the data of a run to go on with is another than it was."""
    before = read_description(workdir)
    if before is not None and before != description:
        raise UserError(
            f"the data is {description}, but the run in {workdir} has {before}: use the data it had"
        )


def description_from_json(tree: dict[str, Any]) -> Description:
    """Returns the description that `dataclasses.asdict` made JSON of."""
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in tree.items()}
    return Description(**fields)


def write_description(workdir: Path, description: Description) -> None:
    """Writes what the data is, for `read_description`."""
    write_text(workdir / DESCRIPTION, json.dumps(dataclasses.asdict(description), indent=2))


def write_data(workdir: Path, description: Description, examples: np.ndarray) -> None:
    """Writes what the data is, and some test examples [N, *S]."""
    write_description(workdir, description)
    with replacing(workdir / EXAMPLES) as partial, partial.open("wb") as file:
        np.save(file, examples)


def read_examples(workdir: Path) -> np.ndarray | None:
    """Reads the test examples that the run keeps, int32 [N, *S]; None in a run that began from weights alone.

    Raises:
        UserError: the file is damaged.
    """
    return _read_kept(workdir / EXAMPLES, np.load)


def write_config(workdir: Path, config: Config) -> None:
    """Writes the config, for `read_config`, and a copy of the file of the user's own parts."""
    own = config_io.own_file(config)
    if own is not None and own.resolve() != (workdir / OWN).resolve():
        with replacing(workdir / OWN) as partial:
            shutil.copyfile(own, partial)
    write_text(workdir / CONFIG, config_io.dump(config))


def check_resume(old: Config, new: Config) -> None:
    """Refuses to go on with another config than the run was started with.

    Raises:
        UserError: naming the fields that differ.
    """
    free = {*MAY_CHANGE, *(f"data.{place}" for place in new.data.places)}
    changed = {k: v for k, v in config_io.differences(old, new).items() if k not in free}
    if changed:
        listed = ", ".join(f"{k} was {a}, is {b}" for k, (a, b) in changed.items())
        raise UserError(f"cannot resume with another config ({listed}): undo that, or start in a new workdir")


def check_empty(workdir: Path) -> None:
    """Raises UserError where a folder holds a run."""
    if (workdir / CONFIG).exists() or checkpoint.steps(workdir / CHECKPOINTS):
        raise UserError(f"{workdir} holds a run already: pass another --workdir")


def claim(config: Config, workdir: Path, resume: bool) -> None:
    """Makes workdir this run's, without touching another's.

    Raises:
        UserError: it holds a run, or holds none to resume, or cannot be written to.
    """
    begun = checkpoint.steps(workdir / CHECKPOINTS)
    if begun and not resume:
        raise UserError(f"{workdir} holds a run already: pass --resume to go on, or another --workdir")
    if begun and begun[-1] > config.train.steps:
        raise UserError(f"the run is at step {begun[-1]} already: set train.steps to that or more")
    if resume and not (workdir / CONFIG).exists():
        raise UserError(f"{workdir} holds no run to resume: check --workdir, or leave out --resume")
    if resume:
        check_resume(read_config(workdir, config), config)
    try:
        (workdir / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        write_config(workdir, config)
    except OSError as error:
        raise UserError(f"cannot write to {workdir}: {error.strerror}; pass another --workdir") from error
