"""Training, its bound and reverse chains, by each framework from the same noise.

The JAX side is the library's own: `training.step.make_step`, `likelihood.all_t_bound` and `sampling.run`. The
noise of training is what `make_step` makes of its key, here made once more and handed to the twin.
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
from d3pm_jax.program.parts import network
from d3pm_jax.training.state import init_state
from d3pm_jax.training.step import Predict, make_step
from d3pm_jax.weights import twin as twin_weights
from parity_tests import scales, settings
from parity_tests.frameworks import to_jax, to_torch
from parity_tests.settings import ADAM, CE_WEIGHT, EMA_DECAY, Arrays, K, Noise, Setting
from torch_ref import training

EVERY_STEP = "every step"
FEWER_STEPS = "fewer steps"
INFILLED = ", infilled"
STEPS_AT_ONCE = 100  # of a chain whose states are known


class Trained(NamedTuple):
    """The weights and their average after each step, by the names of the twin, and the metrics [steps]."""

    parameters: list[Arrays]
    ema: list[Arrays]
    metrics: Arrays


class Evaluated(NamedTuple):
    """The outputs of one network, its bound and its chains."""

    logits: np.ndarray  # [B, *S, K]
    terms: np.ndarray  # [T, B]  the bound
    prior: np.ndarray  # [B]
    chains: Arrays  # [T + 1, B, *S]  of each reverse chain x_t in row t


def train_jax(setting: Setting) -> Trained:
    """Trains with `make_step`."""
    spec = settings.config(setting)
    predict, params = _network(setting, settings.weights(setting))
    optimizer = spec.optimizer.build()
    process = spec.process.build()
    key = jax.random.key(0)
    state = init_state(params, optimizer)
    step = make_step(spec.loss, spec.timesteps, optimizer, predict, spec.train.ema_decay)
    batches = [_map_arrays(to_jax, settings.batch(setting, i)) for i in range(setting.steps)]
    step = jax.jit(step).lower(state, process, batches[0], key).compile()

    parameters = []
    ema = []
    metrics = []
    for batch in batches:
        state, row = step(state, process, batch, key)
        parameters.append(twin_weights.to_torch(state.params))
        ema.append(twin_weights.to_torch(state.ema))
        # Where a gradient is not finite make_step leaves all as it was; the twin has no such rule or figure.
        del row["first_nonfinite"]
        metrics.append(jax.device_get(row))
    return Trained(parameters, ema, _stack(metrics))


def train_torch(setting: Setting, noise: Noise) -> Trained:
    """Trains with `train_step` of the twin."""
    process = settings.twin_process(setting)
    model, denoise = _twin(setting, settings.weights(setting))
    tensors = dict(model.named_parameters())
    optimizer = training.adamw(model, (ADAM.b1, ADAM.b2), ADAM.weight_decay)
    average = {name: x.detach().clone() for name, x in tensors.items()}

    parameters = []
    ema = []
    metrics = []
    for i in range(setting.steps):
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate(i, ADAM.lr, ADAM.warmup_steps, ADAM.decay_steps)
        weight = _map_arrays(to_torch, settings.batch(setting, i))
        x0 = weight.pop("x")  # [B, *S]
        row = training.train_step(
            partial(denoise, **weight),
            optimizer,
            process,
            x0,
            to_torch(noise.t[i]),
            to_torch(noise.u[i]),
            CE_WEIGHT,
            ADAM.clip,
            setting.problem.belief,
            **weight,
        )
        training.average(average, tensors, EMA_DECAY, i)
        # The optimizer and the average write into their tensors: what is to stay is copied.
        parameters.append({name: x.detach().numpy().copy() for name, x in tensors.items()})
        ema.append({name: x.numpy().copy() for name, x in average.items()})
        metrics.append({name: x.numpy() for name, x in row._asdict().items()})
    return Trained(parameters, ema, _stack(metrics))


def evaluate_jax(setting: Setting, arrays: Arrays) -> Evaluated:
    """Evaluates with `all_t_bound` and `run`, as one compiled program."""
    predict, params = _network(setting, arrays)
    inputs = settings.inputs(setting)
    x0 = to_jax(inputs.x0)
    t = to_jax(inputs.t)
    is_known = jnp.asarray(inputs.is_known)
    weight = _map_arrays(to_jax, inputs.weights)
    belief: dict[str, Any] = {"belief": setting.problem.belief}

    def evaluate(params: Any, processes: dict[str, Any], bound_noise: Any, chain_noise: Any) -> tuple:
        denoise = partial(predict, params, **weight)
        bound = d3pm_jax.all_t_bound(
            denoise, processes[EVERY_STEP], x0, lambda t: bound_noise[t], **belief, **weight
        )
        chains = _chains(d3pm_jax, denoise, processes, x0, is_known, chain_noise, belief)
        return denoise(x0, t), bound.steps, bound.prior, chains

    processes = _processes(d3pm_jax, settings.config(setting).process.build())
    results = jax.jit(evaluate)(params, processes, to_jax(inputs.bound_noise), to_jax(inputs.chain_noise))
    return Evaluated(*jax.tree.map(np.asarray, results))


@torch.no_grad()
def evaluate_torch(setting: Setting, arrays: Arrays, follow: Arrays | None = None) -> Evaluated:
    """Evaluates with the twins of the same names.

    Args:
        setting: the process, the shapes and the noise.
        arrays: the weights of the network.
        follow: x_t of chains [T + 1, B, *S] from which each x_{t-1} is drawn; None: from its own chain.
    """
    inputs = settings.inputs(setting)
    denoise = _denoise(setting, arrays)
    processes = _processes(torch_ref, settings.twin_process(setting))
    x0 = to_torch(inputs.x0)
    t = to_torch(inputs.t)
    bound_noise = to_torch(inputs.bound_noise)
    is_known = torch.tensor(inputs.is_known)
    weight = _map_arrays(to_torch, inputs.weights)
    belief: dict[str, Any] = {"belief": setting.problem.belief}
    bound = torch_ref.all_t_bound(
        denoise, processes[EVERY_STEP], x0, lambda t: bound_noise[t], **belief, **weight
    )

    if follow is None:
        chain_noise = to_torch(inputs.chain_noise)
        chains = _chains(torch_ref, denoise, processes, x0, is_known, chain_noise, belief)
    else:
        chains = {}
        for name, (log_p, u) in _reverse_steps(setting, arrays, follow).items():
            states = torch_ref.categorical(log_p, u)  # [T + 1, B, *S]
            if name.endswith(INFILLED):
                states = torch.where(is_known, x0, states)
            chains[name] = states

    return Evaluated(
        logits=denoise(x0, t).numpy(),
        terms=bound.steps.numpy(),
        prior=bound.prior.numpy(),
        chains={name: states.numpy() for name, states in chains.items()},
    )


@torch.no_grad()
def distances(setting: Setting, arrays: Arrays, chains: Arrays) -> Arrays:
    """How far the noise of each draw of chains is from where the draw changes, [T + 1, B, *S] each."""
    by_chain = {}
    for name, (log_p, u) in _reverse_steps(setting, arrays, chains).items():
        cdf = scales.cdf(log_p.double())  # [T + 1, B, *S, K]
        by_chain[name] = (u.double()[..., None] - cdf).abs().amin(dim=-1).numpy()
    return by_chain


def _processes(lib: ModuleType, process: Any) -> dict[str, Any]:
    """The process with all of its steps, and with a seventh of them, which are not evenly spaced."""
    grid = torch_ref.sampling.even_grid(process.T, process.T // 7)
    return {EVERY_STEP: process, FEWER_STEPS: lib.respace(process, grid)}


def _chains(
    lib: ModuleType,
    denoise: Callable,
    processes: dict[str, Any],
    x0: Any,
    is_known: Any,
    noise: Any,
    belief: dict[str, Any],
) -> dict[str, Any]:
    """Every state of the chain of each process, and of one that infills what is not known of x_0."""
    chains = {}
    for name, process in processes.items():
        denoiser = lib.Denoiser(process, denoise, **belief)
        xT = process.draw_prior(noise[0])
        for suffix, known in (("", None), (INFILLED, lib.sampling.Known(x0, is_known))):
            chain = lib.sampling.run(
                denoiser, xT, lambda t, stream: noise[t], known=known, record=range(process.T + 1)
            )
            chains[name + suffix] = chain.states
    return chains


def _reverse_steps(setting: Setting, arrays: Arrays, chains: Arrays) -> dict[str, tuple[Tensor, Tensor]]:
    """The distributions that a chain draws from, and its noise.

    Returns:
        For each chain log p(x_t | x_{t+1}) for t = 0..T - 1, from the x_{t+1} of the chain, and in the last
        row log p(x_T), [T + 1, B, *S, K]; and the u of each draw [T + 1, B, *S].
    """
    processes = _processes(torch_ref, settings.twin_process(setting))
    denoise = _denoise(setting, arrays)
    noise = to_torch(settings.inputs(setting).chain_noise)
    steps = {}
    for name, states in chains.items():
        process = processes[name.removesuffix(INFILLED)]
        log_p = _reverse(setting, process, denoise, to_torch(states))
        # Row t of the noise draws x_{t-1} from x_t, and row 0 draws x_T.
        steps[name] = (log_p, noise[: process.T + 1].roll(-1, 0))
    return steps


def _reverse(setting: Setting, process: torch_ref.Process, denoise: Callable, states: Tensor) -> Tensor:
    """log p(x_{t-1} | x_t) for t = 1..T from x_t in row t of states, and in a last row log p(x_T)."""
    log_p = []
    # Every x_t is there already, so many steps are one batch: a step of four examples is mostly overhead.
    for steps in torch.arange(1, process.T + 1).split(STEPS_AT_ONCE):
        xt = states[steps].flatten(0, 1)  # [n B, *S]
        t = steps.repeat_interleave(settings.B)  # [n B]
        logits = denoise(xt, process.time[t])
        rows = torch_ref.p_logits(process, logits, xt, t, belief=setting.problem.belief)
        log_p.append(rows.unflatten(0, (len(steps), settings.B)))
    return torch.cat([*log_p, process.log_prior().expand(log_p[0][:1].shape)])


def draw_jax(setting: Setting, x0: np.ndarray, t: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Draws x_t with `q_sample`."""
    process = settings.config(setting).process.build()
    return np.asarray(jax.jit(posteriors.q_sample)(process, to_jax(x0), to_jax(t), to_jax(u)))


