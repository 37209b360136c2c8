"""A run on disk: what is in a workdir, and how train, sample and eval open it."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from d3pm_jax import config_io
from d3pm_jax.config import Config
from d3pm_jax.errors import UserError
from d3pm_jax.training import checkpoint, network
from d3pm_jax.training.devices import batched, data_mesh, replicated
from d3pm_jax.training.step import TrainState, build_optimizer, init_state
from d3pm_jax.transitions import Transition, respace
from d3pm_jax.types import Params

CONFIG = "config.json"
CHECKPOINTS = "checkpoints"

# Fields that do not change what a step computes; they may change when a run is resumed.
FREE = (
    "data.dir",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.log_every",
    "train.noise",
    "train.sample_every",
    "train.steps",
)


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a config builds, placed on the devices. `state` is abstract until `start` or `restore`."""

    config: Config
    image: tuple[int, int, int]  # (H, W, C)
    mesh: jax.sharding.Mesh
    tr: Transition
    predict: network.Predict
    init: Callable[[], TrainState]
    state: TrainState
    key: jax.Array  # of the noise of training


def build(config: Config, image: tuple[int, int, int], batch_size: int, steps: int | None = None) -> Parts:
    """The process, the network and the shape of the state of a config.

    Args:
        config: of the run.
        image: (H, W, C) of the data.
        batch_size: decides how many devices are used.
        steps: take only so many of the steps of the process, evenly spaced; all by default.

    Raises:
        UserError: a value of the config cannot be used.
    """
    _check(config)
    mesh = data_mesh(batch_size)
    key_params, key = jax.random.split(jax.random.key(config.train.seed))
    try:
        tr = config.process.build()
        config.loss.check(tr)
        tr = tr if steps is None else respace(tr, even_grid(tr.T, steps))
        predict, init_params = network.split(config, image)

        def init() -> TrainState:
            return _first_state(config, init_params(key_params))

        shapes = jax.eval_shape(init)
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from error
    tr, key = jax.device_put((tr, key), replicated(mesh))
    state = jax.tree.map(lambda x: x.update(sharding=replicated(mesh)), shapes)
    predict = network.on_mesh(predict, batched(mesh))
    return Parts(config, image, mesh, tr, predict, init, state, key)


def even_grid(T: int, steps: int) -> list[int]:
    """ceil(i T / steps) for i = 1..steps. Raises ValueError unless 1 <= steps <= T."""
    if not 1 <= steps <= T:
        raise ValueError(f"steps = {steps}: it must be in 1..{T}, the steps of the process")
    return [-(-i * T // steps) for i in range(1, steps + 1)]


def start(parts: Parts) -> Parts:
    """The parts with the state before the first step."""
    # Random numbers of many shapes compile three times faster without optimisation, and run once.
    fast: dict[str, Any] = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}
    init = jax.jit(parts.init, out_shardings=replicated(parts.mesh)).lower().compile(compiler_options=fast)
    return dataclasses.replace(parts, state=init())


def start_from(parts: Parts, params: Params) -> Parts:
    """The parts with the state before the first step of a run that goes out from these parameters."""
    state = jax.device_put(_first_state(parts.config, params), replicated(parts.mesh))
    return dataclasses.replace(parts, state=state)


def _first_state(config: Config, params: Params) -> TrainState:
    history = config.timesteps.start(config.process.steps)
    return init_state(params, build_optimizer(config.optimizer), history)


def read_config(workdir: Path) -> Config:
    """The config of the run in a workdir.

    Raises:
        UserError: there is no run, or its config cannot be read.
    """
    path = workdir / CONFIG
    if not path.is_file():
        raise UserError(f"{workdir} holds no run (no {CONFIG}): pass the --workdir of a `d3pm train`")
    try:
        tree = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(
            f"{path} is not JSON ({error}): restore it, or start again in a new workdir"
        ) from error
    return config_io.from_json(tree)


def write_config(workdir: Path, config: Config) -> None:
    """Writes the config that `read_config` reads."""
    checkpoint.write_text(workdir / CONFIG, config_io.dump(config))


def restore(workdir: Path, parts: Parts, step: int | None = None) -> Parts:
    """The parts with the state of a checkpoint, the last one by default.

    Raises:
        UserError: there is none, or it is damaged.
    """
    steps = checkpoint.steps(workdir / CHECKPOINTS)
    if not steps:
        raise UserError(f"{workdir} holds no finished checkpoint: let `d3pm train` run longer")
    if step is not None and step not in steps:
        raise UserError(f"{workdir} has no checkpoint of step {step}: it has {', '.join(map(str, steps))}")
    wanted = steps[-1] if step is None else step
    state = checkpoint.restore(workdir / CHECKPOINTS, wanted, parts.state)
    return dataclasses.replace(parts, state=state)


def check_resume(old: Config, new: Config) -> None:
    """Refuse to go on with another config than the run was started with.

    Raises:
        UserError: naming the fields that differ.
    """
    changed = {k: v for k, v in config_io.differences(old, new).items() if k not in FREE}
    if changed:
        listed = ", ".join(f"{k} was {a}, is {b}" for k, (a, b) in changed.items())
        raise UserError(f"cannot resume with another config ({listed}): undo that, or start in a new workdir")


def num_levels(config: Config) -> int:
    """The number of categories that the data may have: K, less a last one that is an extra mask."""
    return config.process.K - (config.head.forbid == config.process.K - 1)


def _check(config: Config) -> None:
    """Refuse numbers that would fail later and less clearly."""
    train, optimizer, K, forbid = config.train, config.optimizer, config.process.K, config.head.forbid
    limits = {
        "train.batch_size": (train.batch_size, 1),
        "train.log_every": (train.log_every, 1),
        "train.checkpoint_every": (train.checkpoint_every, 1),
        "train.keep_checkpoints": (train.keep_checkpoints, 1),
        "train.sample_every": (train.sample_every, 0),
        "train.steps": (train.steps, 1),
        "train.seed": (train.seed, 0),
        "optimizer.warmup_steps": (optimizer.warmup_steps, 0),
        "optimizer.weight_decay": (optimizer.weight_decay, 0),
        "optimizer.decay_steps": (1 if optimizer.decay_steps is None else optimizer.decay_steps, 1),
        "model.num_res_blocks": (config.model.num_res_blocks, 1),
    }
    for name, (value, least) in limits.items():
        if value < least:
            raise UserError(f"{name} = {value}: it must be at least {least}")
    shares = {
        "train.ema_decay": train.ema_decay,
        "model.dropout": config.model.dropout,
        "timesteps.decay": getattr(config.timesteps, "decay", 0.0),
    }
    for name, value in shares.items():
        if not 0.0 <= value < 1.0:
            raise UserError(f"{name} = {value}: it must be in [0, 1)")
    if forbid is not None and forbid != K - 1:
        raise UserError(
            f"head.forbid = {forbid}: only the last category, K - 1 = {K - 1}, can be an extra mask"
        )
    if forbid is not None and getattr(config.process, "mask_id", forbid) != forbid:
        raise UserError(f"head.forbid = {forbid} is not process.mask_id: forbid the mask, or nothing")
