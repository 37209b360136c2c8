"""Reads texts in parts, whatever their size: files of one encoding, folders of them, compressed or not."""

import codecs
import functools
import gzip
import hashlib
import itertools
import lzma
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import NamedTuple, cast

from d3pm_jax.data.source import DatasetError
from d3pm_jax.errors import one_line

PART = 1 << 20  # bytes that are read at a time
LONGEST = 1 << 16  # characters of a line, or of a part of one
DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, KeyError)


class TextPart(NamedTuple):
    """Holds some characters of a file, and where they begin."""

    file: Path
    start: int  # characters of the file before it
    text: str


def list_files(path: str) -> list[Path]:
    """Lists the file, or the *.txt of the folder by name.

    Raises:
        DatasetError: there are none.
    """
    place = Path(path).expanduser()
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise DatasetError(f"no file or folder {place} (from {Path.cwd()}): name a text in UTF-8")
    found = sorted((x for x in place.glob("*.txt") if x.is_file()), key=lambda x: x.name)
    if not found:
        raise DatasetError(f"the folder {place} has no *.txt: put the texts there, or name a file")
    return found


def read_parts(path: str, encoding: str) -> Iterator[TextPart]:
    """Reads a file, or the texts of a folder with a line break between, exactly as they are.

    Raises:
        DatasetError: (while iterating) a file is damaged, or not in this encoding.
    """
    for number, file in enumerate(list_files(path)):
        if number:
            yield TextPart(file, 0, "\n")
        decoder, start, offset = codecs.getincrementaldecoder(encoding)(), 0, 0
        for content in itertools.chain(_contents(file), (b"",)):
            pending = len(decoder.getstate()[0])
            try:
                text = decoder.decode(content, final=not content)
            except UnicodeDecodeError as error:
                at = offset - pending + error.start
                raise DatasetError(
                    f"{file} is not {encoding.upper()} at byte {at:,} ({error.reason}): convert it, as "
                    f"iconv -f latin1 -t utf-8 does for Latin-1"
                ) from error
            yield TextPart(file, start, text)
            start, offset = start + len(text), offset + len(content)


def hash_text(path: str) -> str:
    """Hashes the content of what `read_parts` reads, by files; again only where one has changed."""
    digest = hashlib.sha256()
    for file in list_files(path):
        status = file.stat()
        digest.update(_file_hash(file, status.st_size, status.st_mtime_ns))
    return digest.hexdigest()


def split_lines(texts: Iterable[str]) -> Iterator[list[str]]:
    """Cuts a text that comes in parts after every line break.

    A line of more than LONGEST characters is cut too, after the last space among so many, if there is one.
    """
    rest = ""
    for text in texts:
        *whole, rest = (rest + text).split("\n")
        found = [piece for line in whole for piece in _short(line + "\n")]
        *more, rest = _short(rest)
        yield found + more
    yield [rest] if rest else []


def _short(line: str) -> list[str]:
    found = []
    while len(line) > LONGEST:
        cut = line.rfind(" ", 0, LONGEST) + 1 or LONGEST
        found.append(line[:cut])
        line = line[cut:]
    return [*found, line]


@functools.lru_cache(maxsize=10_000)
def _file_hash(file: Path, size: int, modified: int) -> bytes:
    digest = hashlib.sha256()
    for content in _contents(file):
        digest.update(content)
    return digest.digest()


def _contents(file: Path) -> Iterator[bytes]:
    """Reads the bytes of a file, of NAME.gz or NAME.xz, or of NAME in NAME.zip."""
    try:
        with _opened(file) as opened:
            while content := opened.read(PART):
                yield content
    except DAMAGED as error:
        raise DatasetError(f"{file} cannot be read ({one_line(error)}): restore it") from error


def _opened(file: Path) -> BufferedIOBase:
    if file.suffix == ".zip":
        return cast(BufferedIOBase, zipfile.ZipFile(file).open(file.stem))
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(file.suffix, open)
    return cast(BufferedIOBase, opener(file, "rb"))
