"""Writes files that are either whole or not there, and reads JSON that may be damaged."""

import errno
import hashlib
import io
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

try:
    import fcntl
except ImportError:  # Windows has none: nothing is locked there, and what killed processes leave stays
    fcntl = None

PARTIAL = re.compile(r".*\.[0-9a-f]{16}\.partial")
DEEPEST = 50  # levels of nested JSON that are read
TOO_DEEP = f"it is nested more than {DEEPEST} deep"
# A folder that another process of a run writes: this process replaces no file in it.
folder_of_another_process: Path | None = None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields the path of an empty file to write, which takes the place of `path` when the block ends well.

    Whatever happens, also where several write it at once, `path` is what it was or what was written, never a
    part of it. A link is replaced, not followed. A process that is killed leaves its NAME.*.partial, which
    the next writer in the folder deletes. In `folder_of_another_process` nothing is replaced: what was
    written is thrown away.

    Raises:
        OSError: naming `path`, which is a directory or cannot be written.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    # The name is random, so that no other writer of `path` has it.
    partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}.partial")
    held = ExitStack()
    try:
        _delete_partials(path.parent)
        _lock(held.enter_context(partial.open("xb")))
        yield partial
        # The content must be on the disk before the name points to it: after a loss of power a file that was
        # renamed first could be empty.
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        if folder_of_another_process is None or not path.resolve().is_relative_to(folder_of_another_process):
            os.replace(partial, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        held.close()
        # What keeps it from being deleted, as a file where its folder should be, has been raised above.
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _lock(file: BinaryIO) -> bool:
    """Locks a file for as long as it is open and its process lives; says whether it could be."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another process has it, or the file system has no locks
        return False
    return True


def _delete_partials(folder: Path) -> None:
    """Deletes what processes that were killed have left of files in a folder: what no process has locked."""
    for partial in folder.glob("*.partial"):
        if PARTIAL.fullmatch(partial.name) and partial.is_file():
            # Where it cannot be opened or deleted, it stays.
            with suppress(OSError), partial.open("r+b") as file:
                if _lock(file):
                    partial.unlink()


def write_text(path: Path, text: str) -> None:
    """Writes a file so that, whatever happens, either the old or the new one is there."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file of bytes so that, whatever happens, either the old or the new one is there."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_npy(path: Path, x: np.ndarray) -> None:
    """Writes an array as .npy so that, whatever happens, either the old or the new file is there."""
    # numpy.save to a file would hide what the system says of a full disk, so it writes to memory.
    content = io.BytesIO()
    np.save(content, x)
    write_bytes(path, content.getvalue())


def hash_arrays(*arrays: np.ndarray) -> str:
    """Returns the SHA-256 of the elements of arrays, in hexadecimal."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def describe_content(*arrays: np.ndarray) -> str:
    """Returns the beginning of the hash of arrays, as "sha256 0123456789ab"."""
    return f"sha256 {hash_arrays(*arrays)[:12]}"


def check_is_file(path: Path) -> None:
    """Raises ValueError for a folder, and for a pipe or a device, which might never end."""
    if path.exists() and not path.is_file():
        raise ValueError("it is no file")


def read_json(path: Path) -> Any:
    """Returns the value that a file of JSON holds; see `parse_json`."""
    check_is_file(path)
    return parse_json(path.read_bytes())


def parse_json(content: bytes) -> Any:
    """Returns the value that JSON in UTF-8 holds.

    Raises:
        ValueError: it is no JSON, names a field twice, is nested too deeply, or has a number like NaN.
    """
    try:
        tree = json.loads(
            content.decode(), object_pairs_hook=_refuse_duplicates, parse_constant=_refuse_constant
        )
    except RecursionError as error:
        raise ValueError(TOO_DEEP) from error

    # What passes here may still be too deep for what reads the tree by recursion, so its depth is counted:
    # level after level, until one is empty.
    level = [tree]
    for _ in range(DEEPEST):
        level = _list_children(level)
    if level:
        raise ValueError(TOO_DEEP)
    return tree


def _list_children(values: list[Any]) -> list[Any]:
    """Lists the members of all objects and arrays among values of JSON."""
    children: list[Any] = []
    for value in values:
        if isinstance(value, dict):
            children.extend(value.values())
        elif isinstance(value, list):
            children.extend(value)
    return children


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Makes an object of JSON a dict. Raises ValueError for a name that comes twice, where dict takes one."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("it names a field twice")
    return fields


def _refuse_constant(name: str) -> float:
    """Raises ValueError for NaN, Infinity or -Infinity, which Python reads though JSON has none."""
    raise ValueError(f"it holds {name}, which is not a number")
