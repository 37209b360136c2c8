"""Writes files that are either whole or not there."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives the path of an empty file to write, which takes the place of `path` when the block ends well.

    Whatever happens, `path` is what it was or what was written, never a part of it.

    Raises:
        OSError: naming `path`, which is a directory or cannot be written.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    partial = path.with_name(path.name + ".partial")
    try:
        partial.open("wb").close()
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a file so that, whatever happens, either the old or the new one is there."""
    with replacing(path) as partial:
        partial.write_text(text)
