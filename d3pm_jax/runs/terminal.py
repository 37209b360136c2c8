"""Shows a training while it runs."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Terminal:
    """Shows a progress bar with the last metrics; plain lines where the output is not a terminal."""

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
        """Prints a line above the bar."""
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)
