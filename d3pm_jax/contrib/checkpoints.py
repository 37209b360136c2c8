"""Reads checkpoints of other programs, which it tells apart by what is in them."""

from pathlib import Path
from typing import Any

from d3pm_jax.contrib import layout, mnist_score_net, official_unet, paulffm_unet, pickles
from d3pm_jax.errors import one_line

_PROGRAMS = {"pickle": (paulffm_unet, mnist_score_net), "msgpack": (official_unet,)}


def kind_of(path: Path) -> str:
    """Says what a file is by its first bytes: "safetensors", "pickle", "bare pickle" or "msgpack".

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(9)
        size = file.seek(0, 2)
    if start.startswith(pickles.MAGIC):
        return "pickle"
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "bare pickle"

    # A file of safetensors has the length of its header in 8 bytes, then {. The lowest byte of a length may
    # look like a map of msgpack, so this is asked first.
    has_header = start[8:] == b"{" and int.from_bytes(start[:8], "little") + 8 <= size
    # A map of msgpack of 1 to 15 entries, or of more.
    is_map = b"\x81" <= start[:1] <= b"\x8f" or start[:1] in (b"\xde", b"\xdf")
    if is_map and not has_header:
        return "msgpack"
    return "safetensors"


def read_network(path: Path, user_options: layout.ImportOptions) -> layout.Foreign:
    """Reads the network of a checkpoint.

    Args:
        path: of the file.
        user_options: what the file does not say.

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
    if kind == "pickle":
        tree = pickles.read_torch_file(path)
    else:
        tree = official_unet.read_flax_file(path)
    try:
        tree = _keep_named_entries(tree, {})
    except RecursionError:
        raise ValueError(f"{path} holds dicts that are nested too deep: pass a checkpoint") from None

    for program in _PROGRAMS[kind]:
        try:
            if program.recognises_tree(tree):
                return program.read_network(tree, user_options)
        except Exception as error:
            # A tree may hold values of any type where a reader expects arrays, and errors are of any class.
            reason = str(error)
            if not isinstance(error, ValueError):
                reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"{path} is of {program.PROGRAM}, but {one_line(reason, 300)}") from error
    programs = " or ".join(program.PROGRAM for program in _PROGRAMS[kind])
    cure = "pass a checkpoint of one, as it was written"
    if kind == "pickle":
        cure += (
            ", or, of a network of your own, a file of safetensors.torch.save_file(module.state_dict(), FILE)"
        )
    raise ValueError(f"{path} holds no weights of {programs}: {cure}")


def _keep_named_entries(node: Any, visited: dict[int, Any]) -> Any:
    """Returns a tree without the entries of its dicts whose keys are no strings.

    Args:
        node: the tree.
        visited: what became of each dict, by its id. A pickle may refer to a dict many times, and from inside
            of itself.
    """
    if not isinstance(node, dict):
        return node
    if id(node) not in visited:
        # Entered before its entries are visited, for those that lead back to it.
        visited[id(node)] = {}
        for key, child in node.items():
            if isinstance(key, str):
                visited[id(node)][key] = _keep_named_entries(child, visited)
    return visited[id(node)]
