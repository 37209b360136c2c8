"""Hands metrics on to logs: metrics.jsonl, TensorBoard, Weights & Biases, and loggers of the user's own."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

from d3pm_jax.config import Config, io as config_io
from d3pm_jax.files import write_text
from d3pm_jax.loop import metrics
from d3pm_jax.loop.tensorboard import Board
from d3pm_jax.loop.wandb_run import WandbRun
from d3pm_jax.machine import cluster
from d3pm_jax.storage.names import METRICS, TENSORBOARD

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
        kept = [json.dumps(row) + "\n" for row in metrics.read(workdir) if row["step"] <= after_step]
        write_text(workdir / METRICS, "".join(kept))
        self._file = (workdir / METRICS).open("a")

    def log(self, step: int, values: Values) -> None:
        """Writes one line."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


@contextmanager
def opened(
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
            logs.append(stack.enter_context(WandbRun(workdir, project, config_io.flat(config))).log)
        logs += [log.log for log in own]

        def log_all(step: int, values: Values) -> None:
            for log in logs:
                log(step, values)

        yield log_all
