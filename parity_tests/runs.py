"""Training, its bound and reverse chains, by each framework from the same noise.

The JAX side is the library's own: `training.step.make_step`, `likelihood.all_t_bound`, `sampling.ancestral`
and `sampling.infill`. The noise of training is what `make_step` makes of its key, here made once more and
handed to the twin.
"""

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor

import d3pm_jax
import torch_ref
from d3pm_jax import posteriors
from d3pm_jax.data import Description
from d3pm_jax.parts import network
from d3pm_jax.training.state import init_state
from d3pm_jax.training.step import Predict, make_step
from d3pm_jax.weights import twin as twin_weights
from parity_tests import scales, settings
from parity_tests.frameworks import to_jax, to_torch
from parity_tests.settings import ADAM, CE_WEIGHT, EMA_DECAY, Arrays, K, Noise, Setting
from torch_ref import training

EVERY, FEWER, INFILLED = "every step", "fewer steps", ", infilled"


class Trained(NamedTuple):
    """What training left after each step, by the names of the twin; the metrics are [steps]."""

    parameters: list[Arrays]
    ema: list[Arrays]
    metrics: Arrays


class Evaluated(NamedTuple):
    """What one network gives."""

    logits: np.ndarray  # [B, *S, K]
    terms: np.ndarray  # [T, B]  the bound
    prior: np.ndarray  # [B]
    chains: Arrays  # [T + 1, B, *S]  of each reverse chain x_t in row t


def train_jax(setting: Setting) -> Trained:
    """With `make_step`."""
    spec = settings.config(setting)
    predict, params = _network(setting, settings.weights(setting))
    optimizer, process, key = spec.optimizer.build(), spec.process.build(), jax.random.key(0)
    state = init_state(params, optimizer)
    step = make_step(spec.loss, spec.timesteps, optimizer, predict, spec.train.ema_decay)
    batches = [{k: to_jax(x) for k, x in settings.batch(setting, i).items()} for i in range(setting.steps)]
    step = jax.jit(step).lower(state, process, batches[0], key).compile()
    found, metrics = Trained([], [], {}), []
    for batch in batches:
        state, row = step(state, process, batch, key)
        found.parameters.append(twin_weights.to_torch(state.params))
        found.ema.append(twin_weights.to_torch(state.ema))
        del row["first_nonfinite"]  # the twin skips no step
        metrics.append(jax.device_get(row))
    return found._replace(metrics=_stacked(metrics))


def train_torch(setting: Setting, noise: Noise) -> Trained:
    """With `train_step` of the twin."""
    process, (model, denoise) = settings.twin_process(setting), _twin(setting, settings.weights(setting))
    named, belief = dict(model.named_parameters()), setting.kind.belief
    optimizer = training.adamw(model, (ADAM.b1, ADAM.b2), ADAM.weight_decay)
    ema = {k: x.detach().clone() for k, x in named.items()}
    found, metrics = Trained([], [], {}), []
    for i in range(setting.steps):
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate(i, ADAM.lr, ADAM.warmup_steps, ADAM.decay_steps)
        more = {k: to_torch(x) for k, x in settings.batch(setting, i).items()}
        drawn = more.pop("x"), to_torch(noise.t[i]), to_torch(noise.u[i])
        told = partial(denoise, **more)
        row = training.train_step(told, optimizer, process, *drawn, CE_WEIGHT, ADAM.clip, belief, **more)
        training.average(ema, named, EMA_DECAY, i)
        found.parameters.append({k: x.detach().numpy().copy() for k, x in named.items()})
        found.ema.append({k: x.numpy().copy() for k, x in ema.items()})
        metrics.append({k: x.numpy() for k, x in row._asdict().items()})
    return found._replace(metrics=_stacked(metrics))


def evaluate_jax(setting: Setting, arrays: Arrays) -> Evaluated:
    """With `all_t_bound`, `ancestral` and `infill`, as one compiled program."""
    predict, params = _network(setting, arrays)
    given = settings.inputs(setting)
    x0, t, us, vs = (to_jax(x) for x in (given.x0, given.t, given.us, given.vs))
    more = {k: to_jax(x) for k, x in given.more.items()}

    def run(params: Any, processes: dict[str, Any], us: Any, vs: Any) -> tuple:
        denoise = partial(predict, params, **more)
        told: dict[str, Any] = {"belief": setting.kind.belief}
        bound = d3pm_jax.all_t_bound(denoise, processes[EVERY], x0, lambda t: us[t], **told, **more)
        chains = _chains(d3pm_jax, denoise, processes, x0, jnp.asarray(given.known), vs, told)
        return denoise(x0, t), bound.steps, bound.prior, chains

    processes = _processes(d3pm_jax, settings.config(setting).process.build())
    return Evaluated(*jax.tree.map(np.asarray, jax.jit(run)(params, processes, us, vs)))


