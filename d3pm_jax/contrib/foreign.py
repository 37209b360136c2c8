"""Makes networks of ours of the checkpoints of other programs: their logits compared, files and runs."""

import dataclasses
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from d3pm_jax import compat, config as configs
from d3pm_jax.contrib.layout import MOST_STEPS, Foreign
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError, as_user_error, one_line
from d3pm_jax.models.backbone import padded_size
from d3pm_jax.models.variables import SplitModule
from d3pm_jax.program.parts import begin, build
from d3pm_jax.program.parts.completed import Completed
from d3pm_jax.program.storage.names import WEIGHTS
from d3pm_jax.runs import exported
from d3pm_jax.types import Params
from d3pm_jax.weights import twin

# How far logits may differ, in units of the largest of the program.
TOLERANCE = 1e-4
_COARSE = "since 1 - exp() + 1e-6 of a logistic head has a few per cent of precision in float32"


class ProgramOutput(NamedTuple):
    """Holds what a program computed, as arrays of ours."""

    xt: np.ndarray  # int32 [B, H, W, C]
    t: np.ndarray  # [B]
    label: np.ndarray | None  # [B]
    logits: np.ndarray  # float64 [B, H, W, C, K]


def model_of(foreign: Foreign, size: tuple[int, int]) -> configs.Model:
    """Describes the network, for images of a size.

    Raises:
        UserError: a number of it cannot be used.
    """
    options = dict(foreign.options)
    if foreign.network == "UNet":
        options["input_range"] = input_range_of(foreign)
        # A spec names the levels with attention by the size of an image there.
        first = padded_size(max(size), len(options["ch_mult"]))
        options["attn_resolutions"] = tuple(first // 2**level for level in foreign.attn_levels)
    try:
        model = getattr(configs, foreign.network)(**options)
        configs.check_fields("model", model)
    except ValueError as error:
        raise UserError(one_line(error, 300)) from error
    return model


def input_range_of(foreign: Foreign) -> tuple[float, float] | None:
    """Returns the numbers that the network sees as -1 and 1; None for 0 and K - 1."""
    input_range = foreign.options["input_range"]
    if input_range == (0, foreign.K - 1):
        return None
    return input_range


def fit_head(head: configs.Head, foreign: Foreign) -> configs.Head:
    """Returns a head of a config as the program has it: K logits or two numbers, and x added or not."""
    program_head = head_of(foreign)
    if head.outputs != program_head.outputs:
        return program_head
    fields = {"residual", "input_range"} & {field.name for field in dataclasses.fields(head)}
    return dataclasses.replace(head, **{name: getattr(program_head, name, None) for name in fields})


def head_of(foreign: Foreign) -> configs.Head:
    """Describes the head of the program."""
    if foreign.logistic:
        return configs.LogisticHead(residual=foreign.residual, input_range=input_range_of(foreign))
    return configs.Head(residual=foreign.residual)


def description_of(foreign: Foreign, size: tuple[int, int]) -> Description:
    """Describes images that the network is for."""
    return Description((*size, foreign.channels), foreign.K, foreign.classes, "image")


def build_parameters(
    foreign: Foreign, model: configs.Model, description: Description
) -> tuple[SplitModule, Params]:
    """Returns the network without its parameters, and these, float32.

    Raises:
        UserError: the tensors are of no such network.
    """
    spec = configs.Spec(description.shape, foreign.K, head_of(foreign).outputs, foreign.classes, foreign.T)
    try:
        module, shapes = exported.split_model(model, spec)
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32), shapes)
        return module, twin.from_torch(like, foreign.tensors)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"the network of {foreign.program} cannot be built: {one_line(error, 300)}"
        ) from error


def convert_check(path: Path, arrays: dict[str, np.ndarray], foreign: Foreign) -> ProgramOutput:
    """Returns x, t, label and logits of a program as arrays of ours.

    Args:
        path: of the file.
        arrays: of `read_check`.
        foreign: the network of the program, which says how they are laid out.

    Raises:
        UserError: they do not fit the network or each other.
    """
    try:
        return _convert(arrays["x"], arrays["t"], arrays.get("label"), arrays["logits"], foreign)
    except (ValueError, IndexError, TypeError) as error:
        raise UserError(f"{path}: {one_line(error, 300)}") from error


