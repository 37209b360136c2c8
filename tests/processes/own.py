"""A process that is no part of the library: the categories stand on a ring, and each step may move one on."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from d3pm_jax import numerics
from d3pm_jax.processes import Process


@partial(jax.tree_util.register_dataclass, data_fields=("step", "total"), meta_fields=("K", "T"))
@dataclasses.dataclass(frozen=True)
class CyclicShift(Process):
    """x_t = x_{t-1} + n modulo K, where n is 1 with probability beta_t, else 0."""

    step: Any  # [T + 1, K]  log q(x_t - x_{t-1} = n)
    total: Any  # [T + 1, K]  log q(x_t - x_0 = n)
    K: int
    T: int

    def log_q_probs(self, x0, t):
        return self._pick(self.total, self._all(x0) - x0[..., None], t)

    def log_q_back(self, xt, t):
        return self._pick(self.step, xt[..., None] - self._all(xt), t)

    def log_push(self, log_p, t):
        terms = [
            log_p[..., i, None] + self.log_q_probs(jnp.full(log_p.shape[:-1], i), t) for i in range(self.K)
        ]
        return numerics.log_sum(jnp.stack(terms, axis=-1))

    def log_prior(self):
        return jnp.full(self.K, -jnp.log(self.K))

    def _all(self, x):
        return jnp.arange(self.K).reshape((1,) * x.ndim + (self.K,))

    def _pick(self, table, shift, t):
        t = jnp.reshape(t, t.shape + (1,) * (shift.ndim - t.ndim))
        return table[jnp.broadcast_to(t, shift.shape), shift % self.K]


def cyclic_shift(beta: np.ndarray, K: int) -> CyclicShift:
    """beta: [T], each in (0, 1)."""
    step = np.zeros((len(beta) + 1, K))
    step[0, 0] = 1.0
    step[1:, 0] = 1 - beta
    step[1:, 1] = beta
    total = [step[0]]
    for p in step[1:]:
        total.append(p[0] * total[-1] + p[1] * np.roll(total[-1], 1))
    with np.errstate(divide="ignore"):
        return CyclicShift(*(jnp.log(jnp.asarray(x)) for x in (step, np.stack(total))), K=K, T=len(beta))
