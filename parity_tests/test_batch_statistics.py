"""A network with batch statistics, as users bring it: 20 steps of training beside PyTorch."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.torch
import torch
from flax import nnx
from torch import Tensor

import d3pm_jax as d3pm
import torch_ref
from d3pm_jax import config as configs
from d3pm_jax.models.variables import split_module
from d3pm_jax.training.diffusion import StepNoise
from d3pm_jax.training.state import init_state
from d3pm_jax.training.step import make_step
from d3pm_jax.weights import twin
from parity_tests.frameworks import precision
from torch_ref import training

K = 5
T = 10
B = 8
LENGTH = 6
WIDTH = 8
STEPS = 20
CE_WEIGHT = 0.1
EMA_DECAY = 0.9
MOMENTUM = 0.9


class InFlax(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.embed = nnx.Embed(K, WIDTH, dtype=float, rngs=rngs)  # Flax's default is float32
        self.linear = nnx.Linear(WIDTH, WIDTH, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(WIDTH, momentum=MOMENTUM, epsilon=1e-5, rngs=rngs)
        self.last = nnx.Linear(WIDTH, K, rngs=rngs)
        self.scale = nnx.Variable(jnp.linspace(0.5, 1.5, WIDTH))

    def __call__(self, xt: jax.Array, t: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        h = nnx.relu(self.norm(self.linear(self.embed(xt))))
        time = t[:, None, None].astype(h.dtype) / T
        return self.last(h * self.scale[None, None] * (1 + time))


class BatchNorm(torch.nn.BatchNorm1d):
    """Keeps the variance that it divides by, as Flax does: that of PyTorch is n / (n - 1) times as large."""

    def forward(self, input: Tensor) -> Tensor:
        assert self.training
        mean = input.mean((0, 1))
        variance = input.var((0, 1), unbiased=False)
        for average, newest in ((self.running_mean, mean), (self.running_var, variance)):
            assert average is not None
            average.lerp_(newest.detach(), 1 - MOMENTUM)
        return (input - mean) / torch.sqrt(variance + self.eps) * self.weight + self.bias


class InTorch(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(K, WIDTH)
        self.linear = torch.nn.Linear(WIDTH, WIDTH, bias=False)
        self.norm = BatchNorm(WIDTH)
        self.last = torch.nn.Linear(WIDTH, K)
        self.register_buffer("scale", torch.linspace(0.5, 1.5, WIDTH))

    def forward(self, xt: Tensor, t: Tensor) -> Tensor:
        h = torch.relu(self.norm(self.linear(self.embed(xt))))
        time = t[:, None, None].to(h.dtype) / T
        return self.last(h * torch.as_tensor(self.scale) * (1 + time))


def test_twenty_steps_in_both() -> None:
    rng = np.random.default_rng(0)
    x0 = rng.integers(0, K, (STEPS, B, LENGTH))
    t = rng.integers(1, T + 1, (STEPS, B))
    u = rng.random((STEPS, B, LENGTH))
    model = InTorch().double()
    weights = {name: x.numpy().copy() for name, x in model.state_dict().items()}

    with precision("float64"):
        module, shapes = split_module(lambda key: InFlax(nnx.Rngs(key)))
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, np.float64), shapes)
        optimizer = configs.Adam(lr=1e-2).build()
        state = init_state(twin.from_torch(shapes, weights), optimizer)
        loss = configs.HybridLoss(ce_weight=CE_WEIGHT)
        step = make_step(
            loss,
            configs.LowDiscrepancy(),
            optimizer,
            lambda variables, *inputs, **options: module.merge(variables)(*inputs, **options),
            EMA_DECAY,
            train_predict=lambda variables, xt, time, key: module.call(variables, key, xt, time),
        )
        process = d3pm.uniform(d3pm.cosine(T), K)
        for i in range(STEPS):
            noise = StepNoise(jnp.asarray(t[i], jnp.int32), jnp.full(B, 1 / T), jnp.asarray(u[i]))
            batch = {"x": jnp.asarray(x0[i], jnp.int32)}
            state, _ = step(state, process, batch, jax.random.key(0), noise)
        ours = twin.to_torch(state.params)
        our_average = twin.to_torch(state.ema)

        twin_process = torch_ref.uniform(torch_ref.cosine(T), K)
        torch_optimizer = training.adamw(model, (0.9, 0.999), 0.0)
        for group in torch_optimizer.param_groups:
            group["lr"] = 1e-2
        average = {name: torch.tensor(x) for name, x in weights.items()}
        for i in range(STEPS):
            arguments = (torch.tensor(x0[i]), torch.tensor(t[i]), torch.tensor(u[i]), CE_WEIGHT, 1.0)
            training.train_step(model, torch_optimizer, twin_process, *arguments, loss.belief)
            training.average(average, model.state_dict(), EMA_DECAY, i)

        theirs = model.state_dict()
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - {"norm.num_batches_tracked"}:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-9, atol=1e-11, err_msg=name)
            np.testing.assert_allclose(our_average[name], average[name], rtol=1e-9, atol=1e-11, err_msg=name)
        np.testing.assert_array_equal(ours["scale"], weights["scale"])
        assert np.abs(ours["norm.running_mean"]).max() > 0.01


def test_batches_that_pytorch_counted_are_ignored(tmp_path: Path) -> None:
    model = InTorch()
    model.norm.num_batches_tracked = torch.tensor(7)
    safetensors.torch.save_file(model.state_dict(), tmp_path / "weights.safetensors")
    _, shapes = split_module(lambda key: InFlax(nnx.Rngs(key)))
    variables = twin.load(tmp_path / "weights.safetensors", shapes)
    np.testing.assert_array_equal(variables["norm"]["var"][...], model.norm.running_var)
