"""Computes figures of texts by n-grams and compressors, and compares samples with a training text.

For the comparison a training text comes in parts that may be cut anywhere, and is never in memory as a whole.
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
    tokens. c' is c without its first token, and distinct(c) is how many different tokens follow c in the
    training text. A context that does not stand there leaves p_{n-1}; p_{-1} = 1 / K.

    Args:
        train: the tokens to count.
        test: the tokens to predict, in order; the first ones have shorter contexts.
        K: the number of tokens there are.
        context: how many tokens before each are looked at; 0 is the unigram.

    Returns:
        Nats of each test token.
    """
    p = np.full(len(test), 1 / K)  # p_{-1}

    # The round of n makes p_n of p_{n-1}. The different contexts of n tokens in the training text have the
    # numbers 0, 1, .., and context_train and context_test hold the number of the context before each token
    # from token n on; -1 stands for a context that the training text does not have. A context c and the token
    # w after it are the pair c K + w. The different pairs of the training text, sorted, are the contexts of
    # the next round, and their places are the numbers of these.
    context_train = np.zeros(len(train), np.int64)
    context_test = np.zeros(len(test), np.int64)
    num_contexts = 1
    for n in range(min(context + 1, len(train), len(test))):
        pairs, place_train, counts = np.unique(
            context_train * K + train[n:], return_inverse=True, return_counts=True
        )
        total = np.bincount(context_train, minlength=num_contexts)  # count(c)
        distinct = np.bincount(pairs // K, minlength=num_contexts)  # distinct(c)

        pairs_test = context_test * K + test[n:]
        place_test = np.searchsorted(pairs, pairs_test).clip(max=len(pairs) - 1)
        has_context = context_test >= 0
        has_pair = has_context & (pairs[place_test] == pairs_test)
        c = np.where(has_context, context_test, 0)  # 0 stands for no context, whose result is not used

        # The last tokens of the training text are a context that no token follows: it leaves p_{n-1} too.
        is_followed = has_context & (total[c] > 0)
        count = np.where(has_pair, counts[place_test], 0)  # count(c w)
        smoothed = (count + distinct[c] * p[n:]) / np.maximum(total[c] + distinct[c], 1)
        p[n:] = np.where(is_followed, smoothed, p[n:])

        # The last token is before no other, so that its pair is the context of none.
        context_train = place_train[:-1]
        context_test = np.where(has_pair, place_test, -1)[:-1]
        num_contexts = len(pairs)
    return -np.log(p)


def compressed_bits(train: bytes, test: bytes) -> dict[str, float]:
    """Counts the bits of a text that compressors need: alone, and in addition to those of the training text.

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
    """Returns the words of a text, which is passed in parts and split at white space."""
    vocabulary = set[str]()
    unfinished = ""  # the word at the end of a part, which may go on in the next one
    for part in itertools.chain(train, ["\n"]):
        text = unfinished + part
        words = text.split()
        unfinished = ""
        if words and not text[-1].isspace():
            unfinished = words.pop()
        vocabulary.update(words)
    return vocabulary


def known_words(samples: Sequence[str], vocabulary: set[str]) -> float:
    """Returns the share of the words of samples that are in the vocabulary of the training text.

    The first and the last word of a sample may be cut off and do not count. NaN where there are no others.
    """
    words = [word for sample in samples for word in sample.split()[1:-1]]
    if not words:
        return float("nan")
    return float(np.mean([word in vocabulary for word in words]))


def distinct_ngrams(samples: Sequence[str], n: int) -> float:
    """Returns the number of different n-grams of words in samples over that of all (Li et al. 2016).

    NaN where no sample has n words.
    """
    ngrams = []
    for sample in samples:
        words = sample.split()
        ngrams += [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    if not ngrams:
        return float("nan")
    return len(set(ngrams)) / len(ngrams)


def longest_copy(samples: Sequence[str], train: Iterable[str]) -> str:
    """Returns the longest piece of any sample that occurs in a text, which is passed in parts."""
    codes = [_code_points(sample) for sample in samples]
    longest = max(map(len, samples), default=0)
    best = ""
    if not longest:
        return best
    end = ""
    for part in train:
        text = end + part
        best = _longer_copy(samples, codes, text, best)
        end = text[max(0, len(text) - longest + 1) :]  # a piece may begin here and go on in the next part
    return best


def _longer_copy(samples: Sequence[str], codes: Sequence[np.ndarray], train: str, best: str) -> str:
    """Returns the longest piece of a sample that stands in the training text, or `best` if none is longer.

    Where a piece of n characters is copied, so are pieces of fewer: n is found by halving. One character
    more than the best is tried first, as few parts of a text have that.
    """
    source = _code_points(train)
    low = len(best)
    high = min(len(source), max(map(len, codes)))
    length = low + 1
    while low < high:
        piece = _find_copy(samples, codes, train, source, length)
        if piece is None:
            high = length - 1
        else:
            low = length
            best = piece
        length = (low + high + 1) // 2
    return best


def _find_copy(
    samples: Sequence[str], codes: Sequence[np.ndarray], train: str, source: np.ndarray, length: int
) -> str | None:
    """Returns the first piece of so many characters of a sample that stands in the training text, or None."""
    hashes = np.sort(_hash_windows(source, length))  # ten times as fast as numpy.unique and isin
    for sample, sample_codes in zip(samples, codes, strict=True):
        for i in np.flatnonzero(_is_among(_hash_windows(sample_codes, length), hashes)):
            piece = sample[i : i + length]

            # Two windows may have the same hash, and a search by hash alone would report a copy that is none.
            if piece in train:
                return piece
    return None


def _code_points(text: str) -> np.ndarray:
    """Returns the Unicode code points of a text, uint32."""
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def _is_among(x: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Says which entries of x are in an ordered array of at least one."""
    return ordered[np.searchsorted(ordered, x).clip(max=len(ordered) - 1)] == x


def _hash_windows(codes: np.ndarray, length: int) -> np.ndarray:
    """Hashes every window of so many codes to uint64: sum_j code_{i + j} BASE^j, modulo 2^64."""
    if len(codes) < length:
        return np.zeros(0, np.uint64)

    # With s_i = sum_{k < i} code_k BASE^k the hash is (s_{i + length} - s_i) BASE^-i: one pass for all
    # windows. An odd BASE has an inverse modulo 2^64, which is the arithmetic of uint64.
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(codes * _powers(BASE, len(codes)))])
    inverse = np.uint64(pow(int(BASE), -1, 2**64))
    return (sums[length:] - sums[:-length]) * _powers(inverse, len(codes) - length + 1)


def _powers(x: np.uint64, n: int) -> np.ndarray:
    """Returns x^0, .., x^(n - 1), modulo 2^64."""
    return np.concatenate([np.ones(1, np.uint64), np.cumprod(np.full(n - 1, x))])
