"""Files that are either whole or not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The path of an empty file to write, which takes the place of `path` when the block ends well.

    Whatever happens, `path` is what it was or what was written, never a part of it.
    """
    partial = path.with_name(path.name + ".partial")
    partial.open("wb").close()
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
