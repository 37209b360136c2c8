"""Reads checkpoints of the official D3PM code for images: flax.serialization, of its U-Net in Flax Linen.

A checkpoint is {"step", "optimizer": {"target", "state"}, "ema_params"}; modules have dots in their names. x
is scaled from 0..255 whatever K is, t counts from 0, one-hot x is added to logits and x itself to the place
of a logistic distribution.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from flax import serialization

from d3pm_jax.contrib import layout
from d3pm_jax.contrib.layout import (
    BlockLevel,
    Foreign,
    ImportOptions,
    Tensors,
    choose_value,
    infer_output,
    step_of,
    whole_steps,
)
from d3pm_jax.errors import one_line

PROGRAM = "the U-Net of the official D3PM code"
_BLOCK = {
    "norm1": "norm1",
    "conv1": "conv1",
    "temb_proj": "temb_proj",
    "y_proj": "class_proj",
    "norm2": "norm2",
    "conv2": "conv2",
    "nin_shortcut": "shortcut",
}
_ATTENTION = {name: name for name in ("norm", "q", "k", "v", "proj_out")}
_ENDS = {"dense0": "temb1", "dense1": "temb2", "class_emb": "class_emb"}
_ENDS |= {name: name for name in ("conv_in", "norm_out", "conv_out")}
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}


def read_flax_file(path: Path) -> Any:
    """Returns the nested dicts of arrays that flax.serialization wrote.

    Raises:
        ValueError: it is damaged, or none of flax.serialization.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    try:
        return serialization.msgpack_restore(content)
    except Exception as error:  # whatever damaged bytes do to msgpack and NumPy
        why = one_line(f"{type(error).__name__}: {error}")
        raise ValueError(f"{path} is damaged, or no checkpoint ({why}): take another copy") from error


def recognises_tree(tree: Any) -> bool:
    """Says whether a file of flax.serialization is of this program."""
    return any({"conv_in", "dense0", "mid.block_1"} <= found.keys() for found in _candidates(tree).values())


def read_network(tree: Any, told: ImportOptions) -> Foreign:
    """Reads the network.

    Args:
        tree: what the file holds.
        told: what it does not say.

    Raises:
        ValueError: something is missing, left over, or of another shape, or said otherwise than by the file.
    """
    notes: list[str] = []
    candidates = _candidates(tree)
    if told.raw and "raw" not in candidates:
        raise ValueError("optimizer/target, the last weights, are not in it: leave out --raw")
    weights = "ema" if "ema" in candidates and not told.raw else "raw"
    if weights == "raw" and not told.raw:
        notes.append("the file has no moving average: these are the last weights")
    params = candidates[weights]
    heads, tensors = _heads(params, told.num_heads), _as_torch(params)
    ch, channels, *_ = layout.checked_shape(tensors, "conv_in.weight", 4)
    classes = layout.checked_shape(tensors, "class_emb.weight", 2)[1] if "class_emb" in params else None
    outputs = layout.checked_shape(tensors, "conv_out.weight", 4)[0]
    logistic, K = infer_output(outputs, channels, told, True, notes)
    input_range = choose_value(told.input_range, (0.0, 255.0), "range of x", "--input-range", notes)
    T = whole_steps(choose_value(told.max_time, 1000, "largest time", "--max-time", notes), "--max-time")

    def level(at: str, first: int, conv: str) -> BlockLevel:
        found, i = BlockLevel([], [], {}), first
        while layout.has_module(tensors, f"{at}.block_{i}"):
            attends = layout.has_module(tensors, f"{at}.attn_{i}")
            found.blocks.append(
                layout.take_modules(tensors, f"{at}.block_{i}", _BLOCK, ("y_proj", "nin_shortcut"))
            )
            found.attns.append(layout.take_modules(tensors, f"{at}.attn_{i}", _ATTENTION) if attends else {})
            i += 1
        if layout.has_module(tensors, f"{at}.{conv}"):
            return found._replace(conv=layout.pop_module(tensors, f"{at}.{conv}"))
        return found

    count = sum(layout.has_module(tensors, f"up_{i}.block_0") for i in range(len(tensors)))
    down = [level(f"down_{i}", 0, "downsample") for i in range(count)]
    up = [level(f"up_{i}", 0, "upsample") for i in reversed(range(count))]
    if not up:
        raise ValueError("up_0.block_0 is missing")
    found, options, attn_levels = layout.assemble_unet(ch, down, level("mid", 1, "none"), up)
    found |= layout.take_modules(tensors, "", _ENDS, optional=("class_emb",))
    layout.refuse_left(tensors)
    options |= {"groups": 32, "num_heads": heads, "max_time": T, "input_range": input_range}
    return Foreign(
        program=PROGRAM,
        network="UNet",
        options=options | {"classes": classes},
        attn_levels=attn_levels,
        K=K,
        channels=channels,
        size=32,
        T=T,
        tensors=layout.as_float32(found, notes),
        weights=weights,
        step=step_of(tree.get("step")),
        notes=notes,
        inputs=lambda x, t, K: (x, t + 1),
        logits=lambda logits: logits,
        logistic=logistic,
        residual=True,
        classes=classes,
    )


def _candidates(tree: Any) -> dict[str, dict[str, Any]]:
    """Returns the parameters that a checkpoint holds, by which they are."""
    if not isinstance(tree, dict):
        return {}
    optimizer = tree.get("optimizer")
    target = optimizer.get("target") if isinstance(optimizer, dict) else None
    found = {"ema": tree.get("ema_params"), "raw": target}
    return {k: x for k, x in found.items() if isinstance(x, dict) and x}


def _heads(params: dict[str, Any], told: int | None) -> int:
    """Returns the number of heads, the middle axis of kernels [C, heads, C / heads].

    Raises:
        ValueError: it is not one number, or not what was told.
    """
    found = set()
    for name, module in params.items():
        if re.search(r"\.attn_\d+$", name):
            q = module.get("q") if isinstance(module, dict) else None
            kernel = q.get("kernel") if isinstance(q, dict) else None
            if not isinstance(kernel, np.ndarray) or kernel.ndim != 3:
                raise ValueError(f"{name}/q/kernel is not of shape [C, heads, C / heads]")
            found.add(int(kernel.shape[1]))
    if len(found) != 1:
        raise ValueError(f"its attention has {sorted(found)} heads, expected one number for all")
    if told not in (None, *found):
        raise ValueError(f"its attention has {found.pop()} heads, not {told}: leave out --heads")
    return found.pop()


def _as_torch(params: dict[str, Any]) -> Tensors:
    """Returns the tensors as "module.weight" in the layouts of PyTorch, heads beside each other."""
    found: Tensors = {}

    def visit(at: str, node: Any) -> None:
        if isinstance(node, dict):
            for key, x in node.items():
                visit(f"{at}.{key}" if at else str(key), x)
            return
        module, _, leaf = at.rpartition(".")
        if leaf not in _LEAVES or not isinstance(node, np.ndarray):
            raise ValueError(f"{at} is no array of a network")
        kind, x = module.rpartition(".")[2], node
        if kind in ("q", "k", "v") and x.ndim == (3 if leaf == "kernel" else 2):
            x = x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])
        elif kind == "proj_out" and x.ndim == 3:
            x = x.reshape(x.shape[0] * x.shape[1], x.shape[2])
        if x.ndim == 4:
            x = x.transpose(3, 2, 0, 1)
        elif x.ndim == 2:
            x = x.T
        found[f"{module}.{_LEAVES[leaf]}"] = x

    visit("", params)
    return found
