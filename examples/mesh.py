"""Trains on 8 x 8 digits on all devices: batches are split over a mesh, parameters are on each device.

`JAX_NUM_CPU_DEVICES=2 python examples/mesh.py` makes two devices of a CPU. The functions are those of one
device: only where arrays lie differs. Numbers are the same on any mesh, to rounding.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
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
    weights = {"in": normal(key_in, (64 * K, width)), "hidden": normal(key_hidden, (width, width))}
    return weights | {"time": jnp.zeros((T + 1, width)), "out": jnp.zeros((width, 64 * K))}


def denoise(params, xt, t):
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


@jax.jit(static_argnames="optimizer", donate_argnames=("params", "opt_state"))
def train_step(optimizer, params, opt_state, process, x0, key):
    # XLA adds the gradients of all devices, since the loss is a mean over the whole batch.
    value, grads = jax.value_and_grad(loss)(params, process, x0, key)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, value


def main(steps=1000, batch=64, width=256, held_out=296, seed=0):
    """`batch` and `held_out` have to be divisible by the number of devices."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    on_each = NamedSharding(mesh, PartitionSpec())
    split = NamedSharding(mesh, PartitionSpec("data"))
    digits = load_digits().images.astype(np.int32)
    train = digits[:1500]
    test = digits[1500 : 1500 + held_out]
    key_init, key_train, key_bound, key_sample = jax.random.split(jax.random.key(seed), 4)
    process = jax.device_put(d3pm.gaussian(d3pm.linear(T, 1e-3, 0.2), K), on_each)
    params = init(key_init, width)
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))
    params, opt_state = jax.device_put((params, optimizer.init(params)), on_each)
    rng = np.random.default_rng(seed)
    for i in range(steps):
        x0 = jax.device_put(train[rng.integers(0, len(train), batch)], split)
        key = jax.random.fold_in(key_train, i)
        params, opt_state, value = train_step(optimizer, params, opt_state, process, x0, key)
        if i % 250 == 0:
            print(f"step {i:5d}  loss {value:.4f}  on {mesh.size} devices")
    x0, index = jax.device_put((test, np.arange(held_out)), split)
    # A pytree: the parameters are arguments of what is compiled, and not constants in it.
    predict = Partial(denoise, params)
    nats = jax.jit(d3pm.estimate_bound)(key_bound, predict, process, x0, index).total()
    mean, error = d3pm.mean_and_se(d3pm.bits_per_dim(nats, 64))
    print(f"test bits/dim: {mean:.3f} +- {error:.3f}")

    def draw_samples(key, predict, process):
        return d3pm.sample(key, d3pm.Denoiser(process, predict), (8 * mesh.size, 8, 8)).x0

    draw = jax.jit(draw_samples, out_shardings=split)
    samples = draw(key_sample, predict, process)
    print(f"mean level of {len(samples)} samples: {samples.mean():.2f}, of digits: {test.mean():.2f}")


if __name__ == "__main__":
    main()
