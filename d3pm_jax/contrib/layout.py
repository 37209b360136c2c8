"""Holds what the readers of other programs share: what a file does not say, and names of the twin by levels.

A U-Net of the DDPM kind is the same chain in each of them: blocks and convolutions down, a middle, blocks and
convolutions up. A module of a program finds its tensors; here they get their places, and the numbers of the
network are read off their shapes.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

Tensors = dict[str, np.ndarray]  # by name, in the layouts of PyTorch
MOST_STEPS = 2**24


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


class BlockLevel(NamedTuple):
    """Holds the blocks at one size, attention after each, and the last convolution; {} for none."""

    blocks: list[Tensors]
    attns: list[Tensors]
    conv: Tensors


class ImportOptions(NamedTuple):
    """Holds what a user says of a file. None: the default of its program."""

    raw: bool = False  # the last weights, in place of their moving average
    num_heads: int | None = None
    input_range: tuple[float, float] | None = None
    max_time: int | float | None = None  # in the unit of the program
    K: int | None = None
    output: str | None = None  # "logits" or "logistic"
    source: str = "--categories"  # of K

    def with_categories(self, K: Any, source: str) -> "ImportOptions":
        """Returns the same with a K, if it is a number, where the user says none; source says where from."""
        if self.K is not None or not isinstance(K, int):
            return self
        return self._replace(K=K, source=source)


def choose_value(given: Any, default: Any, what: str, flag: str, notes: list[str]) -> Any:
    """Returns what a user gave, or the default of the program with a note that it was taken."""
    if given is None:
        notes.append(f"{what} = {default}, the program's default: the file does not say ({flag})")
    return default if given is None else given


def whole_steps(number: int | float, flag: str) -> int:
    """Returns a number of steps.

    Raises:
        ValueError: it is no whole number of at least 1.
    """
    if not (1 <= number <= MOST_STEPS and number == int(number)):
        raise ValueError(f"{flag} {number:g}: it must be a whole number in 1..{MOST_STEPS}")
    return int(number)


def step_of(found: Any) -> int:
    """Returns the number of updates that a checkpoint names, 0 where it names none."""
    number = found.item() if isinstance(found, np.ndarray | np.generic) and found.ndim == 0 else found
    return int(number) if type(number) in (int, float) and 0 <= number < 2**63 else 0


def infer_output(
    outputs: int, channels: int, told: ImportOptions, logistic_by_default: bool, notes: list[str]
) -> tuple[bool, int]:
    """Says whether the last convolution gives two numbers for each element in place of K logits, and K.

    Args:
        outputs: features that it gives.
        channels: of an image.
        told: by the user.
        logistic_by_default: two numbers are those of the logistic head, where nothing says that K = 2.
        notes: takes what was assumed.

    Raises:
        ValueError: the numbers do not go together.
    """
    each = outputs // channels
    if outputs % channels or each < 2:
        raise ValueError(f"its last convolution gives {outputs} numbers for {channels} channels")
    if told.output == "logistic" and each != 2:
        raise ValueError(f"--output logistic needs 2 numbers for each element, it gives {each}: leave it out")
    logistic = each == 2 and (told.K not in (None, 2) or (told.K is None and logistic_by_default))
    if each == 2:
        kind = choose_value(told.output, "logistic" if logistic else "logits", "output", "--output", notes)
        logistic = kind == "logistic"
    if logistic:
        return True, choose_value(told.K, 256, "K", "--categories", notes)
    if told.K not in (None, each):
        raise ValueError(
            f"it gives logits of K = {each} categories, not {told.K} as {told.source} says: change that"
        )
    return False, each


def pop_module(tensors: Tensors, name: str) -> Tensors:
    """Takes weight and bias of a module.

    Raises:
        ValueError: one is missing.
    """
    for leaf in ("weight", "bias"):
        if f"{name}.{leaf}" not in tensors:
            raise ValueError(f"{name}.{leaf} is missing")
    return {leaf: tensors.pop(f"{name}.{leaf}") for leaf in ("weight", "bias")}


def has_module(tensors: Tensors, at: str) -> bool:
    """Says whether there is a tensor of the module, or list of modules, of this name."""
    return any(name.startswith(f"{at}.") for name in tensors)


def take_modules(
    tensors: Tensors, prefix: str, names: Mapping[str, str], optional: tuple[str, ...] = ()
) -> Tensors:
    """Takes the modules of a block, {their name: ours}; those that are optional where they are there."""
    found = {}
    for theirs, ours in names.items():
        at = f"{prefix}.{theirs}" if prefix else theirs
        if theirs in optional and not has_module(tensors, at):
            continue
        found |= {f"{ours}.{leaf}": x for leaf, x in pop_module(tensors, at).items()}
    return found


def as_linear(tensors: Tensors, *names: str) -> Tensors:
    """Returns the tensors with weights of 1 x 1 convolutions, by these names, as matrices."""
    found = dict(tensors)
    for name in names:
        x = found.get(f"{name}.weight")
        if x is not None and x.ndim > 2 and x.shape[2:] == (1,) * (x.ndim - 2):
            found[f"{name}.weight"] = x.reshape(x.shape[:2])
    return found


def checked_shape(tensors: Tensors, name: str, number: int) -> tuple[int, ...]:
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
) -> list[BlockLevel]:
    """Reads a list of blocks and convolutions, each of which ends a level.

    Args:
        tensors: what is left of the file; what is read is taken from it.
        prefix: of the list.
        first: number of its first entry.
        block: what the names of a block begin with.
        conv: the name of a convolution.
        read: from the name of a block to its tensors and those of its attention.
    """
    levels, i = [BlockLevel([], [], {})], first
    while True:
        at = f"{prefix}.{i}"
        if has_module(tensors, f"{at}.{block}"):
            found, attention = read(at)
            levels[-1].blocks.append(found)
            levels[-1].attns.append(attention)
        elif has_module(tensors, f"{at}.{conv}"):
            levels[-1] = levels[-1]._replace(conv=pop_module(tensors, f"{at}.{conv}"))
            levels.append(BlockLevel([], [], {}))
        else:
            return levels
        i += 1


def assemble_unet(
    ch: int, down: list[BlockLevel], mid: BlockLevel, up: list[BlockLevel]
) -> tuple[Tensors, dict[str, Any], tuple[int, ...]]:
    """Gives the tensors of the levels their names in the twin.

    Args:
        ch: width of the first convolution.
        down: from full size on.
        mid: two blocks, the first of which has attention.
        up: back to full size.

    Returns:
        The tensors; what they say of the network, as options of its spec; and the levels with attention.

    Raises:
        ValueError: there is no such network.
    """
    blocks = [len(level.blocks) for level in up]
    num, last = blocks[0] - 1, len(up) - 1
    if num < 0 or [len(x.blocks) for x in down] != [num] * (last + 1) or blocks != [num + 1] * (last + 1):
        raise ValueError(f"it has {[len(x.blocks) for x in down]} blocks by level down and {blocks} up")
    if len(mid.blocks) != 2 or not mid.attns[0] or mid.attns[1]:
        raise ValueError("its middle is not a block, attention and a block")
    attn_levels = []
    for i in range(last + 1):
        attends = [bool(x) for x in (*down[i].attns, *up[last - i].attns)]
        if any(attends) != all(attends):
            raise ValueError(f"attention follows some blocks of level {i} and not others")
        if all(attends):
            attn_levels.append(i)
    widths = [checked_shape(up[last - i].blocks[0], "conv1.weight", 4)[0] for i in range(last + 1)]
    if wrong := [width for width in widths if width % ch]:
        raise ValueError(f"its levels are {wrong} wide, no multiples of the first convolution, {ch}")
    parts = {"mid_attn": mid.attns[0], "mid_block1": mid.blocks[0], "mid_block2": mid.blocks[1]}
    for way, levels in (("down", down), ("up", up)):
        for i, level in enumerate(levels):
            parts[f"{way}.{i}.conv"] = level.conv
            parts |= {f"{way}.{i}.blocks.{j}": block for j, block in enumerate(level.blocks)}
            parts |= {f"{way}.{i}.attns.{j}": attention for j, attention in enumerate(level.attns)}
    tensors = {f"{at}.{name}": x for at, part in parts.items() for name, x in part.items()}
    options = {"ch": ch, "ch_mult": tuple(width // ch for width in widths), "num_res_blocks": num}
    return tensors, options, tuple(attn_levels)


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
