"""Reads configs from Python files and JSON, writes them as JSON, and compares them field by field.

A class of the user's own stands in JSON as "own.NAME". It is read back only with the file that defines it,
which the user names: nothing here runs code that lies in the folder of a run. A slot of a sampler stands
there as "sampling.NAME", since one may have the name of a part.
"""

import dataclasses
import functools
import importlib.util
import inspect
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from d3pm_jax.checks.arrays import shorten_value
from d3pm_jax.config.checks import check_fields, field_values, iterate_parts, list_paths
from d3pm_jax.config.data import Data, list_data_paths
from d3pm_jax.config.run import Config
from d3pm_jax.errors import UserError, as_user_error, locate_statement, one_line
from d3pm_jax.sampling import correctors, places, sampler, shaping, speculative, transitions

__all__ = ["dump_config", "from_json", "read_config_file", "to_json"]

MODULE = "d3pm_jax.config"
OWN = "own."
SLOT = "sampling."
SLOT_MODULES = (sampler, shaping, transitions, places, speculative, correctors)
# Fields that are saved only where they are not at these values, so that a config that sets none stays short.
UNSAVED: dict[type, dict[str, Any]] = {Config: {"sampler": sampler.Sampler()}}


def read_config_file(path: Path | str) -> Config:
    """Returns the config that `get_config()` in a Python file returns.

    A relative path in it is tried from the folder of the file first, and else is one from the working
    directory.

    Raises:
        UserError: no such file, or it does not define get_config() -> Config, or that cannot be used.
    """
    config = load_config(Path(path))
    check_config(config)
    return config


def load_config(path: Path) -> Config:
    """Returns the config of a Python file as `read_config_file` does, for a caller that checks it.

    Raises:
        UserError: no such file, or it does not define get_config() -> Config.
    """
    module = load_module(path)
    if not hasattr(module, "get_config"):
        raise UserError(f"{path} defines no get_config(): write that function, which returns a Config")
    if not callable(module.get_config):
        name = type(module.get_config).__name__
        raise UserError(f"get_config in {path} is a {name}: define it as a function that returns a Config")
    try:
        config = module.get_config()
    except Exception as error:
        raise UserError(f"{path} failed: {type(error).__name__}: {error}") from error
    if not isinstance(config, Config):
        raise UserError(f"get_config() in {path} returned {type(config).__name__}, expected a Config")
    # The folder stands as the user wrote it. Where it is relative, a project finds its data when it is moved.
    return find_paths(config, (path.parent,))


def find_paths(part: Any, folders: Sequence[Path]) -> Any:
    """Returns a part whose relative paths are completed by the first of some folders that has the file.

    A path that is in none of them stays as it is. So does one that is there from the working directory, where
    that is the first.
    """
    paths = list_data_paths(part) if isinstance(part, Data) else list_paths(part)
    changes: dict[str, Any] = {}
    for name, text in paths.items():
        # What is no text is for `check_config` to refuse, which may come later.
        if not isinstance(text, str) or not text or Path(text).is_absolute():
            continue
        # Unlike that of a Path, this answers for any text, also for one that is too long for a path.
        folder = next((folder for folder in folders if os.path.exists(folder / text)), None)
        if folder is not None and folder.resolve() != Path.cwd():
            changes[name] = str(folder / text)
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type) and field.init:
            moved = find_paths(value, folders)
            if moved != value:
                changes[field.name] = moved
    return dataclasses.replace(part, **changes) if changes else part


def list_files(config: Config) -> dict[str, str]:
    """Returns the paths of the `FilePath` fields of a config by dotted name."""
    return {
        f"{part_name}{name}": path
        for part_name, part in iterate_parts(config)
        for name, path in list_paths(part).items()
    }


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
    # Annotations of dataclasses are looked up in `sys.modules`, also later, when their fields are checked.
    sys.modules[spec.name] = module
    try:
        # The loader of the spec would take what Python keeps compiled of a file of this second and size: of
        # two files that a script writes under one name, one after the other, it could run the first twice.
        exec(compile(path.read_bytes(), path.absolute(), "exec", dont_inherit=True), module.__dict__)
    except Exception as error:
        cure = ""
        if "non-frozen dataclass" in str(error):
            cure = ": write @dataclasses.dataclass(frozen=True)"
        raise UserError(f"{path} failed: {type(error).__name__}: {error}{cure}") from error
    return module


