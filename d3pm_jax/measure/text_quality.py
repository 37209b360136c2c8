"""Measures samples of a text: whether they are of its words, how they vary, and what they copy from it."""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from d3pm_jax.data import Part, Source, read_batch
from d3pm_jax.data.tokenizers import joined, joined_parts
from d3pm_jax.evaluation import baselines, texts
from d3pm_jax.measure.protocol import Protocol
from d3pm_jax.measure.quality import draw, protocol_of

LARGEST = 100_000_000  # tokens of the training split: of a longer one the first so many are taken
PART = 1_000_000  # tokens in memory at a time
COUNTED = (1, 2, 3)  # words in a run of them
SEED = 0  # of what samples are to be compared with
Batch = Mapping[str, np.ndarray]


class Quality(NamedTuple):
    """Holds what was measured."""

    figures: dict[str, dict[str, Any]]  # of "samples", and for comparison of "test" and "unigram"
    protocol: Protocol


class Reference(NamedTuple):
    """Holds what samples of any run on the same text are compared with."""

    compared: str  # what of the training split they are compared with
    vocabulary: set[str]  # its words
    figures: dict[str, dict[str, Any]]  # of "test" and "unigram", measured as samples are


def prepare(run: Any, num: int) -> Reference:
    """Measures what samples are to be compared with, and learns the words of the training split.

    These are as many examples of the test split, or all, and as many samples of the unigram.

    Args:
        run: of a text.
        num: how many samples.

    Raises:
        UserError: the text cannot be read, or is another than the run had.
    """
    test, (counts, compared) = run.read_batch("test", num), _count(run)
    reference = Reference(compared, texts.vocabulary(_text(run)), {})
    unigram = baselines.unigram_samples(counts, (num, *run.parts.description.shape), SEED)
    rows = {"test": test, "unigram": {"x": unigram}}
    figures = {name: _figures(_each(run, batch), run, reference) for name, batch in rows.items()}
    return reference._replace(figures=figures)


def measure(
    run: Any,
    reference: Reference,
    num: int,
    seed: int = 0,
    batch_size: int = 128,
    progress: Callable[[int], Any] = lambda done: None,
) -> Quality:
    """Draws samples and compares them with the training split.

    Args:
        run: of a text.
        reference: of `prepare`, for the same data and number.
        num: how many samples.
        seed: of their noise.
        batch_size: samples at a time.
        progress: is called with the number of samples that are done.

    Raises:
        UserError: samples have categories that the data has not.
    """
    samples = _each(run, {"x": draw(run, num, seed, batch_size, progress)})
    figures = {"samples": _figures(samples, run, reference), **reference.figures}
    length = run.parts.description.shape[0]
    told = protocol_of(run, num, seed, reference.compared, f"words of texts of {length} tokens")
    return Quality(figures, told)


def _figures(samples: Sequence[str], run: Any, reference: Reference) -> dict[str, Any]:
    """Returns what is measured of texts; None where they have too few words."""
    shares = {"known_words": texts.known_words(samples, reference.vocabulary)}
    shares |= {f"distinct_{n}": texts.distinct_ngrams(samples, n) for n in COUNTED}
    whole = [piece for sample in samples for piece in sample.split("\ufffd")]  # bytes of no character
    copied = texts.longest_copy(whole, _text(run))
    found = {name: None if math.isnan(share) else share for name, share in shares.items()}
    return {"n": len(samples), **found, "longest_copy": len(copied), "copied": copied}


def _count(run: Any) -> tuple[np.ndarray, str]:
    """Counts how often each token is in the training split, and says what was counted."""
    K, digest = run.parts.categories, hashlib.sha256()
    counts = np.zeros(K, np.int64)
    for batch in _batches(run):
        digest.update(b"".join(batch[name].tobytes() for name in ("x", "weight") if name in batch))
        counts += np.bincount(np.concatenate(_tokens(batch)), minlength=K)
    first = "the first " if len(_source(run)) < len(run.config.data.open("train")) else ""
    return counts, f"{first}{counts.sum():,} tokens, sha256 {digest.hexdigest()}"


def _text(run: Any) -> Iterator[str]:
    """Reads the training split as one text in parts: its windows, or its documents as lines."""
    return joined_parts(_symbols(run))


def _symbols(run: Any) -> Iterator[list[str]]:
    """Yields the symbols of the training split in parts, with a line break behind each document."""
    written, example = run.parts.description.written, 0
    # where the data does not say which piece is the last one, each is a document
    ends = getattr(run.config.data.open("train"), "ends_document", lambda i: True)
    for batch in _batches(run):
        found: list[str] = []
        for x in _tokens(batch):
            found += written(x) + (["\n"] if "weight" in batch and ends(example) else [])
            example += 1
        yield found


def _each(run: Any, batch: Batch) -> list[str]:
    """Returns the text of each example."""
    return [joined(run.parts.description.written(x)) for x in _tokens(batch)]


def _tokens(batch: Batch) -> list[np.ndarray]:
    """Returns the tokens of each example, without padding."""
    if "weight" not in batch:
        return list(batch["x"])
    return [x[weight > 0] for x, weight in zip(batch["x"], batch["weight"], strict=True)]


def _batches(run: Any) -> Iterator[Batch]:
    """Reads the training split, up to its limit, in parts."""
    source, size = _source(run), max(1, PART // run.parts.description.shape[0])
    for start in range(0, len(source), size):
        part = Part(source, start, min(start + size, len(source)))
        yield read_batch(part, run.parts.categories, None, run.parts.description)


def _source(run: Any) -> Source:
    source, limit = run.config.data.open("train"), max(1, LARGEST // run.parts.description.shape[0])
    return Part(source, 0, min(limit, len(source)))
