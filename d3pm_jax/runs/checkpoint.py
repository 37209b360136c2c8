"""Checkpoints: Orbax writes the arrays, a manifest of hashes says that they are whole.

Orbax replaces nothing until a checkpoint is written, but it can restore a damaged one without a word.
So the manifest is written last, into the finished folder: a step without one is unfinished and is
passed over, and a step whose files do not match theirs is refused.
"""

import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from d3pm_jax.errors import UserError
from d3pm_jax.files import write_text

MANIFEST = "manifest.json"


def save(folder: Path, step: int, state: Any, keep: int) -> None:
    """Writes the state of a step to folder/step, then deletes all but the last `keep` checkpoints.

    Args:
        folder: of all checkpoints of a run.
        step: its number.
        state: a pytree of arrays.
        keep: at least 1.
    """
    path = folder.absolute() / str(step)
    for leftover in folder.glob("*"):  # of a process that was killed while it wrote or deleted
        if leftover.is_dir() and not (leftover / MANIFEST).is_file():
            shutil.rmtree(leftover)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, state)
    write_text(path / MANIFEST, json.dumps(_hashes(path), indent=1))
    for old in steps(folder)[: -max(1, keep)]:
        (folder / str(old) / MANIFEST).unlink()
        shutil.rmtree(folder / str(old))


def steps(folder: Path) -> list[int]:
    """Lists the finished checkpoints in a folder, in order."""
    found = [p for p in folder.glob("*") if p.name.isdigit() and (p / MANIFEST).is_file()]
    return sorted(int(p.name) for p in found)


def restore(folder: Path, step: int, like: Any) -> Any:
    """Restores the state of a step, after its files have been compared with their hashes.

    Args:
        folder: of all checkpoints of a run.
        step: one of `steps(folder)`.
        like: a pytree of arrays with the shapes, types and shardings to restore to.

    Raises:
        UserError: a file is damaged or missing, or the arrays are not those of `like`.
    """
    path = folder.absolute() / str(step)
    _verify(path)
    logging.getLogger("absl").setLevel(logging.ERROR)
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
    with ocp.StandardCheckpointer() as checkpointer:
        try:
            return checkpointer.restore(path, target)
        except (ValueError, KeyError, TypeError) as error:
            first = str(error).splitlines()[0]
            raise UserError(
                f"checkpoint {path} does not fit the network and optimizer of this config: {first}"
            ) from error


def _verify(path: Path) -> None:
    try:
        expected = json.loads((path / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"checkpoint {path} is damaged ({MANIFEST} cannot be read): {_cure(path)}") from error
    found = _hashes(path)
    bad = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if bad:
        raise UserError(f"checkpoint {path} is damaged ({bad[0]} is not what was written): {_cure(path)}")


def _cure(path: Path) -> str:
    others = [s for s in steps(path.parent) if s != int(path.name)]
    if others:
        return f"delete that folder to go on from step {others[-1]}"
    return "there is no other; start again in a new workdir"


def _hashes(path: Path) -> dict[str, str]:
    """Returns the SHA-256 of every file below a folder but the manifest itself, by relative name."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file() and not file.name.startswith(MANIFEST)
    }