def to_json(node: Any) -> Any:
    """Returns a config, or a part of it, as nested dicts; each holds the name of its class under "class"."""
    if dataclasses.is_dataclass(node):
        unsaved = UNSAVED.get(type(node), {})
        fields = {
            name: to_json(value)
            for name, value in field_values(node).items()
            if name not in unsaved or value != unsaved[name]
        }
        return {"class": _class_name(type(node)), **fields}
    if isinstance(node, tuple):
        return [to_json(item) for item in node]
    return node


def from_json(tree: Any, own_classes: Mapping[str, type] | None = None) -> Config:
    """Returns the config that `to_json` wrote.

    Args:
        tree: the dicts.
        own_classes: the classes of the user's own, by name: `own_parts`.

    Raises:
        UserError: a class or a field that this version does not know, a value that cannot be used, or a part
            of the user's own without `own_classes`.
    """
    config = _decode(tree, own_classes or {})
    if not isinstance(config, Config):
        raise UserError("this is not the JSON of a Config")
    check_config(config)
    return config


def part_from_json(tree: Any) -> Any:
    """Returns the part of a config that `to_json` wrote; a class of the user's own is refused.

    Raises:
        UserError: as `from_json`.
    """
    part = _decode(tree, {})
    try:
        check_fields("", part)
    except (TypeError, ValueError) as error:
        raise UserError(f"the saved part cannot be used: {one_line(error)}") from error
    return part


def own_names(tree: Any) -> list[str]:
    """Lists the classes of the user's own in what `to_json` wrote."""
    names: list[str] = []
    children: list[Any] = []
    if isinstance(tree, list):
        children = tree
    elif isinstance(tree, dict):
        class_name = tree.get("class")
        if isinstance(class_name, str) and class_name.startswith(OWN):
            names.append(class_name.removeprefix(OWN))
        children = list(tree.values())
    for child in children:
        names += own_names(child)
    return names


def own_file(config: Config) -> Path | None:
    """Returns the file that defines the parts of the user's own, or None if there is no such part or file.

    Raises:
        UserError: they are defined in several files.
    """
    if own_classes_without_file(config):
        return None
    files = sorted({sys.modules[cls.__module__].__file__ or "" for cls in _own_classes(config)})
    if len(files) > 1:
        raise UserError(f"parts of this config are defined in {' and '.join(files)}: put them in one file")
    return Path(files[0]) if files else None


def own_classes_without_file(config: Config) -> list[str]:
    """Lists the classes of the user's own that are defined in no file, but in a notebook or on stdin."""
    names = []
    for cls in _own_classes(config):
        file = getattr(sys.modules.get(cls.__module__), "__file__", None)
        if file is None or not Path(file).is_file():
            names.append(cls.__name__)
    return names


def own_parts(source: Config | ModuleType) -> dict[str, type]:
    """Returns the classes of the user's own in a config, or the dataclasses that a file defines, by name."""
    if isinstance(source, Config):
        return {cls.__name__: cls for cls in _own_classes(source)}
    # What the file only imports has another module, and is none of its own parts.
    return {
        cls.__name__: cls for cls in _dataclasses_among(vars(source)) if cls.__module__ == source.__name__
    }


def check_config(config: Any) -> None:
    """Refuses what is no config, or one that cannot be used or could not be read back.

    A config is checked here once, where it comes in. Whoever is given one afterwards trusts it.

    Raises:
        UserError: a field is not what its annotation says, or holds something else than numbers, strings,
            tuples and parts.
    """
    if not isinstance(config, Config):
        cure = "pass a Config, as config.io.read_config_file('config.py') reads one"
        raise UserError(f"config is {shorten_value(config)}: {cure}")
    for cls in _own_classes(config):
        if "__dataclass_params__" not in vars(cls):
            raise UserError(
                f"class {cls.__name__} is not a dataclass: put @dataclasses.dataclass(frozen=True) on it"
            )
        _check_methods(cls)
    with as_user_error():
        config.check()
    for name, value in flatten_config(config).items():
        if callable(value):
            raise UserError(
                f"{name} is a function, which cannot be saved: use a class of your own, or pass the sampler "
                f"to Run.sample"
            )
    try:
        read_back = _decode(json.loads(dump_config(config)), own_parts(config))
    except TypeError as error:
        raise UserError(
            f"the config cannot be saved ({error}): use numbers, strings, tuples and parts"
        ) from error
    if read_back != config:
        raise UserError(
            "the config has fields that could not be read back: use numbers, strings, tuples and parts"
        )


