"""Writes metrics to logs: metrics.jsonl, TensorBoard, Weights & Biases, and loggers of the user's."""

import json
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from d3pm_jax.config import Config, io as config_io
from d3pm_jax.errors import UserError, one_line
from d3pm_jax.extras import require
from d3pm_jax.files import write_text
from d3pm_jax.program.loop import metrics
from d3pm_jax.program.machine import cluster
from d3pm_jax.program.storage.names import METRICS, TENSORBOARD, WANDB_ID

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


@contextmanager
def append_lines(workdir: Path, after_step: int) -> Iterator[Logging]:
    """Opens metrics.jsonl to append lines to, after it has dropped those of later steps than `after_step`.

    A run that was killed may have written them after its last checkpoint; they are computed again.
    """
    path = workdir / METRICS
    rows = [row for row in metrics.read_metrics(workdir) if row["step"] <= after_step]
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    with path.open("a") as file:

        def log(step: int, values: Values) -> None:
            file.write(json.dumps({"step": step, **values}) + "\n")
            file.flush()

        yield log


@contextmanager
def open_board(folder: Path, purge_step: int) -> Iterator[Logging]:
    """Opens a new TensorBoard file of events for the points of curves.

    Points that earlier files have from `purge_step` on are hidden. It is written in the calling thread, in
    which errors are raised too.

    Args:
        folder: where the files are.
        purge_step: the first step whose earlier points are hidden.

    Raises:
        OSError: it cannot be written; so does the function that it yields.
    """
    # Imported here, as it imports PyTorch where that is installed, which takes seconds.
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboardX.summary import scalar

    folder.mkdir(exist_ok=True)
    with closing(EventsWriter(str(folder / "events"), f".{secrets.token_hex(4)}")) as events:

        def write(step: int, **content: Any) -> None:
            events.write_event(Event(wall_time=time.time(), step=step, **content))

        def log(step: int, values: Values) -> None:
            for name, value in values.items():
                write(step, summary=scalar(name, value))

        write(purge_step, session_log=SessionLog(status=SessionLog.START))
        yield log


def check_wandb_installed() -> None:
    """Raises UserError where the package wandb is not installed; nothing else imports it."""
    require("--wandb", "wandb", extra="wandb")


@contextmanager
def open_wandb(workdir: Path, project: str, config: Mapping[str, Any]) -> Iterator[Logging]:
    """Opens a run of Weights & Biases, and the same one when the run of a folder is resumed.

    At the end it waits until all is sent, and marks the run as failed where training has failed.

    Args:
        workdir: the folder. Its name is that of the run. The id of the run is stored in it, and in wandb/
            what is sent.
        project: where the run is.
        config: every field of the config by its name.

    Raises:
        UserError: the package is not installed, or refuses; so does the function that it yields. Or the file
            of the id holds something else.
    """
    check_wandb_installed()
    import wandb  # pyright: ignore[reportMissingImports]

    path = workdir / WANDB_ID
    if not path.exists():
        write_text(path, secrets.token_hex(8))
    run_id = path.read_text(errors="replace")
    if not re.fullmatch("[0-9a-f]{16}", run_id):
        raise UserError(f"{path} holds no id of Weights & Biases: delete it to go on in a new run there")
    with _explain_refusal(wandb.Error):
        run = wandb.init(
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

    def log(step: int, values: Values) -> None:
        # Points of steps that the run has already are dropped by the package.
        with _explain_refusal(wandb.Error):
            run.log(dict(values), step=step, commit=True)

    exit_code = 1
    try:
        yield log
        exit_code = 0
    finally:
        with _explain_refusal(wandb.Error):
            run.finish(exit_code=exit_code)


@contextmanager
def _explain_refusal(error_of_package: type[Exception]) -> Iterator[None]:
    """Turns an error that the package of Weights & Biases raises into a UserError of one line."""
    try:
        yield
    except error_of_package as error:
        message = one_line(error, 300)
        raise UserError(f"Weights & Biases says '{message}': correct that, or leave out --wandb") from error


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
        # The loggers of the user are open already: they are closed even where a log below cannot be opened.
        for log in user_logs:
            stack.callback(log.close)

        # The file comes first, so that it has every line, also one at which a later log fails.
        logs = [stack.enter_context(append_lines(workdir, after_step))]
        logs.append(stack.enter_context(open_board(workdir / TENSORBOARD, after_step + 1)))
        if project is not None:
            logs.append(stack.enter_context(open_wandb(workdir, project, config_io.flatten_config(config))))
        logs += [log.log for log in user_logs]

        def log_all(step: int, values: Values) -> None:
            for log in logs:
                log(step, values)

        yield log_all
