"""Holds the forward process as its dense one-step matrices, made in float64 and rounded once."""

import dataclasses
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from torch_ref import numerics
from torch_ref.checks import declared
from torch_ref.numerics import inverse_cdf

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
    inner: "Process | None" = None  # what the last category is a mask on top of

    @property
    def K(self) -> int:
        return len(self.pi)

    @property
    def T(self) -> int:
        return len(self.Q_step) - 1

    @property
    def num_masks(self) -> int:
        """Returns how many masks lie on top of each other, the last categories."""
        return 0 if self.inner is None else 1 + self.inner.num_masks

    @property
    def alpha_bar(self) -> Tensor:
        """Returns [T + 1] where rows of Qbar[t] are equal but for alpha_bar[t] more on the diagonal."""
        Qbar = torch.stack(list(accumulate(self.Q64, torch.matmul)))
        # A mask on top is left out.
        n = self.K
        if self.inner is not None:
            n -= 1
        unmasked = Qbar[:, :n, :n]
        diagonal = torch.eye(n, dtype=torch.bool)

        # Off the diagonal each column has one value: column 0 is represented by row 1, every other by row 0.
        off_diagonal = Qbar[:, [1] + [0] * (n - 1), range(n)][:, None]  # [T + 1, 1, n]
        if not torch.allclose(unmasked, torch.where(diagonal, unmasked, off_diagonal), rtol=1e-9, atol=0.0):
            raise AttributeError("this process has no alpha_bar: the rows of Qbar differ off the diagonal")
        return (Qbar[:, 0, 0] - Qbar[:, 1, 0]).to(self.pi.dtype)

    @declared(t="*B steps_or_0")
    def Q(self, t: Tensor) -> Tensor:
        """q(x_t | x_{t-1}), [.., K, K]."""
        return self.Q_step[t]

    @declared(t="*B steps_or_0")
    def Qbar(self, t: Tensor) -> Tensor:
        """q(x_t | x_0), [.., K, K]."""
        return self.Q_cum[t]

    @declared(x0="*S categories", t="... steps_or_0")
    def log_q_probs(self, x0: Tensor, t: Tensor) -> Tensor:
        """log q(x_t = . | x_0), a row of Qbar[t]."""
        return self.Q_cum[expand_trailing(t, x0.shape), x0].log()

    @declared(xt="*S categories", t="... steps_or_0")
    def log_q_back(self, xt: Tensor, t: Tensor) -> Tensor:
        """log q(x_t = xt | x_{t-1} = .), a column of Q[t]."""
        return self.Q_step.mT[expand_trailing(t, xt.shape), xt].log()

    @declared(xt="*S categories", t="... steps_or_0")
    def log_q_x0(self, xt: Tensor, t: Tensor) -> Tensor:
        """log q(x_t = xt | x_0 = .), a column of Qbar[t]."""
        return self.Q_cum.mT[expand_trailing(t, xt.shape), xt].log()

    @declared(log_p="*S K floats", t="... steps_or_0")
    def log_push(self, log_p: Tensor, t: Tensor) -> Tensor:
        """log sum_i p_i Qbar[t, i, :]."""
        terms = log_p[..., :, None] + self.Qbar(expand_trailing(t, log_p.shape[:-1])).log()
        return numerics.log_sum(terms.mT)

    def log_prior(self) -> Tensor:
        """log p(x_T), [K]."""
        return self.pi.log()

    @declared(x0="*S categories", t="... steps_or_0", u="*S noise", u_low="*S noise")
    def draw_q(self, x0: Tensor, t: Tensor, u: Tensor, u_low: Tensor | None = None) -> Tensor:
        """Inverts the cumulative row of Qbar at u.

        Where Q = alpha I + (1 - alpha) 1 pi^T, x_0 comes last in that row, but before masks on top: it is
        what is left when the others had their turn.
        """
        return self._draw(self._rows(self.Q_cum, x0, t), x0, u, u_low)

    @declared(x="*S categories", t="... steps_or_0", u="*S noise", u_low="*S noise")
    def draw_step(self, x: Tensor, t: Tensor, u: Tensor, u_low: Tensor | None = None) -> Tensor:
        """Inverts the cumulative row of Q at u, with the order of `draw_q`."""
        return self._draw(self._rows(self.Q_step, x, t), x, u, u_low)

    def _rows(self, table: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The row of x in the matrix of t, [*S, K]."""
        return table[expand_trailing(t, x.shape), x]

    def _draw(self, rows: Tensor, x0: Tensor, u: Tensor, u_low: Tensor | None) -> Tensor:
        if not self.own_last:
            return inverse_cdf.categorical(rows.log(), u, u_low)
        p = rows.double()  # [*S, K]
        others = ~torch.nn.functional.one_hot(x0, self.K).bool()
        masks = range(self.K - self.num_masks, self.K)
        others[..., masks.start :] = False
        noise = inverse_cdf.noise_from_words(u, u_low)
        hit = (noise[..., None] < torch.where(others, p, 0.0).cumsum(dim=-1)) & others
        unmoved = x0
        for mask in masks:
            unmoved = torch.where(noise < 1 - p[..., mask:].sum(dim=-1), unmoved, mask)
        return torch.where(hit.any(dim=-1), hit.int().argmax(dim=-1), unmoved)

    @declared(u="*S noise", u_low="*S noise")
    def draw_prior(self, u: Tensor, u_low: Tensor | None = None) -> Tensor:
        """Inverts the cumulative prior at u."""
        return inverse_cdf.categorical(self.log_prior().expand(*u.shape, self.K), u, u_low)


def expand_trailing(t: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Returns t with trailing axes of size 1, so that it broadcasts against an array of this shape."""
    return t.reshape(t.shape + (1,) * (len(shape) - t.ndim))


def from_matrices(Q: Tensor, prior: Numbers | None) -> Process:
    """Multiplies in float64, then rounds all to the default float type. Q is [T, .., K, K]."""
    Q = torch.cat([torch.eye(Q.shape[-1], dtype=torch.float64).expand(Q[:1].shape), Q])
    Qbar = torch.stack(list(accumulate(Q, torch.matmul)))
    if prior is None:
        pi = Qbar[-1].mean(dim=0)
    else:
        pi = as_float64(prior)
    dtype = torch.get_default_dtype()
    return Process(Q.to(dtype), Qbar.to(dtype), pi.to(dtype), torch.arange(len(Q)), Q, pi)


def as_float64(x: Numbers) -> Tensor:
    return torch.as_tensor(x, dtype=torch.float64)
