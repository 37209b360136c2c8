"""Keeps two trainings from writing to one folder: each would delete what the other is writing."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from d3pm_jax.errors import UserError, one_line
from d3pm_jax.storage.names import LOCK

try:
    import fcntl
except ImportError:  # a system that has no such locks
    fcntl = None


@contextlib.contextmanager
def hold_folder(workdir: Path) -> Iterator[None]:
    """Makes a folder where there is none, and lets no other training write to it during the block.

    The lock is the system's, which takes it back however the process ends. Where it offers none, as on some
    file systems of networks, there is none.

    Raises:
        UserError: another holds it, or the folder cannot be written to.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = os.open(workdir / LOCK, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    except OSError as error:
        raise cannot_write_error(workdir, error) from error
    try:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"another `d3pm train` is writing to {workdir}: wait for it or pass another --workdir"
                ) from error
            except OSError:
                pass  # there are no locks here
        yield
    finally:
        os.close(file)


def cannot_write_error(workdir: Path, error: OSError) -> UserError:
    """Returns the error of a folder that a run cannot be written to."""
    return UserError(
        f"cannot write to {workdir}: {error.strerror or one_line(error)}; make room there, or pass "
        f"another --workdir"
    )
