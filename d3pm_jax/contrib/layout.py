"""Holds what the layouts of other programs share: from their names to those of the twin, by levels.

A U-Net of the DDPM kind is the same chain in each of them: blocks and convolutions down, a middle, blocks and
convolutions up. A module of a program finds its tensors; here they get their places, and the numbers of the
network are read off their shapes.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

Tensors = dict[str, np.ndarray]  # by name, in the layouts of PyTorch


class Foreign(NamedTuple):
    """Holds the network of a checkpoint of another program."""

    program: str
    network: str  # the class in `models`
    options: dict[str, Any]  # of its spec in `config`, but for what the size of an image decides
    attn_levels: tuple[int, ...]  # at which every block is followed by attention
    K: int
    channels: int
    size: int  # of an image, by default
    T: int  # steps
    tensors: Tensors  # float32, by the names of the twin
    weights: str  # "ema" or "raw"
    step: int
    notes: list[str]
    inputs: Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]  # its x, t and K to ours
    logits: Callable[[np.ndarray], np.ndarray]  # its logits to [B, H, W, C, K]
    logistic: bool = False  # two numbers for each element, in place of K logits
    residual: bool = False  # x is added to the output
    classes: int | None = None


class Level(NamedTuple):
    """Holds the blocks at one size, attention after each, and the last convolution; {} for none."""

    blocks: list[Tensors]
    attns: list[Tensors]
    conv: Tensors


class Shape(NamedTuple):
    """Holds what the tensors say of the network."""

    ch_mult: tuple[int, ...]
    num_res_blocks: int
    attn_levels: tuple[int, ...]


def pop(tensors: Tensors, name: str) -> Tensors:
    """Takes weight and bias of a module.

    Raises:
        ValueError: one is missing.
    """
    for leaf in ("weight", "bias"):
        if f"{name}.{leaf}" not in tensors:
            raise ValueError(f"{name}.{leaf} is missing")
    return {leaf: tensors.pop(f"{name}.{leaf}") for leaf in ("weight", "bias")}


def has(tensors: Tensors, at: str) -> bool:
    """Says whether there is a tensor of the module, or list of modules, of this name."""
    return any(name.startswith(f"{at}.") for name in tensors)


def take(tensors: Tensors, prefix: str, names: Mapping[str, str], optional: tuple[str, ...] = ()) -> Tensors:
    """Takes the modules of a block, {their name: ours}; those that are optional where they are there."""
    found = {}
    for theirs, ours in names.items():
        at = f"{prefix}.{theirs}" if prefix else theirs
        if theirs in optional and not has(tensors, at):
            continue
        found |= {f"{ours}.{leaf}": x for leaf, x in pop(tensors, at).items()}
    return found


def as_linear(tensors: Tensors, *names: str) -> Tensors:
    """Returns the tensors with weights of 1 x 1 convolutions, by these names, as matrices."""
    found = dict(tensors)
    for name in names:
        x = found.get(f"{name}.weight")
        if x is not None and x.ndim > 2 and x.shape[2:] == (1,) * (x.ndim - 2):
            found[f"{name}.weight"] = x.reshape(x.shape[:2])
    return found


def axes(tensors: Tensors, name: str, number: int) -> tuple[int, ...]:
    """Returns the shape of a tensor of so many axes, none of them empty.

    Raises:
        ValueError: it is missing, or has others.
    """
    if name not in tensors:
        raise ValueError(f"{name} is missing")
    shape = tensors[name].shape
    if len(shape) != number or 0 in shape:
        raise ValueError(f"{name} has shape {shape}, expected {number} axes")
    return shape


def read_levels(
    tensors: Tensors,
    prefix: str,
    first: int,
    block: str,
    conv: str,
    read: Callable[[str], tuple[Tensors, Tensors]],
) -> list[Level]:
    """Reads a list of blocks and convolutions, each of which ends a level.

    Args:
        tensors: what is left of the file; what is read is taken from it.
        prefix: of the list.
        first: number of its first entry.
        block: what the names of a block begin with.
        conv: the name of a convolution.
        read: from the name of a block to its tensors and those of its attention.
    """
    levels, i = [Level([], [], {})], first
    while True:
        at = f"{prefix}.{i}"
        if has(tensors, f"{at}.{block}"):
            found, attention = read(at)
            levels[-1].blocks.append(found)
            levels[-1].attns.append(attention)
        elif has(tensors, f"{at}.{conv}"):
            levels[-1] = levels[-1]._replace(conv=pop(tensors, f"{at}.{conv}"))
            levels.append(Level([], [], {}))
        else:
            return levels
        i += 1


def assemble(ch: int, down: list[Level], mid: Level, up: list[Level]) -> tuple[Tensors, Shape]:
    """Gives the tensors of the levels their names in the twin.

    Args:
        ch: width of the first convolution.
        down: from full size on.
        mid: two blocks, the first of which has attention.
        up: back to full size.

    Returns:
        The tensors, and what they say of the network.

    Raises:
        ValueError: there is no such network.
    """
    blocks = [len(level.blocks) for level in up]
    num, last = blocks[0] - 1, len(up) - 1
    if num < 0 or [len(x.blocks) for x in down] != [num] * (last + 1) or blocks != [num + 1] * (last + 1):
        raise ValueError(f"it has {[len(x.blocks) for x in down]} blocks by level down and {blocks} up")
    if len(mid.blocks) != 2 or not mid.attns[0] or mid.attns[1]:
        raise ValueError("its middle is not a block, attention and a block")
    attn_levels = [i for i in range(last + 1) if _attends(i, down[i], up[last - i])]
    widths = [axes(up[last - i].blocks[0], "conv1.weight", 4)[0] for i in range(last + 1)]
    if wrong := [width for width in widths if width % ch]:
        raise ValueError(f"its levels are {wrong} wide, no multiples of the first convolution, {ch}")
    tensors = {f"mid_attn.{name}": x for name, x in mid.attns[0].items()}
    for i, block in enumerate(mid.blocks, 1):
        tensors |= {f"mid_block{i}.{name}": x for name, x in block.items()}
    for way, levels in (("down", down), ("up", up)):
        for i, level in enumerate(levels):
            tensors |= _named(f"{way}.{i}", level)
    return tensors, Shape(tuple(width // ch for width in widths), num, tuple(attn_levels))


def _attends(i: int, down: Level, up: Level) -> bool:
    found = [bool(x) for x in (*down.attns, *up.attns)]
    if any(found) != all(found):
        raise ValueError(f"attention follows some blocks of level {i} and not others")
    return all(found)


def _named(at: str, level: Level) -> Tensors:
    found = {f"{at}.conv.{name}": x for name, x in level.conv.items()}
    for i, (block, attention) in enumerate(zip(level.blocks, level.attns, strict=True)):
        found |= {f"{at}.blocks.{i}.{name}": x for name, x in block.items()}
        found |= {f"{at}.attns.{i}.{name}": x for name, x in attention.items()}
    return found


def as_float32(tensors: Tensors, notes: list[str]) -> Tensors:
    """Returns the tensors in float32; what is rounded is noted.

    Raises:
        ValueError: one is not of floats, or not finite.
    """
    found, rounded = {}, 0
    for name, x in tensors.items():
        if x.dtype.name not in ("float64", "float32", "float16", "bfloat16"):
            raise ValueError(f"{name} holds {x.dtype}, expected floats")
        with np.errstate(over="ignore"):
            found[name] = x.astype(np.float32)
        if not np.isfinite(found[name]).all():
            raise ValueError(f"{name} has entries that are not finite in float32: use other weights")
        rounded += bool((found[name].astype(x.dtype) != x).any())
    if rounded:
        notes.append(f"{rounded} tensors are rounded to float32, in which weights are kept")
    return found


def refuse_left(tensors: Tensors) -> None:
    """Raises ValueError where tensors are left that no module of the network has."""
    if names := sorted(tensors):
        listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        raise ValueError(f"no part of the network is {listed}")
