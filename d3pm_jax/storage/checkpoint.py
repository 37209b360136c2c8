"""Checkpoints: Orbax writes the arrays, a manifest of hashes says that they are whole.

Orbax replaces nothing until a checkpoint is written, but it can restore a damaged one without a word.
So the manifest is written last, into the finished folder: a step without one is unfinished, and one whose
files do not match theirs is damaged. Both are passed over, for the step before.
"""

import errno
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import orbax.checkpoint as ocp

from d3pm_jax.errors import UserError, one_line
from d3pm_jax.files import write_text
from d3pm_jax.machine.cluster import is_first
from d3pm_jax.storage.manifest import hash_of, read_hash_table
from d3pm_jax.storage.names import MANIFEST

LONGEST_WRITE = 3600  # seconds
OF_A_FILE = 2**13  # bytes on the disk, besides what is in it
OURS = re.compile(r"(0|[1-9][0-9]*)(\.orbax-checkpoint-tmp.*)?")


class CheckpointGone(UserError):
    """A training has deleted the checkpoint since it was listed."""


class Saver:
    """Writes checkpoints in the background, one after the other, while training goes on.

    All processes call the same methods. They raise OSError where a checkpoint cannot be written; those of
    before are kept. It is a context: at its end what was started is written.

    Args:
        folder: of all checkpoints of a run.
        keep: how many of the last ones; at least 1.
    """

    def __init__(self, folder: Path, keep: int):
        self._folder, self._keep = folder.absolute(), max(1, keep)
        self._checkpointer = ocp.StandardCheckpointer(
            async_options=ocp.options.AsyncOptions(timeout_secs=LONGEST_WRITE)
        )
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                self.wait()
        finally:
            alone = jax.process_count() == 1  # processes that are gone would be waited for
            self._thread.shutdown(wait=alone)
            if alone:
                with suppress(Exception):  # it was told, or another error is
                    self._checkpointer.close()

    def save(self, step: int, state: Any) -> None:
        """Starts to write the state of a step, a pytree of arrays; waits for the one before."""
        self.wait()
        self._folder.mkdir(parents=True, exist_ok=True)
        if is_first():
            for leftover in list_folders(
                self._folder
            ):  # of a process that was killed while it wrote or deleted
                if not (leftover / MANIFEST).is_file():
                    delete_checkpoint(leftover)
        path = self._folder / str(step)
        with _as_os_error(path):
            # where there is no room threads of Orbax would print why, each at length
            sizes = [x.nbytes for x in jax.tree.leaves(state)]
            if shutil.disk_usage(self._folder).free < sum(sizes) + OF_A_FILE * (len(sizes) + 8):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))
            self._checkpointer.save(path, state)
        self._pending = self._thread.submit(self._finish, path)

    def check(self) -> None:
        """Raises what the one in the background has failed with."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Waits until what was started is written."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _finish(self, path: Path) -> None:
        """Writes the manifest when all arrays are written, then deletes the oldest checkpoints."""
        with _as_os_error(path):
            self._checkpointer.wait_until_finished()
        if is_first():
            write_text(path / MANIFEST, json.dumps(_hashes(path), indent=1))
            for old in list_steps(self._folder)[: -self._keep]:
                delete_checkpoint(self._folder / str(old))


def save_checkpoint(folder: Path, step: int, state: Any, keep: int) -> None:
    """Writes the state of a step to folder/step, then deletes all but the last `keep` checkpoints.

    Raises:
        OSError: it cannot be written; the checkpoints of before are kept.
    """
    with Saver(folder, keep) as saver:
        saver.save(step, state)


def delete_checkpoint(path: Path) -> None:
    """Deletes a checkpoint, or a part of one; never what a link leads to."""
    if path.is_dir() and not path.is_symlink():
        (path / MANIFEST).unlink(missing_ok=True)  # first: what is left of a killed process is unfinished
        shutil.rmtree(path)


def set_aside_later_steps(folder: Path, step: int) -> None:
    """Renames the checkpoints of later steps, which a training that goes on from this one has passed over."""
    for later in list_steps(folder):
        if later > step:
            damaged = folder / f"{later}.damaged"
            delete_checkpoint(damaged)
            (folder / str(later)).rename(damaged)


@contextmanager
def _as_os_error(path: Path) -> Iterator[None]:
    """Makes what Orbax raises an OSError, also what comes from inside of it, and keeps it from printing."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    except OSError:
        raise
    except (ValueError, RuntimeError) as error:
        full = os.strerror(errno.ENOSPC) in str(error)
        code = errno.ENOSPC if full else errno.EIO
        raise OSError(code, os.strerror(code) if full else one_line(error), str(path)) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def list_folders(folder: Path) -> list[Path]:
    """Lists what this program wrote, finished or not: N, and N.orbax-checkpoint-tmp of Orbax."""
    return [path for path in folder.glob("*") if OURS.fullmatch(path.name)]


