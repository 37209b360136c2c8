"""Makes categories of text: by characters, by bytes, or by a file of the `tokenizers` library.

The symbol of a category is the text that it stands for, and a text is its symbols joined. A symbol may be
only a part of a character. Its bytes are then lone surrogates U+DC80..U+DCFF, by Python's error handler
"surrogateescape", from which `join_symbols` restores the characters.
"""

import codecs
import itertools
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
# The number of code points of Unicode.
NUM_CODE_POINTS = 0x110000


class Characters:
    """Maps each character of a text to a category; the text must have no characters but the given ones."""

    def __init__(self, characters: Iterable[str]) -> None:
        self.symbols = tuple(characters)
        # The category of each code point, [NUM_CODE_POINTS].
        self._category = np.zeros(NUM_CODE_POINTS, np.uint32)
        self._category[[ord(symbol) for symbol in self.symbols]] = range(len(self.symbols))

    def encode(self, lines: Sequence[str]) -> tuple[np.ndarray, list[int]]:
        lengths = [len(line) for line in lines]
        return self._category[code_points("".join(lines))], lengths


class Bytes:
    """Encodes a text, and takes the value of each byte as its category, of which there are 256."""

    def __init__(self, encoding: str = "utf-8") -> None:
        self.symbols = tuple(_decode_symbol(bytes([value])) for value in range(256))
        self._encoding = encoding

    def encode(self, lines: Sequence[str]) -> tuple[np.ndarray, list[int]]:
        encoded = [line.encode(self._encoding) for line in lines]
        lengths = [len(content) for content in encoded]
        return np.frombuffer(b"".join(encoded), np.uint8), lengths


class FileTokenizer:
    """Cuts each line into tokens by the rules of a file of the `tokenizers` library, without special tokens.

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
        except Exception as error:
            # The library raises plain Exception.
            raise DatasetError(
                f"{path} is not a file of the tokenizers library ({one_line(error)}): save it again"
            ) from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._path = path
        content = json.loads(self._tokenizer.to_str())
        vocabulary = self._tokenizer.get_vocab()
        self.symbols = _list_symbols(content, vocabulary)

        # Without a token for the unknown, BPE leaves out what it does not know, without a word. With one that
        # no text has, it says so.
        self._unknown_id: int | None = None
        if content["model"]["type"] == "BPE" and content["model"]["unk_token"] is None:
            self._unknown_id = max(vocabulary.values()) + 1
            self._tokenizer = tokenizers.Tokenizer.from_str(
                json.dumps(_add_unknown(content, self._unknown_id))
            )

    def encode(self, lines: Sequence[str]) -> tuple[np.ndarray, list[int]]:
        """Raises DatasetError where something of the lines has no token."""
        try:
            encodings = self._tokenizer.encode_batch_fast(list(lines), add_special_tokens=False)
        except Exception as error:
            # The library raises plain Exception.
            raise DatasetError(
                f"{self._path} cannot cut the text into tokens ({one_line(error)}): give its model an "
                "unk_token that the vocabulary has"
            ) from error
        ids_by_line = [encoding.ids for encoding in encodings]
        lengths = [len(ids) for ids in ids_by_line]
        ids = np.fromiter(itertools.chain.from_iterable(ids_by_line), np.uint32, sum(lengths))
        if self._unknown_id is not None and (ids == self._unknown_id).any():
            line = next(line for line, ids in zip(lines, ids_by_line, strict=True) if self._unknown_id in ids)
            # The encodings above do not say where in the line their tokens are.
            encoding = self._tokenizer.encode(line, add_special_tokens=False)
            start, end = encoding.offsets[encoding.ids.index(self._unknown_id)]
            raise DatasetError(
                f"{self._path} has no token for {line[start:end]!r}, which the text has, and would leave it "
                "out: train it on such text, on all bytes, or with an unk_token"
            )
        return ids, lengths


def _add_unknown(content: dict[str, Any], unknown_id: int) -> dict[str, Any]:
    """Returns the content of a file of BPE with a token for what it does not know."""
    unknown = "[unknown]"
    while unknown in content["model"]["vocab"]:
        unknown = f"[{unknown}]"
    # Special tokens come first here too, so that the new one has an id of its own.
    added = {token["content"]: token["id"] for token in content["added_tokens"]}
    vocabulary = {**added, **content["model"]["vocab"], unknown: unknown_id}
    return {**content, "model": {**content["model"], "vocab": vocabulary, "unk_token": unknown}}


# A tokenizer has `symbols`, the texts of its categories, and encode(lines), which returns the categories of
# all lines, one line after the other, [n], and how many of them each line has.
Tokenizer = Characters | Bytes | FileTokenizer


def match_symbols(text: str, symbols: Sequence[str]) -> np.ndarray:
    """Returns categories whose symbols, joined, are this text: at each place the longest symbol that fits.

    For symbols of one character these are the categories of the text; a file of the `tokenizers` library may
    cut a text elsewhere.

    Raises:
        DatasetError: some of the text has no symbol.
    """
    # Bytes are compared, since a symbol may be only a part of a character.
    category_by_bytes = {_encode_symbol(symbol): k for k, symbol in enumerate(symbols) if symbol}
    longest = max(map(len, category_by_bytes), default=0)
    content = _encode_symbol(text)
    categories: list[int] = []
    start = 0
    while start < len(content):
        ends = range(min(len(content), start + longest), start, -1)
        end = next((end for end in ends if content[start:end] in category_by_bytes), None)
        if end is None:
            position = len(content[:start].decode(errors="ignore"))
            # Tokens of words often have the space before the word in them.
            after_space = _encode_symbol(f" {text[position]}")
            cure = ""
            if any(symbol.startswith(after_space) for symbol in category_by_bytes):
                cure = ", or put a space before it"
            raise DatasetError(
                f"the text that the run was trained on has no symbol for {text[position]!r}, character "
                f"{position:,} of {one_line(repr(text))}: leave it out{cure}"
            )
        categories.append(category_by_bytes[content[start:end]])
        start = end
    return np.array(categories, np.int32)


def code_points(text: str) -> np.ndarray:
    """Returns the number of each character, uint32 [n]."""
    return np.frombuffer(text.encode("utf-32-le"), "<u4")


def join_symbols(symbols: Iterable[str]) -> str:
    """Joins symbols to a text; bytes that form no character become U+FFFD."""
    return "".join(join_symbol_parts([symbols]))


def join_symbol_parts(parts: Iterable[Iterable[str]]) -> Iterator[str]:
    """Joins the symbols of each part to a text, and yields these texts and then one for the remaining bytes.

    A character whose bytes are in several parts is in the text of the part that has its last byte. The last
    text is empty, or U+FFFD where a character is unfinished.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for symbols in parts:
        yield decoder.decode(_encode_symbol("".join(symbols)))
    yield decoder.decode(b"", final=True)


