"""Reads the U-Net of github.com/paulffm/Discrete-Time-Diffusion-Models-for-Discrete-Data.

A checkpoint is {"model": state dict, "optimizer", "n_iter"}. The network is "net.NAME", or "net.module.NAME"
of a distributed training; its moving average is a list without names, in the order of those of the network.
Groups follow the width of a layer, attention has PyTorch's eps, t counts from 0 and is embedded as it is,
and logits are not added to one-hot x.
"""

import re
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
    has_module,
    infer_output,
    read_levels,
    refuse_left,
    state_dict_of,
    step_of,
    take_modules,
    whole_steps,
)

PROGRAM = "the U-Net of Discrete-Time-Diffusion-Models-for-Discrete-Data"
_BLOCK = {
    "norm1": "norm1",
    "conv1": "conv1",
    "time.1": "temb_proj",
    "norm2": "norm2",
    "conv2": "conv2",
    "skip": "shortcut",
}
_ENDS = {"time.1": "temb1", "time.3": "temb2", "down.0": "conv_in", "out.0": "norm_out", "out.2": "conv_out"}
_LOGISTIC = (
    "the logistic head is taken as that of lib/d3pm.py, with the official bins, and not as that of "
    "lib/models/models.py, whose bins are 2 / K wide: the file does not say"
)
_FIXED = {"groups": 32, "channels_per_group": 4, "attention_eps": 1e-5, "max_time": 1000}


def recognises_tree(tree: Any) -> bool:
    """Says whether a file of torch.save is of this program."""
    names = {_remove_prefixes(name) for name in state_dict_of(tree)}
    return {"down.0.weight", "time.1.weight", "mid.0.resblocks.norm1.weight"} <= names


def read_network(tree: Any, user_options: ImportOptions) -> Foreign:
    """Reads the network.

    Args:
        tree: what the file holds.
        user_options: what it does not say.

    Raises:
        ValueError: something is missing, left over, or of another shape.
    """
    notes: list[str] = []
    tensors, weights = _choose_weights(state_dict_of(tree), user_options.raw, notes)

    # What the shapes say.
    ch, channels, *_ = checked_shape(tensors, "down.0.weight", 4)
    outputs = checked_shape(tensors, "out.2.weight", 4)[0]
    logistic, K = infer_output(outputs, channels, user_options, False, notes)
    if logistic:
        notes.append(_LOGISTIC)

    # What nothing says but the user.
    heads = choose_value(user_options.num_heads, 1, "number of heads", "--heads", notes)
    input_range = choose_value(user_options.input_range, (0.0, K - 1.0), "range of x", "--input-range", notes)
    max_time = choose_value(user_options.max_time, 1000, "T", "--max-time", notes)
    T = whole_steps(max_time, "--max-time")

    def take_block(path: str) -> tuple[Tensors, Tensors]:
        block = take_modules(tensors, f"{path}.resblocks", _BLOCK, optional=("skip",))
        attention: Tensors = {}
        if has_module(tensors, f"{path}.attention"):
            attention = _take_attention(tensors, f"{path}.attention", heads)
        return as_linear(block, "shortcut"), attention

    # The first entry of "down" is the first convolution.
    down = read_levels(tensors, "down", 1, "resblocks", "downsample.0", take_block)
    up = read_levels(tensors, "up", 0, "resblocks", "1", take_block)
    mid = read_levels(tensors, "mid", 0, "resblocks", "none", take_block)[0]
    unet_tensors, options, attn_levels = assemble_unet(ch, down, mid, up)
    unet_tensors |= take_modules(tensors, "", _ENDS)
    refuse_left(tensors)
    size = 32
    if channels == 1:
        size = 28
    return Foreign(
        program=PROGRAM,
        network="UNet",
        options=options | _FIXED | {"num_heads": heads, "input_range": input_range},
        attn_levels=attn_levels,
        K=K,
        channels=channels,
        size=size,
        T=T,
        tensors=as_float32(unet_tensors, notes),
        weights_kind=weights,
        step=step_of(tree.get("n_iter")),
        notes=notes,
        inputs=lambda x, t, K: (np.moveaxis(x, 1, -1), t + 1),
        logits=lambda logits: np.moveaxis(logits, 1, -2),
        logistic=logistic,
        residual=logistic,
    )


def _remove_prefixes(name: str) -> str:
    """Returns a name without the prefixes of a process and of a distributed training."""
    return re.sub(r"^net\.(module\.)*", "", name)


def _choose_weights(model: dict[str, Any], raw: bool, notes: list[str]) -> tuple[Tensors, str]:
    """Returns the tensors by the names of the network alone, and which they are: "ema" or "raw".

    Args:
        model: the state dict.
        raw: take the last weights, where there is an average too.
        notes: takes what was assumed.

    Raises:
        ValueError: the average is of other tensors than the network.
    """
    arrays = {name: x for name, x in model.items() if isinstance(x, np.ndarray)}
    if any(name.startswith("net.") for name in arrays):
        arrays = {name: x for name, x in arrays.items() if name.startswith("net.")}
    tensors = {_remove_prefixes(name): x for name, x in arrays.items()}

    averages = model.get("ema_shadow_params")
    if averages is None and not raw:
        notes.append("the file has no moving average: these are the last weights")
    if averages is None or raw:
        return tensors, "raw"

    # The average is a list without names: only its order and shapes say which tensor is which.
    shapes = None
    if isinstance(averages, list | tuple):
        shapes = [getattr(average, "shape", None) for average in averages]
    if shapes != [x.shape for x in tensors.values()]:
        raise ValueError(
            "ema_shadow_params are not of the number and shapes of the network's tensors: pass --raw"
        )
    return dict(zip(tensors, averages, strict=True)), "ema"


def _take_attention(tensors: Tensors, path: str, heads: int) -> Tensors:
    """Takes the modules of attention, and splits qkv into q, k and v.

    The rows of qkv are those of q, k and v of the first head, then of the second.

    Raises:
        ValueError: qkv is not of so many heads.
    """
    names = {"norm": "norm", "qkv": "qkv", "proj_out": "proj_out"}
    attention = as_linear(take_modules(tensors, path, names), "qkv", "proj_out")
    rows, C = checked_shape(attention, "qkv.weight", 2)
    if rows != 3 * C or C % heads or attention["qkv.bias"].shape != (rows,):
        raise ValueError(
            f"{path}.qkv of shape {(rows, C)} does not split into q, k, v of {heads} heads: change --heads"
        )
    for leaf in ("weight", "bias"):
        qkv = attention.pop(f"qkv.{leaf}")  # [3 C, C] or [3 C]
        by_head = qkv.reshape(heads, 3, C // heads, *qkv.shape[1:])
        for i, name in enumerate("qkv"):
            attention[f"{name}.{leaf}"] = by_head[:, i].reshape(C, *qkv.shape[1:])
    return attention