@torch.no_grad()
def evaluate_torch(setting: Setting, arrays: Arrays, follow: Arrays | None = None) -> Evaluated:
    """With the twins of the same names; each x_{t-1} from the x_t of its own chain, or from those given."""
    given, denoise = settings.inputs(setting), _denoise(setting, arrays)
    processes = _processes(torch_ref, settings.twin_process(setting))
    x0, t, us, vs = (to_torch(x) for x in (given.x0, given.t, given.us, given.vs))
    more, known = {k: to_torch(x) for k, x in given.more.items()}, torch.tensor(given.known)
    told: dict[str, Any] = {"belief": setting.kind.belief}
    bound = torch_ref.all_t_bound(denoise, processes[EVERY], x0, lambda t: us[t], **told, **more)
    if follow is None:
        chains = _chains(torch_ref, denoise, processes, x0, known, vs, told)
    else:
        drawn = {k: torch_ref.categorical(p, u) for k, (p, u) in _draws(setting, arrays, follow).items()}
        chains = {k: torch.where(known, x0, x) if k.endswith(INFILLED) else x for k, x in drawn.items()}
    logits, steps, prior = (x.numpy() for x in (denoise(x0, t), *bound))
    return Evaluated(logits, steps, prior, {k: x.numpy() for k, x in chains.items()})


@torch.no_grad()
def distances(setting: Setting, arrays: Arrays, chains: Arrays) -> Arrays:
    """How far the noise of each draw of chains is from where the draw changes, [T + 1, B, *S] each."""
    found = {}
    for name, (log_p, u) in _draws(setting, arrays, chains).items():
        found[name] = (u.double()[..., None] - scales.cdf(log_p.double())).abs().amin(dim=-1).numpy()
    return found


def _processes(lib: ModuleType, process: Any) -> dict[str, Any]:
    """With all of its steps and with a seventh of them, which is not even."""
    grid = torch_ref.sampling.even_grid(process.T, process.T // 7)
    return {EVERY: process, FEWER: lib.respace(process, grid)}


def _chains(
    lib: ModuleType, denoise: Callable, processes: dict[str, Any], x0: Any, known: Any, vs: Any, told: dict
) -> dict[str, Any]:
    """Every state of the chain of each process, and of the one that is given some of x_0."""
    found = {}
    for name, process in processes.items():
        xT, record = process.draw_prior(vs[0]), range(process.T + 1)
        rest = xT, lambda t: vs[t], record
        found[name] = lib.ancestral(denoise, process, *rest, **told).states
        found[name + INFILLED] = lib.sampling.infill(denoise, process, x0, known, *rest, **told).states
    return found


def _draws(setting: Setting, arrays: Arrays, chains: Arrays) -> dict[str, tuple[Tensor, Tensor]]:
    """log p(x_t | x_{t+1}) for t = 0..T, from the x_{t+1} of each chain, and log p(x_T); and their noise."""
    processes, found = _processes(torch_ref, settings.twin_process(setting)), {}
    denoise, vs = _denoise(setting, arrays), to_torch(settings.inputs(setting).vs)
    for name, states in chains.items():
        process = processes[name.removesuffix(INFILLED)]
        log_p = _reverse(setting, process, denoise, to_torch(states))
        found[name] = torch.stack(log_p), vs[: process.T + 1].roll(-1, 0)
    return found


def _reverse(setting: Setting, process: torch_ref.Process, denoise: Callable, states: Tensor) -> list[Tensor]:
    found = []
    for t in range(1, process.T + 1):
        ts = torch.full((settings.B,), t)
        logits = denoise(states[t], process.time[ts])
        found.append(torch_ref.p_logits(process, logits, states[t], ts, belief=setting.kind.belief))
    return [*found, process.log_prior().expand(found[0].shape)]


def draw_jax(setting: Setting, x0: np.ndarray, t: np.ndarray, u: np.ndarray) -> np.ndarray:
    """x_t with `q_sample`."""
    process = settings.config(setting).process.build()
    return np.asarray(jax.jit(posteriors.q_sample)(process, *map(to_jax, (x0, t, u))))


def draw_torch(setting: Setting, *args: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same of the twin, and how far u is from where it changes."""
    process, (x0, t, u) = settings.twin_process(setting), (to_torch(x) for x in args)
    cdf = scales.cdf_of_draw_q(process, x0, t, u).double()
    distance = (u.double()[..., None] - cdf).abs().amin(dim=-1)
    return torch_ref.q_sample(process, x0, t, u).numpy(), distance.numpy()


def _network(setting: Setting, arrays: Arrays) -> tuple[Predict, Any]:
    spec, shape = settings.config(setting), setting.kind.shape
    predict, init = network.split_network(spec, Description(shape, K), spec.process.build())
    shapes = jax.eval_shape(init, jax.random.key(0))
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(float)), shapes
    )
    return predict, twin_weights.from_torch(shapes, arrays)


def _twin(setting: Setting, arrays: Arrays) -> tuple[torch.nn.Module, Callable]:
    """The network, and (x_t, t, weight) -> logits of x_0."""
    model, mask_id = settings.twin_network(setting), setting.kind.forbid
    model.load_state_dict({k: torch.tensor(x) for k, x in arrays.items()})

    def denoise(xt: Tensor, t: Tensor, **more: Tensor) -> Tensor:
        logits = torch_ref.residual(model(xt, t, **more), xt)
        return logits if mask_id is None else torch_ref.forbid(logits, mask_id)

    return model, denoise


def _denoise(setting: Setting, arrays: Arrays) -> Callable:
    """(x_t, t) -> logits of x_0, told the weights of what is evaluated."""
    more = {k: to_torch(x) for k, x in settings.inputs(setting).more.items()}
    return partial(_twin(setting, arrays)[1], **more)


def _stacked(rows: list[dict]) -> Arrays:
    return {k: np.stack([row[k] for row in rows]) for k in rows[0]}
