"""Shows how far a training, an evaluation or a sampling is."""

import datetime
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial

from d3pm_jax.extras import require

require("d3pm_jax.machine", "rich")

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

BAR = 10  # columns
EVERY = 30.0  # seconds between lines where the output is no terminal, unless there are metrics to show
EVERY_REWRITTEN = 0.5  # seconds between those that stand in each other's place, in a notebook
NAMES = {  # of the metrics, the most telling first: not all fit into every line
    "loss": "loss",
    "skipped": "skipped",
    "bound_bits_per_dim": "bits/dim",
    "valid_bits_per_dim": "valid",
    "kl": "kl",
    "ce": "ce",
    "grad_norm": "grad norm",
}


class Terminal:
    """Shows a bar in a terminal and plain lines elsewhere, neither wider than the terminal or 80 columns.

    In a notebook each line takes the place of the one before, and the last has no rate: what is saved there
    does not change with the time that it took. What cannot be shown, because nobody reads any more, is left
    out: what is done goes on.

    Args:
        unit: what is counted.
        total: how many there are.
        start: how many there are already.
    """

    def __init__(self, unit: str, total: int, start: int = 0):
        self._console = Console(file=sys.stdout)
        self._drawn = self._console.is_terminal and not self._console.is_dumb_terminal
        self._rewrites = self._console.is_jupyter
        self._put: Callable[[str], None] = _rewritten() if self._rewrites else partial(print, flush=True)
        self._unit, self._total, self._done = unit, total, start
        self._metrics: list[str] = []
        self._since: tuple[int, float] | None = None  # what was done when all was compiled, and when
        self._now = self._printed = 0.0  # when it advanced, when it printed a line
        self._told = start  # what was done then

    @contextmanager
    def show_bar(self) -> Iterator["Terminal"]:
        """Shows the bar inside the block."""
        live = Live(get_renderable=self._bar, console=self._console)
        with suppress(OSError):
            if self._drawn:
                live.start(refresh=True)  # what is compiled in no time is shown too
            elif self._told != self._total:
                self._print(self._pieces())
        try:
            yield self
            if self._rewrites and self._since:
                self._print(self._metrics)
            elif not self._drawn and self._told != self._done:
                self._print(self._pieces())
        finally:
            with suppress(OSError):
                live.stop()

    def advance(self, done: int) -> None:
        """Shows that so many are done; the first time, that all is compiled."""
        self._done, self._now = done, time.monotonic()
        self._since = self._since or (done, self._now)
        every = EVERY_REWRITTEN if self._rewrites else EVERY
        if not self._drawn and self._now - self._printed > every:
            self._print(self._pieces())

    def show_metrics(self, row: Mapping[str, float | int]) -> None:
        """Shows the metrics of an interval, as many as fit."""
        self._metrics = [f"{NAMES[name]} {row[name]:.4g}" for name in NAMES if name in row]
        if not self._drawn:
            self._print(self._pieces())

    def print_line(self, text: str) -> None:
        """Prints a line above the bar."""
        with suppress(OSError):
            if self._drawn:
                self._console.print(text, highlight=False, soft_wrap=True, markup=False)
            else:  # rich would exit where nobody reads
                print(text, flush=True)

    def _print(self, pieces: Sequence[str]) -> None:
        self._printed, self._told = time.monotonic(), self._done
        with suppress(OSError):
            self._put(fit_pieces([self._count(), *pieces], self._console.width))

    def _bar(self) -> Table:
        """Draws the line as it is now; rich asks for it a few times a second."""
        count, table = self._count(), Table.grid(padding=(0, 1))
        left = self._console.width - len(count) - BAR - 3
        bar = ProgressBar(self._total, self._done, width=BAR)
        shown = [count, bar, fit_pieces(self._pieces(), left)] if left > 0 else [count[: self._console.width]]
        for _ in shown:
            table.add_column(no_wrap=True)
        table.add_row(*shown)
        return table

    def _count(self) -> str:
        return f"{self._unit} {self._done}/{self._total}"

    def _pieces(self) -> list[str]:
        """Lists what is told beside the count: the rate since it was compiled, the time left, metrics."""
        if self._since is None:
            return ["compiling"] if self._done < self._total else []
        done, seconds = self._done - self._since[0], self._now - self._since[1]
        if not done or not seconds:
            return self._metrics
        rate, left = done / seconds, (self._total - self._done) * seconds / done
        number = f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}"
        time_left = str(datetime.timedelta(seconds=round(left))).removeprefix("0:")
        return [f"{number} {self._unit}s/s", f"{time_left} left", *self._metrics]


def _rewritten() -> Callable[[str], None]:
    """Makes text -> None, which shows it below a cell of a notebook in the place of what it showed before."""
    from IPython.display import DisplayHandle  # it is there in a notebook, and nothing else needs it

    handle, shown = DisplayHandle(), False

    def put(line: str) -> None:
        nonlocal shown
        show, shown = (handle.update if shown else handle.display), True
        show({"text/plain": line}, raw=True)

    return put


def fit_pieces(pieces: Sequence[str], width: int) -> str:
    """Joins as many of the pieces, from the first on, as fit into a width."""
    line = ""
    for piece in pieces:
        longer = f"{line}  {piece}" if line else piece
        if len(longer) > width:
            break
        line = longer
    return line
