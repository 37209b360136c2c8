"""Optimizers against those that they are made of and against their definitions; each trains a network."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from d3pm_jax import config as configs
from d3pm_jax.config import Adafactor, Adam, AdamW, CosineRate, Lion, Muon
from d3pm_jax.data import Description
from d3pm_jax.program.parts import build, network as network_parts
from d3pm_jax.program.parts.completed import complete
from d3pm_jax.training.step import make_loss_step
from tests import tiny

FREE = 1e30  # a norm that clips nothing
RNG = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape))


def updates(optimizer, params, steps=3):
    """What the first steps change, from the same gradients each time."""
    rule = optimizer.build()
    rng = np.random.default_rng(1)
    actual = []

    @jax.jit
    def update(grads, state, params):
        actual, state = rule.update(grads, state, params)
        return actual, state, optax.apply_updates(params, actual)

    state = rule.init(params)
    for _ in range(steps):
        grads = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), params)
        change, state, params = update(grads, state, params)
        actual.append(change)
    return actual


def test_adam_is_adamw_with_its_rate():
    params = {"kernel": normal(4, 3), "bias": normal(3)}
    shared = {"lr": 0.1, "b1": 0.8, "warmup_steps": 2, "clip": 0.5, "weight_decay": 0.3}
    for decay_steps, rate in ((None, configs.ConstantRate()), (9, CosineRate(9))):
        adam = Adam(decay_steps=decay_steps, **shared)
        adamw = AdamW(rate=rate, **shared)
        jax.tree.map(np.testing.assert_array_equal, updates(adam, params), updates(adamw, params))
        assert jax.tree.structure(adam.build().init(params)) == jax.tree.structure(adamw.build().init(params))


def test_clipping_comes_before_every_rule():
    params = {"kernel": normal(4, 3), "bias": normal(3)}
    for cls in (AdamW, Adafactor, Lion, Muon):

        class Shown(cls):
            def rule(self, learning_rate):
                return optax.scale_by_learning_rate(learning_rate)

        (change,) = updates(Shown(lr=2.0, clip=1e-3), params, steps=1)
        np.testing.assert_allclose(optax.tree.norm(change), 2e-3, rtol=1e-5)


@pytest.mark.usefixtures("x64")
def test_lion_follows_its_formula_and_decays_kernels_alone():
    w = {"kernel": normal(4, 3), "bias": normal(3)}
    optimizer = Lion(lr=0.1, b1=0.8, b2=0.95, weight_decay=0.3, clip=FREE, warmup_steps=2)
    rng = np.random.default_rng(1)
    m = jax.tree.map(np.zeros_like, w)
    for i, actual in enumerate(updates(optimizer, w)):
        lr = 0.1 * min(1.0, (i + 1) / 2)
        for name in sorted(w):
            g = rng.normal(size=w[name].shape)
            decay = 0.3 * w[name] if name == "kernel" else 0.0
            expected = -lr * (np.sign(0.8 * m[name] + 0.2 * g) + decay)
            np.testing.assert_allclose(actual[name], expected, rtol=1e-12)
            m[name] = 0.95 * m[name] + 0.05 * g
            w[name] = w[name] + expected


def orthogonal(x, steps=5):
    """Steps of Newton and Schulz towards u v^T, x being u s v^T."""
    x = x / np.linalg.norm(x)
    for _ in range(steps):
        square = x @ x.T
        x = 3.4445 * x + (-4.775 * square + 2.0315 * square @ square) @ x
    return x


@pytest.mark.usefixtures("x64")
def test_muon_takes_each_matrix_of_a_stacked_kernel_and_of_a_convolution_by_itself():
    params = {
        "layers": {"qkv": {"kernel": normal(3, 6, 16), "bias": normal(3, 16)}},
        "conv1": {"kernel": normal(2, 2, 4, 5)},
        "head": {"kernel": normal(7, 4)},
        "temb": {"kernel": normal(7, 4)},
    }
    optimizer = Muon(lr=0.1, beta=0.9, rms=0.3, weight_decay=0.2, clip=FREE)
    actual = jax.tree.leaves_with_path(updates(optimizer, params, 1)[0])
    rng = np.random.default_rng(1)
    values = jax.tree.leaves(params)
    for (path, change), w in zip(actual, values, strict=True):
        g = rng.normal(size=w.shape)  # the moment of the first step with its look-ahead is (0.9 g + g) c
        if path[-1].key == "bias" or path[0].key == "head":  # Adam, with the same look-ahead, does not decay
            np.testing.assert_allclose(change, -0.1 * (1 + 0.9 / 1.9) * np.sign(g), rtol=1e-4)
            continue
        matrices = zip(*(np.asarray(x).reshape(-1, *w.shape[-2:]) for x in (change, g, w)), strict=True)
        for moved, gradient, weight in matrices:
            spread = 0.3 * np.sqrt(max(w.shape[-2:]))
            step = (-moved / 0.1 - 0.2 * weight) / spread
            np.testing.assert_allclose(step, orthogonal(gradient), rtol=1e-6, atol=1e-7)
            s = np.linalg.svd(step, compute_uv=False)
            assert ((s > 0.3) & (s < 1.3)).all()
            assert np.linalg.svd(gradient / np.linalg.norm(gradient), compute_uv=False)[0] < 0.9


def test_muon_leaves_embeddings_first_and_last_layers_and_vectors_to_adam():
    network = configs.Transformer(width=8, num_layers=2, num_heads=1, classes=10)
    build = functools.partial(network.build, configs.Spec((6,), 5, None, 10, 50))
    params = nnx.split(nnx.eval_shape(build, nnx.Rngs(0)))[1]
    state = jax.eval_shape(Muon().build().init, params)[1].inner_states["muon"].inner_state[0].mu
    names = [jax.tree_util.keystr(path[:-2]) for path, _ in jax.tree.leaves_with_path(state)]
    block = [f"['layers']['{name}']" for name in ("mlp1", "mlp2", "proj_out", "qkv")]
    modulation = ["['layers']['modulation']['linear']", "['modulation']['linear']"]
    assert sorted(names) == sorted([*block, *modulation, "['temb1']", "['temb2']"])


@pytest.mark.usefixtures("x64")
def test_adafactor_keeps_rows_and_columns_of_each_layer():
    w = {"kernel": normal(2, 128, 130)}
    state = Adafactor().build().init(w)
    shapes = {x.shape for x in jax.tree.leaves(state) if x.size > 2}
    assert shapes == {(2, 128), (2, 130)}
    (actual,) = updates(Adafactor(lr=0.1, clip=FREE), w, 1)
    square = np.random.default_rng(1).normal(size=(2, 128, 130)) ** 2
    g = np.random.default_rng(1).normal(size=(2, 128, 130))
    rows = square.mean(2, keepdims=True)
    columns = square.mean(1, keepdims=True)
    change = g / np.sqrt(rows * columns / rows.mean(1, keepdims=True))
    change /= max(1.0, np.sqrt((change**2).mean()))
    scale = np.sqrt((np.asarray(w["kernel"]) ** 2).mean())
    np.testing.assert_allclose(actual["kernel"], -0.1 * scale * change, rtol=1e-6)


RULES = [
    AdamW(lr=0.1, warmup_steps=3, weight_decay=0.01, rate=configs.WSDRate(60, 20)),
    Adafactor(lr=0.3, rate=configs.InverseSqrtRate(40), momentum=0.5),
    Lion(lr=0.05, rate=configs.CosineRate(90)),
    Muon(lr=3e-3),
]
UNET = configs.UNet(ch=8, ch_mult=(1,), num_res_blocks=0, attn_resolutions=(), groups=4)
TRANSFORMER = configs.Transformer(width=16, num_layers=2, num_heads=2)
NETWORKS = {
    "table": (UNET, (4, 4, 1), "image"),  # which a table takes the place of
    "unet": (UNET, (4, 4, 1), "image"),
    "transformer": (TRANSFORMER, (16,), "array"),
}


def made(optimizer, model, shape, kind):
    config = dataclasses.replace(tiny.get_config(), optimizer=optimizer, model=model)
    parts = build.build(complete(config, Description(shape, 17, None, kind)), mesh=tiny.one_device_mesh())
    return parts, make_loss_step(**build.step_arguments(parts))


# Muon alone asks where a kernel stands, stacked or in a convolution, and so trains networks of both.
TRAINED = [*((rule, "table") for rule in RULES[:-1]), (RULES[-1], "transformer"), (RULES[-1], "unet")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "network"), TRAINED, ids=lambda x: x if isinstance(x, str) else type(x).__name__
)
def test_every_optimizer_trains_and_every_kind_of_network_is_trained(optimizer, network, monkeypatch):
    """On a few examples, which it learns: its state is what was planned, and the loss falls."""
    if network == "table":
        monkeypatch.setattr(network_parts, "split_network", tiny.split)
    model, shape, kind = NETWORKS[network]
    parts, step = made(optimizer, model, shape, kind)
    x0 = jnp.asarray(RNG.integers(3, 6, (16, *shape)), jnp.int32)
    state = build.initialize_state(parts).state
    losses = []
    planned = jax.tree.map(lambda x: (x.shape, x.dtype), parts.state)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == planned
    for _ in range(60):
        state, metrics = step(state, parts.recipe.process, {"x": x0}, parts.key)
        losses.append(float(metrics["loss"]))
    first = np.mean(losses[:10])
    last = np.mean(losses[-10:])
    print(f"{type(optimizer).__name__}: {first:.3f} -> {last:.3f}")
    assert last < 0.7 * first
