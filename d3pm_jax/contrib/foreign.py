"""Makes networks of ours of the checkpoints of other programs: their logits compared, files and runs."""

import dataclasses
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from d3pm_jax import compat, config as configs
from d3pm_jax.config import Config, Head, LogisticHead, Model, Spec, io as config_io
from d3pm_jax.config.checks import check_fields
from d3pm_jax.contrib.layout import MOST_STEPS, Foreign
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError, one_line
from d3pm_jax.models.backbone import padded_size
from d3pm_jax.parts import begin, build
from d3pm_jax.runs import exported
from d3pm_jax.storage.names import WEIGHTS
from d3pm_jax.types import Params
from d3pm_jax.weights import twin

TOLERANCE = 1e-4  # of the largest logit
_COARSE = "since 1 - exp() + 1e-6 of a logistic head has a few per cent of precision in float32"


class ProgramOutput(NamedTuple):
    """Holds what a program gave, as arrays of ours."""

    xt: np.ndarray  # int32 [B, H, W, C]
    t: np.ndarray  # [B]
    label: np.ndarray | None
    logits: np.ndarray  # float64 [B, H, W, C, K]


def model_of(foreign: Foreign, size: tuple[int, int]) -> Model:
    """Describes the network, for images of a size.

    Raises:
        UserError: a number of it cannot be used.
    """
    more: dict[str, Any] = {}
    if foreign.network == "UNet":
        more["input_range"] = input_range_of(foreign)
        first = padded_size(max(size), len(foreign.options["ch_mult"]))
        more["attn_resolutions"] = tuple(first // 2**i for i in foreign.attn_levels)
    try:
        model = getattr(configs, foreign.network)(**foreign.options | more)
        check_fields("model", model)
    except ValueError as error:
        raise UserError(one_line(error, 300)) from error
    return model


def input_range_of(foreign: Foreign) -> tuple[float, float] | None:
    """Returns the numbers that the network sees as -1 and 1; None for 0 and K - 1."""
    found = foreign.options["input_range"]
    return None if found == (0, foreign.K - 1) else found


def fit_head(head: Head, foreign: Foreign) -> Head:
    """Returns a head of a config as the program has it: K logits or two numbers, and x added or not."""
    wanted = head_of(foreign)
    if head.outputs != wanted.outputs:
        return dataclasses.replace(wanted, forbid=head.forbid)
    fields = {"residual", "input_range"} & {f.name for f in dataclasses.fields(head)}
    return dataclasses.replace(head, **{name: getattr(wanted, name, None) for name in fields})


def head_of(foreign: Foreign) -> Head:
    """Describes the head of the program."""
    if foreign.logistic:
        return LogisticHead(residual=foreign.residual, input_range=input_range_of(foreign))
    return Head(residual=foreign.residual)


def description_of(foreign: Foreign, size: tuple[int, int]) -> Description:
    """Describes images that the network is for."""
    return Description((*size, foreign.channels), foreign.K, foreign.classes, "image")


def build_parameters(foreign: Foreign, model: Model, description: Description) -> tuple[Any, Params]:
    """Returns the graph of the network and its parameters, float32.

    Raises:
        UserError: the tensors are of no such network.
    """
    spec = Spec(description.shape, foreign.K, head_of(foreign).outputs, foreign.classes, foreign.T)
    try:
        graph, shapes = exported.build_graph(model, spec)
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32), shapes)
        return graph, twin.from_torch(like, foreign.tensors)
    except (ValueError, TypeError) as error:
        why = one_line(error, 300)
        raise UserError(f"the network of {foreign.program} cannot be built: {why}") from error


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
        x, t, label, logits = arrays["x"], arrays["t"], arrays.get("label"), arrays["logits"]
        if x.ndim != 4 or x.size == 0 or t.shape != x.shape[:1] or logits.ndim < 4:
            shapes = f"x has shape {x.shape}, t {t.shape} and logits {logits.shape}"
            raise ValueError(f"{shapes}: expected images [B, ..] of 4 axes, [B], and K for each element")
        if t.min() < -MOST_STEPS or t.max() > MOST_STEPS:
            raise ValueError(f"t holds {t.min()}..{t.max()}: a time is at most {MOST_STEPS}")
        K, classes = foreign.K, foreign.classes
        xt, steps = foreign.inputs(x, t.astype(np.int64) if t.dtype.kind in "biu" else t, K)
        if xt.min() < 0 or xt.max() >= K:
            raise ValueError(f"x holds {xt.min()}..{xt.max()}: the network has K = {K} categories")
        if not np.array_equal(xt, xt.astype(np.int32)):
            raise ValueError("x holds fractions: expected categories")
        if np.array_equal(steps, np.round(steps)):
            steps = np.round(steps).astype(np.int32)
        wide = foreign.logits(logits.astype(np.float64))
        if not np.isfinite(wide).all():
            raise ValueError("logits are beyond float64: write them again")
        if xt.ndim != 4 or xt.shape[-1] != foreign.channels or min(xt.shape) < 1:
            raise ValueError(f"x is {list(xt.shape)} as [B, H, W, C]: the network has C = {foreign.channels}")
        if wide.shape != (*xt.shape, K):
            have, wanted = list(wide.shape), [*xt.shape, K]
            raise ValueError(f"logits are {have} as [B, H, W, C, K], expected {wanted}")
        if classes is None:
            return ProgramOutput(xt.astype(np.int32), steps, None, wide)
        if label is None or label.shape != steps.shape or label.dtype.kind not in "iu":
            raise ValueError(f"label must be integers [B]: the network has {classes} classes")
        if label.min() < 0 or label.max() >= classes:
            raise ValueError(f"label holds {label.min()}..{label.max()}: there are {classes} classes")
        return ProgramOutput(xt.astype(np.int32), steps, label, wide)
    except (ValueError, IndexError, TypeError) as error:
        raise UserError(f"{path}: {one_line(error, 300)}") from error


