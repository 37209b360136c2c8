"""Reads checkpoints of other programs, which it tells apart by what is in them."""

from pathlib import Path
from typing import Any

from d3pm_jax.contrib import mnist_score_net, official_unet, paulffm_unet, pickles
from d3pm_jax.contrib.layout import Foreign, ImportOptions
from d3pm_jax.errors import one_line

_PROGRAMS = {"pickle": (paulffm_unet, mnist_score_net), "msgpack": (official_unet,)}


def kind_of(path: Path) -> str:
    """Says what a file is by its first bytes: "safetensors", "pickle", "bare pickle" or "msgpack".

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        start, size = file.read(9), file.seek(0, 2)
    if start.startswith(pickles.MAGIC):
        return "pickle"
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "bare pickle"
    # a map of msgpack of 1..15 or more entries; a safetensors file has the length of its header first, then {
    ours = start[8:] == b"{" and int.from_bytes(start[:8], "little") + 8 <= size
    if not ours and (b"\x81" <= start[:1] <= b"\x8f" or start[:1] in (b"\xde", b"\xdf")):
        return "msgpack"
    return "safetensors"


def read_network(path: Path, told: ImportOptions) -> Foreign:
    """Reads the network of a checkpoint.

    Args:
        path: of the file.
        told: what the file does not say.

    Raises:
        ValueError: naming the file: it is damaged, of no program that is known, holds more than weights, or
            its network cannot be built.
        OSError: it cannot be read.
    """
    kind = kind_of(path)
    if kind == "bare pickle":
        raise ValueError(
            f"{path} is a bare pickle, which is not read: load it where it was made, and save its state dict "
            f"with torch.save of PyTorch 1.6 or newer"
        )
    tree = pickles.read_torch_file(path) if kind == "pickle" else official_unet.read_flax_file(path)
    try:
        tree = _by_name(tree, {})
    except RecursionError:
        raise ValueError(f"{path} holds dicts too deep in each other: pass a checkpoint") from None
    for program in _PROGRAMS[kind]:
        try:
            if program.recognises_tree(tree):
                return program.read_network(tree, told)
        except Exception as error:  # whatever values of other types do to it
            why = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise ValueError(f"{path} is of {program.PROGRAM}, but {one_line(why, 300)}") from error
    known = " or ".join(program.PROGRAM for program in _PROGRAMS[kind])
    raise ValueError(f"{path} holds no weights of {known}: pass a checkpoint of one, as it was written")


def _by_name(node: Any, done: dict[int, Any]) -> Any:
    """Returns a tree without the entries of its dicts that have no name; done has the dicts it visited."""
    if not isinstance(node, dict):
        return node
    if id(node) not in done:
        done[id(node)] = {}
        done[id(node)].update((k, _by_name(x, done)) for k, x in node.items() if isinstance(k, str))
    return done[id(node)]
