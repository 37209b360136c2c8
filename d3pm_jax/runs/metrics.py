"""Keeps the metrics of a run: their means over an interval, one JSON line for each, and TensorBoard."""

import json
import time
from pathlib import Path
from types import TracebackType

import jax
import numpy as np

from d3pm_jax.errors import UserError
from d3pm_jax.files import write_text
from d3pm_jax.runs.tensorboard import Board
from d3pm_jax.training.step import Metrics

FILE = "metrics.jsonl"


def read(workdir: Path) -> list[dict[str, float | int]]:
    """Reads the lines of metrics.jsonl; a last line cut off by a crash is left out."""
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
        self._board = Board(workdir / "tensorboard", after_step + 1)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        self._board.close()

    def write(self, step: int, row: dict[str, float | int]) -> None:
        """Writes one line, and one point of each curve."""
        self._file.write(json.dumps({"step": step, **row}) + "\n")
        self._file.flush()
        for name, value in row.items():
            self._board.add_scalar(name, value, step)


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
            for name, value in row.items():
                if not np.isfinite(value):
                    kept = (
                        "there is no checkpoint yet"
                        if saved is None
                        else f"the checkpoint of step {saved} is kept"
                    )
                    raise UserError(
                        f"{name} is {value} at step {i}; {kept}: start anew with a lower optimizer.lr"
                    )
        means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        means["bound_bits_per_dim"] = means["kl"] * self._T / float(np.log(2))
        if self._timed:
            means["seconds_per_step"] = (time.monotonic() - self._since) / self._timed
        self._rows = []
        self.restart()
        return means