def _convert(
    x: np.ndarray, t: np.ndarray, label: np.ndarray | None, logits: np.ndarray, foreign: Foreign
) -> ProgramOutput:
    """Converts the arrays of a check; `convert_check` adds the name of the file to its errors.

    Raises:
        ValueError, IndexError, TypeError: the arrays do not fit the network or each other.
    """
    K = foreign.K
    if x.ndim != 4 or x.size == 0 or t.shape != x.shape[:1] or logits.ndim < 4:
        raise ValueError(
            f"x has shape {x.shape}, t {t.shape} and logits {logits.shape}: expected images [B, ..] of 4 "
            f"axes, [B], and K for each element"
        )
    if t.min() < -MOST_STEPS or t.max() > MOST_STEPS:
        raise ValueError(f"t holds {t.min()}..{t.max()}: a time is at most {MOST_STEPS}")
    if t.dtype.kind in "biu":
        # In a narrow type the program's t + 1 could overflow.
        t = t.astype(np.int64)

    xt, steps = foreign.inputs(x, t, K)  # [B, H, W, C], [B]
    if xt.min() < 0 or xt.max() >= K:
        raise ValueError(f"x holds {xt.min()}..{xt.max()}: the network has K = {K} categories")
    if not np.array_equal(xt, xt.astype(np.int32)):
        raise ValueError("x holds fractions: expected categories")
    if np.array_equal(steps, np.round(steps)):
        steps = np.round(steps).astype(np.int32)

    wide_logits = foreign.logits(logits.astype(np.float64))  # [B, H, W, C, K]
    if not np.isfinite(wide_logits).all():
        raise ValueError("logits are beyond float64: write them again")
    if xt.ndim != 4 or xt.shape[-1] != foreign.channels or min(xt.shape) < 1:
        raise ValueError(f"x is {list(xt.shape)} as [B, H, W, C]: the network has C = {foreign.channels}")
    if wide_logits.shape != (*xt.shape, K):
        raise ValueError(
            f"logits are {list(wide_logits.shape)} as [B, H, W, C, K], expected {[*xt.shape, K]}"
        )

    classes = foreign.classes
    if classes is None:
        return ProgramOutput(xt.astype(np.int32), steps, None, wide_logits)
    if label is None or label.shape != steps.shape or label.dtype.kind not in "iu":
        raise ValueError(f"label must be integers [B]: the network has {classes} classes")
    if label.min() < 0 or label.max() >= classes:
        raise ValueError(f"label holds {label.min()}..{label.max()}: there are {classes} classes")
    return ProgramOutput(xt.astype(np.int32), steps, label, wide_logits)


def read_check(path: Path) -> dict[str, np.ndarray]:
    """Reads x, t, label and logits of a program, as it has them.

    Args:
        path: of the .npz file.

    Raises:
        UserError: the file is damaged, or they are missing, or no finite numbers.
        OSError: it cannot be read.
    """
    # NumPy's own error would be taken for one of a damaged file: this OSError names the file.
    path.open("rb").close()
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("x", "t", "label", "logits") if name in file.files}
    except Exception as error:
        # A damaged archive makes NumPy and zipfile raise errors of many classes.
        raise UserError(
            f"{path} is damaged, or not an .npz file ({one_line(error)}): write it again"
        ) from error

    missing = [name for name in ("x", "t", "logits") if name not in arrays]
    if missing:
        raise UserError(f"{path} holds no {', '.join(missing)}: pass x, t, logits, and label if there is one")
    wrong = [
        name
        for name, array in arrays.items()
        if array.dtype.kind not in "biuf" or not np.isfinite(array).all()
    ]
    if wrong:
        raise UserError(f"{path} holds {', '.join(wrong)} that are not finite numbers: write it again")
    return arrays


def logit_difference(check: ProgramOutput, foreign: Foreign, model: configs.Model, wide: bool) -> float:
    """Returns the largest difference of our logits, in units of the largest of the program; 0 if all are 0.

    Args:
        check: what the program gave.
        foreign: its network.
        model: ours, for images of the size of the check.
        wide: compute in float64, in place of float32.

    Raises:
        UserError: there is no such network.
    """
    description = description_of(foreign, check.xt.shape[1:3])

    def logits(params: Params, xt: jax.Array, t: jax.Array, label: jax.Array | None) -> jax.Array:
        labels = {} if label is None else {"label": label}
        output = module.merge(params)(xt, t, **labels)
        if not foreign.logistic:
            return head_of(foreign).logits(output, xt, foreign.K)
        # The program adds an epsilon to the logits of its logistic head, as `compat` does and a head of ours
        # does not. So its logits are computed by `compat`.
        least, greatest = input_range_of(foreign) or (0.0, foreign.K - 1.0)
        loc = output[..., 0] + ((xt - least) * (2.0 / (greatest - least)) - 1.0)  # [B, H, W, C]
        return compat.logistic(jnp.tanh(loc), output[..., 1], foreign.K)

    with jax.enable_x64(wide), jax.default_matmul_precision("highest"):
        module, params = build_parameters(foreign, model, description)
        params = exported.in_default_type(params)
        xt = jnp.asarray(check.xt)
        t = jnp.asarray(check.t)
        label = None if check.label is None else jnp.asarray(check.label)
        our_logits = np.asarray(jax.jit(logits)(params, xt, t, label), np.float64)
    worst = float(np.abs(our_logits - check.logits).max())
    largest = float(np.abs(check.logits).max())
    if largest > 0:
        return worst / largest
    return 0.0 if worst == 0 else math.inf


