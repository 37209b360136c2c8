"""Trains on 8 x 8 digits on one device with Optax: a loop, the bound on held-out digits, samples."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from sklearn.datasets import load_digits

import d3pm_jax as d3pm

# Grey levels, and steps of the process.
K = 17
T = 100


@jax.jit(static_argnames="width")
def init(key, width):
    key_in, key_hidden = jax.random.split(key)
    normal = jax.nn.initializers.he_normal()
    return {
        "in": normal(key_in, (64 * K, width)),
        "time": jnp.zeros((T + 1, width)),
        "hidden": normal(key_hidden, (width, width)),
        "out": jnp.zeros((width, 64 * K)),
    }


def denoise(params, xt, t):
    """The network: x_t [B, 8, 8] and t [B] to logits of x_0 [B, 8, 8, K]."""
    h = jax.nn.one_hot(xt, K).reshape(len(xt), 64 * K) @ params["in"]
    h = jax.nn.gelu(h + params["time"][t])
    h = h + jax.nn.gelu(h @ params["hidden"])
    return d3pm.residual((h @ params["out"]).reshape(*xt.shape, K), xt)


def loss(params, process, x0, key):
    key_t, key_u = jax.random.split(key)
    t = d3pm.low_discrepancy(jax.random.uniform(key_t), len(x0), process.T)
    xt = d3pm.q_sample(process, x0, t, jax.random.uniform(key_u, x0.shape))
    logits = denoise(params, xt, t)
    return d3pm.hybrid(process, logits, x0, xt, t, ce_weight=0.01, belief="leave_one_out").loss.mean()


@jax.jit(static_argnames="optimizer")
def train_step(optimizer, params, opt_state, process, x0, key):
    value, grads = jax.value_and_grad(loss)(params, process, x0, key)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, value


def main(steps=1000, batch=64, width=256, held_out=297, seed=0):
    digits = load_digits().images.astype(np.int32)
    train = digits[:1500]
    test = digits[1500 : 1500 + held_out]
    process = d3pm.gaussian(d3pm.linear(T, 1e-3, 0.2), K)
    key_init, key_train, key_bound, key_sample = jax.random.split(jax.random.key(seed), 4)
    params = init(key_init, width)
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))
    opt_state = optimizer.init(params)
    rng = np.random.default_rng(seed)
    for i in range(steps):
        x0 = train[rng.integers(0, len(train), batch)]
        key = jax.random.fold_in(key_train, i)
        params, opt_state, value = train_step(optimizer, params, opt_state, process, x0, key)
        if i % 250 == 0:
            print(f"step {i:5d}  loss {value:.4f}")
    # A pytree: the parameters are arguments of what is compiled, and not constants in it.
    predict = Partial(denoise, params)
    # The same belief as in the loss.
    bound = jax.jit(d3pm.estimate_bound, static_argnames="belief")
    index = np.arange(len(test))
    nats = bound(key_bound, predict, process, test, index, belief="leave_one_out").total()
    mean, error = d3pm.mean_and_se(d3pm.bits_per_dim(nats, 64))
    print(f"test bits/dim: {mean:.3f} +- {error:.3f}")

    def draw_samples(key, predict, process):
        return d3pm.sample(key, d3pm.Denoiser(process, predict, "leave_one_out"), (6, 8, 8)).x0

    samples = jax.jit(draw_samples)(key_sample, predict, process)
    for row in np.hstack(samples):
        print("".join(" .:-=+*#@"[level // 2] * 2 for level in row))


if __name__ == "__main__":
    main()
