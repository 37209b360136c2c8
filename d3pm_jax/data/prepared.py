"""Prepares texts once: tokens on disk in the user's cache folder, named by the hash of text and tokenizer.

The folder of a text holds for each split its tokens, in the smallest unsigned type, for documents also where
each ends, and about.json. It is written under another name and renamed when it is complete: a preparation
that is killed leaves a folder of that other name, which the next one deletes.
"""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import numpy as np
import platformdirs
from rich.console import Console
from rich.progress import Progress

from d3pm_jax.data import text, tokenizers
from d3pm_jax.data.source import DatasetError, check_split
from d3pm_jax.errors import one_line

# The version of the format of the files. It enters the hash that names their folder.
VERSION = 1
ABOUT = "about.json"
SPLITS = ("train", "valid", "test")
# Moves a progress bar on by so many characters.
Advance = Callable[[int], Any]


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Describes texts and how they become tokens: a text for each split, or one that is cut by shares."""

    paths: tuple[tuple[str, str], ...]
    """(split, path), or one ("all", path)"""
    shares: tuple[float, float, float] | None
    """of train, valid and test, in this order, in the characters of the one text; None for a text each"""
    tokenizer: str
    """one of `tokenizers.NAMES`, or a file"""
    documents: bool = False
    """each line is a document, without its line break"""
    encoding: str = "utf-8"
    """in latin-1 a character is a byte"""


class SplitTokens(NamedTuple):
    """Holds the tokens of a split, mapped into memory."""

    x: np.ndarray
    """categories [n]"""
    ends: np.ndarray | None
    """int64 [documents]: where each document ends in x; None for a text that is no documents"""


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Describes and opens the folder that `prepare_corpus` made."""

    folder: Path
    digest: str
    """the hash of text and tokenizer"""
    symbols: tuple[str, ...]
    """the text of each category"""
    counts: dict[str, int]
    """number of tokens by split"""
    documents: bool
    """whether each line is a document, and the ends of documents are there"""

    def open(self, split: str) -> SplitTokens:
        """Maps a split into memory.

        Raises:
            DatasetError: there is no such split, or its files are damaged.
        """
        check_split(split, self.counts)
        x = _map_file(self.folder / f"{split}.tokens", _smallest_type(self.symbols))
        if len(x) != self.counts[split]:
            raise DatasetError(f"{self.folder} is damaged: delete it, then it is prepared again")
        ends = None
        if self.documents:
            ends = _map_file(self.folder / f"{split}.ends", np.int64)
        return SplitTokens(x, ends)


def prepare_corpus(corpus: Corpus) -> Prepared:
    """Returns the tokens of a corpus, which are made first if they do not exist, by one process at a time.

    Raises:
        DatasetError: a text or the tokenizer cannot be read, or the tokens cannot be written.
    """
    digest = _digest(corpus)
    cache = Path(platformdirs.user_cache_dir("d3pm_jax", False)) / "text"
    folder = cache / digest[:32]
    if not (folder / ABOUT).is_file():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with _lock_file(cache / f"{folder.name}.lock"):
                # Another process may have made them while this one waited for the lock.
                if not (folder / ABOUT).is_file():
                    _write_folder(corpus, folder)
        except OSError as error:
            raise DatasetError(
                f"cannot write to {cache}: {error.strerror or one_line(error)}; make room there, or set "
                f"XDG_CACHE_HOME to another folder"
            ) from error
    return _read_folder(folder, digest)


@contextlib.contextmanager
def _lock_file(path: Path) -> Iterator[None]:
    """Waits for the lock of a file and holds it during the block; a killed process loses it.

    Where the file system has no locks the block runs without: two processes may then prepare the same text,
    each in a folder of its own, and the last one stays.

    Raises:
        OSError: the file cannot be written.
    """
    # An OSError of `touch` is one of the folder, which the user has to mend. One of `acquire` can then only
    # come from the lock.
    path.touch()
    # With fallback_to_soft the file itself would be the lock where the system has none, and would outlive a
    # process that is killed.
    lock = filelock.FileLock(path, fallback_to_soft=False)
    with contextlib.suppress(OSError):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@functools.lru_cache(maxsize=4)
