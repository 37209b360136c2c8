"""Defines the kind of texts [L] of symbols: lines, chains that play, n-grams, known and copied words."""

import hashlib
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from d3pm_jax.data import DatasetError, count_categories
from d3pm_jax.data.tokenizers import join_symbol_parts, join_symbols, match_symbols
from d3pm_jax.errors import UserError, one_line
from d3pm_jax.evaluation import baselines, texts
from d3pm_jax.kinds.base import (
    Batch,
    Kind,
    Measured,
    QualityTable,
    Reference,
    Samples,
    Split,
    States,
    to_bits_per_dim,
)
from d3pm_jax.kinds.blocks import Block, TextBlock, TextFilm
from d3pm_jax.likelihood import bits_per_dim
from d3pm_jax.sampling import Known

MASKED = "_"  # stands for a mask, and for every other category that no symbol stands for
LINES = 24  # of samples in a report
FILMED = 4  # chains that play
TOKENS = 1024  # of a text that plays, at most
CONTEXT = 5  # tokens that an n-gram looks at
MOST_COUNTED = 10_000_000  # tokens of a training text that is counted and compressed, at most
MOST_READ = 100_000_000  # tokens of a training split that samples are compared with, at most: the first ones
PART = 1_000_000  # tokens in memory at a time
WORDS = (1, 2, 3)  # lengths of the runs of words that are counted
SEED = 0  # of the draws that samples are compared with
GAP = re.compile(r"\[MASK:([1-9][0-9]{0,8})\]")
LIKE_GAP = re.compile(r"\[mask\b[^]]*]?", re.IGNORECASE)


