"""Prepares texts once: tokens on disk in the user's cache folder, named by the hash of text and tokenizer.

A folder of it holds for each split its tokens, of the smallest unsigned type, for documents also where each
ends, and about.json. It has its name when it is whole: a preparation that is killed leaves a folder of
another name, which the next one deletes.
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
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import platformdirs
from rich.console import Console
from rich.progress import Progress

from d3pm_jax.data import text, tokenizers
from d3pm_jax.data.source import DatasetError
from d3pm_jax.errors import one_line

try:
    import fcntl
except ImportError:  # a system that has no such locks
    fcntl = None

VERSION = 1  # of what is kept
ABOUT = "about.json"
SPLITS = ("train", "valid", "test")
Advance = Callable[[int], Any]  # is told how many characters have been read


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Says what tokens are of. The paths are of the splits, or one of all of them with their shares."""

    paths: tuple[tuple[str, str], ...]
    """(split, path)"""
    shares: tuple[float, float, float] | None
    """of train, valid and test, in this order, in the characters of one text"""
    tokenizer: str
    """one of `tokenizers.NAMES`, or a file"""
    documents: bool = False
    """each line is a document, without its line break"""
    encoding: str = "utf-8"
    """in latin-1 a character is a byte"""


class SplitTokens(NamedTuple):
    """Holds a split."""

    x: np.ndarray  # [n], mapped into memory
    ends: np.ndarray | None  # int64 [documents]: where each ends


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Opens what `prepare_corpus` made."""

    folder: Path
    digest: str
    """the hash of text and tokenizer"""
    symbols: tuple[str, ...]
    counts: dict[str, int]
    """tokens of each split"""
    documents: bool

    def open(self, split: str) -> SplitTokens:
        """Maps a split into memory."""
        dtype = np.min_scalar_type(len(self.symbols) - 1)
        x = _mapped(self.folder / f"{split}.tokens", dtype)
        if len(x) != self.counts[split]:
            raise DatasetError(f"{self.folder} is damaged: delete it, then it is prepared again")
        return SplitTokens(x, _mapped(self.folder / f"{split}.ends", np.int64) if self.documents else None)


def prepare_corpus(corpus: Corpus) -> Prepared:
    """Returns the tokens of a corpus, which are made where they are not there yet, by one process at a time.

    Raises:
        DatasetError: a text or the tokenizer cannot be read, or the tokens cannot be written.
    """
    digest = _digest(corpus)
    cache = Path(platformdirs.user_cache_dir("d3pm_jax", False)) / "text"
    folder = cache / digest[:32]
    if not (folder / ABOUT).is_file():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with (cache / f"{folder.name}.lock").open("wb") as lock:  # which ends with its process
                if fcntl is not None:
                    with contextlib.suppress(OSError):  # a file system without locks
                        fcntl.flock(lock, fcntl.LOCK_EX)
                if not (folder / ABOUT).is_file():
                    _write(corpus, folder)
        except OSError as error:
            raise DatasetError(
                f"cannot write to {cache}: {error.strerror or one_line(error)}; make room there, or set "
                f"XDG_CACHE_HOME to another folder"
            ) from error
    return _read(folder, digest)


@functools.lru_cache(maxsize=4)
def _read(folder: Path, digest: str) -> Prepared:
    try:
        about = json.loads((folder / ABOUT).read_bytes())
        return Prepared(folder, digest, tuple(about["symbols"]), about["counts"], about["documents"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{folder} is damaged: delete it, then it is prepared again") from error


def _digest(corpus: Corpus) -> str:
    """Hashes all that the tokens depend on: the texts and the tokenizer, not where they lie."""
    tokenizer = corpus.tokenizer
    if tokenizer not in tokenizers.NAMES:
        tokenizer = hashlib.sha256(_tokenizer_file(corpus).read_bytes()).hexdigest()
    about = {
        "version": VERSION,
        "texts": [(split, text.hash_text(path)) for split, path in corpus.paths],
        "tokenizer": tokenizer,
        "others": [corpus.shares, corpus.documents, corpus.encoding],
    }
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def _tokenizer_file(corpus: Corpus) -> Path:
    path = Path(corpus.tokenizer).expanduser()
    if not path.is_file():
        raise DatasetError(
            f"data.tokenizer = {corpus.tokenizer!r}: there is no such file (from {Path.cwd()}); it is "
            f"'characters', 'letters27', 'bytes', or a file of the tokenizers library"
        )
    return path


def _write(corpus: Corpus, folder: Path) -> None:
    """Makes the folder of a corpus."""
    for left in folder.parent.glob(f"{folder.name}.*.partial"):
        shutil.rmtree(left, ignore_errors=True)
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    partial.mkdir()
    try:
        console = Console(stderr=True)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            sizes, characters = _scan(corpus)
            if corpus.tokenizer == "characters":
                tokenizer = tokenizers.Characters(characters)
            elif corpus.tokenizer == "letters27":
                tokenizer = tokenizers.Characters(tokenizers.LETTERS27)
            elif corpus.tokenizer == "bytes":
                tokenizer = tokenizers.Bytes(corpus.encoding)
            else:
                tokenizer = tokenizers.FileTokenizer(_tokenizer_file(corpus))
            ranges = _cut(corpus, sizes)
            total = sum(stop - start for _, start, stop in ranges.values())
            advance = functools.partial(
                progress.advance, progress.add_task("preparing the text", total=total)
            )
            counts = {}
            for split, (path, start, stop) in ranges.items():
                texts = _read_range(path, corpus.encoding, start, stop, advance)
                counts[split] = _write_tokens(partial / split, texts, tokenizer, corpus.documents)
        about = {"symbols": tokenizer.symbols, "counts": counts, "documents": corpus.documents}
        (partial / ABOUT).write_text(json.dumps(about))
        shutil.rmtree(folder, ignore_errors=True)  # without about.json, it is damaged
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _scan(corpus: Corpus) -> tuple[dict[str, int], list[str]]:
    """Counts the characters of each text, and lists those that occur, in order.

    Raises:
        DatasetError: a text is empty, or holds a character that its tokenizer does not have.
    """
    seen, sizes = np.zeros(tokenizers.UNICODE, bool), {}
    letters = tokenizers.LETTERS27 + "\n" * corpus.documents if corpus.tokenizer == "letters27" else None
    for split, path in corpus.paths:
        sizes[split] = 0
        for part in text.read_parts(path, corpus.encoding):
            seen[tokenizers.code_points(part.text)] = True
            sizes[split] += len(part.text)
            if letters is not None and part.text.strip(letters):
                at = next(i for i, x in enumerate(part.text) if x not in letters)
                raise DatasetError(
                    f"{part.file} holds {part.text[at]!r} at character {part.start + at:,}, which is none of "
                    f"letters27, a-z and space: take data.tokenizer = 'characters', or clean the text"
                )
        if not sizes[split]:
            raise DatasetError(f"{path} is empty: name a text")
    seen[ord("\n")] &= not corpus.documents
    return sizes, [chr(x) for x in np.flatnonzero(seen)]


def _cut(corpus: Corpus, sizes: dict[str, int]) -> dict[str, tuple[str, int, int]]:
    """Returns where each split lies: (path, its first character, the one after its last)."""
    if corpus.shares is None:
        return {split: (path, 0, sizes[split]) for split, path in corpus.paths}
    ((split, path),) = corpus.paths
    sums = itertools.accumulate(Fraction(str(share)) for share in corpus.shares)  # 0.7 + 0.2 is 0.9 here
    cuts = [0, *(math.floor(sizes[split] * x) for x in sums)]
    return {name: (path, *pair) for name, pair in zip(SPLITS, itertools.pairwise(cuts), strict=True)}


def _read_range(path: str, encoding: str, start: int, stop: int, advance: Advance) -> Iterator[str]:
    """Reads the characters start, .., stop - 1 of a text, and tells how many of them are done."""
    at = 0
    for part in text.read_parts(path, encoding):
        if at >= stop:
            return
        taken = part.text[max(0, start - at) : stop - at]
        yield taken
        advance(len(taken))
        at += len(part.text)


def _write_tokens(path: Path, texts: Iterator[str], tokenizer: tokenizers.Tokenizer, documents: bool) -> int:
    """Writes the tokens of a split, and of documents their ends; returns how many tokens there are."""
    dtype, count = np.min_scalar_type(len(tokenizer.symbols) - 1), 0
    with path.with_suffix(".tokens").open("wb") as tokens, path.with_suffix(".ends").open("wb") as ends:
        for pieces in itertools.chain(text.split_lines(texts), [["\n"]] if documents else []):
            written = [piece.removesuffix("\n") for piece in pieces] if documents else pieces
            x, lengths = tokenizer.encode(written)
            tokens.write(x.astype(dtype).tobytes())
            if documents:
                ended = np.array([piece.endswith("\n") for piece in pieces], bool)
                ends.write((count + np.cumsum(lengths, dtype=np.int64))[ended].tobytes())
            count += len(x)
    return count


def _mapped(path: Path, dtype: Any) -> np.ndarray:
    try:
        size = path.stat().st_size
        return np.memmap(path, dtype, "r") if size else np.zeros(0, dtype)
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{path} is damaged: delete its folder, the text is prepared again then"
        ) from error