def compare_logits(
    file: Path, foreign: Foreign, check_file: Path, arrays: dict[str, np.ndarray]
) -> tuple[str, tuple[int, int]]:
    """Compares logits of the network with those of its program.

    Args:
        file: the checkpoint.
        foreign: its network.
        check_file: the file of the arrays.
        arrays: of `read_check`.

    Returns:
        By how much they differ, in words, and the size of the images.

    Raises:
        UserError: they differ by more than `TOLERANCE`.
    """
    check = convert_check(check_file, arrays, foreign)
    H, W = check.xt.shape[1:3]
    model = model_of(foreign, (H, W))
    narrow = logit_difference(check, foreign, model, wide=False)
    wide = logit_difference(check, foreign, model, wide=True)
    text = f"logits differ from {check_file} by {narrow:.1e} of the largest, {wide:.1e} in float64"
    if not narrow <= TOLERANCE:
        cure = "check what the notes above assume, and that the logits are from these weights"
        if foreign.logistic and arrays["logits"].dtype != np.float64:
            cure = f"compute it in float64, {_COARSE}"
        raise UserError(f"{file}: {text}, more than {TOLERANCE:g}: {cure}")
    return text, (H, W)


def write_weights(workdir: Path, foreign: Foreign, size: tuple[int, int]) -> None:
    """Writes the weights of a network for images of a size to a folder, with the model and head beside them.

    Raises:
        UserError: the tensors are of no such network.
    """
    description = description_of(foreign, size)
    model = model_of(foreign, size)
    _, params = build_parameters(foreign, model, description)
    workdir.mkdir(parents=True, exist_ok=True)
    tree = {"model": configs.io.to_json(model), "head": configs.io.to_json(head_of(foreign))}
    _save(workdir, params, tree, foreign, description, foreign.T)


def fit_config(config: configs.Config, foreign: Foreign, description: Description) -> configs.Config:
    """Returns a config with the model of a checkpoint, and with a head as its program has it.

    Raises:
        UserError: they do not go with the rest of the config.
    """
    model = model_of(foreign, (description.shape[0], description.shape[1]))
    fitted = dataclasses.replace(config, model=model, head=fit_head(config.head, foreign))
    configs.io.check_config(fitted)
    return fitted


def check_data(file: Path, foreign: Foreign, description: Description, config_name: object) -> None:
    """Raises UserError where a network is for other data than that of a config.

    Args:
        file: the checkpoint.
        foreign: its network.
        description: of the data of the config.
        config_name: what the config is called in messages.
    """
    shape = description.shape
    if len(shape) != 3 or shape[-1] != foreign.channels:
        raise UserError(
            f"{file} is for images of {foreign.channels} channels, but the data of {config_name} has "
            f"shape {shape}: pass a config of other data"
        )
    if foreign.classes not in (None, description.classes):
        classes = "no labels"
        if description.classes is not None:
            classes = f"{description.classes} classes"
        raise UserError(
            f"{file} takes labels of {foreign.classes} classes, but the data has {classes}: pass a config "
            f"whose data has {foreign.classes} classes"
        )


def begin_run(
    file: Path,
    foreign: Foreign,
    completed: Completed,
    workdir: Path,
    config_name: object,
) -> int:
    """Begins a run from the weights of a checkpoint, and writes them to its folder too.

    Args:
        file: the checkpoint.
        foreign: its network.
        completed: the config of the run with its data, and with that network: see `fit_config`.
        workdir: where the run is written; a folder without a run.
        config_name: what the config is called in messages.

    Returns:
        T of the process.

    Raises:
        UserError: the process has another K, or the tensors are of another network.
    """
    parts = build.build(completed)
    K = parts.recipe.process.K
    T = parts.recipe.num_steps
    if foreign.K != K:
        raise UserError(
            f"{file} has K = {foreign.K}, but the process of {config_name} has {K}: change the process, or "
            f"pass --categories"
        )
    with as_user_error(f"{file}: "):
        params = twin.from_torch(parts.state.params, foreign.tensors)
    begin.begin_run(parts, workdir, params)
    _save(
        workdir,
        params,
        configs.io.to_json(parts.config),
        foreign,
        parts.description,
        T,
        parts.recipe.extra_mask,
    )
    return T


def _save(
    workdir: Path,
    params: Any,
    config: Any,
    foreign: Foreign,
    description: Description,
    T: int,
    extra_mask: int | None = None,
) -> None:
    """Writes parameters to a file of safetensors, with what they are of in its metadata.

    Args:
        workdir: its folder.
        params: of the network.
        config: as JSON.
        foreign: the network of the program.
        description: of the data.
        T: steps of the process.
        extra_mask: of the process, if it has one.
    """
    texts = exported.make_metadata(
        config, description, foreign.K, T, foreign.step, foreign.weights_kind, extra_mask
    )
    twin.save(workdir / WEIGHTS, params, texts)
