"""Checkpoints: Orbax writes the arrays, a manifest of hashes says that they are whole.

A checkpoint comes about in three steps, and a process may be killed between any two of them:

1. Orbax writes the arrays into the folder N.orbax-checkpoint-tmp.
2. When they are all on the disk, Orbax renames that folder to N.
3. The hashes of all files in N are written to N/manifest.json.

Orbax alone would be enough against a process that is killed, but not against a disk: it can restore a
checkpoint with a flipped byte without a word, and the training would go on from weights that it never had. So
a step counts only with its manifest, and only while all of its files match it. A step without one is
unfinished, a step whose files do not match is damaged; both are passed over, for the step before.
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
import jax.numpy as jnp
import orbax.checkpoint as ocp

from d3pm_jax.checks import Natural, declared, describe
from d3pm_jax.errors import UserError, one_line
from d3pm_jax.files import write_text
from d3pm_jax.program.machine.cluster import is_first
from d3pm_jax.program.storage.manifest import hash_of, read_hash_table
from d3pm_jax.program.storage.names import MANIFEST

LONGEST_WRITE = 3600  # seconds
# Bytes that a file takes of the disk besides what is in it.
BYTES_OF_A_FILE = 2**13
# The folder of a step, and those that Orbax is writing a step to.
FOLDER = re.compile(r"(0|[1-9][0-9]*)(\.orbax-checkpoint-tmp.*)?")


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

    @declared()
    def __init__(self, folder: Path, keep: Natural):
        self._folder = folder.absolute()
        self._keep = max(1, keep)
        self._checkpointer = ocp.StandardCheckpointer(
            async_options=ocp.options.AsyncOptions(timeout_secs=LONGEST_WRITE)
        )
        # One thread, so that manifests are written and checkpoints deleted one after the other.
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                self.wait()
        finally:
            # What is pending, and closing Orbax, may wait for all processes of a run: for ever, where one of
            # them is gone. With several, the end of the process ends both.
            is_alone = jax.process_count() == 1
            self._thread.shutdown(wait=is_alone)
            if is_alone:
                # What closing could raise has been raised by `wait`, or another error is on its way.
                with suppress(Exception):
                    self._checkpointer.close()

    @declared()
    def save(self, step: Natural, state: Any) -> None:
        """Starts to write the state of a step, a pytree of arrays, once the checkpoint before is written."""
        _check_arrays("state", state)
        self.wait()
        self._folder.mkdir(parents=True, exist_ok=True)
        if is_first():
            # A process that was killed while it wrote or deleted has left folders without a manifest. Orbax
            # would refuse to write a step whose folder is there.
            for leftover in list_folders(self._folder):
                if not (leftover / MANIFEST).is_file():
                    delete_checkpoint(leftover)

        path = self._folder / str(step)
        with _as_os_error(path):
            # Room is asked for before Orbax begins: where there is none, each of its threads would print why,
            # at length. An array has at most a file of its own. About eight small files come with them: the
            # metadata, shardings and indices of Orbax, and the manifest.
            sizes = [array.nbytes for array in jax.tree.leaves(state)]
            needed = sum(sizes) + BYTES_OF_A_FILE * (len(sizes) + 8)
            if shutil.disk_usage(self._folder).free < needed:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))

            # Orbax has the values in host memory when this returns, and only writes them in the background.
            # So the next update may take the memory of the state, which is donated to it.
            self._checkpointer.save(path, state)
        self._pending = self._thread.submit(self._finish, path)

    def check(self) -> None:
        """Raises what the checkpoint in the background has failed with, if it has."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Waits until what was started is written."""
        pending = self._pending
        # Forgotten first: what it failed with is raised once.
        self._pending = None
        if pending is not None:
            pending.result()

    def _finish(self, path: Path) -> None:
        """Writes the manifest when all arrays are written, then deletes the oldest checkpoints."""
        with _as_os_error(path):
            self._checkpointer.wait_until_finished()
        if is_first():
            # Orbax has renamed the folder by now, so its files have the names that they are hashed under. Old
            # checkpoints go only when the new one counts: at any time one of them can be restored.
            write_text(path / MANIFEST, json.dumps(_hash_files(path), indent=1))
            for old_step in list_steps(self._folder)[: -self._keep]:
                delete_checkpoint(self._folder / str(old_step))


