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

from d3pm_jax.contrib.layout import (
    BlockLevel,
    Foreign,
    ImportOptions,
    Tensors,
    as_float32,
    assemble_unet,
    checked_shape,
    choose_value,
    has_module,
    infer_output,
    pop_module,
    refuse_left,
    step_of,
    take_attention,
    take_modules,
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
# The modules before and behind the levels.
_ENDS = {
    "dense0": "temb1",
    "dense1": "temb2",
    "class_emb": "class_emb",
    "conv_in": "conv_in",
    "norm_out": "norm_out",
    "conv_out": "conv_out",
}
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
    except Exception as error:
        # Damaged bytes make msgpack and NumPy raise errors of many classes.
        reason = one_line(f"{type(error).__name__}: {error}")
        raise ValueError(f"{path} is damaged, or not a checkpoint ({reason}): take another copy") from error


def recognises_tree(tree: Any) -> bool:
    """Says whether a file of flax.serialization is of this program."""
    parameters = _list_parameters(tree).values()
    return any({"conv_in", "dense0", "mid.block_1"} <= params.keys() for params in parameters)


def read_network(tree: Any, user_options: ImportOptions) -> Foreign:
    """Reads the network.

    Args:
        tree: what the file holds.
        user_options: what it does not say.

    Raises:
        ValueError: something is missing, left over, or of another shape, or said otherwise than by the file.
    """
    notes: list[str] = []
    params_by_weights = _list_parameters(tree)
    weights = _choose_weights(params_by_weights, user_options.raw, notes)
    params = params_by_weights[weights]
    heads = _count_heads(params, user_options.num_heads)
    tensors = _as_torch(params)

    # What the shapes say.
    ch, channels, *_ = checked_shape(tensors, "conv_in.weight", 4)
    classes = None
    if "class_emb" in params:
        classes = checked_shape(tensors, "class_emb.weight", 2)[1]
    outputs = checked_shape(tensors, "conv_out.weight", 4)[0]
    logistic, K = infer_output(outputs, channels, user_options, True, notes)

    # What nothing says but the user.
    input_range = choose_value(user_options.input_range, (0.0, 255.0), "range of x", "--input-range", notes)
    max_time = choose_value(user_options.max_time, 1000, "largest time", "--max-time", notes)
    T = whole_steps(max_time, "--max-time")

    num_levels = sum(has_module(tensors, f"up_{i}.block_0") for i in range(len(tensors)))
    if num_levels == 0:
        raise ValueError("up_0.block_0 is missing")
    down = [_take_level(tensors, f"down_{i}", 0, "downsample") for i in range(num_levels)]
    up = [_take_level(tensors, f"up_{i}", 0, "upsample") for i in reversed(range(num_levels))]
    mid = _take_level(tensors, "mid", 1, "none")
    unet_tensors, options, attn_levels = assemble_unet(ch, down, mid, up)
    unet_tensors |= take_modules(tensors, "", _ENDS, optional=("class_emb",))
    refuse_left(tensors)
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
        tensors=as_float32(unet_tensors, notes),
        weights_kind=weights,
        step=step_of(tree.get("step")),
        notes=notes,
        inputs=lambda x, t, K: (x, t + 1),
        logits=lambda logits: logits,
        logistic=logistic,
        residual=True,
        classes=classes,
    )


def _list_parameters(tree: Any) -> dict[str, dict[str, Any]]:
    """Returns the parameters that a checkpoint holds, by which they are: "ema", "raw"."""
    candidates = {"ema": _child(tree, "ema_params"), "raw": _child(_child(tree, "optimizer"), "target")}
    return {name: params for name, params in candidates.items() if isinstance(params, dict) and params}


def _child(node: Any, name: str) -> Any:
    """Returns an entry of a dict; None where it has none, or the node is no dict."""
    return node.get(name) if isinstance(node, dict) else None


