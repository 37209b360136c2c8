"""Keeps two trainings from writing to one folder: each would delete what the other is writing."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import filelock

from d3pm_jax.errors import UserError, one_line
from d3pm_jax.program.storage.names import LOCK


@contextlib.contextmanager
def hold_folder(workdir: Path) -> Iterator[None]:
    """Makes a folder where there is none, and lets no other training write to it during the block.

    The lock is one of the operating system, which releases it however the process ends. On a file system
    without locks, such as some network file systems, nothing is locked.

    Raises:
        UserError: another process holds it, or the folder cannot be written to.
    """
    path = workdir / LOCK
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        # The file is opened here first, so that an error of `acquire` below can only come from the lock. A
        # link is refused where the system can do so, and the file that it leads to is not made.
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        os.close(os.open(path, flags, 0o666))
    except OSError as error:
        raise cannot_write_error(workdir, error) from error

    # With fallback_to_soft the file itself would be the lock where the system has none. A killed process
    # would leave it behind, and its run could not be resumed. So there is no lock then, and it is up to the
    # user not to start two trainings.
    lock = filelock.FileLock(path, blocking=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise UserError(
            f"another `d3pm train` is writing to {workdir}: wait for it or pass another --workdir"
        ) from error
    except OSError:
        # Systems without locks answer in many ways: ENOLCK, ENOSYS, EOPNOTSUPP, EINVAL, EIO, ...
        pass
    try:
        yield
    finally:
        # The file of the lock is not deleted: its presence means nothing, and another process may have locked
        # it meanwhile. Releasing a lock that was not acquired has no effect.
        lock.release()


def cannot_write_error(workdir: Path, error: OSError) -> UserError:
    """Returns the error of a folder that a run cannot be written to."""
    cures = {errno.EACCES: "change its permissions, or ", errno.EROFS: "", errno.ENAMETOOLONG: ""}
    cure = cures.get(error.errno or 0, "make room there, or ")
    return UserError(
        f"cannot write to {workdir}: {error.strerror or one_line(error)}; {cure}pass another --workdir"
    )