def _encode_symbol(symbol: str) -> bytes:
    return symbol.encode("utf-8", "surrogateescape")


def _decode_symbol(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


def _list_symbols(tree: dict[str, Any], vocabulary: dict[str, int]) -> tuple[str, ...]:
    """Lists the symbol of each token: what the decoder of the file makes of it inside of a text.

    The symbol of a special or added token is the token itself. That of a number without a token is empty.
    """
    decoder = tree["decoder"]
    rules = (decoder or {}).get("decoders", [decoder])
    literal_tokens = {token["content"] for token in tree["added_tokens"]}

    symbols = [""] * (max(vocabulary.values(), default=-1) + 1)
    for token, number in vocabulary.items():
        text = token
        if token not in literal_tokens:
            for rule in rules:
                text = _apply_decoder(text, rule)
        symbols[number] = text
    return tuple(symbols)


def _apply_decoder(token: str, rule: dict[str, Any] | None) -> str:
    """Applies one decoder to a token; those that only mend the ends of a text change nothing."""
    if rule is None:
        # Without a decoder the library puts a space between tokens.
        return f" {token}"
    match rule:
        case {"type": "ByteLevel"}:
            if set(token) <= _BYTE_OF.keys():
                return _decode_symbol(bytes(_BYTE_OF[character] for character in token))
        case {"type": "ByteFallback"}:
            if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
                return _decode_symbol(bytes([int(token[3:5], 16)]))
        case {"type": "WordPiece", "prefix": prefix}:
            if token.startswith(prefix):
                return token.removeprefix(prefix)
            return f" {token}"
        case {"type": "Metaspace", "replacement": mark} | {"type": "Replace", "pattern": {"String": mark}}:
            return token.replace(mark, rule.get("content", " "))
        case {"type": "BPEDecoder", "suffix": suffix}:
            return token.replace(suffix, " ")
    return token


# The byte that each character stands for in byte-level BPE, as in GPT-2: a printable character stands for
# itself, and the other bytes are the characters from 256 on.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = sorted(set(range(256)) - set(_PRINTABLE))
_BYTE_OF = {chr(value): value for value in _PRINTABLE}
_BYTE_OF |= {chr(256 + i): value for i, value in enumerate(_OTHERS)}
