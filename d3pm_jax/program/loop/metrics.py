"""Takes the means of the metrics of a run over an interval, and reads and draws its file of metrics."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from d3pm_jax import show
from d3pm_jax.config import AnyPath, checks_arguments
from d3pm_jax.errors import UserError, as_user_error, one_line
from d3pm_jax.files import check_is_file, parse_json
from d3pm_jax.program.storage.names import LOSS_CURVE, METRICS
from d3pm_jax.training.step import Metrics

CURE = "delete that line, or the file: nothing but curves is made from it"

# In the order of causes: where the cross entropy is not finite the KL is not either, and so on. The first one
# that is not finite names what to change.
CAUSES = ("ce", "kl", "loss", "grad_norm")
TERMS = ("loss", "kl", "ce", "accuracy", "grad_norm")
LABELS = {"bound_bits_per_dim": "bound [bits/dim]", "ce": "cross entropy [nats]", "loss": "loss [nats]"}

Row = Mapping[str, Any]  # the metrics of a step, on the host


@checks_arguments
def read_metrics(workdir: AnyPath) -> list[dict[str, float | int]]:
    """Reads the lines of metrics.jsonl; a last line cut off by a crash is left out.

    Raises:
        UserError: another line is damaged.
    """
    path = Path(workdir) / METRICS
    if not path.exists():
        return []
    with as_user_error(f"{path}: move it away, "):
        check_is_file(path)
    lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last newline was cut off, or is empty
    rows = []
    for i, line in enumerate(lines, 1):
        try:
            row = parse_json(line)
        except ValueError as error:
            raise UserError(f"{path}, line {i} is damaged ({one_line(error)}): {CURE}") from error
        has_only_numbers = isinstance(row, dict) and all(type(x) in (int, float) for x in row.values())
        if not has_only_numbers or type(row.get("step")) is not int or "loss" not in row:
            raise UserError(f"{path}, line {i} is damaged (no step, no loss, or no number): {CURE}")
        rows.append(row)
    return rows


def save_curves(workdir: Path, process: str) -> Path | None:
    """Draws the curves of the metrics of a run, and returns the path; None where there are no metrics.

    Args:
        workdir: of the run.
        process: the name of its process, for the caption.
    """
    rows = read_metrics(workdir)
    if not rows:
        return None
    path = workdir / LOSS_CURVE
    # A flow has a loss, and no cross entropy; a classifier has no bound.
    names = [name for name in LABELS if all(name in row for row in rows)]
    curves = {LABELS[name]: [row[name] for row in rows] for name in names}
    caption = f"{workdir.resolve().name}: {process}"
    show.save_curves(path, [row["step"] for row in rows], curves, "step", caption=caption)
    return path


def _cure(name: str, row: Row, step: int) -> str:
    """Says what to change where this metric is the first of `CAUSES` that is not finite."""
    value = float(row[name])
    if value == np.inf and name == "ce":
        return "a category of the data has probability 0, look at head and at parts of your own"
    if value == np.inf and name == "kl":
        return "what the process does has probability 0 in the network, look at head and at parts of your own"
    if value == np.inf and name == "loss" and "kl" in row:
        return "its weights or the prior KL are infinite, look at loss and at the end of process.beta"
    if step == 1 and name != "grad_norm":
        cure = "no update was made yet, look at the first weights of the network, the weights of the data, "
        cure += "and parts of your own"
        if "kl" in row:
            cure += " (t is in 1..T, p_t in (0, 1], x_t in 0..K - 1)"
        return cure
    return "start anew with a lower optimizer.lr"


class Window:
    """Holds the metrics of the steps since the last report.

    Args:
        bound_nats_per_element: nats of the bound, as the means of metrics say; None where there is none.
        leaves: the names of the parameters, in their order.
        max_nonfinite: after so many steps in a row that are not finite it raises.
    """

    def __init__(
        self,
        bound_nats_per_element: Callable[[dict[str, float | int]], float | None],
        leaves: Sequence[str],
        max_nonfinite: int,
    ):
        self._bound_nats_per_element = bound_nats_per_element
        self._leaves = leaves
        self._max_nonfinite = max_nonfinite
        self._last: tuple[int, Metrics] | None = None  # the step that may still be computed
        self._rows: list[Row] = []  # of finite steps since the last report
        self._skipped_in_a_row: list[tuple[int, Row]] = []  # the steps since the last finite one
        self._any_finite = False  # whether any step was finite
        self._skipped_since_report = 0
        self._clock_start = 0.0  # 0 before the first step
        self._timed_steps = 0

    def add(self, step: int, row: Metrics, saved: int | None) -> None:
        """Takes the metrics of a step, and waits for the step before it.

        Not for the step itself: the device computes it while the loop prepares the next one.

        Args:
            step: its number.
            row: its metrics.
            saved: the step of the last checkpoint, if there is one.

        Raises:
            UserError: so many steps in a row were not finite.
        """
        self._fetch_last(saved)
        self._last = step, row
        if not self._clock_start:
            # The first step compiles: the clock starts when it is done.
            jax.block_until_ready(row["loss"])
            self.restart_clock()
        else:
            self._timed_steps += 1

    def _fetch_last(self, saved: int | None) -> None:
        """Waits for the step that was added last, and checks whether it was finite."""
        if self._last is None:
            return
        step, row = jax.device_get(self._last)
        self._last = None
        if all(np.isfinite(value) for value in row.values()):
            self._rows.append(row)
            self._skipped_in_a_row = []
            self._any_finite = True
            return
        self._skipped_since_report += 1
        self._skipped_in_a_row.append((step, row))
        if len(self._skipped_in_a_row) >= self._max_nonfinite:
            raise self._make_error(saved)

    def _make_error(self, saved: int | None) -> UserError:
        """Makes the error of steps that were not finite, with what was wrong with the first and a cure."""
        step, row = self._skipped_in_a_row[0]
        name = next(name for name in CAUSES if name in row and not np.isfinite(row[name]))
        kept = "there is no checkpoint yet" if saved is None else f"the checkpoint of step {saved} is kept"
        details = [f"{key} {float(row[key]):.4g}" for key in TERMS if key in row]
        leaf = int(row.get("first_nonfinite", -1))
        if leaf >= 0:
            details.append(f"{self._leaves[leaf]} has the first gradient that is not finite")
        if len(self._skipped_in_a_row) > 1:
            details.append(f"{len(self._skipped_in_a_row)} steps in a row")
        cure = _cure(name, row, step)
        return UserError(
            f"{name} is {float(row[name])} at step {step}; {kept}: {cure} ({', '.join(details)})"
        )

    def count_skipped_in_a_row(self) -> int:
        """Returns how many of the last steps in a row were not finite.

        The last step counts only after `close`, which waits for it.
        """
        return len(self._skipped_in_a_row)

    def check_any(self, saved: int | None) -> None:
        """Raises UserError where no step at all was finite: nothing was trained."""
        if self._skipped_in_a_row and not self._any_finite:
            raise self._make_error(saved)

    def restart_clock(self) -> None:
        """Starts the clock again after something that is not training."""
        self._clock_start = time.monotonic()
        self._timed_steps = 0

    def close(self, saved: int | None) -> dict[str, float | int]:
        """Returns the means of the steps since the last report, and empties the window.

        The means are those of the finite steps, with the bound that follows from them; "skipped" is how many
        other steps there were, if any. Where no step was finite the result is empty, and the next report
        counts these steps.

        Raises:
            UserError: so many steps in a row were not finite.
        """
        self._fetch_last(saved)
        means: dict[str, float | int] = {}
        if self._rows:
            columns = {name: [row[name] for row in self._rows] for name in TERMS if name in self._rows[0]}
            means = {name: float(np.mean(column, dtype=np.float64)) for name, column in columns.items()}
            nats = self._bound_nats_per_element(means)
            if nats is not None:
                means["bound_bits_per_dim"] = nats / float(np.log(2))
            if self._timed_steps:
                means["seconds_per_step"] = (time.monotonic() - self._clock_start) / self._timed_steps
            if self._skipped_since_report:
                means["skipped"] = self._skipped_since_report
            self._rows = []
            self._skipped_since_report = 0
        self.restart_clock()
        return means
