"""Enumerates laws of small examples: log p of each of the K^D, in the order of `list_examples`."""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from torch_ref.checks import Belief, declared
from torch_ref.numerics import log_sum
from torch_ref.orders import all_orders
from torch_ref.posteriors import p_logits
from torch_ref.processes.base import Process
from torch_ref.sampling.denoiser import check_agrees
from torch_ref.sampling.network import Network


@declared(K="two_or_more")
def list_examples(shape: tuple[int, ...], K: int) -> Tensor:
    """Returns all K^D examples, [K^D, *S], the first element slowest.

    Arguments as in `d3pm_jax.enumeration.list_examples`.
    """
    D = _count_places(shape, K, 2_000_000)
    return torch.tensor(list(itertools.product(range(K), repeat=D))).reshape(K**D, *shape)


@declared(K="two_or_more", mask_id="index")
def fill_in_law(fill_in: Callable[[Tensor], Tensor], shape: tuple[int, ...], K: int, mask_id: int) -> Tensor:
    """log p(x_0) of drawing an order and filling in by it, of every x_0: each by all of its orders.

    Arguments as in `d3pm_jax.enumeration.fill_in_law`.
    """
    _count_places(shape, K + 1, 2_000_000)
    return -all_orders(fill_in, list_examples(shape, K), mask_id)


@declared()
def chain_law(denoise: Network, process: Process, shape: tuple[int, ...], belief: Belief = "d3pm") -> Tensor:
    """Returns the log of the prior times one matrix [K^D, K^D] for each step.

    Arguments as in `d3pm_jax.enumeration.chain_law`.
    """
    check_agrees(denoise, process, belief, p_logits)
    if process.T > 100:
        raise ValueError(f"process.T = {process.T}: take at most 100 steps")
    _count_places(shape, process.K, 4096)
    states = list_examples(shape, process.K)
    p = _of_examples(process.log_prior().exp().expand(1, *shape, process.K), states)[0]
    for t in range(process.T, 0, -1):
        ts = torch.full((len(states),), t)
        log_p = p_logits(process, denoise(states, process.time[ts]), states, ts, belief)
        p = p @ _of_examples(log_p.exp(), states)
    # The log of 0 has no gradient.
    return torch.where(p > 0, torch.where(p > 0, p, 1.0).log(), -torch.inf)


@declared(log_law="N log_probability", x0="B *S categories", given="B *S booleans", K="two_or_more")
def conditional(log_law: Tensor, x0: Tensor, given: Tensor, K: int) -> Tensor:
    """-log p(the rest of x_0 | what is given) = log p(the given) - log p(x_0).

    Arguments as in `d3pm_jax.enumeration.conditional`.
    """
    if len(log_law) != K ** min(math.prod(x0.shape[1:]), 64):
        raise ValueError(f"log_law has {len(log_law)} entries, expected K^D of K = {K} and x0")
    is_equal = list_examples(tuple(x0.shape[1:]), K)[None] == x0[:, None]  # [B, N, *S]
    agrees = (is_equal | ~given[:, None]).flatten(2).all(-1)  # [B, N]
    is_whole = is_equal.flatten(2).all(-1)
    never = torch.tensor(-torch.inf)
    log_given = log_sum(torch.where(agrees, log_law, never))
    log_whole = log_sum(torch.where(is_whole, log_law, never))
    return torch.where(log_whole == never, torch.inf, log_given - log_whole)


def _count_places(shape: tuple[int, ...], K: int, most: int) -> int:
    """Returns D. Raises ValueError where K^D is above what can be enumerated."""
    D = math.prod(shape)
    if K ** min(D, 64) > most:
        raise ValueError(f"shape = {shape}: {K}^{D} is more than {most}")
    return D


def _of_examples(p: Tensor, examples: Tensor) -> Tensor:
    """Returns the probability of every example, [N, K^D], from those of each element, [N, *S, K]."""
    D = math.prod(examples.shape[1:])
    p = p.reshape(len(p), D, p.shape[-1])
    examples = examples.reshape(len(examples), D)
    total = torch.ones(len(p), len(examples))
    for d in range(D):
        total = total * p[:, d, examples[:, d]]
    return total
