"""Reads configs from Python files and JSON, writes them as JSON, and compares them field by field."""

import dataclasses
import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

from d3pm_jax.config.run import Config
from d3pm_jax.errors import UserError

MODULE = "d3pm_jax.config"
RENAMED = {"Loss": "HybridLoss"}  # since 0.1.0


def from_file(path: Path) -> Config:
    """Returns the config that `get_config()` in a Python file returns.

    Raises:
        UserError: no such file, or it does not define get_config() -> Config.
    """
    if not path.is_file():
        raise UserError(f"no config file {path}: pass a Python file that defines get_config()")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file: a config is a .py file that defines get_config()")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config()
    except Exception as error:
        raise UserError(f"{path} failed: {type(error).__name__}: {error}") from error
    if not isinstance(config, Config):
        raise UserError(f"get_config() in {path} returned {type(config).__name__}, expected a Config")
    check(config)
    return config


def to_json(node: Any) -> Any:
    """Returns a config, or a part of it, as nested dicts; each holds the name of its class under "class"."""
    if dataclasses.is_dataclass(node):
        fields = {f.name: to_json(getattr(node, f.name)) for f in dataclasses.fields(node)}
        return {"class": type(node).__name__, **fields}
    return list(node) if isinstance(node, tuple) else node


def from_json(tree: dict[str, Any]) -> Config:
    """Returns the config that `to_json` wrote.

    Raises:
        UserError: a class or a field that this version does not know.
    """
    config = _decode(tree)
    if not isinstance(config, Config):
        raise UserError("this is not the JSON of a Config")
    return config


def check(config: Config) -> None:
    """Refuses a config that could not be read back, such as one with a class of the user's own.

    Raises:
        UserError: it would be saved as something else.
    """
    if from_json(json.loads(dump(config))) != config:
        raise UserError(f"the config has parts that are not from {MODULE}: they could not be read back")


def differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Returns the fields that differ, by dotted name, as (old, new)."""
    a, b = flat(old), flat(new)
    return {k: (a.get(k), b.get(k)) for k in sorted(a | b) if a.get(k) != b.get(k)}


def flat(config: Config) -> dict[str, Any]:
    """Returns every field by dotted name, the class names of the parts among them."""
    found: dict[str, Any] = {}

    def visit(prefix: str, node: Any) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                visit(f"{prefix}.{key}" if prefix else key, value)
        else:
            found[prefix] = node

    visit("", to_json(config))
    return found


def dump(config: Config) -> str:
    """Returns the JSON text of a config."""
    return json.dumps(to_json(config), indent=2)


def _decode(node: Any) -> Any:
    if isinstance(node, list):
        return tuple(node)
    if not isinstance(node, dict):
        return node
    fields = {k: _decode(v) for k, v in node.items() if k != "class"}
    name = str(node.get("class"))
    cls = getattr(importlib.import_module(MODULE), RENAMED.get(name, name), None)
    if cls is None:
        raise UserError(f"this version has no part named {name!r} in {MODULE}")
    try:
        return cls(**fields)
    except TypeError as error:
        raise UserError(f"the saved config does not fit this version: {error}") from error
