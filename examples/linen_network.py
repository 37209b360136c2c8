"""Trains a Flax Linen network on text: absorbing noise, letters of a Markov chain whose entropy is known."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

import d3pm_jax as d3pm

LETTERS = "abcd"
T = 50
LENGTH = 24
# The mask is one more symbol, behind the letters.
MASK = len(LETTERS)
K = len(LETTERS) + 1


class Network(nn.Module):
    """x_t [B, L] and t [B] to logits of x_0 [B, L, K]; each letter sees 14 to the left and to the right."""

    width: int

    @nn.compact
    def __call__(self, xt, t):
        h = nn.Embed(K, self.width)(xt) + nn.Embed(T + 1, self.width)(t)[:, None]
        for dilation in (1, 2, 4):
            h += nn.gelu(nn.Conv(self.width, (5,), kernel_dilation=dilation)(nn.LayerNorm()(h)))
        return d3pm.forbid(nn.Dense(K)(nn.LayerNorm()(h)), MASK)


def markov_text(rng, n):
    """n texts [n, L] of a chain that is the same for every rng, and its entropy in bits per letter."""
    P = np.random.default_rng(1).dirichlet([0.3] * MASK, MASK)
    pi = np.linalg.matrix_power(P, 1000)[0]
    x = np.zeros((n, LENGTH), np.int32)
    for i in range(LENGTH):
        # Of each letter, given the one before it: [n, letters].
        p = np.tile(pi, (n, 1)) if i == 0 else P[x[:, i - 1]]
        x[:, i] = (rng.random((n, 1)) > p.cumsum(1)[:, :-1]).sum(1)
    # The first letter is drawn from pi, and each of the others given the one before it.
    entropy_first = -pi @ np.log2(pi)
    entropy_later = -pi @ (P * np.log2(P)).sum(1)
    return x, (entropy_first + (LENGTH - 1) * entropy_later) / LENGTH


def loss(params, network, process, x0, key):
    key_t, key_u = jax.random.split(key)
    t = d3pm.low_discrepancy(jax.random.uniform(key_t), len(x0), process.T)
    xt = d3pm.q_sample(process, x0, t, jax.random.uniform(key_u, x0.shape))
    logits = network.apply(params, xt, t)
    return d3pm.hybrid(process, logits, x0, xt, t, ce_weight=0.01, belief="leave_one_out").loss.mean()


@jax.jit(static_argnames=("network", "optimizer"))
def train_step(network, optimizer, params, opt_state, process, x0, key):
    value, grads = jax.value_and_grad(loss)(params, network, process, x0, key)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, value


def main(steps=1000, batch=64, width=64, held_out=500, seed=0):
    rng = np.random.default_rng(seed)
    test, entropy = markov_text(rng, held_out)
    process = d3pm.absorbing(d3pm.reciprocal(T), K, MASK)
    network = Network(width)
    key_init, key_train, key_bound, key_sample = jax.random.split(jax.random.key(seed), 4)
    params = jax.jit(network.init)(key_init, test[:1], jnp.ones(1, jnp.int32))
    optimizer = optax.adam(optax.cosine_decay_schedule(5e-3, steps))
    opt_state = optimizer.init(params)
    for i in range(steps):
        x0 = markov_text(rng, batch)[0]
        key = jax.random.fold_in(key_train, i)
        params, opt_state, value = train_step(network, optimizer, params, opt_state, process, x0, key)
        if i % 250 == 0:
            print(f"step {i:5d}  loss {value:.4f}")
    # A pytree: the parameters are arguments of what is compiled, and not constants in it.
    predict = Partial(network.apply, params)
    nats = jax.jit(d3pm.estimate_bound)(key_bound, predict, process, test, np.arange(len(test))).total()
    mean, error = d3pm.mean_and_se(d3pm.bits_per_dim(nats, LENGTH))
    print(f"test bits/dim: {mean:.3f} +- {error:.3f}, entropy {entropy:.3f}")

    def draw_samples(key, predict, process):
        return d3pm.sample(key, d3pm.Denoiser(process, predict), (8, LENGTH)).x0

    samples = jax.jit(draw_samples)(key_sample, predict, process)
    print(*("".join(LETTERS[i] for i in line) for line in samples), sep="\n")


if __name__ == "__main__":
    main()
