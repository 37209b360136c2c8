"""Writes files that are either whole or not there, and reads JSON that may be damaged."""

import errno
import io
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

DEEPEST = 50  # levels of JSON
TOO_DEEP = f"it is nested more than {DEEPEST} deep"
# A folder that another process of a run writes: this process replaces no file in it.
folder_of_another_process: Path | None = None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives the path of an empty file to write, which takes the place of `path` when the block ends well.

    Whatever happens, also where several write it at once, `path` is what it was or what was written, never a
    part of it. A link is replaced, not followed. A process that is killed leaves its NAME.*.partial. In the
    folder `folder_of_another_process` what was written is thrown away.

    Raises:
        OSError: naming `path`, which is a directory or cannot be written.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}.partial")  # of this writer alone
    try:
        partial.open("xb").close()
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        if folder_of_another_process is None or not path.resolve().is_relative_to(folder_of_another_process):
            os.replace(partial, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a file so that, whatever happens, either the old or the new one is there."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Does what `write_text` does, for bytes."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_npy(path: Path, x: np.ndarray) -> None:
    """Does what `write_text` does, for an array; unlike numpy.save, an error says what the system said."""
    np.save(content := io.BytesIO(), x)
    write_bytes(path, content.getvalue())


def read_json(path: Path) -> Any:
    """Returns what a file of JSON holds; see `parse_json`."""
    return parse_json(path.read_bytes())


def parse_json(content: bytes) -> Any:
    """Returns what JSON in UTF-8 holds.

    Raises:
        ValueError: it is no JSON, names a field twice, is nested too deeply, or has a number like NaN.
    """
    try:
        tree = json.loads(content.decode(), object_pairs_hook=_unique, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError(TOO_DEEP) from error
    level = [tree]
    for _ in range(DEEPEST):
        nodes = [x.values() if isinstance(x, dict) else x for x in level if isinstance(x, dict | list)]
        level = [x for node in nodes for x in node]
    if level:
        raise ValueError(TOO_DEEP)
    return tree


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("it names a field twice")
    return found


def _refuse(name: str) -> float:
    raise ValueError(f"it holds {name}, which is no number")
