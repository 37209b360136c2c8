"""Takes the means of the metrics of a run over an interval, and reads the lines of them that there are."""

import time
from pathlib import Path

import jax
import numpy as np

from d3pm_jax.errors import UserError, one_line
from d3pm_jax.files import parse_json
from d3pm_jax.training.step import Metrics

FILE = "metrics.jsonl"
CURE = "delete that line, or the file, which curves alone are drawn from"
CAUSES = ("ce", "kl", "loss", "grad_norm")  # which follows from which


def read(workdir: Path) -> list[dict[str, float | int]]:
    """Reads the lines of metrics.jsonl; a last line cut off by a crash is left out.

    Raises:
        UserError: another line is damaged.
    """
    path = workdir / FILE
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [_row(line, f"{path}, line {i}") for i, line in enumerate(lines, 1)]


def _row(line: bytes, place: str) -> dict[str, float | int]:
    try:
        row = parse_json(line)
    except ValueError as error:
        raise UserError(f"{place} is damaged ({one_line(error)}): {CURE}") from error
    numbers = isinstance(row, dict) and all(type(x) in (int, float) for x in row.values())
    if not numbers or type(row.get("step")) is not int or "loss" not in row:
        raise UserError(f"{place} is damaged (no step, no loss, or no number): {CURE}")
    return row


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


class Window:
    """Holds the metrics of the steps since the last report."""

    def __init__(self, T: int):
        self._rows: list[Metrics] = []
        self._T, self._since, self._timed = T, 0.0, 0

    def add(self, row: Metrics) -> None:
        """Takes the metrics of a step, and waits for the step before it."""
        if self._rows:
            jax.block_until_ready(self._rows[-1]["loss"])
        self._rows.append(row)
        if not self._since:  # the first step compiles
            jax.block_until_ready(row["loss"])
            self.restart()
        else:
            self._timed += 1

    def restart(self) -> None:
        """Starts the clock again after something that is not training."""
        self._since, self._timed = time.monotonic(), 0

    def close(self, step: int, saved: int | None) -> dict[str, float | int]:
        """Returns their means, and the bound that kl stands for; empties the window.

        Raises:
            UserError: one of them is not finite.
        """
        rows = jax.device_get(self._rows)
        for i, row in enumerate(rows, step - len(rows) + 1):
            for name, value in sorted(row.items(), key=lambda item: CAUSES.index(item[0])):
                if not np.isfinite(value):
                    kept = (
                        "there is no checkpoint yet"
                        if saved is None
                        else f"the checkpoint of step {saved} is kept"
                    )
                    raise UserError(f"{name} is {value} at step {i}; {kept}: {_cure(name, float(value), i)}")
        means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        means["bound_bits_per_dim"] = means["kl"] * self._T / float(np.log(2))
        if self._timed:
            means["seconds_per_step"] = (time.monotonic() - self._since) / self._timed
        self._rows = []
        self.restart()
        return means