def read_check(path: Path) -> dict[str, np.ndarray]:
    """Reads x, t, label and logits of a program, as it has them.

    Args:
        path: of the .npz file.

    Raises:
        UserError: the file is damaged, or they are missing, or no finite numbers.
        OSError: it cannot be read.
    """
    path.open("rb").close()  # an OSError that names it
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            found = {name: file[name] for name in ("x", "t", "label", "logits") if name in file.files}
    except Exception as error:  # whatever a damaged archive does to NumPy
        raise UserError(f"{path} is damaged, or no .npz file ({one_line(error)}): write it again") from error
    if missing := [name for name in ("x", "t", "logits") if name not in found]:
        raise UserError(f"{path} holds no {', '.join(missing)}: pass x, t, logits, and label if there is one")
    if wrong := [name for name, x in found.items() if x.dtype.kind not in "biuf" or not np.isfinite(x).all()]:
        raise UserError(f"{path} holds {', '.join(wrong)} that are no finite numbers: write it again")
    return found


def logit_difference(check: ProgramOutput, foreign: Foreign, model: Model, wide: bool) -> float:
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
        told = {} if label is None else {"label": label}
        output = nnx.merge(graph, params)(xt, t, **told)
        if not foreign.logistic:
            return head_of(foreign).logits(output, xt, foreign.K)
        # The program adds an epsilon to the logits of its logistic head.
        least, greatest = input_range_of(foreign) or (0.0, foreign.K - 1.0)
        loc = output[..., 0] + ((xt - least) * (2.0 / (greatest - least)) - 1.0)
        return compat.logistic(jnp.tanh(loc), output[..., 1], foreign.K)

    with jax.enable_x64(wide), jax.default_matmul_precision("highest"):
        graph, params = build_parameters(foreign, model, description)
        given = [None if x is None else jnp.asarray(x) for x in (check.xt, check.t, check.label)]
        found = np.asarray(jax.jit(logits)(exported.in_default_type(params), *given), np.float64)
    worst, largest = float(np.abs(found - check.logits).max()), float(np.abs(check.logits).max())
    if largest > 0:
        return worst / largest
    return 0.0 if worst == 0 else math.inf


