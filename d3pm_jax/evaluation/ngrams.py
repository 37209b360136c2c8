"""Computes what a text costs when each token is predicted from a few before it: a baseline of networks."""

import numpy as np
from jaxtyping import Float, Int


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
