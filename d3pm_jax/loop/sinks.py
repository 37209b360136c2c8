"""Hands metrics on to logs: metrics.jsonl, TensorBoard, Weights & Biases, and loggers of the user's own."""

import json
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from d3pm_jax.config import Config, io as config_io
from d3pm_jax.errors import UserError, one_line
from d3pm_jax.extras import require
from d3pm_jax.files import write_text
from d3pm_jax.loop import metrics
from d3pm_jax.machine import cluster
from d3pm_jax.storage.names import METRICS, TENSORBOARD, WANDB_ID

Values = Mapping[str, float | int]
Logging = Callable[[int, Values], None]  # step, values -> None


@runtime_checkable
class Log(Protocol):
    """Keeps, or shows, the metrics of a training."""

    def log(self, step: int, values: Values) -> None:
        """Takes the means of the metrics since the step of the call before."""
        ...

    def close(self) -> None:
        """Is called once, after the last step or where the training fails."""
        ...


class Lines:
    """Appends to metrics.jsonl; drops what an earlier run wrote after the given step."""

    def __init__(self, workdir: Path, after_step: int):
        kept = [json.dumps(row) + "\n" for row in metrics.read_metrics(workdir) if row["step"] <= after_step]
        write_text(workdir / METRICS, "".join(kept))
        self._file = (workdir / METRICS).open("a")

    def log(self, step: int, values: Values) -> None:
        """Writes one line."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class Board:
    """Appends points of curves to a new file of events; hides what earlier files have from a step on.

    It writes in the thread that calls, where an error is raised, too.

    Args:
        folder: where the files are.
        purge_step: the first step whose points of before are hidden.

    Raises:
        OSError: it cannot be written; so do the methods.
    """

    def __init__(self, folder: Path, purge_step: int):
        from tensorboardX.event_file_writer import (
            EventsWriter,  # brings PyTorch, where it is installed: seconds
        )
        from tensorboardX.proto.event_pb2 import SessionLog  # pyright: ignore[reportAttributeAccessIssue]

        folder.mkdir(exist_ok=True)
        self._events = EventsWriter(str(folder / "events"), f".{secrets.token_hex(4)}")
        self._write(purge_step, session_log=SessionLog(status=SessionLog.START))

    def log(self, step: int, values: Values) -> None:
        """Adds a point to each curve."""
        from tensorboardX.summary import scalar

        for name, value in values.items():
            self._write(step, summary=scalar(name, value))

    def close(self) -> None:
        """Writes what is not written yet."""
        self._events.close()

    def _write(self, step: int, **what: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

        self._events.write_event(Event(wall_time=time.time(), step=step, **what))


def check_wandb_installed() -> None:
    """Raises UserError where there is no package wandb, which is imported where it is asked for alone."""
    require("--wandb", "wandb", extra="wandb")


class WandbRun:
    """Logs to a run of Weights & Biases, to the same one whenever the run of a folder is resumed.

    Args:
        workdir: the folder. Its name is that of the run; it keeps the id, and in wandb/ what is sent.
        project: where the run is.
        config: every field of the config by its name.

    Raises:
        UserError: the package is not installed, or refuses; so do the methods. Or the file of the id holds
            something else.
    """

    def __init__(self, workdir: Path, project: str, config: Mapping[str, Any]):
        check_wandb_installed()
        import wandb  # pyright: ignore[reportMissingImports]

        path = workdir / WANDB_ID
        if not path.exists():
            write_text(path, secrets.token_hex(8))
        number = path.read_text(errors="replace")
        if not re.fullmatch("[0-9a-f]{16}", number):
            raise UserError(f"{path} holds no id of Weights & Biases: delete it to go on in a new run there")
        self._wandb = wandb
        with self._refused():
            self._run = wandb.init(
                project=project,
                id=number,
                name=workdir.resolve().name,
                dir=workdir,
                config=dict(config),
                allow_val_change=True,  # of fields that may change when a run is resumed
                resume="allow",
                settings=wandb.Settings(console="off"),  # a bar that is drawn again and again
            )

    def log(self, step: int, values: Values) -> None:
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


@contextmanager
def open_logs(
    config: Config, workdir: Path, after_step: int, project: str | None = None, own: Sequence[Log] = ()
) -> Iterator[Logging]:
    """Opens the logs of a run, and closes them at the end, whatever one of them raises.

    Args:
        config: of the run.
        workdir: its folder.
        after_step: what an earlier run logged after it is dropped.
        project: of Weights & Biases, if that is wanted.
        own: more of them.

    Yields:
        log(step, values), which hands on to all; in processes beside the first it does nothing.
    """
    if not cluster.is_first():
        yield lambda step, values: None
        return
    with ExitStack() as stack:
        logs: list[Logging] = []
        for log in own:  # closed even where one of ours cannot be opened
            stack.callback(log.close)
        logs.append(stack.enter_context(closing(Lines(workdir, after_step))).log)
        logs.append(stack.enter_context(closing(Board(workdir / TENSORBOARD, after_step + 1))).log)
        if project is not None:
            logs.append(stack.enter_context(WandbRun(workdir, project, config_io.flatten_config(config))).log)
        logs += [log.log for log in own]

        def log_all(step: int, values: Values) -> None:
            for log in logs:
                log(step, values)

        yield log_all
