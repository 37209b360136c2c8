"""One manifest of hashes for the files that say what a run is; each is compared with it when it is read.

While files are replaced, the manifest holds the hashes of before and after: whenever the process is killed,
every file is one of the two. A run whose manifest the user deleted, to have a change accepted, opens without
it, and the next `--resume` writes it.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from d3pm_jax.errors import UserError, one_line
from d3pm_jax.files import read_json, write_bytes
from d3pm_jax.program.storage.names import MANIFEST


def hash_of(content: bytes) -> str:
    """Returns the SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def read_hash_table(path: Path, is_entry: Callable[[Any], bool]) -> dict[str, Any]:
    """Reads a table of hashes by the names of files.

    Args:
        path: of the JSON file.
        is_entry: tells whether a value of the table is one that it may have.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no table, or not of such entries.
    """
    table = read_json(path)
    if not isinstance(table, dict) or not all(map(is_entry, table.values())):
        raise ValueError("it is not a table of hashes")
    return table


def read_manifest(workdir: Path) -> dict[str, list[str]] | None:
    """Reads the manifest, which hashes each file may have; None where there is none.

    Raises:
        UserError: it is damaged.
    """
    path = workdir / MANIFEST
    if not path.is_file():
        return None
    try:
        return read_hash_table(path, _is_list_of_hashes)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is damaged ({one_line(error)}): restore it, or delete it if you trust the folder"
        ) from error


def read_checked_file(workdir: Path, name: str, cure: str) -> bytes | None:
    """Reads a file of a run, if it is what was written; None where the run has no such file.

    Args:
        workdir: the folder.
        name: of the file.
        cure: what to do about a damaged one.

    Raises:
        UserError: it is damaged, missing, or was never written by a run.
    """
    # Readers take no lock, so a training may replace the manifest and the file between the two reads. They do
    # not match then, although neither is damaged: reading both again finds the new ones.
    try:
        return _read_and_compare(workdir, name, cure)
    except UserError:
        return _read_and_compare(workdir, name, cure)


def _read_and_compare(workdir: Path, name: str, cure: str) -> bytes | None:
    """Reads the manifest, then the file, and compares them once; see `read_checked_file`."""
    path = workdir / name
    manifest = read_manifest(workdir)
    content = path.read_bytes() if path.is_file() else None
    hashes = [] if manifest is None else manifest.get(name, [])

    if content is None:
        if hashes:
            raise UserError(f"{path} is missing: {cure}")
        return None

    # Without a manifest nothing is compared: the user trusts the folder.
    if manifest is not None and hash_of(content) not in hashes:
        reason = "is not what was written" if hashes else f"is not in {MANIFEST}"
        raise UserError(f"{path} {reason}: {cure}; if you changed it yourself, delete {workdir / MANIFEST}")
    return content


def replace_files(workdir: Path, contents: Mapping[str, bytes]) -> None:
    """Writes files in their order, and the manifest before and after them.

    Args:
        workdir: the folder.
        contents: what is to be in each file, by name.

    Raises:
        OSError: one cannot be written; each is then what it was, or what it was to be.
    """
    new_hashes = {name: [hash_of(content)] for name, content in contents.items()}
    old_or_new_hashes = dict(new_hashes)
    for name in contents:
        path = workdir / name
        if path.is_file():
            old_or_new_hashes[name] = [hash_of(path.read_bytes()), *new_hashes[name]]

    # Several files cannot be replaced at once: a process that is killed in between leaves some old and some
    # new ones. So the manifest admits the hashes of both while the files are replaced one after the other.
    _write_manifest(workdir, old_or_new_hashes)
    for name, content in contents.items():
        write_bytes(workdir / name, content)
    _write_manifest(workdir, new_hashes)


def _write_manifest(workdir: Path, hashes: Mapping[str, list[str]]) -> None:
    write_bytes(workdir / MANIFEST, json.dumps(hashes, indent=1).encode())


def _is_list_of_hashes(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)
