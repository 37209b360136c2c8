"""Makes orders of elements, and one likelihood of the likelihoods that a network has in many orders."""

import math
from collections.abc import Callable
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from torch_ref.checks import declared
from torch_ref.numerics import log_prob, log_sum
from torch_ref.sampling.steering import effective_size


class Mixture(NamedTuple):
    """Holds the likelihood of a mixture, and how many of its parts count."""

    nats: Tensor  # [*B]
    effective: Tensor  # [*B]


@declared(nats="M *B floats")
def mixture(nats: Tensor) -> Mixture:
    """-log((1 / M) sum_m exp(-nats_m)), and (sum w)^2 / sum w^2 of w = exp(-nats).

    Arguments as in `d3pm_jax.orders.mixture`.
    """
    M = len(nats)
    if M == 0:
        raise ValueError("nats has M = 0 laws: a mixture needs at least one")
    log_p = -nats.to(torch.promote_types(nats.dtype, torch.float32)).movedim(0, -1)
    effective = effective_size(log_p.detach().reshape(-1, M)).reshape(nats.shape[1:])
    return Mixture(math.log(M) - log_sum(log_p), effective)


@declared(x0="B *S categories", mask_id="index")
def all_orders(fill_in: Callable[[Tensor], Tensor], x0: Tensor, mask_id: int) -> Tensor:
    """-log g(all elements), where g(S) = mean over i in S of g(S minus i) p(x_i | the rest of S).

    Arguments as in `d3pm_jax.orders.all_orders`.
    """
    flat = x0.reshape(len(x0), math.prod(x0.shape[1:]))
    D = flat.shape[1]
    if D > 16:
        raise ValueError(f"x0 has D = {D} elements: take at most 16")
    log_g = {frozenset(): torch.zeros(len(x0))}
    if not len(x0):
        return log_g[frozenset()]
    for n in range(1, D + 1):
        for elements in map(frozenset, combinations(range(D), n)):
            terms = []
            for i in elements:
                rest = elements - {i}
                xt = torch.full_like(flat, mask_id)
                xt[:, list(rest)] = flat[:, list(rest)]
                logits = fill_in(xt.reshape(x0.shape)).flatten(1, -2)[:, i]  # [B, K]
                logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
                terms.append(log_g[rest] + log_prob(logits, flat[:, i]))
            log_g[elements] = log_sum(torch.stack(terms, dim=-1)) - math.log(n)
    return -log_g[frozenset(range(D))]


@declared(order="B *S noise", given="B *S booleans")
def given_first(order: Tensor, given: Tensor) -> Tensor:
    """Returns an order in which what is given comes first, and all else keeps its order.

    Arguments as in `d3pm_jax.orders.given_first`.
    """
    result = torch.zeros(order.shape)
    for b in range(len(order)):
        places = order[b].flatten().argsort(stable=True)
        is_given = given[b].flatten()[places]
        places = torch.cat([places[is_given], places[~is_given]])
        result[b].view(-1)[places] = torch.arange(len(places)) / len(places)
    return result


@declared(block_order="B F noise", inner_order="B F *R noise")
def by_block(block_order: Tensor, inner_order: Tensor) -> Tensor:
    """Returns an order that takes one block after the other, and inside of a block its elements by an order.

    Arguments as in `d3pm_jax.orders.by_block`.
    """
    result = torch.zeros(inner_order.shape)
    for b in range(len(block_order)):
        position = 0
        for f in block_order[b].argsort(stable=True):
            for place in inner_order[b, f].flatten().argsort(stable=True):
                result[b, f].view(-1)[place] = position / inner_order[b].numel()
                position += 1
    return result