def _choose_weights(params_by_weights: dict[str, Any], raw: bool, notes: list[str]) -> str:
    """Returns which parameters are taken: "ema" where there are any, unless the user wants the last ones.

    Raises:
        ValueError: the user wants the last ones, and they are not in the file.
    """
    if raw:
        if "raw" not in params_by_weights:
            raise ValueError("optimizer/target, the last weights, are not in it: leave out --raw")
        return "raw"
    if "ema" in params_by_weights:
        return "ema"
    notes.append("the file has no moving average: these are the last weights")
    return "raw"


def _take_level(tensors: Tensors, prefix: str, first: int, conv_name: str) -> BlockLevel:
    """Takes the blocks of a level, attention after each, and its convolution.

    Args:
        tensors: what is left of the file; what is read is taken from it.
        prefix: of the names of the level.
        first: number of its first block.
        conv_name: the name of its convolution, which need not be there.
    """
    level = BlockLevel([], [], {})
    i = first
    while has_module(tensors, f"{prefix}.block_{i}"):
        block = take_modules(tensors, f"{prefix}.block_{i}", _BLOCK, ("y_proj", "nin_shortcut"))
        level.blocks.append(block)
        level.attns.append(take_attention(tensors, f"{prefix}.attn_{i}", _ATTENTION))
        i += 1
    if has_module(tensors, f"{prefix}.{conv_name}"):
        level = level._replace(conv=pop_module(tensors, f"{prefix}.{conv_name}"))
    return level


def _count_heads(params: dict[str, Any], user_heads: int | None) -> int:
    """Returns the number of heads, the middle axis of kernels [C, heads, C / heads].

    Raises:
        ValueError: it is not one number, or not what the user says.
    """
    numbers = set()
    for name, module in params.items():
        if re.search(r"\.attn_\d+$", name) is None:
            continue
        kernel = _child(_child(module, "q"), "kernel")
        if not isinstance(kernel, np.ndarray) or kernel.ndim != 3:
            raise ValueError(f"{name}/q/kernel is not of shape [C, heads, C / heads]")
        numbers.add(int(kernel.shape[1]))
    if len(numbers) != 1:
        raise ValueError(f"its attention has {sorted(numbers)} heads, expected one number for all")
    (heads,) = numbers
    if user_heads not in (None, heads):
        raise ValueError(f"its attention has {heads} heads, not {user_heads}: leave out --heads")
    return heads


def _as_torch(params: dict[str, Any]) -> Tensors:
    """Returns the tensors as "module.weight" in the layouts of PyTorch, heads beside each other."""
    tensors: Tensors = {}

    def visit(path: str, node: Any) -> None:
        if isinstance(node, dict):
            for key, child in node.items():
                visit(f"{path}.{key}" if path else str(key), child)
            return
        module, _, leaf = path.rpartition(".")
        if leaf not in _LEAVES or not isinstance(node, np.ndarray):
            raise ValueError(f"{path} is not an array of a network")
        module_name = module.rpartition(".")[2]
        tensors[f"{module}.{_LEAVES[leaf]}"] = _transpose(_join_heads(node, module_name, leaf))

    visit("", params)
    return tensors


def _join_heads(array: np.ndarray, module_name: str, leaf: str) -> np.ndarray:
    """Returns an array of attention with its axes [heads, C / heads] as one, and any other as it is."""
    ndim_with_heads = 3 if leaf == "kernel" else 2
    if module_name in ("q", "k", "v") and array.ndim == ndim_with_heads:
        *before, heads, features = array.shape
        return array.reshape(*before, heads * features)
    if module_name == "proj_out" and array.ndim == 3:
        heads, features, outputs = array.shape
        return array.reshape(heads * features, outputs)
    return array


def _transpose(array: np.ndarray) -> np.ndarray:
    """Returns a kernel of Flax in the layout of PyTorch, and any other array as it is."""
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)  # [H, W, in, out] to [out, in, H, W]
    if array.ndim == 2:
        return array.T  # [in, out] to [out, in]
    return array
