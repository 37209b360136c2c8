"""Shapes what a network believes of x_0 before a sampler draws."""

from collections.abc import Callable

import torch
from torch import Tensor

from torch_ref.checks import declared


@declared(logits="*S K floats", k="count")
def top_k(logits: Tensor, k: int) -> Tensor:
    """Keeps the k largest logits of each row, and makes the others -inf; of equal ones the first."""
    return _keep(logits, lambda row: _likeliest_first(row)[:k])


@declared(logits="*S K floats", p="probability")
def top_p(logits: Tensor, p: float) -> Tensor:
    """Keeps the likeliest categories of each row up to and with the one whose sum reaches p."""
    if p == 1:
        return logits

    def choose(row: Tensor) -> list[int]:
        probability = row.double().softmax(-1)
        total = 0.0
        chosen = []
        for k in _likeliest_first(row):
            if total < p:
                chosen.append(k)
            total += float(probability[k])
        return chosen

    return _keep(logits, choose)


@declared(logits="*S K floats", p="probability")
def top_p_below(logits: Tensor, p: float) -> Tensor:
    """Keeps the likeliest categories of each row that sum to at most p, and always the first."""
    if p == 1:
        return logits

    def choose(row: Tensor) -> list[int]:
        probability = row.double().softmax(-1)
        total = 0.0
        chosen = []
        for k in _likeliest_first(row):
            total += float(probability[k])
            if total <= p or not chosen:
                chosen.append(k)
        return chosen

    return _keep(logits, choose)


def _likeliest_first(row: Tensor) -> list[int]:
    """Returns the categories of a row, those with the largest logits first, of equal ones the smaller."""
    return sorted(range(len(row)), key=lambda k: (-float(row[k]), k))


def _keep(logits: Tensor, choose: Callable[[Tensor], list[int]]) -> Tensor:
    """Makes -inf of the categories that are not chosen of their row."""
    is_chosen = torch.zeros(logits.shape, dtype=torch.bool)
    rows = logits.detach().reshape(-1, logits.shape[-1])
    for i in range(len(rows)):
        is_chosen.view(rows.shape)[i, choose(rows[i])] = True
    return torch.where(is_chosen, logits, -torch.inf)
