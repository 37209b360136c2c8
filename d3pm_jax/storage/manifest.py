"""One manifest of hashes for the files that say what a run is; each is compared with it when it is read.

While files are replaced, the manifest holds the hashes of before and after: whenever the process is killed,
every file is one of the two. A run of before there were manifests, or whose manifest the user deleted to have
a change accepted, has none; it opens, and the next `--resume` writes one.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from d3pm_jax.errors import UserError, one_line
from d3pm_jax.files import read_json, write_bytes
from d3pm_jax.storage.names import MANIFEST


def hash_of(content: bytes) -> str:
    """Returns the SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def read_hash_table(path: Path, is_entry: Callable[[Any], bool]) -> dict[str, Any]:
    """Reads a table of hashes by the names of files.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no table, or not of such entries.
    """
    tree = read_json(path)
    if not isinstance(tree, dict) or not all(map(is_entry, tree.values())):
        raise ValueError("it is no table of hashes")
    return tree


def read_manifest(workdir: Path) -> dict[str, list[str]] | None:
    """Reads the manifest, which hashes each file may have; None where there is none.

    Raises:
        UserError: it is damaged.
    """
    path = workdir / MANIFEST
    if not path.is_file():
        return None
    try:
        return read_hash_table(path, _are_hashes)
    except (OSError, ValueError) as error:
        cure = "restore it, or delete it if you trust the folder"
        raise UserError(f"{path} is damaged ({one_line(error)}): {cure}") from error


def read_checked_file(workdir: Path, name: str, cure: str) -> bytes | None:
    """Reads a file of a run, if it is what was written; None where the run has no such file.

    Args:
        workdir: the folder.
        name: of the file.
        cure: what to do about a damaged one.

    Raises:
        UserError: it is damaged, missing, or was never written by a run.
    """
    try:
        return _read_checked_file(workdir, name, cure)
    except UserError:  # the manifest was read before a training replaced both, and the file after that
        return _read_checked_file(workdir, name, cure)


def _read_checked_file(workdir: Path, name: str, cure: str) -> bytes | None:
    path, known = workdir / name, read_manifest(workdir)
    content = path.read_bytes() if path.is_file() else None
    hashes = [] if known is None else known.get(name, [])
    if content is None:
        if hashes:
            raise UserError(f"{path} is missing: {cure}")
    elif known is not None and hash_of(content) not in hashes:
        changed = "is not what was written" if hashes else f"is not in {MANIFEST}"
        raise UserError(f"{path} {changed}: {cure}; if you changed it yourself, delete {workdir / MANIFEST}")
    return content


def replace_files(workdir: Path, contents: Mapping[str, bytes]) -> None:
    """Writes files in their order, and the manifest before and after them.

    Raises:
        OSError: one cannot be written; each is then what it was, or what it was to be.
    """
    after = {name: [hash_of(content)] for name, content in contents.items()}
    there = {name: workdir / name for name in contents if (workdir / name).is_file()}
    both = {name: [hash_of(path.read_bytes()), *after[name]] for name, path in there.items()}
    _write_manifest(workdir, after | both)
    for name, content in contents.items():
        write_bytes(workdir / name, content)
    _write_manifest(workdir, after)


def _write_manifest(workdir: Path, hashes: Mapping[str, list[str]]) -> None:
    write_bytes(workdir / MANIFEST, json.dumps(hashes, indent=1).encode())


def _are_hashes(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(x, str) for x in value)
