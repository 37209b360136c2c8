"""Writes metrics to logs: metrics.jsonl, TensorBoard, Weights & Biases, and loggers of the user's."""

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
    """Stores or shows the metrics of a training."""

    def log(self, step: int, values: Values) -> None:
        """Takes the means of the metrics since the step of the call before."""
        ...

    def close(self) -> None:
        """Is called once, after the last step or where the training fails."""
        ...


class Lines:
    """Appends lines to metrics.jsonl, after it has dropped those of later steps than `after_step`.

    A run that was killed may have written them after its last checkpoint; they are computed again.
    """

    def __init__(self, workdir: Path, after_step: int):
        rows = [row for row in metrics.read_metrics(workdir) if row["step"] <= after_step]
        write_text(workdir / METRICS, "".join(json.dumps(row) + "\n" for row in rows))
        self._file = (workdir / METRICS).open("a")

    def log(self, step: int, values: Values) -> None:
        """Writes one line."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class Board:
    """Writes the points of curves to a new TensorBoard file of events.

    Points that earlier files have from `purge_step` on are hidden. It writes in the calling thread, in which
    errors are raised too.

    Args:
        folder: where the files are.
        purge_step: the first step whose earlier points are hidden.

    Raises:
        OSError: it cannot be written; so do the methods.
    """

    def __init__(self, folder: Path, purge_step: int):
        # Imported here, as it imports PyTorch where that is installed, which takes seconds.
        from tensorboardX.event_file_writer import EventsWriter
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

    def _write(self, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

        self._events.write_event(Event(wall_time=time.time(), step=step, **content))


def check_wandb_installed() -> None:
    """Raises UserError where the package wandb is not installed; nothing else imports it."""
    require("--wandb", "wandb", extra="wandb")


class WandbRun:
    """Logs to a run of Weights & Biases, and to the same one when the run of a folder is resumed.

    Args:
        workdir: the folder. Its name is that of the run. The id of the run is stored in it, and in wandb/
            what is sent.
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
        run_id = path.read_text(errors="replace")
        if not re.fullmatch("[0-9a-f]{16}", run_id):
            raise UserError(f"{path} holds no id of Weights & Biases: delete it to go on in a new run there")
        self._wandb = wandb
        with self._refused():
            self._run = wandb.init(
                project=project,
                id=run_id,
                name=workdir.resolve().name,
                dir=workdir,
                config=dict(config),
                # Some fields of a config may change when a run is resumed.
                allow_val_change=True,
                resume="allow",
                # The terminal shows a bar that is drawn again and again, which makes no readable log.
                settings=wandb.Settings(console="off"),
            )

    def log(self, step: int, values: Values) -> None:
        """Adds a point to each curve; those of steps that it has are dropped by the package."""
        with self._refused():
            self._run.log(dict(values), step=step, commit=True)

    def __enter__(self) -> "WandbRun":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Waits until all is sent, and marks the run as failed where training has failed."""
        exit_code = 0 if kind is None else 1
        with self._refused():
            self._run.finish(exit_code=exit_code)

    @contextmanager
    def _refused(self) -> Iterator[None]:
        """Turns an error that the package raises into a UserError of one line."""
        try:
            yield
        except self._wandb.Error as error:
            message = one_line(error, 300)
            raise UserError(
                f"Weights & Biases says '{message}': correct that, or leave out --wandb"
            ) from error


@contextmanager
def open_logs(
    config: Config,
    workdir: Path,
    after_step: int,
    project: str | None = None,
    user_logs: Sequence[Log] = (),
) -> Iterator[Logging]:
    """Opens the logs of a run, and closes them at the end, whatever one of them raises.

    Args:
        config: of the run.
        workdir: its folder.
        after_step: the step after which lines and points of an earlier run are dropped.
        project: of Weights & Biases; None to log nothing there.
        user_logs: further logs, of the user's.

    Yields:
        log(step, values), which calls all logs; in processes other than the first it does nothing.
    """
    if not cluster.is_first():
        yield lambda step, values: None
        return
    with ExitStack() as stack:
        logs: list[Logging] = []

        # The loggers of the user are open already: they are closed even where a log below cannot be opened.
        for log in user_logs:
            stack.callback(log.close)

        # The file comes first, so that it has every line, also one at which a later log fails.
        logs.append(stack.enter_context(closing(Lines(workdir, after_step))).log)
        logs.append(stack.enter_context(closing(Board(workdir / TENSORBOARD, after_step + 1))).log)
        if project is not None:
            logs.append(stack.enter_context(WandbRun(workdir, project, config_io.flatten_config(config))).log)
        logs += [log.log for log in user_logs]

        def log_all(step: int, values: Values) -> None:
            for log in logs:
                log(step, values)

        yield log_all