def draw_torch(
    setting: Setting, x0: np.ndarray, t: np.ndarray, u: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draws x_t with `q_sample` of the twin, and measures how far u is from where it changes."""
    process = settings.twin_process(setting)
    arguments = (to_torch(x0), to_torch(t), to_torch(u))
    cdf = scales.cdf_of_draw_q(process, *arguments).double()
    distance = (arguments[2].double()[..., None] - cdf).abs().amin(dim=-1)
    return torch_ref.q_sample(process, *arguments).numpy(), distance.numpy()


def _network(setting: Setting, arrays: Arrays) -> tuple[Predict, Any]:
    """The network as a function of its parameters, and these weights of the twin as its parameters."""
    spec = settings.config(setting)
    description = Description(setting.problem.shape, K)
    functions = network.split_network(spec, description, spec.process.build(), setting.problem.forbid)
    dtype = jax.dtypes.canonicalize_dtype(float)
    shapes = jax.eval_shape(functions.init, jax.random.key(0))
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), shapes)
    return functions.predict, twin_weights.from_torch(shapes, arrays)


def _twin(setting: Setting, arrays: Arrays) -> tuple[torch.nn.Module, Callable]:
    """The network, and (x_t, t, weight) -> logits of x_0."""
    model = settings.twin_network(setting)
    model.load_state_dict({name: torch.tensor(x) for name, x in arrays.items()})
    mask_id = setting.problem.forbid

    def denoise(xt: Tensor, t: Tensor, **weight: Tensor) -> Tensor:
        logits = torch_ref.residual(model(xt, t, **weight), xt)
        if mask_id is None:
            return logits
        return torch_ref.forbid(logits, mask_id)

    return model, denoise


def _denoise(setting: Setting, arrays: Arrays) -> Callable:
    """(x_t, t) -> logits of x_0 for any number of steps of the batch that is evaluated, with its weights."""
    weight = _map_arrays(to_torch, settings.inputs(setting).weights)
    _, denoise = _twin(setting, arrays)

    def denoise_steps(xt: Tensor, t: Tensor) -> Tensor:
        steps = len(xt) // settings.B
        return denoise(xt, t, **{name: x.repeat(steps, 1) for name, x in weight.items()})

    return denoise_steps


def _map_arrays(convert: Callable[[np.ndarray], Any], arrays: Arrays) -> dict[str, Any]:
    return {name: convert(x) for name, x in arrays.items()}


def _stack(rows: list[dict]) -> Arrays:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