@declared()
def save_checkpoint(folder: Path, step: Natural, state: Any, keep: Natural) -> None:
    """Writes the state of a step to folder/step, then deletes all but the last `keep` checkpoints.

    Raises:
        OSError: it cannot be written; the checkpoints of before are kept.
    """
    with Saver(folder, keep) as saver:
        saver.save(step, state)


def _check_arrays(name: str, tree: Any) -> None:
    """Raises TypeError unless a pytree holds arrays of numbers or random keys, and nothing else."""
    leaves = jax.tree.leaves(tree)
    if not leaves:
        raise TypeError(f"{name} is {describe(tree)}, which holds no arrays: pass the state of a training")
    for leaf in leaves:
        is_array = hasattr(leaf, "dtype") and hasattr(leaf, "shape")
        kinds = (jnp.number, jnp.bool_, jax.dtypes.prng_key)
        if not is_array or not any(jnp.issubdtype(leaf.dtype, kind) for kind in kinds):
            raise TypeError(f"{name} holds {describe(leaf)}, expected arrays: convert it by jnp.asarray")


@declared()
def delete_checkpoint(path: Path) -> None:
    """Deletes the folder of a checkpoint, finished or not; never what a link leads to."""
    if path.is_dir() and not path.is_symlink():
        # The manifest goes first: a process that is killed here leaves an unfinished checkpoint, which nobody
        # takes for a damaged one, and a reader sees by it that its files are being deleted.
        (path / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(path)


@declared()
def set_aside_later_steps(folder: Path, step: Natural) -> None:
    """Renames the checkpoints of later steps to N.damaged, since a training goes on from this step.

    They were passed over as damaged. Under their names they would be taken for steps of the training that is
    to come.
    """
    for later in list_steps(folder):
        if later > step:
            damaged = folder / f"{later}.damaged"
            delete_checkpoint(damaged)
            (folder / str(later)).rename(damaged)


@contextmanager
def _as_os_error(path: Path) -> Iterator[None]:
    """Raises what Orbax raises in the block as an OSError, and keeps Orbax from printing it.

    Args:
        path: of the checkpoint, which the error names.
    """
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    except (ValueError, RuntimeError) as error:
        # Inside Orbax an OSError loses its errno: only its text remains.
        if os.strerror(errno.ENOSPC) in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise OSError(errno.EIO, one_line(error), str(path)) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@declared()
def list_folders(folder: Path) -> list[Path]:
    """Lists the folders of checkpoints, finished or not: N, and N.orbax-checkpoint-tmp of Orbax."""
    return [path for path in folder.glob("*") if FOLDER.fullmatch(path.name)]


@declared()
def list_steps(folder: Path) -> list[int]:
    """Lists the finished checkpoints in a folder, in order."""
    finished = [path for path in list_folders(folder) if (path / MANIFEST).is_file()]
    return sorted(int(path.name) for path in finished if path.name.isdecimal())


@declared()
def find_newest_step(folder: Path) -> int:
    """Returns the last step whose checkpoint is whole, and says which damaged ones it passes over.

    Raises:
        UserError: there is none.
    """
    finished = list_steps(folder)
    if not finished:
        raise UserError(f"{folder.parent} holds no finished checkpoint: let `d3pm train` run longer")
    for step in reversed(finished):
        try:
            check_checkpoint(folder, step)
            return step
        except CheckpointGone:
            # A training that runs meanwhile has deleted it, so that there is a newer one by now.
            return find_newest_step(folder)
        except UserError as error:
            if step == finished[0]:
                # There is no older one to pass on to.
                raise
            print(f"warning: {error}", file=sys.stderr, flush=True)
    raise AssertionError("the oldest checkpoint is returned or raises")


@declared()
def check_checkpoint(folder: Path, step: Natural) -> None:
    """Compares the files of a checkpoint with their hashes.

    Raises:
        CheckpointGone: a training has deleted it.
        UserError: a file is damaged or missing.
    """
    path = folder.absolute() / str(step)
    with _raise_if_gone(path):
        try:
            _verify(path)
        except OSError as error:
            raise UserError(
                f"checkpoint {path} cannot be read ({one_line(error)}): {_name_alternative(path)}"
            ) from error


@declared()
def restore_state(folder: Path, step: Natural, like: Any) -> Any:
    """Restores the state of a step, which `check_checkpoint` has found whole.

    Args:
        folder: of all checkpoints of a run.
        step: one of `list_steps(folder)`.
        like: a pytree of arrays with the shapes, types and shardings to restore to.

    Raises:
        CheckpointGone: a training has deleted it, also where that is while it is read.
        UserError: the arrays are not those of `like`.
    """
    _check_arrays("like", like)
    if not all(hasattr(x, "sharding") for x in jax.tree.leaves(like)):
        raise TypeError("like holds arrays of NumPy, expected those of JAX: convert them by jnp.asarray")
    # The warnings of Orbax are of no use to a user, here and later on, so the level is not set back. Its
    # errors still appear. Only `_as_os_error` hides those too, within its block, as it raises them itself.
    logging.getLogger("absl").setLevel(logging.ERROR)
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
    path = folder.absolute() / str(step)
    with _raise_if_gone(path), ocp.StandardCheckpointer() as checkpointer:
        try:
            return checkpointer.restore(path, target)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"checkpoint {path} does not fit the network and optimizer of this config: {one_line(error)}"
            ) from error


