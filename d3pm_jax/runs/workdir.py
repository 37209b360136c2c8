"""Says what is in the folder of a run, and whose it is."""

import json
from pathlib import Path

from d3pm_jax.config import Config
from d3pm_jax.config import io as config_io
from d3pm_jax.errors import UserError
from d3pm_jax.files import write_text
from d3pm_jax.runs import checkpoint

CONFIG = "config.json"
CHECKPOINTS = "checkpoints"

# Fields that do not change what a step computes; they may change when a run is resumed.
MAY_CHANGE = (
    "data.dir",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.log_every",
    "train.noise",
    "train.sample_every",
    "train.steps",
)


def read_config(workdir: Path) -> Config:
    """Reads the config of the run in a workdir.

    Raises:
        UserError: there is no run, or its config cannot be read.
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
    return config_io.from_json(tree)


def write_config(workdir: Path, config: Config) -> None:
    """Writes the config, for `read_config`."""
    write_text(workdir / CONFIG, config_io.dump(config))


def check_resume(old: Config, new: Config) -> None:
    """Refuses to go on with another config than the run was started with.

    Raises:
        UserError: naming the fields that differ.
    """
    changed = {k: v for k, v in config_io.differences(old, new).items() if k not in MAY_CHANGE}
    if changed:
        listed = ", ".join(f"{k} was {a}, is {b}" for k, (a, b) in changed.items())
        raise UserError(f"cannot resume with another config ({listed}): undo that, or start in a new workdir")


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
        check_resume(read_config(workdir), config)
    try:
        (workdir / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        write_config(workdir, config)
    except OSError as error:
        raise UserError(f"cannot write to {workdir}: {error.strerror}; pass another --workdir") from error
