"""Two elements of K categories: the bound and the likelihood as sums over every path x_0..x_T."""

import itertools

import numpy as np

D = 2


def bound_and_nll(Q, prior, reverse, x0):
    """E_q[log q(x_1..x_T | x_0) - log p(x_0..x_T)] and -log p(x_0), with no KL in sight.

    Q: [T, K, K] of one element. prior: [K]. x0: [2]. reverse: [T, K^2, K^2], p(x_{t-1} | x_t) of both
    elements as [t - 1, state of x_t, state of x_{t-1}].
    """
    T = len(Q)
    K = len(prior)
    path = np.array(list(itertools.product(range(K**D), repeat=T))).T
    path = np.concatenate([np.full((1, path.shape[1]), x0[0] * K + x0[1]), path])
    q = np.ones(path.shape[1])
    p = np.outer(prior, prior).reshape(-1)[path[T]]
    for t in range(1, T + 1):
        q = q * np.kron(Q[t - 1], Q[t - 1])[path[t - 1], path[t]]
        p = p * reverse[t - 1][path[t], path[t - 1]]
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(q > 0, q * (np.log(q) - np.log(p)), 0.0)
    return terms.sum(), -np.log(p.sum())


def both(p):
    """The probabilities of both elements together, [N, K^2], from those of either, [N, 2, K]."""
    return np.einsum("ni,nj->nij", p[:, 0], p[:, 1]).reshape(len(p), -1)


def expected_term(term, q, x0):
    """E over x_t of term(x_t) [N], x_t of both elements in every state, with probability q[x0] each."""
    K = len(q)
    total = np.zeros(len(x0))
    for a, b in itertools.product(range(K), repeat=D):
        weight = q[x0[:, 0], a] * q[x0[:, 1], b]
        total += np.where(weight > 0, weight * term(np.tile([a, b], (len(x0), 1))), 0.0)
    return total
