"""Trains a small transformer and samples from it on one layout of devices; the tests compare the layouts."""

import dataclasses

import jax
import numpy as np
import optax

from d3pm_jax import config as configs
from d3pm_jax.data import Description
from d3pm_jax.placing import fetch, place_part
from d3pm_jax.program.machine import cluster, devices
from d3pm_jax.program.measure import samples
from d3pm_jax.program.parts import build
from d3pm_jax.program.parts.completed import complete
from d3pm_jax.training.step import make_loss_step

K = 12
L = 16
B = 16
STEPS = 10


def get_config(fsdp):
    return configs.Config(
        data=configs.Arrays("train.npy", "test.npy", K, "array"),
        process=configs.Uniform(K, 20, configs.Cosine()),
        model=configs.Transformer(width=32, num_layers=2, num_heads=2, dropout=0.1),
        loss=configs.HybridLoss(ce_weight=0.1),
        optimizer=configs.Adam(lr=1e-4),
        train=configs.Train(STEPS, batch_size=B, ema_decay=0.9),
        mesh=configs.Mesh(fsdp=fsdp),
    )


def randomised(parts, dtype):
    """The first state with no zeros among its parameters, which those of a transformer have, in a type."""

    def cast(leaf):
        if leaf.dtype == np.float32:
            return leaf.astype(dtype)
        return leaf

    def state():
        first = parts.init()
        leaves, tree = jax.tree.flatten(first.params)
        keys = jax.random.split(jax.random.key(1), len(leaves))
        drawn = [0.2 * jax.random.normal(k, x.shape, np.float32) for k, x in zip(keys, leaves, strict=True)]
        params = jax.tree.unflatten(tree, drawn)
        first = dataclasses.replace(first, params=params, ema=params)
        return jax.tree.map(cast, first)

    return jax.jit(state, out_shardings=build.state_shardings(parts))()


def measured(fsdp, dtype):
    """Samples of the first weights; loss, gradient norm and parameters after one step and after all."""
    config = get_config(fsdp)
    parts = build.build(complete(config, Description((L,), K, None, "array")))
    state = randomised(parts, dtype)
    sharding = devices.batch_sharding(parts.mesh)
    drawn = samples.draw_samples(parts.with_state(state), jax.random.key(2), 256).x0
    results = {"samples": drawn}
    is_cut = [x.sharding.shard_shape(x.shape) != x.shape for x in jax.tree.leaves(state.params)]
    assert any(is_cut) == (fsdp > 1)
    arguments = build.step_arguments(parts)
    steps = STEPS
    if dtype == "float32":
        # Of a gradient that is 0 but for rounding Adam makes an update of any size up to lr: compared is a
        # step of gradient descent.
        arguments = arguments | {"optimizer": optax.sgd(0.1)}
        steps = 1
        state = dataclasses.replace(state, opt_state=arguments["optimizer"].init(state.params))
        arguments["layout"] = jax.tree.map(lambda x: x.sharding, state)
    step = make_loss_step(**arguments, sharding=sharding)
    rng = np.random.default_rng(0)
    size = B // jax.process_count()
    begin = jax.process_index() * size
    for i in range(1, steps + 1):
        x = rng.integers(0, K, (B, L)).astype(np.int32)[begin : begin + size]
        state, row = step(state, parts.recipe.process, place_part({"x": x}, sharding), parts.key)
        if i in (1, steps):
            leaves = jax.tree.leaves((fetch(state.params), fetch(state.ema)))
            results[f"state {i}"] = np.concatenate([x.ravel() for x in leaves])
            results[f"metrics {i}"] = np.array([row[name] for name in ("loss", "kl", "ce", "grad_norm")])
    return results


def main(path, fsdp, dtypes, *place):
    """Writes the results of a layout to a file; its processes have as many devices as JAX is told."""
    devices.WORTH_CUTTING = 1
    cluster.join_processes(cluster.Address(*place or (None,)), path.parent, 30, saves=False)
    results = {}
    for dtype in dtypes:
        with jax.enable_x64(dtype == "float64"):
            results |= {f"{name}, {dtype}": x for name, x in measured(fsdp, dtype).items()}
    if cluster.is_first():
        np.savez(path, **results)
