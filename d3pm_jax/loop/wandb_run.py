"""Logs to Weights & Biases, whose package is imported where it is asked for and nowhere else."""

import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from d3pm_jax.errors import UserError, one_line
from d3pm_jax.extras import require
from d3pm_jax.files import write_text
from d3pm_jax.storage.names import WANDB_ID


def check_installed() -> None:
    """Raises UserError where there is no such package."""
    require("--wandb", "wandb", extra="wandb")


class WandbRun:
    """Logs to a run of Weights & Biases, to the same one whenever the run of a folder is resumed.

    Args:
        workdir: the folder. Its name is that of the run; it keeps the id, and in wandb/ what is sent.
        project: where the run is.
        config: every field of the config by its name.

    Raises:
        UserError: the package is not installed, or refuses; so do the methods.
    """

    def __init__(self, workdir: Path, project: str, config: Mapping[str, Any]):
        check_installed()
        import wandb  # pyright: ignore[reportMissingImports]

        self._wandb = wandb
        with self._refused():
            self._run = wandb.init(
                project=project,
                id=_id(workdir),
                name=workdir.resolve().name,
                dir=workdir,
                config=dict(config),
                allow_val_change=True,  # of fields that may change when a run is resumed
                resume="allow",
                settings=wandb.Settings(console="off"),  # a bar that is drawn again and again
            )

    def log(self, step: int, values: Mapping[str, float | int]) -> None:
        """Adds a point to each curve; those of steps that it has are dropped by the package."""
        with self._refused():
            self._run.log(dict(values), step=step, commit=True)

    def __enter__(self) -> "WandbRun":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Waits until all is sent; says so where training has failed."""
        with self._refused():
            self._run.finish(exit_code=0 if kind is None else 1)

    @contextmanager
    def _refused(self) -> Iterator[None]:
        """Makes one line of what the package raises."""
        try:
            yield
        except self._wandb.Error as error:
            said = one_line(error, 300)
            raise UserError(f"Weights & Biases says '{said}': mend that, or leave out --wandb") from error


def _id(workdir: Path) -> str:
    """Returns the id of the run of a folder, a new one where it has none.

    Raises:
        UserError: the file of it holds something else.
    """
    path = workdir / WANDB_ID
    if not path.exists():
        write_text(path, secrets.token_hex(8))
    found = path.read_text(errors="replace")
    if not re.fullmatch("[0-9a-f]{16}", found):
        raise UserError(f"{path} holds no id of Weights & Biases: delete it to go on in a new run there")
    return found
