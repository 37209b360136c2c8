"""Makes networks of ours of the checkpoints of other programs, and compares them with what those gave."""

import dataclasses
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from d3pm_jax import compat, config as configs
from d3pm_jax.config import Head, LogisticHead, Model, Spec
from d3pm_jax.config.checks import check_fields
from d3pm_jax.contrib.layout import Foreign
from d3pm_jax.contrib.told import MOST_STEPS
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError, one_line
from d3pm_jax.models.backbone import padded_size
from d3pm_jax.runs import exported
from d3pm_jax.types import Params
from d3pm_jax.weights import twin

TOLERANCE = 1e-4  # of the largest logit


class Check(NamedTuple):
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


def parameters(foreign: Foreign, model: Model, description: Description) -> tuple[Any, Params]:
    """Returns the graph of the network and its parameters, float32.

    Raises:
        UserError: the tensors are of no such network.
    """
    spec = Spec(description.shape, foreign.K, head_of(foreign).outputs, foreign.classes, foreign.T)
    try:
        graph, shapes = exported.build(model, spec)
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32), shapes)
        return graph, twin.from_torch(like, foreign.tensors)
    except (ValueError, TypeError) as error:
        why = one_line(error, 300)
        raise UserError(f"the network of {foreign.program} cannot be built: {why}") from error


def check_of(path: Path, arrays: dict[str, np.ndarray], foreign: Foreign) -> Check:
    """Returns x, t, label and logits of a program as arrays of ours.

    Args:
        path: of the file.
        arrays: of `read_check`.
        foreign: the network of the program, which says how they are laid out.

    Raises:
        UserError: they do not fit the network or each other.
    """
    try:
        check = _in_our_layout(arrays, foreign)
        _refuse_what_does_not_fit(check, foreign)
    except (ValueError, IndexError, TypeError) as error:
        raise UserError(f"{path}: {one_line(error, 300)}") from error
    return check


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


def _in_our_layout(arrays: dict[str, np.ndarray], foreign: Foreign) -> Check:
    x, t, label, logits = arrays["x"], arrays["t"], arrays.get("label"), arrays["logits"]
    if x.ndim != 4 or x.size == 0 or t.shape != x.shape[:1] or logits.ndim < 4:
        shapes = f"x has shape {x.shape}, t {t.shape} and logits {logits.shape}"
        raise ValueError(f"{shapes}: expected images [B, ..] of 4 axes, [B], and K for each element")
    if t.min() < -MOST_STEPS or t.max() > MOST_STEPS:
        raise ValueError(f"t holds {t.min()}..{t.max()}: a time is at most {MOST_STEPS}")
    xt, steps = foreign.inputs(x, t.astype(np.int64) if t.dtype.kind in "biu" else t, foreign.K)
    if xt.min() < 0 or xt.max() >= foreign.K:
        raise ValueError(f"x holds {xt.min()}..{xt.max()}: the network has K = {foreign.K} categories")
    if not np.array_equal(xt, xt.astype(np.int32)):
        raise ValueError("x holds fractions: expected categories")
    if np.array_equal(steps, np.round(steps)):
        steps = np.round(steps).astype(np.int32)
    wide = foreign.logits(logits.astype(np.float64))
    if not np.isfinite(wide).all():
        raise ValueError("logits are beyond float64: write them again")
    return Check(xt.astype(np.int32), steps, label if foreign.classes else None, wide)


def _refuse_what_does_not_fit(check: Check, foreign: Foreign) -> None:
    """Raises ValueError."""
    xt, label, K = check.xt, check.label, foreign.K
    if xt.ndim != 4 or xt.shape[-1] != foreign.channels or min(xt.shape) < 1:
        raise ValueError(f"x is {list(xt.shape)} as [B, H, W, C]: the network has C = {foreign.channels}")
    if check.logits.shape != (*xt.shape, K):
        have, wanted = list(check.logits.shape), [*xt.shape, K]
        raise ValueError(f"logits are {have} as [B, H, W, C, K], expected {wanted}")
    if foreign.classes is None:
        return
    if label is None or label.shape != check.t.shape or label.dtype.kind not in "iu":
        raise ValueError(f"label must be integers [B]: the network has {foreign.classes} classes")
    if label.min() < 0 or label.max() >= foreign.classes:
        raise ValueError(f"label holds {label.min()}..{label.max()}: there are {foreign.classes} classes")


def difference(check: Check, foreign: Foreign, model: Model, wide: bool) -> float:
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
        return _program_logits(foreign, nnx.merge(graph, params)(xt, t, **told), xt)

    with jax.enable_x64(wide), jax.default_matmul_precision("highest"):
        graph, params = parameters(foreign, model, description)
        given = [None if x is None else jnp.asarray(x) for x in (check.xt, check.t, check.label)]
        found = np.asarray(jax.jit(logits)(exported.in_default_type(params), *given), np.float64)
    worst, largest = float(np.abs(found - check.logits).max()), float(np.abs(check.logits).max())
    if largest > 0:
        return worst / largest
    return 0.0 if worst == 0 else math.inf


def _program_logits(foreign: Foreign, output: jax.Array, xt: jax.Array) -> jax.Array:
    """Returns the logits of the program, which adds an epsilon to those of its logistic head."""
    if not foreign.logistic:
        return head_of(foreign).logits(output, xt, foreign.K)
    least, greatest = input_range_of(foreign) or (0.0, foreign.K - 1.0)
    loc = output[..., 0] + ((xt - least) * (2.0 / (greatest - least)) - 1.0)
    return compat.logistic(jnp.tanh(loc), output[..., 1], foreign.K)
