"""Shows how far a training, an evaluation or a sampling is."""

import datetime
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial

from d3pm_jax.extras import require

require("d3pm_jax.program.machine", "rich")

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

BAR = 10  # columns
# Seconds between lines where the output is no terminal, unless there are metrics to show.
EVERY = 30.0
# Seconds between lines that stand in each other's place, in a notebook.
EVERY_REWRITTEN = 0.5
# How metrics are called, the most important first: not all fit into every line.
NAMES = {
    "loss": "loss",
    "skipped": "skipped",
    "bound_bits_per_dim": "bits/dim",
    "valid_bits_per_dim": "valid",
    "accuracy": "accuracy",
    "valid_accuracy": "valid",
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
        self._put: Callable[[str], None] = partial(print, flush=True)
        if self._rewrites:
            self._put = _make_rewriter()
        self._unit = unit
        self._total = total
        self._done = start
        self._metrics: list[str] = []
        self._metrics_at = start  # the step that they are of
        # What was done when all was compiled, and when that was: the rate is that since then.
        self._compiled: tuple[int, float] | None = None
        self._advanced_at = 0.0
        self._printed_at = 0.0
        # What was done when the last line was printed.
        self._printed = start

    @contextmanager
    def show_bar(self) -> Iterator["Terminal"]:
        """Shows the bar inside the block."""
        live = Live(get_renderable=self._draw_bar, console=self._console)
        with suppress(OSError):
            if self._drawn:
                # By a refresh at once, what is compiled in no time is shown too.
                live.start(refresh=True)
            elif self._printed != self._total:
                self._print_progress(self._list_pieces())
        try:
            yield self
            if self._rewrites and self._compiled:
                self._print_progress(self._metrics)
            elif not self._drawn and self._printed != self._done:
                self._print_progress(self._list_pieces())
        finally:
            with suppress(OSError):
                live.stop()

    def advance(self, done: int) -> None:
        """Shows how many are done; the first time, that everything is compiled."""
        self._done = done
        self._advanced_at = time.monotonic()
        if self._compiled is None:
            self._compiled = (done, self._advanced_at)
        interval = EVERY_REWRITTEN if self._rewrites else EVERY
        if not self._drawn and self._advanced_at - self._printed_at > interval:
            self._print_progress(self._list_pieces())

    def show_metrics(self, row: Mapping[str, float | int]) -> None:
        """Shows the metrics of an interval, as many as fit."""
        self._metrics = [f"{NAMES[name]} {row[name]:.4g}" for name in NAMES if name in row]
        self._metrics_at = self._done
        if not self._drawn:
            self._print_progress(self._list_pieces())

    def print_line(self, text: str) -> None:
        """Prints a line above the bar."""
        with suppress(OSError):
            if self._drawn:
                self._console.print(text, highlight=False, soft_wrap=True, markup=False)
            else:
                # rich would end the process when its output is closed.
                print(text, flush=True)

    def _print_progress(self, pieces: Sequence[str]) -> None:
        """Prints the count, and as many of the pieces as fit beside it."""
        self._printed_at = time.monotonic()
        self._printed = self._done
        with suppress(OSError):
            self._put(fit_pieces([self._format_count(), *pieces], self._console.width))

    def _draw_bar(self) -> Table:
        """Draws the line as it is now; rich asks for it a few times a second."""
        count = self._format_count()
        columns_left = self._console.width - len(count) - BAR - 3
        cells: list[str | ProgressBar] = [count[: self._console.width]]
        if columns_left > 0:
            bar = ProgressBar(self._total, self._done, width=BAR)
            cells = [count, bar, fit_pieces(self._list_pieces(), columns_left)]

        table = Table.grid(padding=(0, 1))
        for _ in cells:
            table.add_column(no_wrap=True)
        table.add_row(*cells)
        return table

    def _format_count(self) -> str:
        return f"{self._unit} {self._done}/{self._total}"

    def _list_pieces(self) -> list[str]:
        """Lists what is shown beside the count: the rate since all was compiled, the time left, metrics."""
        if self._compiled is None:
            return ["compiling"] if self._done < self._total else []
        done_when_compiled, compiled_at = self._compiled
        done = self._done - done_when_compiled
        seconds = self._advanced_at - compiled_at
        shown_metrics = self._metrics
        if self._metrics and self._metrics_at != self._done:
            first, *others = self._metrics
            shown_metrics = [f"at {self._unit} {self._metrics_at}: {first}", *others]
        if not done or not seconds:
            return shown_metrics

        rate = done / seconds
        digits = f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}"
        seconds_left = (self._total - self._done) * seconds / done
        time_left = str(datetime.timedelta(seconds=round(seconds_left))).removeprefix("0:")
        return [f"{digits} {self._unit}s/s", f"{time_left} left", *shown_metrics]


def _make_rewriter() -> Callable[[str], None]:
    """Makes a function that shows a line below a cell of a notebook, in the place of the line before."""
    # IPython is installed wherever a notebook runs, and nothing else needs it.
    from IPython.display import DisplayHandle

    handle = DisplayHandle()
    show = handle.display

    def put(line: str) -> None:
        nonlocal show
        show({"text/plain": line}, raw=True)
        show = handle.update

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