@contextmanager
def _raise_if_gone(path: Path) -> Iterator[None]:
    """Raises CheckpointGone after the block where a training has deleted the checkpoint.

    It takes the place of a UserError or OSError of the block; all else that the block raises passes through.
    """
    error = None
    try:
        yield
    except (UserError, OSError) as raised:
        error = raised
    # Deleting a checkpoint begins with its manifest. Without one, the block may have read a part of the files
    # only, and what it raised or returned says nothing of them.
    if not (path / MANIFEST).is_file():
        raise CheckpointGone(
            f"step {path.name} is gone: a training has deleted {path}; run the command again"
        ) from error
    if error is not None:
        raise error


def _verify(path: Path) -> None:
    """Raises UserError unless the files of a checkpoint are those of its manifest, each with its hash."""
    try:
        expected = read_hash_table(path / MANIFEST, lambda entry: isinstance(entry, str))
    except (OSError, ValueError) as error:
        raise _damaged(path, f"{MANIFEST}: {one_line(error)}") from error
    actual = _hash_files(path)
    for name in sorted(expected.keys() | actual.keys()):
        # None is the hash of a link, which no checkpoint of ours has.
        if actual.get(name) is None or expected.get(name) != actual[name]:
            raise _damaged(path, f"{name} is not what was written")


def _damaged(path: Path, problem: str) -> UserError:
    """Returns the error of a checkpoint that is not what was written."""
    return UserError(f"checkpoint {path} is damaged ({problem}): {_name_alternative(path)}")


def _name_alternative(path: Path) -> str:
    """Says which checkpoint there is before a damaged one, for the end of a message."""
    earlier_steps = [step for step in list_steps(path.parent) if step < int(path.name)]
    if earlier_steps:
        return f"step {earlier_steps[-1]} is before it"
    return "there is none before it; start in a new workdir"


def _hash_files(path: Path) -> dict[str, str | None]:
    """Returns the SHA-256 of every file below a folder but the manifest itself, None of a link, by name."""
    hashes: dict[str, str | None] = {}
    for file in sorted(path.rglob("*")):
        # Also a manifest that is being written, whose name begins with that of the manifest.
        if file.parent == path and file.name.startswith(MANIFEST):
            continue
        if file.is_symlink():
            hashes[str(file.relative_to(path))] = None
        elif file.is_file():
            hashes[str(file.relative_to(path))] = hash_of(file.read_bytes())
    return hashes