class TextKind(Kind):
    """Says that examples are texts [L], whose categories are written as symbols."""

    name = plural = "text"
    axes = 1
    has_symbols = True
    units: ClassVar = {"bits_per_char": "{:.3f} bits/char", "perplexity": "perplexity {:.4g}"}
    quality = QualityTable(
        columns={
            "known_words": "known words",
            "distinct_1": "distinct words",
            "distinct_2": "2-grams",
            "distinct_3": "3-grams",
            "longest_copy": "longest copy",
        },
        also=("copied",),
        headline=("known_words", "known words"),
        words="Samples, and for comparison examples of the test split and samples of the unigram, beside "
        "the training split: the share of their words that it has too, how many of their words and of their "
        "runs of 2 and 3 words are different, and the longest piece of them that is copied from it, in "
        "characters.",
    )
    sample_files = "texts"
    lines_shown = LINES

    def lines(self, x: np.ndarray) -> list[str]:
        """Returns texts int [N, L] as strings, their line breaks escaped; -1 is padding, and left out."""
        texts_of_rows = (self.description.text(row, MASKED) for row in x)
        return [
            text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r") for text in texts_of_rows
        ]

    def in_words(self, samples: np.ndarray) -> list[str]:
        """Returns the texts as they are, each below its number."""
        lines = []
        for i, x in enumerate(samples):
            lines += [f"sample {i}", self.description.text(x)]
        return lines

    def parse_given(
        self, prompt: str | None = None, infill: str | None = None, length: int | None = None
    ) -> Known | None:
        """Returns the tokens that every sample has: those of a prompt, or of a text with gaps [MASK:N]."""
        self._check_length(length)
        length = length or self.description.shape[0]
        if prompt is not None:
            if GAP.search(prompt) is not None:
                raise UserError(f"--prompt {one_line(repr(prompt))} has a gap: pass it as --infill")
            return self._tokenize_pieces([prompt], "prompt", length)
        if infill is None:
            return None

        # The pattern has one group, so that text and the number of tokens of a gap alternate in its split.
        pieces = GAP.split(infill)
        usage = f"write [MASK:N] for a gap of N tokens, N in 1..{length}"
        for text in pieces[::2]:
            misspelt_gap = LIKE_GAP.search(text)
            if misspelt_gap is not None:
                raise UserError(f"--infill has {misspelt_gap[0]!r}: {usage}")
        if len(pieces) == 1:
            raise UserError(f"--infill {one_line(repr(infill))} has no gap: {usage}")
        return self._tokenize_pieces(pieces, "infill", length)

    def read_given(self, path: Path, shape: tuple[int, ...]) -> np.ndarray:
        """Reads a text too, an example in each line, with line breaks escaped as in samples.txt."""
        if path.suffix != ".txt":
            return super().read_given(path, shape)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise UserError(
                f"--given {path} cannot be read as text ({one_line(error)}): save it in UTF-8"
            ) from error
        lines = text.removesuffix("\n").split("\n")
        (length,) = shape
        rows = []
        for number, line in enumerate(lines, 1):
            try:
                tokens = match_symbols(unescape_line(line), self.description.symbols or ())
            except DatasetError as error:
                raise UserError(f"--given {path}, line {number}: {error}") from error
            if len(tokens) != length:
                raise UserError(
                    f"--given {path}, line {number} has {len(tokens)} tokens, but a sample has "
                    f"{length}: write {length} tokens in each line, or pass --length"
                )
            rows.append(tokens)
        return np.stack(rows)

    def _tokenize_pieces(self, pieces: Sequence[str], option: str, length: int) -> Known:
        """Turns pieces of text, every second of which says how many tokens a gap has, into a sample."""
        # Gaps are added up before any is made, as a gap of a billion tokens would not fit the memory.
        gaps = sum(map(int, pieces[1::2]))
        if gaps > length:
            raise UserError(f"--infill has gaps of {gaps} tokens, but a sample has {length}: shorten it")

        symbols = self.description.symbols or ()
        tokens = []  # of each piece; -1 is not known
        for i, piece in enumerate(pieces):
            is_gap = i % 2 == 1
            if is_gap:
                tokens.append(np.full(int(piece), -1, np.int32))
                continue
            try:
                tokens.append(match_symbols(piece, symbols))
            except DatasetError as error:
                raise UserError(f"--{option}: {error}") from error

        x0 = np.concatenate(tokens)
        if len(x0) > length:
            raise UserError(f"--{option} has {len(x0)} tokens, but a sample has {length}: shorten it")
        x0 = np.pad(x0, (0, length - len(x0)), constant_values=-1)  # [L]
        return Known(np.maximum(x0, 0), x0 >= 0)

    def extra_figures(self, bound: Mapping[str, Any], examples: Batch) -> dict[str, float]:
        """Returns a bound as perplexity per token, and in bits per character.

        Bits per character are returned only where each token is a character or a byte. Other tokens may stand
        for another text than their symbol.
        """
        # Where the network gives the data a probability near 0, the power of two overflows to infinity.
        with np.errstate(over="ignore"):
            figures = {"perplexity": float(np.exp2(bound["bits_per_dim"]))}
        if any(len(symbol) != 1 for symbol in self.description.symbols or ()):
            return figures
        nats = bound["nats"] * len(examples["x"])  # of all examples
        characters = len(self._join_windows(examples))
        return {"bits_per_char": bits_per_dim(nats / characters, 1)} | figures

    def baselines(self, train: Split, test: Batch, say: Callable[[str], Any]) -> dict[str, float]:
        """Returns bits per token by a unigram; and by n-grams and compressors, of a text of some size."""
        counts = count_categories(train.source, train.categories)
        unigram_nats = baselines.unigram_nats(counts, test["x"], test.get("weight"))  # [N]
        bits_by_name = to_bits_per_dim({"unigram": unigram_nats}, test)
        most_tokens = len(train) * self.description.shape[0]
        if most_tokens > MOST_COUNTED:
            left_out = f"the train split has up to {most_tokens:,} tokens, more than {MOST_COUNTED:,}"
            say(f"no n-grams and compressors: {left_out}")
            return bits_by_name

        examples = train.read()
        train_tokens = np.concatenate(_tokens_of(examples))  # [M]
        test_tokens = np.concatenate(_tokens_of(test))
        nats = texts.ngram_nats(train_tokens, test_tokens, train.categories, CONTEXT).mean()
        bits_by_name[f"n-gram of {CONTEXT} tokens before each"] = bits_per_dim(float(nats), 1)

        train_text = self._join_windows(examples).encode()
        test_text = self._join_windows(test).encode()
        for name, bits in texts.compressed_bits(train_text, test_text).items():
            bits_by_name[name] = bits / len(test_tokens)
        return bits_by_name

    def prepare_quality(
        self, train: Split, test: Split, num: int, batch_size: int = 128, inception: Path | None = None
    ) -> Reference:
        """Learns the words of the training split, and measures the test split and a unigram beside it.

        A share is None where a text has too few words.
        """
        first = train.first(max(1, MOST_READ // self.description.shape[0]))
        digest = hashlib.sha256()
        counts = np.zeros(train.categories, np.int64)  # [K]
        for batch in self._read_batches(first):
            digest.update(batch["x"].tobytes())
            if "weight" in batch:
                digest.update(batch["weight"].tobytes())
            counts += np.bincount(np.concatenate(_tokens_of(batch)), minlength=train.categories)
        which = "the first " if len(first) < len(train) else ""
        compared = f"{which}{counts.sum():,} tokens, sha256 {digest.hexdigest()}"
        vocabulary = texts.collect_vocabulary(self.in_parts(first))

        def measure(batch: Batch) -> Measured:
            samples = [join_symbols(self.description.written(x)) for x in _tokens_of(batch)]
            shares = {"known_words": texts.known_words(samples, vocabulary)}
            shares |= {f"distinct_{n}": texts.distinct_ngrams(samples, n) for n in WORDS}
            figures: dict[str, Any] = {"n": len(samples)}
            for name, share in shares.items():
                figures[name] = None if math.isnan(share) else share

            # Bytes that are no character are written as U+FFFD. It stands for different bytes in samples and
            # in the split, so that no copy reaches across it.
            pieces = []
            for sample in samples:
                pieces += sample.split("\ufffd")
            copied = texts.longest_copy(pieces, self.in_parts(first))
            return Measured(figures | {"longest_copy": len(copied), "copied": copied})

        unigram = baselines.unigram_samples(counts, (num, *self.description.shape), SEED)
        rows = {"test": test.read(num), "unigram": {"x": unigram}}
        figures = {name: measure(batch).figures for name, batch in rows.items()}
        name = f"words of texts of {self.description.shape[0]} tokens"
        return Reference(compared, name, figures, lambda x: measure({"x": x, "weight": x >= 0}))

    def show_quality(self, samples: Samples, measured: Measured) -> Block | None:
        copied = measured.figures["copied"]
        return TextBlock(f"longest piece of a sample that is in the training split: {copied!r}")

    def closing_words(self, reference: Reference) -> str | None:
        return f"compared with the training split: {reference.compared.partition(', sha256')[0]}"

    def show_samples(self, samples: Samples) -> Block | None:
        return TextBlock("\n".join(self.lines(samples.x)))

    def show_chain(self, states: States) -> Block | None:
        """Shows the first of the chains, a line for each t."""
        width = len(str(max(states.times)))
        lines = zip(states.times, self.lines(states.x[:, 0]), strict=True)
        return TextBlock("\n".join(f"t = {t:>{width}}  {text}" for t, text in lines))

    def show_film(self, states: States) -> TextFilm:
        shown_states = states.x[:, :FILMED, :TOKENS]  # [R, n, L]
        is_cut = shown_states.shape[2] < states.x.shape[2]
        chains = [[self.cells(x) for x in chain] for chain in shown_states.swapaxes(0, 1)]
        return TextFilm(chains, states.times, states.steps, is_cut)

    def cells(self, x: np.ndarray) -> list[str | None]:
        """Returns the characters that each token adds to the text, None for a mask.

        Joined they are the text. A character whose bytes are several tokens is in the text of the last of
        them.
        """
        token_texts: list[str | None] = []
        for is_masked, group in itertools.groupby(
            x[x >= 0].tolist(), lambda k: k >= self.description.categories
        ):
            tokens = np.array([*group])
            if is_masked:
                token_texts += [None] * len(tokens)
                continue
            # `join_symbol_parts` yields one extra part at the end: the remaining bytes of an unfinished
            # character, decoded. It goes with the last token.
            *parts, end = join_symbol_parts([symbol] for symbol in self.description.written(tokens))
            token_texts += parts[:-1]
            token_texts.append(parts[-1] + end)
        return token_texts

    def _join_windows(self, batch: Batch) -> str:
        """Joins windows, or documents without their padding, to one text; no token is added between them."""
        return self.description.text(np.concatenate(_tokens_of(batch)))

    def in_parts(self, train: Split) -> Iterator[str]:
        """Reads a training split as one text in parts: its windows, or its documents as lines."""

        def read_symbols() -> Iterator[list[str]]:
            example = 0
            for batch in self._read_batches(train):
                symbols: list[str] = []
                for x in _tokens_of(batch):
                    symbols += self.description.written(x)
                    if "weight" in batch and train.ends_document(example):
                        symbols.append("\n")
                    example += 1
                yield symbols

        # Symbols are joined across parts, as a character may have its bytes in two of them.
        return join_symbol_parts(read_symbols())

    def _read_batches(self, train: Split) -> Iterator[Batch]:
        return train.in_parts(max(1, PART // self.description.shape[0]))


def unescape_line(line: str) -> str:
    """Returns the text that a line of `TextKind.lines` stands for."""
    escaped = {"\\": "\\", "n": "\n", "r": "\r"}
    return re.sub(r"\\([\\nr])", lambda match: escaped[match[1]], line)


def _tokens_of(batch: Batch) -> list[np.ndarray]:
    """Returns the tokens of each example, without padding."""
    if "weight" not in batch:
        return list(batch["x"])
    return [x[weight > 0] for x, weight in zip(batch["x"], batch["weight"], strict=True)]