def compare_logits(
    file: Path, found: Foreign, check: Path, arrays: dict[str, np.ndarray]
) -> tuple[str, tuple[int, int]]:
    """Compares logits of the network with those of its program.

    Args:
        file: the checkpoint.
        found: its network.
        check: the file of the arrays.
        arrays: of `read_check`.

    Returns:
        By how much they differ, in words, and the size of the images.

    Raises:
        UserError: they differ by more than `TOLERANCE`.
    """
    given = convert_check(check, arrays, found)
    H, W = given.xt.shape[1:3]
    model = model_of(found, (H, W))
    narrow, wide = (logit_difference(given, found, model, wide) for wide in (False, True))
    text = f"logits differ from {check} by {narrow:.1e} of the largest, {wide:.1e} in float64"
    if not narrow <= TOLERANCE:
        cure = "see what was assumed, or whether the check is of these weights"
        if found.logistic and arrays["logits"].dtype != np.float64:
            cure = f"compute it in float64, {_COARSE}"
        raise UserError(f"{file}: {text}, more than {TOLERANCE:g}: {cure}")
    return text, (H, W)


def write_weights(workdir: Path, found: Foreign, size: tuple[int, int]) -> None:
    """Writes the weights of a network for images of a size to a folder, with the model and head beside them.

    Raises:
        UserError: the tensors are of no such network.
    """
    description, model = description_of(found, size), model_of(found, size)
    _, params = build_parameters(found, model, description)
    workdir.mkdir(parents=True, exist_ok=True)
    tree = {"model": config_io.to_json(model), "head": config_io.to_json(head_of(found))}
    _save(workdir, params, tree, found, description, found.T)


def fit_config(config: Config, found: Foreign, description: Description) -> Config:
    """Returns a config with the model of a checkpoint, and with a head as its program has it."""
    model = model_of(found, (description.shape[0], description.shape[1]))
    return dataclasses.replace(config, model=model, head=fit_head(config.head, found))


def check_data(file: Path, found: Foreign, description: Description, name: object) -> None:
    """Raises UserError where a network is for other data than that of the config of a name."""
    shape = description.shape
    if len(shape) != 3 or shape[-1] != found.channels:
        raise UserError(
            f"{file} is for images of {found.channels} channels, the data of {name} has shape "
            f"{shape}: pass a config of other data"
        )
    if found.classes not in (None, description.classes):
        have = "no labels" if description.classes is None else f"{description.classes} classes"
        cure = f"pass a config whose data has {found.classes} classes"
        raise UserError(f"{file} is told one of {found.classes} classes, the data has {have}: {cure}")


def begin_run(
    file: Path, found: Foreign, config: Config, description: Description, workdir: Path, name: object
) -> int:
    """Begins a run from the weights of a checkpoint, and writes them to its folder too.

    Args:
        file: the checkpoint.
        found: its network.
        config: of the run, with that network: see `fit_config`.
        description: of its data.
        workdir: where the run is written; a folder without a run.
        name: what the config is called in messages.

    Returns:
        T of the process.

    Raises:
        UserError: the process has another K, or the tensors are of another network.
    """
    parts = build.build(config, description)
    K, T = parts.process.K, parts.process.T
    if found.K != K:
        cure = "change the process, or pass --categories"
        raise UserError(f"{file} has K = {found.K}, the process of {name} has {K}: {cure}")
    try:
        params = twin.from_torch(parts.state.params, found.tensors)
    except ValueError as error:
        raise UserError(f"{file}: {error}") from error
    begin.begin_run(parts, workdir, params)
    _save(workdir, params, config_io.to_json(config), found, description, T)
    return T


def _save(workdir: Path, params: Any, config: Any, found: Foreign, description: Description, T: int) -> None:
    texts = exported.make_metadata(config, description, found.K, T, found.step, found.weights)
    twin.save(workdir / WEIGHTS, params, texts)
