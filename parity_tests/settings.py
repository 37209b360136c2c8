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
from d3pm_jax.training.step import draw_noise
from torch_ref import models as torch_models

K, IMAGE, TEXT, B = 17, (4, 4, 1), (16,), 4
CE_WEIGHT, EMA_DECAY = 0.01, 0.9
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


class Kind(NamedTuple):
    """A process of `PROCESSES`, what the logits are, and the network by the name of its class in both."""

    process: str
    belief: Belief
    network: str = "UNet"
    shape: tuple[int, ...] = IMAGE  # *S
    see_time: bool = True
    forbid: int | None = None  # an extra mask, which the data has not
    padded: bool = False  # batches have weights


KINDS = {
    "uniform": Kind("uniform", "denoiser"),
    "gaussian": Kind("gaussian", "leave_one_out"),
    "text, absorbing": Kind("absorbing", "leave_one_out", "Transformer", TEXT, False, K - 1),
    "text, uniform": Kind("uniform", "leave_one_out", "Transformer", TEXT),
    "text, padded": Kind("uniform", "leave_one_out", "Transformer", TEXT, padded=True),
}


class Setting(NamedTuple):
    """The name of one of `KINDS`, how long everything is, and how large the network."""

    name: str
    T: int = 1000
    steps: int = 50
    levels: int = 2

    @property
    def kind(self) -> Kind:
        """What it is of."""
        return KINDS[self.name]

    @property
    def model(self) -> dict[str, Any]:
        """The options of the network."""
        if self.kind.network == "Transformer":
            return {"width": 8, "num_layers": self.levels, "num_heads": 2, "see_time": self.kind.see_time}
        common = {"ch": 4, "num_res_blocks": 1, "groups": 2, "dropout": 0.0}
        return common | {"ch_mult": (1, 2)[: self.levels], "attn_resolutions": (2,)}


class Noise(NamedTuple):
    """That of the steps of training."""

    t: np.ndarray  # [steps, B]
    u: np.ndarray  # [steps, B, *S]


def config(setting: Setting) -> configs.Config:
    """As of a run."""
    kind = setting.kind
    return configs.Config(
        data=configs.Digits(),
        process=PROCESSES[kind.process][0](setting.T),
        model=getattr(configs, kind.network)(**setting.model),
        head=configs.Head(forbid=kind.forbid),
        train=configs.Train(steps=setting.steps, batch_size=B, ema_decay=EMA_DECAY),
        loss=configs.HybridLoss(ce_weight=CE_WEIGHT, belief=kind.belief),
        optimizer=ADAM,
    )


def twin_process(setting: Setting) -> torch_ref.Process:
    """The same of the twin."""
    return PROCESSES[setting.kind.process][1](setting.T)


def twin_network(setting: Setting) -> torch.nn.Module:
    """The same of the twin."""
    of_images = {"channels": 1, "size": IMAGE[0]} if setting.kind.network == "UNet" else {}
    return getattr(torch_models, setting.kind.network)(K=K, max_time=setting.T, **of_images, **setting.model)


@cache
def weights(setting: Setting) -> Arrays:
    """Where training begins: none is zero, and float32 holds all."""
    rng, twin = np.random.default_rng(0), twin_network(setting)
    drawn = {k: rng.normal(size=tuple(x.shape)) * 0.2 for k, x in twin.state_dict().items()}
    return {k: x.astype(np.float32) for k, x in drawn.items()}


def batch(setting: Setting, i: int) -> Arrays:
    """The data of step i, which can be learnt; where it is padded, weights are 0, 1/2 and 1."""
    rng, shape = np.random.default_rng((1, i)), (B, *setting.kind.shape)
    x = np.minimum(rng.geometric(0.3, shape), K - 1 if setting.kind.forbid is None else K - 2)
    if not setting.kind.padded:
        return {"x": x}
    inside = np.arange(shape[1]) < rng.integers(4, shape[1], (B, 1))
    return {"x": np.where(inside, x, 0), "weight": inside * rng.integers(1, 3, shape) / 2}


def noise(setting: Setting) -> Noise:
    """What `make_step` draws, in the current float type."""
    spec, key, shape = config(setting).timesteps, jax.random.key(0), (B, *setting.kind.shape)
    drawn = [draw_noise(spec, key, i, None, shape, setting.T) for i in range(setting.steps)]
    return Noise(np.stack([x.t for x in drawn]), np.stack([x.u for x in drawn]))


def uniforms(setting: Setting, seed: int) -> np.ndarray:
    """Noise for t = 0..T that float32 holds."""
    u = np.random.default_rng((seed, 2)).random((setting.T + 1, B, *setting.kind.shape), np.float32)
    return u.astype(np.float64)


class Inputs(NamedTuple):
    """What a trained network is evaluated on."""

    x0: np.ndarray  # [B, *S]
    more: Arrays  # its weights, if it has any
    t: np.ndarray  # [B]
    us: np.ndarray  # [T + 1, B, *S]  the noise of the bound
    vs: np.ndarray  # [T + 1, B, *S]  and of chains
    known: np.ndarray  # [B, *S]  what infilling is given of x_0


def inputs(setting: Setting) -> Inputs:
    """Those of a setting."""
    more = batch(setting, setting.steps)
    x0, t = more.pop("x"), np.linspace(1, setting.T, B).astype(np.int64)
    known = np.random.default_rng(5).random(x0.shape) < 0.4
    return Inputs(x0, more, t, uniforms(setting, 3), uniforms(setting, 4), known)
