"""Moves a mask from the end of a sequence to its beginning: a matrix for each position."""

import dataclasses

import torch
from torch import Tensor

from torch_ref.checks import declared
from torch_ref.processes.base import Process, expand_trailing, from_matrices


@dataclasses.dataclass(frozen=True)
class Autoregressive(Process):
    """Q and Qbar are [T + 1, L, K, K], the second index being that of the last axis of x."""

    @property
    def alpha_bar(self) -> Tensor:
        raise AttributeError("a process with a matrix for each position has no alpha_bar")

    def Q(self, t: Tensor) -> Tensor:
        """[.., L, K, K], for t [.., 1]."""
        return self.Q_step[t, self._positions()]

    def Qbar(self, t: Tensor) -> Tensor:
        """[.., L, K, K], for t [.., 1]."""
        return self.Q_cum[t, self._positions()]

    def log_q_probs(self, x0: Tensor, t: Tensor) -> Tensor:
        return self.Q_cum[expand_trailing(t, x0.shape), self._positions(), x0].log()

    def log_q_back(self, xt: Tensor, t: Tensor) -> Tensor:
        return self.Q_step.mT[expand_trailing(t, xt.shape), self._positions(), xt].log()

    def log_q_x0(self, xt: Tensor, t: Tensor) -> Tensor:
        return self.Q_cum.mT[expand_trailing(t, xt.shape), self._positions(), xt].log()

    def _rows(self, table: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return table[expand_trailing(t, x.shape), self._positions(), x]

    def _positions(self) -> Tensor:
        return torch.arange(self.Q_step.shape[1])


@declared(L="count", K="two_or_more", mask_id="categories")
def autoregressive(L: int, K: int, mask_id: int) -> Process:
    """At step t position L - t goes to the mask, the others stay.

    Arguments as in `d3pm_jax.autoregressive`.
    """
    I = torch.eye(K, dtype=torch.float64)
    Q = I.repeat(L, L, 1, 1)  # [T, L, K, K]
    for t in range(1, L + 1):
        Q[t - 1, L - t] = I[mask_id]
    return Autoregressive(**vars(from_matrices(Q, I[mask_id])))
