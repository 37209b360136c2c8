"""Checkpoints: Orbax writes the arrays, a manifest of hashes says that they are whole.

Orbax replaces nothing until a checkpoint is written, but it can restore a damaged one without a word.
So the manifest is written last, into the finished folder: a step without one is unfinished and is
passed over, and a step whose files do not match theirs is refused.
"""

import errno
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from d3pm_jax.errors import UserError, one_line
from d3pm_jax.files import write_text
from d3pm_jax.runs.manifest import hash_of, read_table

MANIFEST = "manifest.json"
OF_A_FILE = 2**13  # bytes on the disk, besides what is in it
OURS = re.compile(r"(0|[1-9][0-9]*)(\.orbax-checkpoint-tmp.*)?")


class Gone(UserError):
    """A training has deleted the checkpoint since it was listed."""


def save(folder: Path, step: int, state: Any, keep: int) -> None:
    """Writes the state of a step to folder/step, then deletes all but the last `keep` checkpoints.

    Args:
        folder: of all checkpoints of a run.
        step: its number.
        state: a pytree of arrays.
        keep: at least 1.

    Raises:
        OSError: it cannot be written; the checkpoints of before are kept.
    """
    path = folder.absolute() / str(step)
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folders(folder):  # of a process that was killed while it wrote or deleted
        if not (leftover / MANIFEST).is_file():
            delete(leftover)
    _write(path, state)
    write_text(path / MANIFEST, json.dumps(_hashes(path), indent=1))
    for old in steps(folder)[: -max(1, keep)]:
        delete(folder / str(old))


def delete(path: Path) -> None:
    """Deletes a checkpoint, or a part of one; never what a link leads to."""
    if path.is_dir() and not path.is_symlink():
        (path / MANIFEST).unlink(missing_ok=True)  # first: what is left of a killed process is unfinished
        shutil.rmtree(path)


def _write(path: Path, state: Any) -> None:
    """Has Orbax write; what it raises is an OSError, also from inside of it."""
    _check_room(path.parent, state)
    try:
        with _silent("absl", "asyncio"), ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(path, state)
    except OSError:
        raise
    except (ValueError, RuntimeError) as error:
        full = os.strerror(errno.ENOSPC) in str(error)
        code = errno.ENOSPC if full else errno.EIO
        raise OSError(code, os.strerror(code) if full else one_line(error), str(path)) from error


def _check_room(folder: Path, state: Any) -> None:
    """Raises OSError where a checkpoint does not fit: threads of Orbax would print why, each at length."""
    sizes = [x.nbytes for x in jax.tree.leaves(state)]
    if shutil.disk_usage(folder).free < sum(sizes) + OF_A_FILE * (len(sizes) + 8):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


@contextmanager
def _silent(*names: str) -> Iterator[None]:
    """Keeps loggers from printing what is raised as well, traceback and all."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def folders(folder: Path) -> list[Path]:
    """Lists what this program wrote, finished or not: N, and N.orbax-checkpoint-tmp of Orbax."""
    return [path for path in folder.glob("*") if OURS.fullmatch(path.name)]


def steps(folder: Path) -> list[int]:
    """Lists the finished checkpoints in a folder, in order."""
    found = [path for path in folders(folder) if (path / MANIFEST).is_file()]
    return sorted(int(path.name) for path in found if path.name.isdecimal())


def restore(folder: Path, step: int, like: Any) -> Any:
    """Restores the state of a step, after its files have been compared with their hashes.

    Args:
        folder: of all checkpoints of a run.
        step: one of `steps(folder)`.
        like: a pytree of arrays with the shapes, types and shardings to restore to.

    Raises:
        Gone: a training has deleted it, also where that is while it is read.
        UserError: a file is damaged or missing, or the arrays are not those of `like`.
    """
    path = folder.absolute() / str(step)
    state = error = None
    try:
        state = _restore(path, like)
    except (UserError, OSError) as raised:
        error = raised
    if not (path / MANIFEST).is_file():  # deleting begins with it: what was read may be a part
        message = f"step {step} is gone: a training has deleted {path}; run the command again"
        raise Gone(message) from error
    if error is not None:
        raise error
    return state


def _restore(path: Path, like: Any) -> Any:
    _verify(path)
    logging.getLogger("absl").setLevel(logging.ERROR)
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
    with ocp.StandardCheckpointer() as checkpointer:
        try:
            return checkpointer.restore(path, target)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"checkpoint {path} does not fit the network and optimizer of this config: {one_line(error)}"
            ) from error


def _verify(path: Path) -> None:
    try:
        expected = read_table(path / MANIFEST, lambda entry: isinstance(entry, str))
    except (OSError, ValueError) as error:
        why = f"{MANIFEST}: {one_line(error)}"
        raise UserError(f"checkpoint {path} is damaged ({why}): {_cure(path)}") from error
    found = _hashes(path)
    names = sorted(expected.keys() | found.keys())
    bad = [name for name in names if found.get(name) is None or expected.get(name) != found[name]]
    if bad:
        raise UserError(f"checkpoint {path} is damaged ({bad[0]} is not what was written): {_cure(path)}")


def _cure(path: Path) -> str:
    others = [s for s in steps(path.parent) if s != int(path.name)]
    if others:
        return f"delete that folder to go on from step {others[-1]}"
    return "there is no other; start again in a new workdir"


def _hashes(path: Path) -> dict[str, str | None]:
    """Returns the SHA-256 of every file below a folder but the manifest itself, None of a link, by name."""
    files = [x for x in sorted(path.rglob("*")) if x.is_symlink() or x.is_file()]
    return {
        str(file.relative_to(path)): None if file.is_symlink() else hash_of(file.read_bytes())
        for file in files
        if file.parent != path or not file.name.startswith(MANIFEST)
    }