def _check_methods(cls: type) -> None:
    """Refuses methods of a class of the user's own that cannot be called as those of its base are.

    Raises:
        UserError: naming the method, and the arguments that it is called with.
    """
    of_ours = (f"{MODULE}.", "d3pm_jax.sampling.")
    base = next((base for base in cls.__mro__ if base.__module__.startswith(of_ours)), object)
    for name, _ in inspect.getmembers(base, lambda member: isinstance(member, property)):
        method = inspect.getattr_static(cls, name)
        if inspect.isfunction(method):
            place = locate_statement(method, f"def {name}")
            raise UserError(f"{place}: {name} is a property: put @property on it")
    for name, base_method in inspect.getmembers(base, inspect.isfunction):
        method = inspect.getattr_static(cls, name)
        if name.startswith("_") or not inspect.isfunction(method):
            continue
        # What has a default may be left out, of the call and so of the method.
        parameters = inspect.signature(base_method).parameters.values()
        arguments = [parameter.name for parameter in parameters if parameter.default is parameter.empty]
        try:
            inspect.signature(method).bind(*arguments)
        except TypeError as error:
            place = locate_statement(method, f"def {name}")
            call = f"{name}({', '.join(arguments)})"
            raise UserError(f"{place}: the method is called as {call}: {error}") from error


def differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Returns the fields that differ, by dotted name, as (old, new); a field that is missing is None."""
    old_fields = flatten_config(old)
    new_fields = flatten_config(new)
    pairs = {name: (old_fields.get(name), new_fields.get(name)) for name in sorted(old_fields | new_fields)}
    return {name: (before, after) for name, (before, after) in pairs.items() if before != after}


def flatten_config(config: Config) -> dict[str, Any]:
    """Returns every field by dotted name, the class names of the parts among them."""
    fields: dict[str, Any] = {}

    def add_fields(prefix: str, part: dict[str, Any]) -> None:
        for key, value in part.items():
            name = f"{prefix}{key}"
            if isinstance(value, dict):
                add_fields(f"{name}.", value)
            else:
                fields[name] = value

    add_fields("", to_json(config))
    return fields


def dump_config(config: Config) -> str:
    """Returns the JSON text of a config."""
    return json.dumps(to_json(config), indent=2)


def _own_classes(config: Config) -> list[type]:
    classes = [type(part) for _, part in iterate_parts(config)]
    return [cls for cls in classes if _class_name(cls).startswith(OWN)]


def _class_name(cls: type) -> str:
    """Returns the name of a class in JSON, which is "own.NAME" unless the class is one of ours."""
    for name in (cls.__name__, SLOT + cls.__name__):
        if _parts_of_ours().get(name) is cls:
            return name
    return OWN + cls.__name__


def _dataclasses_among(objects: Mapping[str, Any]) -> list[type]:
    return [x for x in objects.values() if isinstance(x, type) and dataclasses.is_dataclass(x)]


@functools.cache
def _parts_of_ours() -> dict[str, type]:
    """Returns the classes that a saved config may name, by these names.

    They are the dataclasses in `__all__` of this package, and those that samplers are put together from.
    """
    package = sys.modules[MODULE]
    public = {name: getattr(package, name) for name in package.__all__}
    parts = {cls.__name__: cls for cls in _dataclasses_among(public)}
    for module in SLOT_MODULES:
        parts |= {
            SLOT + cls.__name__: cls
            for cls in _dataclasses_among(vars(module))
            if cls.__module__ == module.__name__
        }
    return parts


def _decode(node: Any, own_classes: Mapping[str, type]) -> Any:
    """Makes parts of dicts and tuples of lists, from the inside out."""
    if isinstance(node, list):
        return tuple(_decode(item, own_classes) for item in node)
    if not isinstance(node, dict):
        return node

    fields = {name: _decode(value, own_classes) for name, value in node.items() if name != "class"}
    class_name = node.get("class")
    if not isinstance(class_name, str):
        raise UserError(
            f"the saved config has a part of class {one_line(repr(class_name))}, which is not the name "
            "of a class"
        )
    cls = _find_class(class_name, own_classes)
    try:
        return cls(**fields)
    except (TypeError, ValueError) as error:
        raise UserError(f"the saved config does not fit this version: {one_line(error)}") from error


def _find_class(class_name: str, own_classes: Mapping[str, type]) -> Any:
    """Returns the class of a saved part, by its name.

    Raises:
        UserError: there is no such class.
    """
    if class_name.startswith(OWN):
        cls = own_classes.get(class_name.removeprefix(OWN))
        if cls is None:
            raise UserError(
                f"the config has a part {one_line(class_name.removeprefix(OWN))} of the user's own: "
                "pass --config FILE, the Python file that defines it, or runs.open(DIR, FILE)"
            )
        return cls

    cls = _parts_of_ours().get(class_name)
    if cls is None:
        raise UserError(f"this version has no part named {one_line(repr(class_name))} in {MODULE}")
    return cls
