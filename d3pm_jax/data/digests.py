"""Hashes the content of data, and remembers the hashes of files.

They are in the user's cache folder, one small file for each, and count as long as the file stays as it is.
"""

import contextlib
import hashlib
import json
import math
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import platformdirs

from d3pm_jax.files import read_json, write_text

# Bytes of an array that are converted at a time.
BLOCK = 1 << 24
# A file that has changed less than so many nanoseconds ago may change again within one tick of the clock of
# its file system, of which neither its size nor its times would tell. Its hash is not remembered.
SETTLED = 2 * 10**9
# Seconds of hashing after which a line says what is hashed.
NOTICE_AFTER = 5.0
# Data of a user's own may have any other text as its digest.
DIGEST_OF_SPLITS = r"(train|test|valid):[0-9a-f]{64}( (train|test|valid):[0-9a-f]{64})*"


# The hashes of this process by file and state, as the cache folder may be one that cannot be written to.
_computed_hashes: dict[tuple[str, str], str] = {}


def hash_file(path: Path, recipe: str, compute: Callable[[], str]) -> str:
    """Returns a hash of a file, which is computed where it is not remembered.

    It is remembered for this path as long as size, times of change and number of the file are the same. The
    system sets one of these times at every change of the file, whatever a program sets the other one to, so
    that also a file of the same size that has taken its place, with the time of the old one, is hashed again.

    Args:
        path: of the file.
        recipe: says what `compute` does, where several hashes of a file are in use.
        compute: reads the file, and returns the hash.

    Raises:
        OSError: there is no such file.
    """
    status = path.stat()
    identity = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
    name = hashlib.sha256(f"{recipe} of {path.resolve()}".encode()).hexdigest()[:32]
    entry = Path(platformdirs.user_cache_dir("d3pm_jax", False)) / "digests" / f"{name}.json"
    state = (name, str(identity))
    if state in _computed_hashes:
        return _computed_hashes[state]
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        remembered = read_json(entry)
        if remembered["file"] == identity:
            return str(remembered["hash"])

    is_settled = time.time_ns() - status.st_ctime_ns > SETTLED
    with _notice_if_long(f"hashing {path}, to tell later whether it has changed"):
        content_hash = compute()
    if is_settled:
        _computed_hashes[state] = content_hash
        # Where it cannot be written it is computed again the next time.
        with contextlib.suppress(OSError):
            entry.parent.mkdir(parents=True, exist_ok=True)
            write_text(entry, json.dumps({"file": identity, "hash": content_hash}))
    return content_hash


@contextlib.contextmanager
def _notice_if_long(text: str) -> Iterator[None]:
    """Prints a line on standard error where the block takes more than a few seconds."""
    timer = threading.Timer(NOTICE_AFTER, lambda: print(text, file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def hash_content(path: Path) -> str:
    """Returns a hash of the bytes of a file; see `hash_file`.

    Raises:
        OSError: there is no such file.
    """

    def compute() -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    return hash_file(path, "bytes", compute)


def hash_array(x: np.ndarray, dtype: str) -> str:
    """Hashes the shape and the numbers of an array, in whatever type they are stored.

    Args:
        x: it may be mapped into memory: a part of it is read at a time.
        dtype: the type, of few bytes, in which the numbers are hashed. Integers that it cannot hold are
            hashed as int64.
    """
    digest = hashlib.sha256(json.dumps([dtype, list(x.shape)]).encode())
    rows = np.atleast_1d(x)
    bytes_of_row = rows.itemsize * math.prod(rows.shape[1:])
    rows_of_block = max(1, BLOCK // max(1, bytes_of_row))
    for start in range(0, len(rows), rows_of_block):
        digest.update(_convert(rows[start : start + rows_of_block], np.dtype(dtype)).tobytes())
    return digest.hexdigest()


def _convert(block: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Returns numbers in a type, least byte first; what is neither integer nor float stays as it is."""
    if block.dtype.kind not in "iuf":
        return block
    # A float64 may be too large for float32. Reading the data refuses it; here it becomes infinite.
    with np.errstate(over="ignore", invalid="ignore"):
        converted = block.astype(dtype.newbyteorder("<"))
    if dtype.kind != "f" and not np.array_equal(converted, block):
        return block.astype("<i8")
    return converted


def join_hashes(hash_by_split: Mapping[str, str]) -> str:
    """Writes the hashes of splits as the digest of a data set: "train:HASH test:HASH"."""
    return " ".join(f"{split}:{content_hash}" for split, content_hash in hash_by_split.items())


def split_digest(digest: str | None) -> dict[str, str]:
    """Returns the hashes of a digest by split; "" is all of the data, where it names no splits."""
    if digest is None:
        return {}
    if re.fullmatch(DIGEST_OF_SPLITS, digest) is None:
        return {"": digest}
    return dict(word.split(":") for word in digest.split())
