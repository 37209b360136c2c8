"""Takes the means of the metrics of a run over an interval, reads the lines of them, and draws them."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from d3pm_jax import show
from d3pm_jax.errors import UserError, one_line
from d3pm_jax.files import parse_json
from d3pm_jax.storage.names import LOSS_CURVE, METRICS
from d3pm_jax.training.step import Metrics
from d3pm_jax.types import Params

CURE = "delete that line, or the file, which curves alone are drawn from"
CAUSES = ("ce", "kl", "loss", "grad_norm")  # which follows from which
TERMS = ("loss", "kl", "ce", "grad_norm")
LABELS = {"bound_bits_per_dim": "bound [bits/dim]", "ce": "cross entropy [nats]", "loss": "loss [nats]"}

Row = Mapping[str, Any]  # the metrics of a step, on the host


def read_metrics(workdir: Path) -> list[dict[str, float | int]]:
    """Reads the lines of metrics.jsonl; a last line cut off by a crash is left out.

    Raises:
        UserError: another line is damaged.
    """
    path = workdir / METRICS
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    rows = []
    for i, line in enumerate(lines, 1):
        try:
            row = parse_json(line)
        except ValueError as error:
            raise UserError(f"{path}, line {i} is damaged ({one_line(error)}): {CURE}") from error
        numbers = isinstance(row, dict) and all(type(x) in (int, float) for x in row.values())
        if not numbers or type(row.get("step")) is not int or "loss" not in row:
            raise UserError(f"{path}, line {i} is damaged (no step, no loss, or no number): {CURE}")
        rows.append(row)
    return rows


def save_curves(workdir: Path, process: str) -> Path | None:
    """Draws the curves of a run's metrics, and says where; None where there are no metrics.

    Args:
        workdir: of the run.
        process: the name of its process, for the caption.
    """
    rows = read_metrics(workdir)
    if not rows:
        return None
    path = workdir / LOSS_CURVE
    curves = {label: [row[name] for row in rows] for name, label in LABELS.items()}
    caption = f"{workdir.resolve().name}: {process}"
    show.save_curves(path, [row["step"] for row in rows], curves, "step", caption=caption)
    return path


def _cure(name: str, value: float, step: int) -> str:
    """Says what to change when this is the first metric, by the order of causes, that is not finite."""
    if value == np.inf and name == "ce":
        return "a category of the data has probability 0, look at head.forbid and at parts of your own"
    if value == np.inf and name == "kl":
        return "what the process does has probability 0 in the network, look at head and at parts of your own"
    if value == np.inf and name == "loss":
        return "its weights or the prior KL are infinite, look at loss and at the end of process.beta"
    if step == 1 and name != "grad_norm":
        return "no update was made yet, look at the first weights of the network and the weights of the data"
    return "start anew with a lower optimizer.lr"


def leaf_names(params: Params) -> list[str]:
    """Names the leaves of parameters in their order, such as "layers.qkv.kernel"."""
    paths = jax.tree_util.tree_flatten_with_path(params)[0]
    return [jax.tree_util.keystr(p, simple=True, separator=".").removesuffix(".value") for p, _ in paths]


class Window:
    """Holds the metrics of the steps since the last report.

    Args:
        T: number of steps of the process.
        leaves: the names of the parameters, in their order.
        max_nonfinite: after so many steps in a row that are not finite it raises.
    """

    def __init__(self, T: int, leaves: Sequence[str], max_nonfinite: int):
        self._T, self._leaves, self._most = T, leaves, max_nonfinite
        self._last: tuple[int, Metrics] | None = None  # the step that may still run
        self._rows: list[Row] = []  # of steps that were finite
        self._bad: list[tuple[int, Row]] = []  # the last steps, as far as they were not
        self._any = False  # whether any step was
        self._skipped = 0  # since the last report
        self._since, self._timed = 0.0, 0

    def add(self, step: int, row: Metrics, saved: int | None) -> None:
        """Takes the metrics of a step, and waits for the step before it.

        Args:
            step: its number.
            row: its metrics.
            saved: the step of the last checkpoint, if there is one.

        Raises:
            UserError: so many steps in a row were not finite.
        """
        self._look(saved)
        self._last = step, row
        if not self._since:  # the first step compiles
            jax.block_until_ready(row["loss"])
            self.restart()
        else:
            self._timed += 1

    def _look(self, saved: int | None) -> None:
        """Waits for the step that was added last, and looks whether it was finite."""
        if self._last is None:
            return
        (step, row), self._last = jax.device_get(self._last), None
        if all(np.isfinite(value) for value in row.values()):
            self._rows.append(row)
            self._bad = []
            self._any = True
            return
        self._skipped += 1
        self._bad.append((step, row))
        if len(self._bad) >= self._most:
            raise self._error(saved)

    def _error(self, saved: int | None) -> UserError:
        """Says of the steps that were not finite what was the matter with the first, and what to change."""
        step, row = self._bad[0]
        name = next(name for name in CAUSES if name in row and not np.isfinite(row[name]))
        kept = "there is no checkpoint yet" if saved is None else f"the checkpoint of step {saved} is kept"
        terms = [f"{key} {float(row[key]):.4g}" for key in TERMS if key in row]
        first = int(row.get("first_nonfinite", -1))
        if first >= 0:
            terms.append(f"{self._leaves[first]} has the first gradient that is not finite")
        if len(self._bad) > 1:
            terms.append(f"{len(self._bad)} steps in a row")
        cure = _cure(name, float(row[name]), step)
        return UserError(f"{name} is {float(row[name])} at step {step}; {kept}: {cure} ({', '.join(terms)})")

    def skipped_last(self) -> int:
        """Counts the last steps, as far as they were not finite; `close` has waited for the last of them."""
        return len(self._bad)

    def check_any(self, saved: int | None) -> None:
        """Raises UserError where no step at all was finite: nothing was trained."""
        if self._bad and not self._any:
            raise self._error(saved)

    def restart(self) -> None:
        """Starts the clock again after something that is not training."""
        self._since, self._timed = time.monotonic(), 0

    def close(self, saved: int | None) -> dict[str, float | int]:
        """Returns their means, and the bound that kl stands for; empties the window.

        The means are those of the finite steps; "skipped" says how many others there were, if any. Where
        no step was finite nothing is returned, and the next report counts them.

        Raises:
            UserError: so many steps in a row were not finite.
        """
        self._look(saved)
        found: dict[str, float | int] = {}
        if self._rows:
            columns = {name: [row[name] for row in self._rows] for name in TERMS}
            found = {name: float(np.mean(column, dtype=np.float64)) for name, column in columns.items()}
            found["bound_bits_per_dim"] = found["kl"] * self._T / float(np.log(2))
            if self._timed:
                found["seconds_per_step"] = (time.monotonic() - self._since) / self._timed
            if self._skipped:
                found["skipped"] = self._skipped
            self._rows, self._skipped = [], 0
        self.restart()
        return found


# What this function was called before: a script may still ask `runs.metrics` for it by this name.
read = read_metrics
