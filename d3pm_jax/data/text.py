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

from d3pm_jax.data import digests
from d3pm_jax.data.source import DatasetError
from d3pm_jax.errors import one_line

# Bytes that are read at a time.
PART = 1 << 20
# Characters of a line, or of a piece of a longer one.
LONGEST = 1 << 16
# What reading a damaged file raises, compressed or not.
DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, KeyError)


class TextPart(NamedTuple):
    """Holds consecutive characters of a file, and where they begin."""

    file: Path
    start: int
    """number of characters of the file before them"""
    text: str


def list_files(path: str) -> list[Path]:
    """Lists the file, or the *.txt of the folder by name.

    Raises:
        DatasetError: there are none.
    """
    location = Path(path).expanduser()
    if location.is_file():
        return [location]
    if not location.is_dir():
        raise DatasetError(f"no file or folder {location} (from {Path.cwd()}): name a text in UTF-8")
    files = [file for file in location.glob("[!.]*.txt") if file.is_file()]
    if not files:
        raise DatasetError(f"the folder {location} has no *.txt: put the texts there, or name a file")
    return sorted(files, key=lambda file: file.name)


def read_parts(path: str, encoding: str) -> Iterator[TextPart]:
    """Reads a file, or the texts of a folder with a line break between, exactly as they are.

    Raises:
        DatasetError: (while iterating) a file is damaged, or not in this encoding.
    """
    for number, file in enumerate(list_files(path)):
        if number:
            yield TextPart(file, 0, "\n")
        decoder = codecs.getincrementaldecoder(encoding)()
        characters_read = 0
        bytes_read = 0
        # The empty bytes at the end say that a character which has begun is not complete.
        for content in itertools.chain(_read_blocks(file), (b"",)):
            # The decoder keeps the first bytes of a character that is cut by the end of a block. Positions in
            # its errors count from them.
            bytes_pending = len(decoder.getstate()[0])
            try:
                text = decoder.decode(content, final=not content)
            except UnicodeDecodeError as error:
                raise DatasetError(
                    f"{file} is not {encoding.upper()} at byte {bytes_read - bytes_pending + error.start:,} "
                    f"({error.reason}): convert it, as iconv -f latin1 -t utf-8 does for Latin-1"
                ) from error
            yield TextPart(file, characters_read, text)
            characters_read += len(text)
            bytes_read += len(content)


def hash_text(path: str) -> str:
    """Hashes the content of all files that `read_parts` reads; an unchanged file is hashed once."""
    digest = hashlib.sha256()
    for file in list_files(path):
        content_hash = digests.hash_file(file, "text", functools.partial(_hash_content, file))
        digest.update(bytes.fromhex(content_hash))
    return digest.hexdigest()


def split_lines(texts: Iterable[str]) -> Iterator[list[str]]:
    """Cuts a text that comes in parts after every line break.

    A line of more than LONGEST characters is cut too, after the last space among so many, if there is one.

    Yields:
        For each part the lines that end in it, with their line breaks, or the pieces of longer ones; and at
        the end, in a list that may be empty, what follows the last line break.
    """
    unfinished = ""
    for text in texts:
        *complete, unfinished = (unfinished + text).split("\n")
        pieces = [piece for line in complete for piece in _cut_line(line + "\n")]
        # The unfinished line may be too long already. Its pieces are complete but for the last.
        *complete_pieces, unfinished = _cut_line(unfinished)
        yield pieces + complete_pieces
    yield [unfinished] if unfinished else []


def _cut_line(line: str) -> list[str]:
    """Cuts a line into pieces of at most LONGEST characters, after spaces where there are any."""
    pieces = []
    while len(line) > LONGEST:
        # rfind gives -1 where there is no space, so that the position after it is 0.
        position = line.rfind(" ", 0, LONGEST) + 1 or LONGEST
        pieces.append(line[:position])
        line = line[position:]
    pieces.append(line)
    return pieces


def _hash_content(file: Path) -> str:
    """Hashes the content of a file, compressed or not."""
    digest = hashlib.sha256()
    for content in _read_blocks(file):
        digest.update(content)
    return digest.hexdigest()


def _read_blocks(file: Path) -> Iterator[bytes]:
    """Reads the bytes of a file, of NAME.gz or NAME.xz, or of NAME in NAME.zip."""
    try:
        with _open_unpacked(file) as stream:
            while content := stream.read(PART):
                yield content
    except DAMAGED as error:
        raise DatasetError(f"{file} cannot be read ({one_line(error)}): restore it") from error


def _open_unpacked(file: Path) -> BufferedIOBase:
    if file.suffix == ".zip":
        return cast(BufferedIOBase, zipfile.ZipFile(file).open(file.stem))
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(file.suffix, open)
    return cast(BufferedIOBase, opener(file, "rb"))
