"""Reads MNISTScoreNet of github.com/paulffm/Dirichlet-Diffusion-Score-Model-Reimplementation.

A checkpoint is {"model": state dict, "optimizer", "n_iter"}, without a moving average. t is a time up to 4,
of which a step is 0.01; the input is one-hot, with the categories last, and the output has mean 0 over them.
"""

from typing import Any

import numpy as np

from d3pm_jax.contrib.layout import (
    Foreign,
    ImportOptions,
    Tensors,
    as_float32,
    as_linear,
    assemble_unet,
    checked_shape,
    choose_value,
    read_levels,
    refuse_left,
    state_dict_of,
    step_of,
    take_attention,
    take_modules,
    whole_steps,
)

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
_WEIGHTS = "time_dependent_weights"
_FREQUENCIES = "time_embedding.0.W"


def recognises_tree(tree: Any) -> bool:
    """Says whether a file of torch.save is of this program."""
    return {"head.weight", _FREQUENCIES, "middleblocks.0.block1.0.weight"} <= _state_dict(tree).keys()


def read_network(tree: Any, user_options: ImportOptions) -> Foreign:
    """Reads the network.

    Args:
        tree: what the file holds.
        user_options: what it does not say.

    Raises:
        ValueError: something is missing, left over, of another shape, or said though the program fixes it.
    """
    if user_options.output == "logistic" or user_options.input_range is not None:
        raise ValueError("it takes one-hot x and gives K logits: leave out --output and --input-range")
    if user_options.num_heads not in (None, 1):
        raise ValueError(f"its attention has 1 head, not {user_options.num_heads}: leave out --heads")

    notes: list[str] = []
    tensors = {name: x for name, x in _state_dict(tree).items() if isinstance(x, np.ndarray)}
    ch, K, *_ = checked_shape(tensors, "head.weight", 4)
    if user_options.K not in (None, K):
        raise ValueError(
            f"it has K = {K} categories, not {user_options.K} as {user_options.source} says: change that"
        )

    largest_time = choose_value(user_options.max_time, 4, "largest time", "--max-time", notes)
    notes.append(f"time step = {1 / STEPS}, the program's default: the file does not say")
    # Rounded, since 100 times a decimal fraction may be a little beside the whole number that is meant.
    T = whole_steps(round(STEPS * largest_time, 6), "100 times --max-time is")
    scales = _time_dependent_weights(tensors.pop(_WEIGHTS, None), T, notes)

    def take_block(path: str) -> tuple[Tensors, Tensors]:
        attention = take_attention(tensors, f"{path}.attn", _ATTENTION)
        block = take_modules(tensors, path, _BLOCK, optional=("shortcut",))
        return as_linear(block, "shortcut"), as_linear(attention, "q", "k", "v", "proj_out")

    down = read_levels(tensors, "downblocks", 0, "block1", "main", take_block)
    up = read_levels(tensors, "upblocks", 0, "block1", "main", take_block)
    mid = read_levels(tensors, "middleblocks", 0, "block1", "main", take_block)[0]
    unet_tensors, options, attn_levels = assemble_unet(ch, down, mid, up)
    checked_shape(tensors, _FREQUENCIES, 1)
    unet_tensors |= take_modules(tensors, "", _ENDS)
    unet_tensors["frequencies"] = tensors.pop(_FREQUENCIES)
    refuse_left(tensors)
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
        tensors=as_float32(unet_tensors, notes),
        weights_kind="raw",
        step=step_of(tree.get("n_iter")),
        notes=notes,
        inputs=_inputs,
        logits=lambda logits: logits[..., None, :],
    )


def _state_dict(tree: Any) -> dict[str, Any]:
    """Returns the state dict, without the prefix of a distributed training."""
    model = state_dict_of(tree)
    if all(name.startswith("module.") for name in model):
        return {name.removeprefix("module."): value for name, value in model.items()}
    return dict(model)


def _time_dependent_weights(weights: np.ndarray | None, T: int, notes: list[str]) -> tuple[float, ...] | None:
    """Returns the weights of steps 1..T, which are the first T in the file; None where it has none.

    Where the file has fewer than T, its last one is repeated, and the notes say so.
    """
    if weights is None:
        return None
    numbers = weights.astype(np.float64)
    if numbers.ndim != 1 or len(numbers) < 1 or not np.isfinite(numbers).all():
        raise ValueError(f"{_WEIGHTS} of shape {weights.shape} are not finite numbers by time")
    if len(numbers) != T:
        notes.append(
            f"{len(numbers)} {_WEIGHTS} for {T} steps: the last one is repeated, or those beyond T are left "
            "out"
        )
    by_step = numbers[np.minimum(np.arange(T), len(numbers) - 1)].tolist()
    # A ScoreNet takes None or at least two weights, the last of which is that of step T.
    if T == 1:
        by_step = 2 * by_step
    return tuple(by_step)


def _inputs(x: np.ndarray, t: np.ndarray, K: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the categories [B, H, W, 1] of one-hot x [B, H, W, K], and times as steps."""
    categories = np.argmax(x, axis=-1)  # [B, H, W]
    if x.shape[-1] != K or not np.array_equal(np.eye(K)[categories], x):
        raise ValueError(f"x of shape {x.shape} is not one-hot [B, H, W, {K}]: only categories are computed")
    return categories[..., None], t * float(STEPS)
