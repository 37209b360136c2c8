"""Figures of texts against counting by hand."""

import collections
import itertools

import numpy as np

from d3pm_jax.evaluation import texts
from d3pm_jax.evaluation.texts import ngram_nats

TRAIN = "the cat sat on the mat and the cat ran"
SAMPLES = ["e cat sat in the ha", "zz the cat sat on a hat", "q"]


def by_hand(train, test, K, context):
    """One token at a time, with counters."""
    counts = [collections.defaultdict(collections.Counter) for _ in range(context + 1)]
    for n, i in itertools.product(range(context + 1), range(len(train))):
        if i >= n:
            counts[n][tuple(train[i - n : i])][train[i]] += 1
    nats = []
    for i, token in enumerate(test):
        p = 1 / K
        for n in range(min(context, i) + 1):
            follow = counts[n].get(tuple(test[i - n : i]))
            if follow is not None:
                p = (follow[token] + len(follow) * p) / (sum(follow.values()) + len(follow))
        nats.append(-np.log(p))
    return nats


def test_ngrams_equal_counting_by_hand():
    rng = np.random.default_rng(0)
    for K, N, M, context in (
        (3, 60, 40, 4),
        (5, 30, 50, 2),
        (2, 4, 9, 5),
        (4, 20, 1, 3),
        (7, 50, 20, 0),
        (9, 12, 30, 3),
    ):
        train = rng.integers(0, max(2, K - 1), N)
        test = rng.integers(0, K, M)
        np.testing.assert_allclose(
            ngram_nats(train, test, K, context),
            by_hand(train.tolist(), test.tolist(), K, context),
            rtol=1e-12,
        )


def test_ngrams_are_a_distribution_of_the_next_token():
    train = np.random.default_rng(1).integers(0, 4, 80)
    before = np.array([1, 2, 0, 3])
    p = [np.exp(-ngram_nats(train, np.append(before, k), 4, 3)[-1]) for k in range(4)]
    np.testing.assert_allclose(sum(p), 1, rtol=1e-12)


def test_samples_are_compared_with_the_training_text():
    assert texts.longest_copy(SAMPLES, [TRAIN]) == "the cat sat on "
    assert texts.longest_copy(["xyz", ""], [TRAIN]) == ""
    assert texts.longest_copy([TRAIN], [TRAIN]) == TRAIN
    assert texts.longest_copy([], [TRAIN]) == texts.longest_copy(["", "a"], []) == ""
    words = texts.collect_vocabulary([TRAIN])
    assert texts.known_words(SAMPLES, words) == 7 / 9  # cat sat in the, the cat sat on a: not "in" and "a"
    assert np.isnan(texts.known_words(["q"], words))
    pairs = ["a b a b", "b a"]  # a b, b a, a b, b a
    assert texts.distinct_ngrams(pairs, 2) == 2 / 4
    assert np.isnan(texts.distinct_ngrams(["q"], 2))


def test_the_longest_copy_is_that_of_a_plain_search():
    rng = np.random.default_rng(2)
    for _ in range(20):
        train = "".join(rng.choice(list("abc"), 60))
        sample = "".join(rng.choice(list("abc"), 20))
        pieces = (sample[i:j] for i in range(20) for j in range(i, 21))
        longest = max((piece for piece in pieces if piece in train), key=len)
        copy = texts.longest_copy([sample], [train])
        assert len(copy) == len(longest)
        assert copy in train


def test_a_training_text_may_be_cut_anywhere():
    rng = np.random.default_rng(3)
    train = "".join(rng.choice(list("ab \n"), 90))
    samples = [train[70:85], train[:4], "".join(rng.choice(list("ab "), 30))]
    for _ in range(10):
        cuts = [0, *sorted(rng.integers(0, 91, 6)), 90]  # some parts are empty
        parts = [train[a:b] for a, b in itertools.pairwise(cuts)]
        assert texts.collect_vocabulary(parts) == set(train.split())
        assert texts.longest_copy(samples, iter(parts)) == train[70:85]


def test_compressed_bits_are_those_of_the_programs():
    train = b"abcabcabc" * 50
    test = b"abcabc" * 30
    bits = texts.compressed_bits(train, test)
    assert sorted(bits) == sorted(
        f"{x}{after}" for x in ("gzip", "bzip2", "xz") for after in ("", " after train")
    )
    assert 0 <= bits["xz after train"] < bits["xz"]
    noise = np.random.default_rng(0).bytes(2000)
    assert texts.compressed_bits(b"", noise)["gzip"] > 16_000
