"""Training, its bound and a reverse chain, by each framework from the same noise.

The JAX side is the library's own: `training.step.make_step`, `likelihood.all_t_bound`, `sampling.ancestral`.
The noise of training is what `make_step` makes of its key, here made once more and handed to the twin.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
from torch import Tensor

import torch_ref
from d3pm_jax import config as configs
from d3pm_jax import likelihood, posteriors, sampling
from d3pm_jax.beliefs import Belief
from d3pm_jax.data import Description
from d3pm_jax.runs import network
from d3pm_jax.training.state import init_state
from d3pm_jax.training.step import Predict, draw_noise, make_step
from d3pm_jax.weights import twin as twin_weights
from parity_tests import scales
from parity_tests.frameworks import to_jax, to_torch
from torch_ref import models as torch_models
from torch_ref import training

K, IMAGE, B = 17, (4, 4, 1), 4
CE_WEIGHT, EMA_DECAY = 0.01, 0.9
ADAM = configs.Adam(lr=2e-3, warmup_steps=5, decay_steps=60, clip=0.0075, weight_decay=0.01)
PROCESSES: dict[str, tuple[Callable[..., configs.Process], Callable[..., torch_ref.Process]]] = {
    "uniform": (configs.Uniform, torch_ref.uniform),
    "gaussian": (configs.Gaussian, torch_ref.gaussian),
}
BELIEFS: dict[str, Belief] = {"uniform": "denoiser", "gaussian": "leave_one_out"}  # what the logits are
Arrays = dict[str, np.ndarray]


class Setting(NamedTuple):
    """A process of `PROCESSES`, how long everything is, and how large the network."""

    process: str
    T: int = 1000
    steps: int = 50
    levels: int = 2

    @property
    def belief(self) -> Belief:
        """What the logits of the network are."""
        return BELIEFS[self.process]

    @property
    def model(self) -> dict[str, Any]:
        """The options of the network."""
        mult = (1, 2)[: self.levels]
        common = {"ch": 4, "num_res_blocks": 1, "groups": 2, "dropout": 0.0}
        return common | {"ch_mult": mult, "attn_resolutions": (2,)}


class Trained(NamedTuple):
    """What training left after each step, by the names of the twin; the metrics are [steps]."""

    parameters: list[Arrays]
    ema: list[Arrays]
    metrics: Arrays


class Evaluated(NamedTuple):
    """What one network gives."""

    logits: np.ndarray  # [B, *IMAGE, K]
    terms: np.ndarray  # [T, B]  the bound
    prior: np.ndarray  # [B]
    states: np.ndarray  # [T + 1, B, *IMAGE]  a reverse chain, x_t in row t


class Noise(NamedTuple):
    """That of the steps of training."""

    t: np.ndarray  # [steps, B]
    u: np.ndarray  # [steps, B, *IMAGE]


def config(setting: Setting) -> configs.Config:
    """As of a run."""
    beta = configs.Linear(0.1 / setting.T, 20 / setting.T, rescale=False)
    return configs.Config(
        data=configs.Digits(),
        process=PROCESSES[setting.process][0](K=K, steps=setting.T, beta=beta),
        model=configs.UNet(**setting.model),
        train=configs.Train(steps=setting.steps, batch_size=B, ema_decay=EMA_DECAY),
        loss=configs.HybridLoss(ce_weight=CE_WEIGHT, belief=setting.belief),
        optimizer=ADAM,
    )


def twin_process(setting: Setting) -> torch_ref.Process:
    """The same of the twin."""
    beta = torch_ref.linear(setting.T, 0.1 / setting.T, 20 / setting.T)
    return PROCESSES[setting.process][1](beta, K)


@cache
def weights(setting: Setting) -> Arrays:
    """Where training begins: none is zero, and float32 holds all."""
    rng, twin = np.random.default_rng(0), torch_models.UNet(K, 1, IMAGE[0], setting.T, **setting.model)
    drawn = {k: rng.normal(size=tuple(x.shape)) * 0.2 for k, x in twin.state_dict().items()}
    return {k: x.astype(np.float32) for k, x in drawn.items()}


def batch(i: int) -> np.ndarray:
    """The data of step i: pictures that can be learnt."""
    return np.minimum(np.random.default_rng((1, i)).geometric(0.3, (B, *IMAGE)), K - 1)


def uniforms(setting: Setting, seed: int) -> np.ndarray:
    """Noise for t = 0..T that float32 holds."""
    u = np.random.default_rng((seed, 2)).random((setting.T + 1, B, *IMAGE), np.float32)
    return u.astype(np.float64)


def noise(setting: Setting) -> Noise:
    """What `make_step` draws, in the current float type."""
    spec, key = config(setting).timesteps, jax.random.key(0)
    drawn = [draw_noise(spec, key, i, None, (B, *IMAGE), setting.T) for i in range(setting.steps)]
    return Noise(np.stack([x.t for x in drawn]), np.stack([x.u for x in drawn]))


def train_jax(setting: Setting) -> Trained:
    """With `make_step`."""
    spec = config(setting)
    predict, params = _network(spec, weights(setting))
    optimizer, process, key = spec.optimizer.build(), spec.process.build(), jax.random.key(0)
    state = init_state(params, optimizer)
    step = make_step(spec.loss, spec.timesteps, optimizer, predict, spec.train.ema_decay)
    step = jax.jit(step).lower(state, process, {"x": to_jax(batch(0))}, key).compile()
    found, metrics = Trained([], [], {}), []
    for i in range(setting.steps):
        state, row = step(state, process, {"x": to_jax(batch(i))}, key)
        found.parameters.append(twin_weights.to_torch(state.params))
        found.ema.append(twin_weights.to_torch(state.ema))
        metrics.append(jax.device_get(row))
    return found._replace(metrics=_stacked(metrics))


def train_torch(setting: Setting, noise: Noise) -> Trained:
    """With `train_step` of the twin."""
    process, model, denoise = twin_process(setting), *_twin(setting, weights(setting))
    named = dict(model.named_parameters())
    betas = (ADAM.b1, ADAM.b2)
    optimizer = training.adamw(model, betas, ADAM.weight_decay)
    ema = {k: x.detach().clone() for k, x in named.items()}
    found, metrics = Trained([], [], {}), []
    for i in range(setting.steps):
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate(i, ADAM.lr, ADAM.warmup_steps, ADAM.decay_steps)
        x0, t, u = (to_torch(x) for x in (batch(i), noise.t[i], noise.u[i]))
        row = training.train_step(denoise, optimizer, process, x0, t, u, CE_WEIGHT, ADAM.clip, setting.belief)
        training.average(ema, named, EMA_DECAY, i)
        found.parameters.append({k: x.detach().numpy().copy() for k, x in named.items()})
        found.ema.append({k: x.numpy().copy() for k, x in ema.items()})
        metrics.append({k: x.numpy() for k, x in row._asdict().items()})
    return found._replace(metrics=_stacked(metrics))


def evaluate_jax(setting: Setting, arrays: Arrays) -> Evaluated:
    """With `all_t_bound` and `ancestral`, as one compiled program."""
    spec = config(setting)
    predict, params = _network(spec, arrays)
    x0, t, us, vs = (to_jax(x) for x in inputs(setting))

    def run(params: Any, process: Any, us: Any, vs: Any) -> tuple:
        denoise = partial(predict, params)
        told: dict[str, Any] = {"belief": setting.belief}
        bound = likelihood.all_t_bound(denoise, process, x0, lambda t: us[t], **told)
        xT, record = process.draw_prior(vs[0]), range(process.T + 1)
        chain = sampling.ancestral(denoise, process, xT, lambda t: vs[t], record, **told)
        return denoise(x0, t), bound.steps, bound.prior, chain.states

    compiled = jax.jit(run)
    return Evaluated(*map(np.asarray, compiled(params, spec.process.build(), us, vs)))


@torch.no_grad()
def evaluate_torch(setting: Setting, arrays: Arrays, follow: np.ndarray | None = None) -> Evaluated:
    """With the twins of the same names; each x_{t-1} from the x_t of its own chain, or from the x_t given."""
    process, (_, denoise) = twin_process(setting), _twin(setting, arrays)
    x0, t, us, vs = (to_torch(x) for x in inputs(setting))
    told: dict[str, Any] = {"belief": setting.belief}
    bound = torch_ref.all_t_bound(denoise, process, x0, lambda t: us[t], **told)
    if follow is None:
        prior, record = process.draw_prior(vs[0]), range(process.T + 1)
        states = torch_ref.ancestral(denoise, process, prior, lambda t: vs[t], record, **told).states
    else:
        log_p = torch.stack(_reverse(setting, process, denoise, to_torch(follow)))
        states = torch_ref.categorical(log_p, vs.roll(-1, 0))
    return Evaluated(*(x.numpy() for x in (denoise(x0, t), *bound, states)))


@torch.no_grad()
def distances(setting: Setting, arrays: Arrays, states: np.ndarray) -> np.ndarray:
    """How far the noise of each draw of a chain is from where the draw changes, [T + 1, B, *IMAGE]."""
    process, (_, denoise) = twin_process(setting), _twin(setting, arrays)
    log_p = torch.stack(_reverse(setting, process, denoise, to_torch(states))).double()
    u = to_torch(inputs(setting)[3]).roll(-1, 0).double()
    return (u[..., None] - scales.cdf(log_p)).abs().amin(dim=-1).numpy()


def _reverse(setting: Setting, process: torch_ref.Process, denoise: Callable, states: Tensor) -> list[Tensor]:
    """log p(x_t | x_{t+1}) for t = 0..T, from the x_{t+1} in row t + 1, and log p(x_T)."""
    found = []
    for t in range(1, process.T + 1):
        ts = torch.full((B,), t)
        logits = denoise(states[t], process.time[ts])
        found.append(torch_ref.p_logits(process, logits, states[t], ts, belief=setting.belief))
    return [*found, process.log_prior().expand(found[0].shape)]


def draw_jax(setting: Setting, x0: np.ndarray, t: np.ndarray, u: np.ndarray) -> np.ndarray:
    """x_t with `q_sample`."""
    return np.asarray(jax.jit(posteriors.q_sample)(config(setting).process.build(), *map(to_jax, (x0, t, u))))


def draw_torch(setting: Setting, *args: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same of the twin, and how far u is from where it changes."""
    process, (x0, t, u) = twin_process(setting), (to_torch(x) for x in args)
    cdf = scales.cdf_of_draw_q(process, x0, t, u).double()
    distance = (u.double()[..., None] - cdf).abs().amin(dim=-1)
    return torch_ref.q_sample(process, x0, t, u).numpy(), distance.numpy()


def inputs(setting: Setting) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x_0 and t of a batch, the noise of the bound and that of the chain."""
    t = np.linspace(1, setting.T, B).astype(np.int64)
    return batch(setting.steps), t, uniforms(setting, 3), uniforms(setting, 4)


def _network(spec: configs.Config, arrays: Arrays) -> tuple[Predict, Any]:
    predict, init = network.split(spec, Description(IMAGE, K, kind="image"), spec.process.build())
    shapes = jax.eval_shape(init, jax.random.key(0))
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(float)), shapes
    )
    return predict, twin_weights.from_torch(shapes, arrays)


def _twin(setting: Setting, arrays: Arrays) -> tuple[torch_models.UNet, Callable]:
    model = torch_models.UNet(K, 1, IMAGE[0], setting.T, **setting.model)
    model.load_state_dict({k: torch.tensor(x) for k, x in arrays.items()})
    return model, lambda xt, t: torch_ref.residual(model(xt, t), xt)


def _stacked(rows: list[dict]) -> Arrays:
    return {k: np.stack([row[k] for row in rows]) for k in rows[0]}
