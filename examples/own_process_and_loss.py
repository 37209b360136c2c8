"""Trains with its own process and loss: a grey level counts dots of ink, and noise takes dots away."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.stats import binom
from jax.tree_util import Partial, register_dataclass
from sklearn.datasets import load_digits

import d3pm_jax as d3pm


@register_dataclass
@dataclass(frozen=True)
class Thinning(d3pm.processes.Process):
    """x_t ~ Binomial(x_0, keep_t): each dot is still there with probability keep_t, from 1 down to 0."""

    keep: jax.Array  # [T + 1]
    K = 17
    T = 50

    def log_q_probs(self, x0, t):
        return self._log_p(jnp.arange(self.K), x0[..., None], self.keep[t], x0.ndim)

    def log_q_back(self, xt, t):
        return self._log_p(xt[..., None], jnp.arange(self.K), self.keep[t] / self.keep[t - (t > 0)], xt.ndim)

    def log_push(self, log_p, t):
        after, before = np.ogrid[: self.K, : self.K]
        return d3pm.log_sum(log_p[..., None, :] + self._log_p(after, before, self.keep[t], log_p.ndim))

    def log_prior(self):
        return jnp.log(jax.nn.one_hot(0, self.K))

    def _log_p(self, after, before, p, ndim):
        # p has the axes of t, which are the first ones of x. After those of x comes one more, of K.
        return binom.logpmf(after, before, p.reshape(p.shape + (1,) * (ndim + 1 - p.ndim)))


def denoise(params, xt, t):
    h = jax.nn.gelu(params["in"][jnp.arange(64), xt].sum(1) + params["time"][t])
    return d3pm.residual(jnp.einsum("bw,wdk->bdk", h, params["out"]), xt)


def loss(params, process, x0, key):
    """Returns the bound, and a little of the number of dots by which the prediction is off."""
    key_t, key_u = jax.random.split(key)
    t = d3pm.low_discrepancy(jax.random.uniform(key_t), len(x0), process.T)
    xt = d3pm.q_sample(process, x0, t, jax.random.uniform(key_u, x0.shape))
    log_p0 = d3pm.log_p_x0(process, denoise(params, xt, t))
    distance = jnp.abs(jnp.arange(process.K) - x0[..., None])  # [B, 64, K]
    dots_off = jnp.sum(jnp.exp(log_p0) * distance, axis=-1)
    return jnp.mean(d3pm.posterior_kl(process, log_p0, x0, xt, t) + 1e-3 * dots_off)


@jax.jit(static_argnames="optimizer")
def train_step(optimizer, params, opt_state, process, x0, key):
    value, grads = jax.value_and_grad(loss)(params, process, x0, key)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, value


def main(steps=1000, batch=64, width=256, held_out=297):
    digits = load_digits().data.astype(np.int32)
    rng = np.random.default_rng(0)
    process = Thinning(jnp.linspace(1, 0, Thinning.T + 1))
    optimizer = optax.adam(2e-3)
    key_in, key_train, key_bound = jax.random.split(jax.random.key(0), 3)
    params = {"in": jax.random.normal(key_in, (64, 17, width)) / 8, "time": jnp.zeros((51, width))}
    params["out"] = jnp.zeros((width, 64, 17))
    opt_state = optimizer.init(params)
    for i in range(steps):
        x0 = digits[rng.integers(0, 1500, batch)]
        key = jax.random.fold_in(key_train, i)
        params, opt_state, value = train_step(optimizer, params, opt_state, process, x0, key)
        if i % 250 == 0:
            print(f"step {i:5d}  loss {value:.4f}")
    predict = Partial(denoise, params)
    test = digits[1500 : 1500 + held_out]
    nats = jax.jit(d3pm.estimate_bound)(key_bound, predict, process, test, np.arange(held_out)).total()
    print(f"test bits/dim: {d3pm.bits_per_dim(nats.mean(), 64):.3f}")


if __name__ == "__main__":
    main()
