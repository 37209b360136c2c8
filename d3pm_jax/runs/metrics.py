"""Metrics of a run: one JSON line per interval, TensorBoard, and the terminal."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter

from d3pm_jax.training.checkpoint import write_text

FILE = "metrics.jsonl"


def read(workdir: Path) -> list[dict[str, float | int]]:
    """The lines of metrics.jsonl; a last line cut off by a crash is left out."""
    path = workdir / FILE
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


class Writer:
    """Appends to metrics.jsonl and TensorBoard; drops what an earlier run wrote after the given step."""

    def __init__(self, workdir: Path, after_step: int):
        kept = [json.dumps(row) + "\n" for row in read(workdir) if row["step"] <= after_step]
        write_text(workdir / FILE, "".join(kept))
        self._file = (workdir / FILE).open("a")
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=after_step + 1)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        self._board.close()

    def write(self, step: int, row: dict[str, float | int]) -> None:
        """One line, and one point of each curve."""
        self._file.write(json.dumps({"step": step, **row}) + "\n")
        self._file.flush()
        for name, value in row.items():
            self._board.add_scalar(name, value, step)


class Terminal:
    """A progress bar with the last metrics; plain lines where the output is not a terminal."""

    def __init__(self, start: int, total: int):
        self._console = Console(file=sys.stdout)
        self._total = total
        self._bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("train", total=total, completed=start, text="compiling")

    @contextmanager
    def shown(self) -> Iterator["Terminal"]:
        """Shows the bar inside the block."""
        with self._bar:
            yield self

    def advance(self, step: int) -> None:
        """Moves the bar."""
        self._bar.update(self._task, completed=step)

    def metrics(self, step: int, row: dict[str, float | int]) -> None:
        """Shows the metrics of an interval."""
        text = "  ".join(f"{name} {row[name]:.4g}" for name in row if name != "seconds_per_step")
        seconds = row.get("seconds_per_step")
        left = ""
        if seconds:
            text += f"  {1 / seconds:.2f} steps/s"
            left = f"  {(self._total - step) * seconds:.0f} s left"
        self._bar.update(self._task, text=text)
        if not self._console.is_terminal:
            print(f"step {step}/{self._total}  {text}{left}", flush=True)

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)
