"""Lays out parameters where each place of an example has its own number of categories, place after place."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Places(NamedTuple):
    """Holds how many categories each place of an example has, and the mask K - 1 if there is one."""

    shape: tuple[int, ...]
    K: int
    sizes: list[int]  # of each place, in C order
    has_mask: bool

    @property
    def row_counts(self) -> list[int]:
        """The number of categories that each place may hold."""
        return [size + self.has_mask for size in self.sizes]

    def check_shape(self, x: Tensor) -> None:
        """Raises ValueError unless x [B, *S] holds examples of these places."""
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(
                f"xt has shape {list(x.shape)}, but the network was made for examples of shape "
                f"{list(self.shape)}"
            )

    def find_rows(self, x: Tensor) -> Tensor:
        """Returns the number of each category of x [B, *S] among those of all places, [B, D].

        A category that its place lacks gets a number that no row has: it cannot be embedded, and is not taken
        for one of the next place.
        """
        self.check_shape(x)
        num_rows = sum(self.row_counts)
        rows = []
        first_row = 0
        for values, size, count in zip(x.flatten(1).unbind(1), self.sizes, self.row_counts, strict=True):
            own = values
            if self.has_mask:
                own = torch.where(values == self.K - 1, size, torch.where(values < size, values, num_rows))
            rows.append(torch.where((own >= 0) & (own < count), first_row + own, num_rows))
            first_row += count
        return torch.stack(rows, dim=1)

    def apply_heads(self, head: nn.Linear, h: Tensor) -> Tensor:
        """Returns logits [B, *S, K] of vectors h [B, D, n], by the rows of a last layer that a place has."""
        weights = head.weight.split(self.sizes)
        biases = head.bias.split(self.sizes)
        logits = [F.linear(x, w, b) for x, w, b in zip(h.unbind(1), weights, biases, strict=True)]
        return self.split_logits(torch.cat(logits, dim=1))

    def split_logits(self, flat: Tensor) -> Tensor:
        """Returns the logits of all places, one after the other, as [B, *S, K], -inf where there are none."""
        padded = []
        for logits, size in zip(flat.split(self.sizes, dim=1), self.sizes, strict=True):
            padded.append(F.pad(logits, (0, self.K - size), value=float("-inf")))
        return torch.stack(padded, dim=1).unflatten(1, self.shape)


def make_places(shape: Sequence[int], K: int, sizes: Sequence | None) -> Places:
    """Returns the places of examples [*S] with nested sizes [*S], or with K categories each."""
    if sizes is None:
        return Places(tuple(shape), K, [K] * torch.Size(shape).numel(), has_mask=False)
    flat = torch.tensor(sizes)
    if tuple(flat.shape) != tuple(shape) or K - int(flat.max()) not in (0, 1):
        raise ValueError(
            f"sizes = {sizes}: pass those of examples of shape {list(shape)}, the largest of them K = {K} or "
            f"K - 1"
        )
    return Places(tuple(shape), K, flat.flatten().tolist(), int(flat.max()) < K)
