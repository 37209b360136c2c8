"""Holds what the readers of other programs share: what a file does not say, and names of the twin by levels.

A U-Net of the DDPM kind is the same chain in each of them: blocks and convolutions down, a middle, blocks and
convolutions up. A module of a program finds its tensors; here they get their places, and the numbers of the
network are read off their shapes.

Each tensor is taken out of the dict of those of the file when it gets its place. So what is left at the end
is of no module that is known, and the file is refused: `refuse_left`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

Tensors = dict[str, np.ndarray]  # by name, in the layouts of PyTorch
MOST_STEPS = 2**24


class Foreign(NamedTuple):
    """Holds the network of a checkpoint of another program.

    Attributes:
        program: its name.
        network: the class in `models`.
        options: of its spec in `config`, but for what the size of an image decides.
        attn_levels: at which every block is followed by attention.
        K: categories.
        channels: of an image.
        size: of an image, by default.
        T: steps.
        tensors: float32, by the names of the twin.
        weights_kind: "ema" or "raw".
        step: updates of the weights.
        notes: what was assumed, in sentences for the user.
        inputs: takes x, t and K as the program has them, and returns x_t int [B, H, W, C] and t [B] of ours.
        logits: takes logits as the program has them, and returns ours, [B, H, W, C, K].
        logistic: two numbers for each element, in place of K logits.
        residual: x is added to the output.
        classes: of labels, None where the network takes none.
    """

    program: str
    network: str
    options: dict[str, Any]
    attn_levels: tuple[int, ...]
    K: int
    channels: int
    size: int
    T: int
    tensors: Tensors
    weights_kind: str
    step: int
    notes: list[str]
    inputs: Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]
    logits: Callable[[np.ndarray], np.ndarray]
    logistic: bool = False
    residual: bool = False
    classes: int | None = None


class BlockLevel(NamedTuple):
    """Holds the blocks at one size, attention after each, and the last convolution; {} for none."""

    blocks: list[Tensors]
    attns: list[Tensors]
    conv: Tensors


class ImportOptions(NamedTuple):
    """Holds what a user says of a file. None: the default of its program.

    Attributes:
        raw: take the last weights, in place of their moving average.
        num_heads: of attention.
        input_range: the numbers that the network sees as -1 and 1.
        max_time: T, in the unit of the program.
        K: categories.
        output: "logits" or "logistic".
        source: what K is read from, for messages.
    """

    raw: bool = False
    num_heads: int | None = None
    input_range: tuple[float, float] | None = None
    max_time: int | float | None = None
    K: int | None = None
    output: str | None = None
    source: str = "--categories"

    def with_categories(self, K: Any, source: str) -> "ImportOptions":
        """Returns the same with K, if it is a number, where the user says none.

        Args:
            K: categories.
            source: what it is read from.
        """
        if self.K is not None or not isinstance(K, int):
            return self
        return self._replace(K=K, source=source)


def choose_value(user_value: Any, default: Any, quantity: str, flag: str, notes: list[str]) -> Any:
    """Returns the value of a user, or the default of the program with a note that it was taken.

    Args:
        user_value: None where the user says none.
        default: of the program.
        quantity: what the value is, for the note.
        flag: by which a user says it.
        notes: takes the note.
    """
    if user_value is not None:
        return user_value
    notes.append(f"{quantity} = {default}, the program's default: the file does not say ({flag})")
    return default


def whole_steps(number: int | float, flag: str) -> int:
    """Returns a number of steps as an integer.

    Raises:
        ValueError: it is no whole number of at least 1.
    """
    if not (1 <= number <= MOST_STEPS and number == int(number)):
        raise ValueError(f"{flag} {number:g}: it must be a whole number in 1..{MOST_STEPS}")
    return int(number)


def step_of(value: Any) -> int:
    """Returns the number of updates that a checkpoint names, 0 where it names none."""
    if isinstance(value, np.ndarray | np.generic) and value.ndim == 0:
        value = value.item()
    # isinstance would accept a bool, which is not a number of updates.
    if type(value) in (int, float) and 0 <= value < 2**63:
        return int(value)
    return 0


def infer_output(
    outputs: int, channels: int, user_options: ImportOptions, logistic_by_default: bool, notes: list[str]
) -> tuple[bool, int]:
    """Infers from the last convolution whether it gives logits or a logistic distribution, and K.

    K logits for each element are as many features; the place and the scale of a logistic distribution are
    two, whatever K is. So two features may be either.

    Args:
        outputs: features that the last convolution gives.
        channels: of an image.
        user_options: of the user.
        logistic_by_default: two numbers are those of the logistic head, where nothing says that K = 2.
        notes: takes what was assumed.

    Returns:
        Whether it is a logistic distribution; K.

    Raises:
        ValueError: the numbers do not go together.
    """
    features = outputs // channels  # for each element
    if outputs % channels or features < 2:
        raise ValueError(f"its last convolution gives {outputs} numbers for {channels} channels")
    if user_options.output == "logistic" and features != 2:
        raise ValueError(
            f"--output logistic needs 2 numbers for each element, it gives {features}: leave it out"
        )

    is_logistic = False
    if features == 2:
        default = "logits"
        if user_options.K not in (None, 2) or (user_options.K is None and logistic_by_default):
            default = "logistic"
        is_logistic = choose_value(user_options.output, default, "output", "--output", notes) == "logistic"
    if is_logistic:
        return True, choose_value(user_options.K, 256, "K", "--categories", notes)

    if user_options.K not in (None, features):
        raise ValueError(
            f"it gives logits of K = {features} categories, not {user_options.K} as {user_options.source} "
            f"says: change that"
        )
    return False, features


def pop_module(tensors: Tensors, name: str) -> Tensors:
    """Takes weight and bias of a module out of the tensors.

    Raises:
        ValueError: one is missing.
    """
    for leaf in ("weight", "bias"):
        if f"{name}.{leaf}" not in tensors:
            raise ValueError(f"{name}.{leaf} is missing")
    return {leaf: tensors.pop(f"{name}.{leaf}") for leaf in ("weight", "bias")}


def has_module(tensors: Tensors, name: str) -> bool:
    """Says whether there is a tensor of the module, or list of modules, of this name."""
    return any(tensor_name.startswith(f"{name}.") for tensor_name in tensors)


def take_modules(
    tensors: Tensors, prefix: str, names: Mapping[str, str], optional: tuple[str, ...] = ()
) -> Tensors:
    """Takes the modules of a block out of the tensors, and returns them by our names.

    Args:
        tensors: what is left of the file.
        prefix: of the names of the block.
        names: from the program's name of a module to ours.
        optional: modules, by the program's name, that need not be there.

    Raises:
        ValueError: one is missing.
    """
    block: Tensors = {}
    for their_name, our_name in names.items():
        path = f"{prefix}.{their_name}".removeprefix(".")
        if their_name not in optional or has_module(tensors, path):
            block |= {f"{our_name}.{leaf}": tensor for leaf, tensor in pop_module(tensors, path).items()}
    return block


def take_attention(tensors: Tensors, prefix: str, names: Mapping[str, str]) -> Tensors:
    """Takes the modules of an attention, see `take_modules`; {} where a block has none."""
    if not has_module(tensors, prefix):
        return {}
    return take_modules(tensors, prefix, names)


def state_dict_of(tree: Any) -> dict[str, Any]:
    """Returns the state dict that a file of torch.save is, or has as its "model"; {} where there is none."""
    if isinstance(tree, dict):
        tree = tree.get("model", tree)
    if not isinstance(tree, dict):
        return {}
    return tree


def as_linear(tensors: Tensors, *names: str) -> Tensors:
    """Returns the tensors with weights of 1 x 1 convolutions, by these names, as matrices."""
    converted = dict(tensors)
    for name in names:
        weight = converted.get(f"{name}.weight")  # [out, in, 1, ...]
        if weight is not None and weight.ndim > 2 and weight.shape[2:] == (1,) * (weight.ndim - 2):
            converted[f"{name}.weight"] = weight.reshape(weight.shape[:2])
    return converted


def checked_shape(tensors: Tensors, name: str, number: int) -> tuple[int, ...]:
    """Returns the shape of a tensor that has so many axes, none of them empty.

    Raises:
        ValueError: it is missing, or has other axes.
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
    block_prefix: str,
    conv_name: str,
    read_block: Callable[[str], tuple[Tensors, Tensors]],
) -> list[BlockLevel]:
    """Reads a list of blocks and convolutions, each of which ends a level.

    Args:
        tensors: what is left of the file; what is read is taken from it.
        prefix: of the list.
        first: number of its first entry.
        block_prefix: what the names of a block begin with.
        conv_name: the name of a convolution.
        read_block: from the name of a block to its tensors and those of its attention.
    """
    levels = [BlockLevel([], [], {})]
    i = first
    while True:
        entry = f"{prefix}.{i}"
        if has_module(tensors, f"{entry}.{block_prefix}"):
            block, attention = read_block(entry)
            levels[-1].blocks.append(block)
            levels[-1].attns.append(attention)
        elif has_module(tensors, f"{entry}.{conv_name}"):
            levels[-1] = levels[-1]._replace(conv=pop_module(tensors, f"{entry}.{conv_name}"))
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
    # On the way up each level has a block more than on the way down: they take the outputs of the blocks of
    # that level, and of the convolution before them.
    blocks_down = [len(level.blocks) for level in down]
    blocks_up = [len(level.blocks) for level in up]
    num_levels = len(up)
    num_res_blocks = blocks_up[0] - 1
    is_even = blocks_down == [num_res_blocks] * num_levels and blocks_up == [num_res_blocks + 1] * num_levels
    if num_res_blocks < 0 or not is_even:
        raise ValueError(f"it has {blocks_down} blocks by level down and {blocks_up} up")
    if len(mid.blocks) != 2 or not mid.attns[0] or mid.attns[1]:
        raise ValueError("its middle is not a block, attention and a block")

    attn_levels = []
    for i, (level_down, level_up) in enumerate(zip(down, reversed(up), strict=True)):
        attends = [bool(attention) for attention in (*level_down.attns, *level_up.attns)]
        if any(attends) != all(attends):
            raise ValueError(f"attention follows some blocks of level {i} and not others")
        if all(attends):
            attn_levels.append(i)

    widths = [checked_shape(level.blocks[0], "conv1.weight", 4)[0] for level in reversed(up)]
    uneven_widths = [width for width in widths if width % ch]
    if uneven_widths:
        raise ValueError(
            f"its levels are {uneven_widths} wide, which are not multiples of the first convolution, {ch}"
        )

    modules = {"mid_attn": mid.attns[0], "mid_block1": mid.blocks[0], "mid_block2": mid.blocks[1]}
    modules |= _name_levels("down", down)
    modules |= _name_levels("up", up)
    tensors = {
        f"{path}.{name}": tensor for path, module in modules.items() for name, tensor in module.items()
    }
    options = {
        "ch": ch,
        "ch_mult": tuple(width // ch for width in widths),
        "num_res_blocks": num_res_blocks,
    }
    return tensors, options, tuple(attn_levels)


def _name_levels(direction: str, levels: list[BlockLevel]) -> dict[str, Tensors]:
    """Returns the modules of the levels, "down" or "up", by their names in the twin."""
    modules: dict[str, Tensors] = {}
    for i, level in enumerate(levels):
        modules[f"{direction}.{i}.conv"] = level.conv
        modules |= {f"{direction}.{i}.blocks.{j}": block for j, block in enumerate(level.blocks)}
        modules |= {f"{direction}.{i}.attns.{j}": attention for j, attention in enumerate(level.attns)}
    return modules


def as_float32(tensors: Tensors, notes: list[str]) -> Tensors:
    """Returns the tensors in float32; what is rounded is noted.

    Raises:
        ValueError: one is not of floats, or not finite.
    """
    converted: Tensors = {}
    num_rounded = 0
    for name, tensor in tensors.items():
        if tensor.dtype.name not in ("float64", "float32", "float16", "bfloat16"):
            raise ValueError(f"{name} holds {tensor.dtype}, expected floats")
        with np.errstate(over="ignore"):
            converted[name] = tensor.astype(np.float32)
        if not np.isfinite(converted[name]).all():
            raise ValueError(f"{name} has entries that are not finite in float32: use other weights")
        num_rounded += bool((converted[name].astype(tensor.dtype) != tensor).any())
    if num_rounded:
        notes.append(f"{num_rounded} tensors are rounded to float32, in which weights are kept")
    return converted


def refuse_left(tensors: Tensors) -> None:
    """Raises ValueError where tensors are left that no module of the network has."""
    names = sorted(tensors)
    if not names:
        return
    listed = ", ".join(names[:3])
    if len(names) > 3:
        listed += f" and {len(names) - 3} more"
    raise ValueError(f"it has tensors that no part of the network takes: {listed}")
