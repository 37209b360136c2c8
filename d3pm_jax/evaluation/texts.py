"""Computes figures of texts: what n-grams and compressors make of them, and how samples compare with them.

There a training text comes in parts that may be cut anywhere, and is never in memory as a whole.
"""

import bz2
import gzip
import itertools
import lzma
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import Float, Int

BASE = np.uint64(0x9E3779B97F4A7C15)  # of the hash of windows; odd
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda x: gzip.compress(x, 9),
    "bzip2": lambda x: bz2.compress(x, 9),
    "xz": lambda x: lzma.compress(x, preset=9 | lzma.PRESET_EXTREME),
}


def ngram_nats(
    train: Int[np.ndarray, " N"], test: Int[np.ndarray, " M"], K: int, context: int = 5
) -> Float[np.ndarray, " M"]:
    """-log p(token | those before it) by counts of a training text, smoothed as by Witten and Bell (1991).

    p_n(w | c) = (count(c w) + distinct(c) p_{n-1}(w | c')) / (count(c) + distinct(c)) for a context c of n
    tokens, c' without its first, distinct(c) how many tokens follow it in the training text; a context that
    is not in there leaves p_{n-1}, and p_{-1} = 1 / K.

    Args:
        train: the tokens to count.
        test: the tokens to predict, in order; the first ones have shorter contexts.
        K: the number of tokens there are.
        context: how many tokens before each are looked at; 0 is the unigram.

    Returns:
        Nats of each test token.
    """
    p = np.full(len(test), 1 / K)
    # the number of the context before each token, -1 where the training text has none like it
    at_train, at_test = (np.zeros(len(x), np.int64) for x in (train, test))
    contexts = 1
    for n in range(min(context + 1, len(train), len(test))):
        seen, pair = at_test >= 0, at_test * K + test[n:]
        pairs, number, counts = np.unique(at_train * K + train[n:], return_inverse=True, return_counts=True)
        total = np.bincount(at_train, minlength=contexts)
        distinct = np.bincount(pairs // K, minlength=contexts)
        found = np.searchsorted(pairs, pair).clip(max=len(pairs) - 1)
        hit, c = seen & (pairs[found] == pair), np.where(seen, at_test, 0)
        seen &= total[c] > 0  # the last tokens of the training text have none after them
        smooth = (np.where(hit, counts[found], 0) + distinct[c] * p[n:]) / np.maximum(
            total[c] + distinct[c], 1
        )
        p[n:] = np.where(seen, smooth, p[n:])
        at_train, at_test, contexts = number[:-1], np.where(hit, found, -1)[:-1], len(pairs)
    return -np.log(p)


def compressed_bits(train: bytes, test: bytes) -> dict[str, float]:
    """Counts the bits of a text as programs compress it: alone, and by what it adds to the training text.

    Returns:
        By name, such as "xz" and "xz after train": bits in all.
    """
    alone = {name: 8.0 * len(compress(test)) for name, compress in COMPRESSORS.items()}
    after = {
        f"{name} after train": 8.0 * (len(compress(train + test)) - len(compress(train)))
        for name, compress in COMPRESSORS.items()
    }
    return alone | after


def collect_vocabulary(train: Iterable[str]) -> set[str]:
    """Returns the words of a text that comes in parts: what stands between white space."""
    found, cut = set[str](), ""
    for part in itertools.chain(train, ["\n"]):
        text = cut + part
        words = text.split()
        cut = words.pop() if words and not text[-1].isspace() else ""
        found.update(words)
    return found


def known_words(samples: Sequence[str], vocabulary: set[str]) -> float:
    """Returns which share of the words of samples are in the vocabulary of the training text.

    The first and the last word of a sample may be cut off and do not count. NaN where there are no others.
    """
    words = [word for sample in samples for word in sample.split()[1:-1]]
    return float(np.mean([word in vocabulary for word in words])) if words else float("nan")


def distinct_ngrams(samples: Sequence[str], n: int) -> float:
    """Returns which share of all runs of n words in samples are different (Li et al. 2016); NaN without."""
    runs = [
        tuple(words[i : i + n])
        for words in (sample.split() for sample in samples)
        for i in range(len(words) - n + 1)
    ]
    return len(set(runs)) / len(runs) if runs else float("nan")


def longest_copy(samples: Sequence[str], train: Iterable[str]) -> str:
    """Returns the longest piece of a sample that stands in a text that comes in parts, one of those."""
    codes = [_code_points(x) for x in samples]
    longest = max(map(len, samples), default=0)
    best, before = "", ""
    for part in train if longest else ():
        text = before + part
        best = _longer_copy(samples, codes, text, best)
        before = text[max(0, len(text) - longest + 1) :]  # a piece may go on in the next part
    return best


def _longer_copy(samples: Sequence[str], codes: Sequence[np.ndarray], train: str, best: str) -> str:
    """Returns the longest piece of a sample that stands in the training text, or `best` if none is longer.

    Where a piece of n characters is copied, so are pieces of fewer: n is found by halving. One character
    more than the best is tried first, as few parts of a text have that.
    """
    source, low = _code_points(train), len(best)
    high, length = min(len(source), max(map(len, codes))), low + 1
    while low < high:
        hashes = np.sort(_windows(source, length))  # ten times as fast as numpy.unique and isin
        copied = (
            sample[i : i + length]
            for sample, x in zip(samples, codes, strict=True)
            for i in np.flatnonzero(_among(_windows(x, length), hashes))
        )
        piece = next((piece for piece in copied if piece in train), None)
        if piece is None:
            high = length - 1
        else:
            low, best = length, piece
        length = (low + high + 1) // 2
    return best


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def _among(x: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Says which entries of x are in an ordered array of at least one."""
    return ordered[np.searchsorted(ordered, x).clip(max=len(ordered) - 1)] == x


def _windows(codes: np.ndarray, length: int) -> np.ndarray:
    """Hashes every run of so many codes to uint64: sum_j code_{i + j} BASE^j, modulo 2^64."""
    if len(codes) < length:
        return np.zeros(0, np.uint64)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(codes * _powers(BASE, len(codes)))])
    inverse = np.uint64(pow(int(BASE), -1, 2**64))
    return (sums[length:] - sums[:-length]) * _powers(inverse, len(codes) - length + 1)


def _powers(x: np.uint64, n: int) -> np.ndarray:
    """Returns x^0, .., x^(n - 1), modulo 2^64."""
    return np.concatenate([np.ones(1, np.uint64), np.cumprod(np.full(n - 1, x))])
