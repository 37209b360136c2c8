"""Writes curves for TensorBoard in the thread that calls, where an error is raised, too."""

import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Board:
    """Appends points of curves to a new file of events; hides what earlier files have from a step on.

    Args:
        folder: where the files are.
        purge_step: the first step whose points of before are hidden.

    Raises:
        OSError: it cannot be written; so do the methods.
    """

    def __init__(self, folder: Path, purge_step: int):
        from tensorboardX.event_file_writer import (
            EventsWriter,  # brings PyTorch, where it is installed: seconds
        )
        from tensorboardX.proto.event_pb2 import SessionLog  # pyright: ignore[reportAttributeAccessIssue]

        folder.mkdir(exist_ok=True)
        self._events = EventsWriter(str(folder / "events"), f".{secrets.token_hex(4)}")
        self._write(purge_step, session_log=SessionLog(status=SessionLog.START))

    def log(self, step: int, values: Mapping[str, float | int]) -> None:
        """Adds a point to each curve."""
        from tensorboardX.summary import scalar

        for name, value in values.items():
            self._write(step, summary=scalar(name, value))

    def close(self) -> None:
        """Writes what is not written yet."""
        self._events.close()

    def _write(self, step: int, **what: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

        self._events.write_event(Event(wall_time=time.time(), step=step, **what))
