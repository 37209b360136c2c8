"""Reads the U-Net of github.com/paulffm/Discrete-Time-Diffusion-Models-for-Discrete-Data.

A checkpoint is {"model": state dict, "optimizer", "n_iter"}. The network is "net.NAME", or "net.module.NAME"
of a distributed training; its moving average is a list without names, in the order of those of the network.
Groups follow the width of a layer, attention has PyTorch's eps, t counts from 0 and is embedded as it is,
and logits are not added to one-hot x.
"""

from typing import Any

import numpy as np

from d3pm_jax.contrib import layout
from d3pm_jax.contrib.layout import (
    Foreign,
    ImportOptions,
    Tensors,
    choose_value,
    infer_output,
    step_of,
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
    model = tree.get("model", tree) if isinstance(tree, dict) else None
    names = {_bare(name) for name in model} if isinstance(model, dict) else set()
    return {"down.0.weight", "time.1.weight", "mid.0.resblocks.norm1.weight"} <= names


def read_network(tree: Any, told: ImportOptions) -> Foreign:
    """Reads the network.

    Args:
        tree: what the file holds.
        told: what it does not say.

    Raises:
        ValueError: something is missing, left over, or of another shape.
    """
    notes: list[str] = []
    tensors, weights = _weights(tree.get("model", tree), told.raw, notes)
    ch, channels, *_ = layout.checked_shape(tensors, "down.0.weight", 4)
    outputs = layout.checked_shape(tensors, "out.2.weight", 4)[0]
    logistic, K = infer_output(outputs, channels, told, False, notes)
    notes += [_LOGISTIC] if logistic else []
    heads = choose_value(told.num_heads, 1, "number of heads", "--heads", notes)
    input_range = choose_value(told.input_range, (0.0, K - 1.0), "range of x", "--input-range", notes)
    T = whole_steps(choose_value(told.max_time, 1000, "T", "--max-time", notes), "--max-time")

    def block(at: str) -> tuple[Tensors, Tensors]:
        found = layout.take_modules(tensors, f"{at}.resblocks", _BLOCK, optional=("skip",))
        attends = layout.has_module(tensors, f"{at}.attention")
        attention = _attention(tensors, f"{at}.attention", heads) if attends else {}
        return layout.as_linear(found, "shortcut"), attention

    down = layout.read_levels(tensors, "down", 1, "resblocks", "downsample.0", block)
    up = layout.read_levels(tensors, "up", 0, "resblocks", "1", block)
    mid = layout.read_levels(tensors, "mid", 0, "resblocks", "none", block)[0]
    found, options, attn_levels = layout.assemble_unet(ch, down, mid, up)
    found |= layout.take_modules(tensors, "", _ENDS)
    layout.refuse_left(tensors)
    return Foreign(
        program=PROGRAM,
        network="UNet",
        options=options | _FIXED | {"num_heads": heads, "input_range": input_range},
        attn_levels=attn_levels,
        K=K,
        channels=channels,
        size=28 if channels == 1 else 32,
        T=T,
        tensors=layout.as_float32(found, notes),
        weights=weights,
        step=step_of(tree.get("n_iter")),
        notes=notes,
        inputs=lambda x, t, K: (np.moveaxis(x, 1, -1), t + 1),
        logits=lambda logits: np.moveaxis(logits, 1, -2),
        logistic=logistic,
        residual=logistic,
    )


def _bare(name: str) -> str:
    """Returns a name without the prefixes of a process and of a distributed training."""
    bare = name.removeprefix("net.")
    while bare != name and bare.startswith("module."):
        bare = bare.removeprefix("module.")
    return bare


def _weights(model: Any, raw: bool, notes: list[str]) -> tuple[Tensors, str]:
    """Returns the tensors by the names of the network alone, and which they are."""
    named = {k: x for k, x in model.items() if isinstance(x, np.ndarray)}
    if any(name.startswith("net.") for name in named):
        named = {k: x for k, x in named.items() if k.startswith("net.")}
    found = {_bare(k): x for k, x in named.items()}
    averages = model.get("ema_shadow_params")
    if raw or averages is None:
        if not raw:
            notes.append("the file has no moving average: these are the last weights")
        return found, "raw"
    shapes = [getattr(x, "shape", None) for x in averages] if isinstance(averages, list | tuple) else None
    if shapes != [x.shape for x in found.values()]:
        raise ValueError(
            "ema_shadow_params are not of the number and shapes of the network's tensors: pass --raw"
        )
    return dict(zip(found, averages, strict=True)), "ema"


def _attention(tensors: Tensors, at: str, heads: int) -> Tensors:
    """Splits qkv, whose rows are q, k and v of the first head, then of the second."""
    found = layout.as_linear(
        layout.take_modules(tensors, at, {"norm": "norm", "qkv": "qkv", "proj_out": "proj_out"}),
        "qkv",
        "proj_out",
    )
    rows, C = layout.checked_shape(found, "qkv.weight", 2)
    if rows != 3 * C or C % heads or found["qkv.bias"].shape != (rows,):
        raise ValueError(f"{at}.qkv of shape {(rows, C)} is no q, k, v of {heads} heads: change --heads")
    for leaf in ("weight", "bias"):
        x = found.pop(f"qkv.{leaf}")
        parts = x.reshape(heads, 3, C // heads, *x.shape[1:])
        found |= {f"{name}.{leaf}": parts[:, i].reshape(C, *x.shape[1:]) for i, name in enumerate("qkv")}
    return found
