"""Names the files of a command's results after its options, and says what a new result replaces."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from d3pm_jax.files import read_json, write_text


def suffix(command: Any, *options: str, **others: Any) -> str:
    """Returns what names get of the options that were given: "_steps10_seed1"; nothing for the defaults.

    Args:
        command: a dataclass with the options.
        options: their names, in order.
        others: values in place of those of the command.
    """
    given = {name: getattr(command, name) for name in options} | others
    defaults = {field.name: field.default for field in dataclasses.fields(command)}
    return "".join(f"_{name}{value}" for name, value in given.items() if value != defaults[name])


def write_json(path: Path, result: Mapping[str, Any], about: tuple[str, ...]) -> str:
    """Writes a result as JSON; returns words about the one that it replaces, if that was of something else.

    Args:
        path: of the file.
        result: what to write.
        about: the entries that say what it is of.

    Returns:
        ", replaces that of step 1600", or nothing.
    """
    before = _read(path)
    write_text(path, json.dumps(_finite(result), indent=1, allow_nan=False))
    differ = [f"{k} {before[k]}" for k in about if k in before and before[k] != result[k]]
    return f", replaces that of {', '.join(differ)}" if differ else ""


def _finite(tree: Any) -> Any:
    """Returns a result with null, which JSON has, for numbers that are not finite, which it has not."""
    if isinstance(tree, Mapping):
        return {name: _finite(x) for name, x in tree.items()}
    if isinstance(tree, list | tuple):
        return [_finite(x) for x in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def _read(path: Path) -> dict[str, Any]:
    """Returns the result that is there; nothing where there is none, or none that can be read."""
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
