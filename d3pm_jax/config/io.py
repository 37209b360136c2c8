"""Reads configs from Python files and JSON, writes them as JSON, and compares them field by field.

A class of the user's own stands in JSON as "own.NAME". It is read back only with the file that defines it,
which the user names: nothing here runs code that lies in the folder of a run.
"""

import dataclasses
import functools
import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from d3pm_jax.beliefs import join_first_step
from d3pm_jax.config.checks import check_fields
from d3pm_jax.config.objective import X0Objective, has_first_step
from d3pm_jax.config.run import Config
from d3pm_jax.errors import UserError, as_user_error, one_line

MODULE = "d3pm_jax.config"
OWN = "own."
RENAMED = {"Loss": "HybridLoss", "Data": "TfdsImages"}  # since 0.1.0; Data("digits") is Digits()
# Fields that older versions did not save, and what they did.
ADDED: dict[type, dict[str, Any]] = {X0Objective: {"belief": "d3pm"}}


def read_config_file(path: Path) -> Config:
    """Returns the config that `get_config()` in a Python file returns.

    Raises:
        UserError: no such file, or it does not define get_config() -> Config.
    """
    module = load_module(path)
    try:
        config = module.get_config()
    except Exception as error:
        raise UserError(f"{path} failed: {type(error).__name__}: {error}") from error
    if not isinstance(config, Config):
        raise UserError(f"get_config() in {path} returned {type(config).__name__}, expected a Config")
    check_config(config)
    return config


from_file = read_config_file  # its name until 0.2