def list_steps(folder: Path) -> list[int]:
    """Lists the finished checkpoints in a folder, in order."""
    found = [path for path in list_folders(folder) if (path / MANIFEST).is_file()]
    return sorted(int(path.name) for path in found if path.name.isdecimal())


def find_newest_step(folder: Path) -> int:
    """Returns the last step whose checkpoint is whole, and says which damaged ones it passes over.

    Raises:
        UserError: there is none.
    """
    found = list_steps(folder)
    if not found:
        raise UserError(f"{folder.parent} holds no finished checkpoint: let `d3pm train` run longer")
    for step in reversed(found):
        try:
            check_checkpoint(folder, step)
            return step
        except CheckpointGone:
            return find_newest_step(folder)  # a training has a newer one by now
        except UserError as error:
            if step == found[0]:
                raise
            print(f"warning: {error}", file=sys.stderr, flush=True)
    raise AssertionError("the first one returns or raises")


def check_checkpoint(folder: Path, step: int) -> None:
    """Compares the files of a checkpoint with their hashes.

    Raises:
        CheckpointGone: a training has deleted it.
        UserError: a file is damaged or missing.
    """
    with _there(folder.absolute() / str(step)) as path:
        try:
            _verify(path)
        except OSError as error:
            why = f"checkpoint {path} cannot be read ({one_line(error)})"
            raise UserError(f"{why}: {_what_next(path)}") from error


def restore_state(folder: Path, step: int, like: Any) -> Any:
    """Restores the state of a step, which `check_checkpoint` has found whole.

    Args:
        folder: of all checkpoints of a run.
        step: one of `list_steps(folder)`.
        like: a pytree of arrays with the shapes, types and shardings to restore to.

    Raises:
        CheckpointGone: a training has deleted it, also where that is while it is read.
        UserError: the arrays are not those of `like`.
    """
    logging.getLogger("absl").setLevel(logging.ERROR)
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
    with _there(folder.absolute() / str(step)) as path, ocp.StandardCheckpointer() as checkpointer:
        try:
            return checkpointer.restore(path, target)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"checkpoint {path} does not fit the network and optimizer of this config: {one_line(error)}"
            ) from error


@contextmanager
def _there(path: Path) -> Iterator[Path]:
    """Raises Gone, whatever else is raised, where a training has deleted a checkpoint in the block."""
    error = None
    try:
        yield path
    except (UserError, OSError) as raised:
        error = raised
    if not (path / MANIFEST).is_file():  # deleting begins with it: what was read may be a part
        message = f"step {path.name} is gone: a training has deleted {path}; run the command again"
        raise CheckpointGone(message) from error
    if error is not None:
        raise error


def _verify(path: Path) -> None:
    try:
        expected = read_hash_table(path / MANIFEST, lambda entry: isinstance(entry, str))
    except (OSError, ValueError) as error:
        why = f"{MANIFEST}: {one_line(error)}"
        raise UserError(f"checkpoint {path} is damaged ({why}): {_what_next(path)}") from error
    found = _hashes(path)
    names = sorted(expected.keys() | found.keys())
    bad = [name for name in names if found.get(name) is None or expected.get(name) != found[name]]
    if bad:
        why = f"{bad[0]} is not what was written"
        raise UserError(f"checkpoint {path} is damaged ({why}): {_what_next(path)}")


def _what_next(path: Path) -> str:
    before = [s for s in list_steps(path.parent) if s < int(path.name)]
    return f"step {before[-1]} is before it" if before else "there is none before it; start in a new workdir"


def _hashes(path: Path) -> dict[str, str | None]:
    """Returns the SHA-256 of every file below a folder but the manifest itself, None of a link, by name."""
    files = [x for x in sorted(path.rglob("*")) if x.is_symlink() or x.is_file()]
    return {
        str(file.relative_to(path)): None if file.is_symlink() else hash_of(file.read_bytes())
        for file in files
        if file.parent != path or not file.name.startswith(MANIFEST)
    }


# Notebooks and scripts call these two by the names that they had first.
steps = list_steps
save = save_checkpoint
