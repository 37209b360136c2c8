"""The forward process as its dense one-step matrices, made in float64 and rounded once."""

import dataclasses
from collections.abc import Iterable, Sequence
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from torch_ref import drawing, numerics

Numbers = Tensor | np.ndarray


@dataclasses.dataclass(frozen=True)
class Process:
    """Q[t, i, j] = q(x_t = j | x_{t-1} = i) and Qbar[t] = Q[1] ... Q[t]; row 0 is the identity.

    The shape of t is a prefix of the shape of x.
    """

    Q_step: Tensor  # [T + 1, K, K]  Q
    Q_cum: Tensor  # [T + 1, K, K]  Qbar
    pi: Tensor  # [K]  what the reverse chain starts from
    time: Tensor  # [T + 1]  the step of the original process
    Q64: Tensor  # [T + 1, K, K]  Q in float64
    pi64: Tensor  # [K]
    own_last: bool = False  # how draw_q orders the categories
    masked: bool = False  # whether the last category is a mask on top

    @property
    def K(self) -> int:
        return len(self.pi)

    @property
    def T(self) -> int:
        return len(self.Q_step) - 1

    def Q(self, t: Tensor) -> Tensor:
        """q(x_t | x_{t-1}), [.., K, K]."""
        return self.Q_step[t]

    def Qbar(self, t: Tensor) -> Tensor:
        """q(x_t | x_0), [.., K, K]."""
        return self.Q_cum[t]

    def log_q_probs(self, x0: Tensor, t: Tensor) -> Tensor:
        """log q(x_t = . | x_0), a row of Qbar[t]."""
        return self.Q_cum[spread(t, x0.ndim), x0].log()

    def log_q_back(self, xt: Tensor, t: Tensor) -> Tensor:
        """log q(x_t = xt | x_{t-1} = .), a column of Q[t]."""
        return self.Q_step.mT[spread(t, xt.ndim), xt].log()

    def log_push(self, log_p: Tensor, t: Tensor) -> Tensor:
        """log sum_i p_i Qbar[t, i, :]."""
        terms = log_p[..., :, None] + self.Qbar(spread(t, log_p.ndim - 1)).log()
        return numerics.log_sum(terms.mT)

    def log_prior(self) -> Tensor:
        """log p(x_T), [K]."""
        return self.pi.log()

    def draw_q(self, x0: Tensor, t: Tensor, u: Tensor, u_low: Tensor | None = None) -> Tensor:
        """The inverse of the cumulative row of Qbar at u.

        Where Q = alpha I + (1 - alpha) 1 pi^T, x_0 comes last in that row, but before a mask on top: it is
        what is left when the others had their turn.
        """
        if not self.own_last:
            return drawing.categorical(self.log_q_probs(x0, t), u, u_low)
        p = self.Q_cum[spread(t, x0.ndim), x0].double()
        others = ~torch.nn.functional.one_hot(x0, self.K).bool()
        if self.masked:
            others[..., -1] = False
        noise = drawing.value(u, u_low)
        hit = (noise[..., None] < torch.where(others, p, 0.0).cumsum(dim=-1)) & others
        rest = torch.where(noise < 1 - p[..., -1], x0, self.K - 1) if self.masked else x0
        return torch.where(hit.any(dim=-1), hit.int().argmax(dim=-1), rest)

    def draw_prior(self, u: Tensor, u_low: Tensor | None = None) -> Tensor:
        """The inverse of the cumulative prior at u."""
        return drawing.categorical(self.log_prior().expand(*u.shape, self.K), u, u_low)

    def marginal_kl(self, logits_x0: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        """KL(q(x_t | x_0) || sum_{x_0} p(x_0) q(x_t | x_0))."""
        logits_x0 = logits_x0.to(torch.promote_types(logits_x0.dtype, self.pi.dtype))
        return numerics.kl(self.log_q_probs(x0, t), self.log_push(numerics.log_normalize(logits_x0), t))


def masked(inner: Process, gamma: Numbers) -> Process:
    """Q = (1 - gamma) Q_inner, and gamma to one more category, the mask, which keeps itself."""
    gamma = _float64(gamma)
    Q = torch.zeros(inner.T, inner.K + 1, inner.K + 1, dtype=torch.float64)
    Q[:, :-1, :-1] = (1 - gamma)[:, None, None] * inner.Q64[1:]
    Q[:, :-1, -1] = gamma[:, None]
    Q[:, -1, -1] = 1
    hidden = 1 - torch.prod(1 - gamma)
    prior = torch.cat([(1 - hidden) * inner.pi64, hidden[None]])
    return dataclasses.replace(_process(Q, prior), own_last=inner.own_last, masked=True)


def respace(tr: Process, grid: Sequence[int]) -> Process:
    """Only the steps of the grid: one-step matrices are the products of those between."""
    Q = [
        torch.linalg.multi_dot([torch.eye(tr.K, dtype=torch.float64), *tr.Q64[a + 1 : b + 1]])
        for a, b in zip([0, *grid], grid, strict=False)
    ]
    process = _process(torch.stack(Q), tr.pi64)
    return dataclasses.replace(
        process, time=tr.time[torch.tensor([0, *grid])], own_last=tr.own_last, masked=tr.masked
    )


def spread(t: Tensor, ndim: int) -> Tensor:
    """t with trailing axes of size 1 up to ndim axes."""
    return t.reshape(t.shape + (1,) * (ndim - t.ndim))


def dense(Q: Iterable[Numbers], prior: Numbers | None = None) -> Process:
    """Any one-step matrices Q[1], .., Q[T]; the prior is by default the mean row of Qbar[T].

    Entries below `numerics.smallest_entry` become 0.
    """
    process = _process(torch.stack([_float64(q) for q in Q]), prior)
    floor = numerics.smallest_entry(process.pi.dtype)
    Q_step, Q_cum = (torch.where(x < floor, 0.0, x) for x in (process.Q_step, process.Q_cum))
    return dataclasses.replace(process, Q_step=Q_step, Q_cum=Q_cum)


def gaussian(beta: Numbers, K: int, bands: int | None = None) -> Process:
    """w_{i-j} / sum_{n=-bands}^{bands} w_n, w_n = exp(-4 n^2 / ((K-1)^2 beta)), for 0 < |i-j| <= bands."""
    bands = K - 1 if bands is None else bands
    n = torch.arange(-bands, bands + 1, dtype=torch.float64)
    w = torch.exp(-4 * n**2 / ((K - 1) ** 2 * _float64(beta)[:, None]))
    return _near(w[:, bands:] / w.sum(-1, keepdim=True), K)


def banded(beta: Numbers, K: int, bands: int) -> Process:
    """beta / K for 0 < |i-j| <= bands."""
    return _near((_float64(beta) / K)[:, None].expand(-1, bands + 1), K)


def _near(p: Tensor, K: int) -> Process:
    """Off the diagonal Q[t, i, j] = p[t, |i-j|], p being [T, bands + 1], and rows that sum to 1."""
    Q = torch.zeros(len(p), K, K, dtype=torch.float64)
    for i in range(K):
        for j in range(K):
            if 0 < abs(i - j) < p.shape[1]:
                Q[:, i, j] = p[:, abs(i - j)]
    return dense(Q + torch.diag_embed(1 - Q.sum(-1)), prior=torch.full((K,), 1 / K, dtype=torch.float64))


def knn_graph(embeddings: Numbers, k: int) -> Tensor:
    """G + G^T + 2 I, rows and columns divided by their sums in turn; G as in `_nearest`."""
    G = _nearest(embeddings, k)
    W = G + G.T + 2 * torch.eye(len(G), dtype=torch.float64)
    for _ in range(1000):
        W = W / W.sum(dim=1, keepdim=True)
        W = W / W.sum(dim=0, keepdim=True)
    return W


def knn_rate(embeddings: Numbers, k: int) -> Tensor:
    """A - diag(A 1) with A = (G + G^T) / (2 k)."""
    G = _nearest(embeddings, k)
    A = (G + G.T) / (2 * k)
    return A - torch.diag(A.sum(dim=1))


def _nearest(embeddings: Numbers, k: int) -> Tensor:
    """G[i, j] = 1 where j is one of the k nearest to i; the lower index first among equals."""
    x = _float64(embeddings)
    G = torch.zeros(len(x), len(x), dtype=torch.float64)
    for i in range(len(x)):
        others = [j for j in range(len(x)) if j != i]
        for j in sorted(others, key=lambda j: (((x[i] - x[j]) ** 2).sum().item(), j))[:k]:
            G[i, j] = 1
    return G


def random_walk(beta: Numbers, W: Numbers) -> Process:
    """Q = (1 - beta) I + beta W."""
    beta, W = _float64(beta)[:, None, None], _float64(W)
    return dense((1 - beta) * torch.eye(len(W), dtype=torch.float64) + beta * W)


def from_rate(R: Numbers, durations: Numbers) -> Process:
    """Q = exp(s R)."""
    return dense(torch.linalg.matrix_exp(_float64(durations)[:, None, None] * _float64(R)))


def marginal(beta: Numbers, pi: Numbers) -> Process:
    """Q = (1 - beta) I + beta 1 pi^T."""
    beta, pi = _float64(beta), _float64(pi)
    Q = (1 - beta)[:, None, None] * torch.eye(len(pi), dtype=torch.float64) + beta[:, None, None] * pi
    return dataclasses.replace(_process(Q, pi), own_last=True)


def uniform(beta: Numbers, K: int) -> Process:
    """Q = (1 - beta) I + beta / K."""
    return marginal(beta, torch.full((K,), 1 / K, dtype=torch.float64))


def absorbing(beta: Numbers, K: int, mask_id: int) -> Process:
    """Q = (1 - beta) I + beta 1 e_mask^T."""
    return marginal(beta, torch.eye(K, dtype=torch.float64)[mask_id])


def _process(Q: Tensor, prior: Numbers | None) -> Process:
    """Products in float64, then everything rounded to the default float type. Q is [T, K, K]."""
    Q = torch.cat([torch.eye(Q.shape[-1], dtype=torch.float64)[None], Q])
    Qbar = torch.stack(list(accumulate(Q, torch.matmul)))
    pi = Qbar[-1].mean(dim=0) if prior is None else _float64(prior)
    dtype = torch.get_default_dtype()
    return Process(Q.to(dtype), Qbar.to(dtype), pi.to(dtype), torch.arange(len(Q)), Q, pi)


def _float64(x: Numbers) -> Tensor:
    return torch.as_tensor(x, dtype=torch.float64)