def load_module(path: Path) -> ModuleType:
    """Runs a Python file, and returns it as a module.

    Raises:
        UserError: no such file, or it fails.
    """
    if not path.is_file():
        raise UserError(f"no config file {path}: pass a Python file that defines get_config()")
    spec = importlib.util.spec_from_file_location(f"{path.resolve()} (config)", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file: a config is a .py file that defines get_config()")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where annotations of its dataclasses are looked up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"{path} failed: {type(error).__name__}: {error}") from error
    return module


def to_json(node: Any) -> Any:
    """Returns a config, or a part of it, as nested dicts; each holds the name of its class under "class"."""
    if dataclasses.is_dataclass(node):
        fields = {f.name: to_json(getattr(node, f.name)) for f in dataclasses.fields(node)}
        return {"class": _name(type(node)), **fields}
    return [to_json(x) for x in node] if isinstance(node, tuple) else node


def from_json(tree: Any, own: Mapping[str, type] | None = None) -> Config:
    """Returns the config that `to_json` wrote.

    Args:
        tree: the dicts.
        own: the classes of the user's own, by name: `own_parts`.

    Raises:
        UserError: a class or a field that this version does not know, a value that cannot be used, or a part
            of the user's own without `own`.
    """
    config = _decode(tree, own or {})
    if not isinstance(config, Config):
        raise UserError("this is not the JSON of a Config")
    check_values(config)
    return config


def part_from_json(tree: Any) -> Any:
    """Returns the part of a config that `to_json` wrote, none of the user's own.

    Raises:
        UserError: as `from_json`.
    """
    part = _decode(tree, {})
    try:
        check_fields("", part)
    except (TypeError, ValueError) as error:
        raise UserError(f"the saved part cannot be used: {one_line(error)}") from error
    return part


def check_values(config: Config) -> None:
    """Does what `Config.check` does, for commands.

    Raises:
        UserError: naming the field.
    """
    with as_user_error():
        config.check()


def own_names(tree: Any) -> list[str]:
    """Lists the classes of the user's own in what `to_json` wrote."""
    if isinstance(tree, list):
        return [name for x in tree for name in own_names(x)]
    if not isinstance(tree, dict):
        return []
    name = tree.get("class")
    found = [name.removeprefix(OWN)] if isinstance(name, str) and name.startswith(OWN) else []
    return found + [name for x in tree.values() for name in own_names(x)]


def own_file(config: Config) -> Path | None:
    """Returns the file that defines the parts of the user's own; None if there are none, or none is known.

    Raises:
        UserError: they are defined in several files.
    """
    files = {getattr(sys.modules.get(cls.__module__), "__file__", None) for cls in _own_classes(config)}
    found = sorted(file for file in files if file is not None)
    if len(found) > 1:
        raise UserError(f"parts of this config are defined in {' and '.join(found)}: put them in one file")
    return Path(found[0]) if found else None


def own_parts(source: Config | ModuleType) -> dict[str, type]:
    """Returns the classes of the user's own in a config, or the dataclasses that a file defines, by name."""
    if isinstance(source, Config):
        return {cls.__name__: cls for cls in _own_classes(source)}
    found = [x for x in vars(source).values() if isinstance(x, type) and dataclasses.is_dataclass(x)]
    return {cls.__name__: cls for cls in found if cls.__module__ == source.__name__}


def check_config(config: Config) -> None:
    """Refuses a config that cannot be used, or could not be read back.

    Raises:
        UserError: a field is not what its annotation says, or holds something else than numbers, strings,
            tuples and parts.
    """
    for cls in _own_classes(config):
        if "__dataclass_params__" not in vars(cls):
            raise UserError(
                f"class {cls.__name__} is not a dataclass: put @dataclasses.dataclass(frozen=True) on it"
            )
    check_values(config)
    try:
        same = from_json(json.loads(dump_config(config)), own_parts(config)) == config
    except TypeError as error:
        raise UserError(
            f"the config cannot be saved ({error}): use numbers, strings, tuples and parts"
        ) from error
    if not same:
        raise UserError(
            "the config has fields that could not be read back: use numbers, strings, tuples and parts"
        )


def differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Returns the fields that differ, by dotted name, as (old, new)."""
    a, b = flatten_config(old), flatten_config(new)
    return {k: (a.get(k), b.get(k)) for k in sorted(a | b) if a.get(k) != b.get(k)}


def flatten_config(config: Config) -> dict[str, Any]:
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


def dump_config(config: Config) -> str:
    """Returns the JSON text of a config."""
    return json.dumps(to_json(config), indent=2)


def _parts(node: Any) -> Iterator[Any]:
    if isinstance(node, tuple):
        for x in node:
            yield from _parts(x)
    elif dataclasses.is_dataclass(node):
        yield node
        for field in dataclasses.fields(node):
            yield from _parts(getattr(node, field.name))


def _own_classes(config: Config) -> list[type]:
    return [cls for cls in map(type, _parts(config)) if _name(cls).startswith(OWN)]


def _name(cls: type) -> str:
    return cls.__name__ if _parts_of_ours().get(cls.__name__) is cls else OWN + cls.__name__


@functools.cache
def _parts_of_ours() -> dict[str, type]:
    """Returns the classes that a saved config may name: the dataclasses in `__all__` of this package."""
    package = sys.modules[MODULE]
    found = {name: getattr(package, name) for name in package.__all__}
    return {name: x for name, x in found.items() if isinstance(x, type) and dataclasses.is_dataclass(x)}


def _decode(node: Any, own: Mapping[str, type]) -> Any:
    if isinstance(node, list):
        return tuple(_decode(x, own) for x in node)
    if not isinstance(node, dict):
        return node
    fields = {k: _decode(v, own) for k, v in node.items() if k != "class"}
    name = node.get("class")
    if not isinstance(name, str):
        raise UserError(f"the saved config has a part of class {one_line(repr(name))}, which is no name")
    if name.startswith(OWN):
        cls = own.get(name.removeprefix(OWN))
        if cls is None:
            raise UserError(
                f"the config has a part {one_line(name.removeprefix(OWN))} of its own: pass --config FILE, "
                f"which defines it"
            )
    else:
        ours = "Digits" if name == "Data" and fields.get("name") == "digits" else RENAMED.get(name, name)
        cls = _parts_of_ours().get(ours)
        if cls is None:
            raise UserError(f"this version has no part named {one_line(repr(name))} in {MODULE}")
    for base, before in ADDED.items():
        if issubclass(cls, base):
            fields = before | fields
    if issubclass(cls, X0Objective) and not has_first_step(cls):
        fields = _join_first_step(fields)
    try:
        return cls(**fields)
    except (TypeError, ValueError) as error:
        raise UserError(f"the saved config does not fit this version: {one_line(error)}") from error


def _join_first_step(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of an objective without `first_step`, which older versions had beside `belief`."""
    if "first_step" not in fields:
        return dict(fields)
    others = {name: value for name, value in fields.items() if name != "first_step"}
    return others | {"belief": join_first_step(fields["belief"], fields["first_step"])}
