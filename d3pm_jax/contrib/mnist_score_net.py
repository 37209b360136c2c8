"""Reads MNISTScoreNet of github.com/paulffm/Dirichlet-Diffusion-Score-Model-Reimplementation.

A checkpoint is {"model": state dict, "optimizer", "n_iter"}, without a moving average. t is a time up to 4,
of which a step is 0.01; the input is one-hot, with the categories last, and the output has mean 0 over them.
"""

from typing import Any

import numpy as np

from d3pm_jax.contrib import layout
from d3pm_jax.contrib.layout import Foreign, ImportOptions, Tensors, choose_value, step_of, whole_steps

PROGRAM = "MNISTScoreNet"
STEPS = 100  # in a unit of time
_BLOCK = {
    "block1.0": "norm1",
    "block1.2": "conv1",
    "temb_proj.1": "temb_proj",
    "block2.0": "norm2",
    "block2.3": "conv2",
    "shortcut": "shortcut",
}
_ATTENTION = {"group_norm": "norm", "proj_q": "q", "proj_k": "k", "proj_v": "v", "proj": "proj_out"}
_ENDS = {"time_embedding.1": "temb", "head": "conv_in", "tail.0": "norm_out", "tail.2": "conv_out"}
_WEIGHTS, _FREQUENCIES = "time_dependent_weights", "time_embedding.0.W"


def recognises_tree(tree: Any) -> bool:
    """Says whether a file of torch.save is of this program."""
    return {"head.weight", _FREQUENCIES, "middleblocks.0.block1.0.weight"} <= _model(tree).keys()


def read_network(tree: Any, told: ImportOptions) -> Foreign:
    """Reads the network.

    Args:
        tree: what the file holds.
        told: what it does not say.

    Raises:
        ValueError: something is missing, left over, of another shape, or said though the program fixes it.
    """
    if told.output == "logistic" or told.input_range is not None:
        raise ValueError("it takes one-hot x and gives K logits: leave out --output and --input-range")
    if told.num_heads not in (None, 1):
        raise ValueError(f"its attention has 1 head, not {told.num_heads}: leave out --heads")
    notes: list[str] = []
    tensors = {k: x for k, x in _model(tree).items() if isinstance(x, np.ndarray)}
    ch, K, *_ = layout.checked_shape(tensors, "head.weight", 4)
    if told.K not in (None, K):
        raise ValueError(f"it has K = {K} categories, not {told.K} as {told.source} says: change that")
    largest = choose_value(told.max_time, 4, "largest time", "--max-time", notes)
    notes.append(f"time step = {1 / STEPS}, the program's default: the file does not say")
    T = whole_steps(round(STEPS * largest, 6), "100 times --max-time is")
    scales = _time_dependent_weights(tensors.pop(_WEIGHTS, None), T, notes)

    def block(at: str) -> tuple[Tensors, Tensors]:
        attends = layout.has_module(tensors, f"{at}.attn")
        attention = layout.take_modules(tensors, f"{at}.attn", _ATTENTION) if attends else {}
        found = layout.take_modules(tensors, at, _BLOCK, optional=("shortcut",))
        return layout.as_linear(found, "shortcut"), layout.as_linear(attention, "q", "k", "v", "proj_out")

    down = layout.read_levels(tensors, "downblocks", 0, "block1", "main", block)
    up = layout.read_levels(tensors, "upblocks", 0, "block1", "main", block)
    mid = layout.read_levels(tensors, "middleblocks", 0, "block1", "main", block)[0]
    found, options, attn_levels = layout.assemble_unet(ch, down, mid, up)
    layout.checked_shape(tensors, _FREQUENCIES, 1)
    found |= layout.take_modules(tensors, "", _ENDS) | {"frequencies": tensors.pop(_FREQUENCIES)}
    layout.refuse_left(tensors)
    options |= {"groups": 32, "num_heads": 1, "attn": attn_levels, "max_time": T}
    return Foreign(
        program=PROGRAM,
        network="ScoreNet",
        options=options | {"time_dependent_weights": scales},
        attn_levels=attn_levels,
        K=K,
        channels=1,
        size=28,
        T=T,
        tensors=layout.as_float32(found, notes),
        weights="raw",
        step=step_of(tree.get("n_iter")),
        notes=notes,
        inputs=_inputs,
        logits=lambda logits: logits[..., None, :],
    )


def _model(tree: Any) -> dict[str, Any]:
    """Returns the state dict, without the prefix of a distributed training."""
    model = tree.get("model", tree) if isinstance(tree, dict) else None
    named = model if isinstance(model, dict) else {}
    spread = bool(named) and all(name.startswith("module.") for name in named)
    return {name.removeprefix("module.") if spread else name: x for name, x in named.items()}


def _time_dependent_weights(found: Any, T: int, notes: list[str]) -> tuple[float, ...] | None:
    """Returns number i of the weights for step i = 1..T: the last goes on, those beyond T are left out."""
    if found is None:
        return None
    numbers = found.astype(np.float64)
    if numbers.ndim != 1 or len(numbers) < 1 or not np.isfinite(numbers).all():
        raise ValueError(f"{_WEIGHTS} of shape {found.shape} are not finite numbers by time")
    if len(numbers) != T:
        notes.append(f"{len(numbers)} {_WEIGHTS} for {T} steps: the last one goes on, more are left out")
    return tuple([*numbers.tolist(), *[float(numbers[-1])] * T][: max(T, 2)])


def _inputs(x: np.ndarray, t: np.ndarray, K: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the categories of one-hot [B, H, W, K], and times as steps."""
    found = np.argmax(x, axis=-1)
    if x.shape[-1] != K or not np.array_equal(np.eye(K)[found], x):
        raise ValueError(f"x of shape {x.shape} is not one-hot [B, H, W, {K}]: only categories are computed")
    return found[..., None], t * float(STEPS)