def _read_folder(folder: Path, digest: str) -> Prepared:
    try:
        about = json.loads((folder / ABOUT).read_bytes())
        return Prepared(folder, digest, tuple(about["symbols"]), about["counts"], about["documents"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{folder} is damaged: delete it, then it is prepared again") from error


def _digest(corpus: Corpus) -> str:
    """Hashes all that the tokens depend on: the texts and the tokenizer, not where they lie."""
    tokenizer = corpus.tokenizer
    if tokenizer not in tokenizers.NAMES:
        tokenizer = hashlib.sha256(_find_tokenizer_file(corpus).read_bytes()).hexdigest()
    # A change of what is hashed here, or of its order, prepares every text again.
    about = {
        "version": VERSION,
        "texts": [(split, text.hash_text(path)) for split, path in corpus.paths],
        "tokenizer": tokenizer,
        "others": [corpus.shares, corpus.documents, corpus.encoding],
    }
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def _find_tokenizer_file(corpus: Corpus) -> Path:
    path = Path(corpus.tokenizer).expanduser()
    if not path.is_file():
        raise DatasetError(
            f"data.tokenizer = {corpus.tokenizer!r}: there is no such file (from {Path.cwd()}); it must "
            "be 'characters', 'letters27', 'bytes', or a file of the tokenizers library"
        )
    return path


def _write_folder(corpus: Corpus, folder: Path) -> None:
    """Makes the tokens of a corpus, in a folder that has its name when it is complete."""
    for left_behind in folder.parent.glob(f"{folder.name}.*.partial"):
        shutil.rmtree(left_behind, ignore_errors=True)
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    partial.mkdir()
    try:
        console = Console(stderr=True)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            sizes, characters = _scan(corpus)
            tokenizer = _make_tokenizer(corpus, characters)
            ranges = _cut(corpus, sizes)
            total = sum(stop - start for _, start, stop in ranges.values())
            task = progress.add_task("preparing the text", total=total)
            advance = functools.partial(progress.advance, task)
            counts = {}
            for split, (path, start, stop) in ranges.items():
                texts = _read_range(path, corpus.encoding, start, stop, advance)
                counts[split] = _write_tokens(partial / split, texts, tokenizer, corpus.documents)

        # about.json is written last: a folder without it is not complete.
        about = {"symbols": tokenizer.symbols, "counts": counts, "documents": corpus.documents}
        (partial / ABOUT).write_text(json.dumps(about))
        # If there is a folder of this name, it has lost its about.json.
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _make_tokenizer(corpus: Corpus, characters: list[str]) -> tokenizers.Tokenizer:
    """Returns the tokenizer of a corpus in which these characters occur."""
    if corpus.tokenizer == "characters":
        return tokenizers.Characters(characters)
    if corpus.tokenizer == "letters27":
        return tokenizers.Characters(tokenizers.LETTERS27)
    if corpus.tokenizer == "bytes":
        return tokenizers.Bytes(corpus.encoding)
    return tokenizers.FileTokenizer(_find_tokenizer_file(corpus))


def _smallest_type(symbols: Sequence[str]) -> np.dtype:
    """Returns the smallest unsigned type that holds all categories."""
    return np.min_scalar_type(len(symbols) - 1)


def _scan(corpus: Corpus) -> tuple[dict[str, int], list[str]]:
    """Counts the characters of each text, and lists the characters that occur, in the order of Unicode.

    Raises:
        DatasetError: a text is empty, or holds a character that its tokenizer does not have.
    """
    occurs = np.zeros(tokenizers.NUM_CODE_POINTS, bool)
    sizes: dict[str, int] = {}
    for split, path in corpus.paths:
        sizes[split] = 0
        for part in text.read_parts(path, corpus.encoding):
            occurs[tokenizers.code_points(part.text)] = True
            sizes[split] += len(part.text)
            if corpus.tokenizer == "letters27":
                _check_letters(part, corpus.documents)
        if not sizes[split]:
            raise DatasetError(f"{path} is empty: name a text")
    if corpus.documents:
        # A line break ends a document and is not a token.
        occurs[ord("\n")] = False
    return sizes, [chr(code_point) for code_point in np.flatnonzero(occurs)]


def _check_letters(part: text.TextPart, documents: bool) -> None:
    """Raises DatasetError where a part of a text is not of a-z and space, and for documents line breaks."""
    letters = tokenizers.LETTERS27
    if documents:
        letters += "\n"
    # Stripping the allowed characters is fast: whatever remains begins with a character that is not allowed.
    if not part.text.strip(letters):
        return
    position = next(i for i, character in enumerate(part.text) if character not in letters)
    raise DatasetError(
        f"{part.file} holds {part.text[position]!r} at character {part.start + position:,}, which is "
        "not one of letters27 (a-z and space): take data.tokenizer = 'characters', or clean the text"
    )


def _cut(corpus: Corpus, sizes: dict[str, int]) -> dict[str, tuple[str, int, int]]:
    """Returns the place of each split: (path, index of its first character, index after its last one)."""
    if corpus.shares is None:
        return {split: (path, 0, sizes[split]) for split, path in corpus.paths}
    ((split, path),) = corpus.paths
    # As fractions of their decimals, 0.7 + 0.2 is 0.9; in float64 it is less, and a character would be lost.
    sums = itertools.accumulate(Fraction(str(share)) for share in corpus.shares)
    cuts = [0, *(math.floor(sizes[split] * share) for share in sums)]
    ranges = zip(SPLITS, itertools.pairwise(cuts), strict=True)
    return {name: (path, start, stop) for name, (start, stop) in ranges}


def _read_range(path: str, encoding: str, start: int, stop: int, advance: Advance) -> Iterator[str]:
    """Reads the characters start, .., stop - 1 of a text, in parts, and advances by those that are done."""
    position = 0
    for part in text.read_parts(path, encoding):
        if position >= stop:
            return
        inside = part.text[max(0, start - position) : stop - position]
        yield inside
        advance(len(inside))
        position += len(part.text)


def _write_tokens(path: Path, texts: Iterator[str], tokenizer: tokenizers.Tokenizer, documents: bool) -> int:
    """Writes the tokens of a split, and where documents end in them.

    Args:
        path: of the files, without their endings .tokens and .ends.
        texts: the text, in parts.
        tokenizer: makes tokens of lines.
        documents: whether a line is a document, without its line break.

    Returns:
        The number of tokens.
    """
    dtype = _smallest_type(tokenizer.symbols)
    lines = text.split_lines(texts)
    if documents:
        # The last document ends with the text, be there a line break or not. Behind one, an empty document is
        # added, of which `Padded` makes no example.
        lines = itertools.chain(lines, [["\n"]])
    count = 0
    with path.with_suffix(".tokens").open("wb") as tokens, path.with_suffix(".ends").open("wb") as ends:
        for pieces in lines:
            written = pieces
            if documents:
                written = [piece.removesuffix("\n") for piece in pieces]
            x, lengths = tokenizer.encode(written)
            tokens.write(x.astype(dtype).tobytes())
            if documents:
                # A piece without a line break at its end goes on in the next one.
                is_last = np.array([piece.endswith("\n") for piece in pieces], bool)  # [pieces]
                piece_ends = count + np.cumsum(lengths, dtype=np.int64)  # [pieces]
                ends.write(piece_ends[is_last].tobytes())
            count += len(x)
    return count


def _map_file(path: Path, dtype: Any) -> np.ndarray:
    """Maps the numbers of a file into memory, [n].

    Raises:
        DatasetError: the file is damaged.
    """
    try:
        # A file of no bytes cannot be mapped.
        if not path.stat().st_size:
            return np.zeros(0, dtype)
        return np.memmap(path, dtype, "r")
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{path} is damaged: delete its folder, the text is prepared again then"
        ) from error
