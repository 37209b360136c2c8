"""Makes categories of text: by characters, by bytes, or by a file of the `tokenizers` library.

What a category is written as is its symbol, and a text is its symbols joined. A symbol may be a part of a
character only: its bytes are then lone surrogates U+DC80..U+DCFF, as Python's "surrogateescape" has it, so
that `join_symbols` puts characters together again.
"""

import codecs
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from d3pm_jax.data.source import DatasetError
from d3pm_jax.errors import one_line
from d3pm_jax.extras import require

LETTERS27 = " abcdefghijklmnopqrstuvwxyz"
NAMES = ("characters", "letters27", "bytes")
UNICODE = 0x110000


class Characters:
    """Gives each of these characters, a symbol, a category of its own; there are no others in the text."""

    def __init__(self, characters: Iterable[str]) -> None:
        self.symbols = tuple(characters)
        self._category = np.zeros(UNICODE, np.uint32)
        self._category[[ord(x) for x in self.symbols]] = range(len(self.symbols))

    def encode(self, lines: Sequence[str]) -> tuple[np.ndarray, list[int]]:
        return self._category[code_points("".join(lines))], [len(line) for line in lines]


class Bytes:
    """Gives each byte of a text in this encoding its number, of 256."""

    def __init__(self, encoding: str = "utf-8") -> None:
        self.symbols = tuple(_text_of(bytes([x])) for x in range(256))
        self._encoding = encoding

    def encode(self, lines: Sequence[str]) -> tuple[np.ndarray, list[int]]:
        encoded = [line.encode(self._encoding) for line in lines]
        return np.frombuffer(b"".join(encoded), np.uint8), [len(x) for x in encoded]


class FileTokenizer:
    """Does what a file of the `tokenizers` library says, for each line on its own, without special tokens.

    Args:
        path: a tokenizer.json.

    Raises:
        DatasetError: it cannot be read.
        MissingExtra: the library is not installed.
    """

    def __init__(self, path: Path) -> None:
        require(f"data.tokenizer = {str(path)!r}", "tokenizers", extra="text")
        import tokenizers

        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except Exception as error:  # the library raises nothing narrower
            raise DatasetError(
                f"{path} is no file of the tokenizers library ({one_line(error)}): save it anew"
            ) from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.symbols = _symbols(json.loads(self._tokenizer.to_str()), self._tokenizer.get_vocab())

    def encode(self, lines: Sequence[str]) -> tuple[np.ndarray, list[int]]:
        found = [x.ids for x in self._tokenizer.encode_batch_fast(list(lines), add_special_tokens=False)]
        lengths = [len(ids) for ids in found]
        return np.fromiter((i for ids in found for i in ids), np.uint32, sum(lengths)), lengths


# Each has `symbols`, what each category is written as, and encode(lines), which returns the categories of the
# lines, one after the other, and how many each line has.
Tokenizer = Characters | Bytes | FileTokenizer


def match_symbols(text: str, symbols: Sequence[str]) -> np.ndarray:
    """Returns categories whose symbols, joined, are this text: at each place the longest symbol that fits.

    For symbols of one character these are the categories of the text; a file of the `tokenizers` library may
    cut a text elsewhere.

    Raises:
        DatasetError: some of the text has no symbol.
    """
    table = {_bytes_of(symbol): k for k, symbol in enumerate(symbols) if symbol}
    longest, content, found, i = max(map(len, table), default=0), _bytes_of(text), [], 0
    while i < len(content):
        ends = range(min(len(content), i + longest), i, -1)
        end = next((j for j in ends if content[i:j] in table), None)
        if end is None:
            at = len(content[:i].decode(errors="ignore"))
            spaced = any(symbol.startswith(_bytes_of(f" {text[at]}")) for symbol in table)
            cure = ", or put a space before it" if spaced else ""
            raise DatasetError(
                f"no symbol of the text of the run fits {text[at]!r}, character {at:,} of "
                f"{one_line(repr(text))}: leave it out{cure}"
            )
        found.append(table[content[i:end]])
        i = end
    return np.array(found, np.int32)


def code_points(text: str) -> np.ndarray:
    """Returns the number of each character, uint32 [n]."""
    return np.frombuffer(text.encode("utf-32-le"), "<u4")


def join_symbols(symbols: Iterable[str]) -> str:
    """Joins symbols to a text; bytes that are no character are U+FFFD."""
    return "".join(join_symbol_parts([symbols]))


def join_symbol_parts(parts: Iterable[Iterable[str]]) -> Iterator[str]:
    """Yields the text that `join_symbols` makes of all symbols, in parts; a character is where it ends."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for symbols in parts:
        yield decoder.decode(_bytes_of("".join(symbols)))
    yield decoder.decode(b"", final=True)


def _bytes_of(symbol: str) -> bytes:
    return symbol.encode("utf-8", "surrogateescape")


def _text_of(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


def _symbols(tree: dict[str, Any], vocabulary: dict[str, int]) -> tuple[str, ...]:
    """Returns what each token stands for in the middle of a text, by the decoder of the file.

    A special or added token is written as it is, a number without a token as nothing.
    """
    decoder = tree["decoder"]
    rules = [decoder] if decoder is None or "decoders" not in decoder else decoder["decoders"]
    literal = {token["content"] for token in tree["added_tokens"]}
    found = [""] * (max(vocabulary.values(), default=-1) + 1)
    for token, number in vocabulary.items():
        text = token
        for rule in () if token in literal else rules:
            text = _decoded(text, rule)
        found[number] = text
    return tuple(found)


def _decoded(token: str, rule: dict[str, Any] | None) -> str:
    """Applies one decoder to a token; those that only mend the ends of a text change nothing."""
    match {"type": "none"} if rule is None else rule:
        case {"type": "ByteLevel"}:
            return _text_of(bytes(_BYTE_OF[x] for x in token)) if set(token) <= _BYTE_OF.keys() else token
        case {"type": "ByteFallback"}:
            is_byte = len(token) == 6 and token.startswith("<0x") and token.endswith(">")
            return _text_of(bytes([int(token[3:5], 16)])) if is_byte else token
        case {"type": "WordPiece", "prefix": prefix}:
            return token.removeprefix(prefix) if token.startswith(prefix) else f" {token}"
        case {"type": "Metaspace", "replacement": mark} | {"type": "Replace", "pattern": {"String": mark}}:
            return token.replace(mark, (rule or {}).get("content", " "))
        case {"type": "BPEDecoder", "suffix": suffix}:
            return token.replace(suffix, " ")
        case {"type": "none"}:  # the library puts a space between tokens then
            return f" {token}"
    return token


# The byte that each character stands for in byte-level BPE: printable ones for themselves.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = sorted(set(range(256)) - set(_PRINTABLE))
_BYTE_OF = {chr(x): x for x in _PRINTABLE} | {chr(256 + i): x for i, x in enumerate(_OTHERS)}
