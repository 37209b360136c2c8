"""What procedures are run with: a process and a network of both libraries, data and noise."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np
import torch

import torch_ref
from d3pm_jax import config as configs
from d3pm_jax.beliefs import Belief
from d3pm_jax.training.diffusion import draw_noise
from torch_ref import models as torch_models

K = 17
B = 4
IMAGE = (4, 4, 1)
TEXT = (16,)
CE_WEIGHT = 0.01
EMA_DECAY = 0.9
ADAM = configs.Adam(lr=2e-3, warmup_steps=5, decay_steps=60, clip=0.0075, weight_decay=0.01)
Arrays = dict[str, np.ndarray]


def _linear(T: int) -> configs.Linear:
    return configs.Linear(0.1 / T, 20 / T, rescale=False)


def _twin_linear(T: int) -> torch.Tensor:
    return torch_ref.linear(T, 0.1 / T, 20 / T)


PROCESSES: dict[str, tuple[Callable[[int], configs.Process], Callable[[int], torch_ref.Process]]] = {
    "uniform": (
        lambda T: configs.Uniform(K, T, _linear(T)),
        lambda T: torch_ref.uniform(_twin_linear(T), K),
    ),
    "gaussian": (
        lambda T: configs.Gaussian(K, T, _linear(T)),
        lambda T: torch_ref.gaussian(_twin_linear(T), K),
    ),
    "absorbing": (
        lambda T: configs.Absorbing(K, T, configs.Reciprocal(), K - 1),
        lambda T: torch_ref.absorbing(torch_ref.reciprocal(T), K, K - 1),
    ),
}


class Problem(NamedTuple):
    """A process of `PROCESSES`, what the logits are, and the network by the name of its class in both."""

    process: str
    belief: Belief
    network: str = "UNet"
    shape: tuple[int, ...] = IMAGE  # *S
    see_time: bool = True
    forbid: int | None = None  # an extra mask, which the data has not
    padded: bool = False  # batches have weights


PROBLEMS = {
    "uniform": Problem("uniform", "denoiser"),
    "gaussian": Problem("gaussian", "leave_one_out"),
    "text, absorbing": Problem("absorbing", "leave_one_out", "Transformer", TEXT, False, K - 1),
    "text, uniform": Problem("uniform", "leave_one_out", "Transformer", TEXT),
    "text, padded": Problem("uniform", "leave_one_out", "Transformer", TEXT, padded=True),
}


class Setting(NamedTuple):
    """The name of one of `PROBLEMS`, how long everything is, and how large the network."""

    name: str
    T: int = 1000
    steps: int = 50
    levels: int = 2

    @property
    def problem(self) -> Problem:
        """The problem of this name."""
        return PROBLEMS[self.name]

    @property
    def model(self) -> dict[str, Any]:
        """The options of the network."""
        if self.problem.network == "Transformer":
            return {"width": 8, "num_layers": self.levels, "num_heads": 2, "see_time": self.problem.see_time}
        common = {"ch": 4, "num_res_blocks": 1, "groups": 2, "dropout": 0.0}
        return common | {"ch_mult": (1, 2)[: self.levels], "attn_resolutions": (2,)}


class Noise(NamedTuple):
    """The noise of the steps of training."""

    t: np.ndarray  # [steps, B]
    u: np.ndarray  # [steps, B, *S]


def config(setting: Setting) -> configs.Config:
    """The config of a run of this setting."""
    problem = setting.problem
    return configs.Config(
        data=configs.Digits(),
        process=PROCESSES[problem.process][0](setting.T),
        model=getattr(configs, problem.network)(**setting.model),
        train=configs.Train(steps=setting.steps, batch_size=B, ema_decay=EMA_DECAY),
        loss=configs.HybridLoss(ce_weight=CE_WEIGHT, belief=problem.belief),
        optimizer=ADAM,
    )


def twin_process(setting: Setting) -> torch_ref.Process:
    """The process of the config, as the twin builds it."""
    return PROCESSES[setting.problem.process][1](setting.T)


def twin_network(setting: Setting) -> torch.nn.Module:
    """The network of the config, as the twin builds it."""
    network = getattr(torch_models, setting.problem.network)
    options = dict(setting.model)
    if setting.problem.network == "UNet":
        options |= {"channels": 1, "size": IMAGE[0]}
    return network(K=K, max_time=setting.T, **options)


@cache
def weights(setting: Setting) -> Arrays:
    """The weights from which training begins: none is zero, and float32 holds all."""
    rng = np.random.default_rng(0)
    twin = twin_network(setting)
    drawn = {k: rng.normal(size=tuple(x.shape)) * 0.2 for k, x in twin.state_dict().items()}
    return {k: x.astype(np.float32) for k, x in drawn.items()}


def batch(setting: Setting, i: int) -> Arrays:
    """The data of step i, which can be learnt; where it is padded, weights are 0, 1/2 and 1."""
    rng = np.random.default_rng((1, i))
    shape = (B, *setting.problem.shape)
    largest = K - 1
    if setting.problem.forbid is not None:
        largest = K - 2
    x = np.minimum(rng.geometric(0.3, shape), largest)  # [B, *S]
    if not setting.problem.padded:
        return {"x": x}
    inside = np.arange(shape[1]) < rng.integers(4, shape[1], (B, 1))  # [B, L]
    return {"x": np.where(inside, x, 0), "weight": inside * rng.integers(1, 3, shape) / 2}


def noise(setting: Setting) -> Noise:
    """The noise that `make_step` draws, in the current float type."""
    spec = config(setting).timesteps
    key = jax.random.key(0)
    shape = (B, *setting.problem.shape)
    draws = [draw_noise(spec, key, i, None, shape, setting.T) for i in range(setting.steps)]
    return Noise(np.stack([draw.t for draw in draws]), np.stack([draw.u for draw in draws]))


def uniforms(setting: Setting, seed: int) -> np.ndarray:
    """Noise for t = 0..T that float32 holds."""
    u = np.random.default_rng((seed, 2)).random((setting.T + 1, B, *setting.problem.shape), np.float32)
    return u.astype(np.float64)


class Inputs(NamedTuple):
    """Arguments that a trained network, its bound and its chains are evaluated on."""

    x0: np.ndarray  # [B, *S]
    weights: Arrays  # {"weight": [B, *S]} where batches are padded, else {}
    t: np.ndarray  # [B]
    bound_noise: np.ndarray  # [T + 1, B, *S]
    chain_noise: np.ndarray  # [T + 1, B, *S]
    is_known: np.ndarray  # [B, *S]  the elements of x_0 that are not infilled


def inputs(setting: Setting) -> Inputs:
    """The arguments for a setting: a batch that training has not seen, t from 1 to T."""
    weights = batch(setting, setting.steps)
    x0 = weights.pop("x")
    t = np.linspace(1, setting.T, B).astype(np.int64)
    is_known = np.random.default_rng(5).random(x0.shape) < 0.4
    return Inputs(x0, weights, t, uniforms(setting, 3), uniforms(setting, 4), is_known)
