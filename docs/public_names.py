"""Lists the public names, read from sources: what packages export, and what modules do that they export.

A package exports what is in its `__all__`, what it imports as itself (`import x as x`), and what it makes an
attribute later: by `submodules`, or as `runs` does. Where it has an `__all__`, the functions and classes that
it imports as themselves besides are for other rooms of the library. A module without either exports its
functions and classes.
"""

import ast
import functools
from pathlib import Path

from d3pm_jax import runs

ROOT = Path(__file__).parents[1]


@functools.cache
def statements(module: str) -> list[ast.stmt]:
    """Returns what a module of ours says, at its top level; nothing if there is none of this name."""
    path = ROOT / module.replace(".", "/")
    files = [file for file in (path / "__init__.py", path.with_suffix(".py")) if file.exists()]
    return ast.parse(files[0].read_text()).body if files else []


@functools.cache
def assigned(module: str) -> dict[str, ast.expr]:
    """Returns the names that a module assigns, with their values."""
    pairs = [(x.targets[0], x.value) for x in statements(module) if isinstance(x, ast.Assign)]
    return {target.id: value for target, value in pairs if isinstance(target, ast.Name)}


@functools.cache
def imported(module: str) -> dict[str, tuple[str, str]]:
    """Returns the names that a module imports, with the modules that they come from and their names there."""
    imports = [x for x in statements(module) if isinstance(x, ast.ImportFrom) and x.module]
    return {y.asname or y.name: (str(x.module), y.name) for x in imports for y in x.names}


@functools.cache
def exported(module: str) -> list[str]:
    """Returns what is in `__all__`, and modules; without it, what is imported as itself, or defined."""
    imports = [x for x in statements(module) if isinstance(x, ast.ImportFrom)]
    names = [y.name for x in imports for y in x.names if y.asname == y.name]
    if "__all__" in assigned(module):
        modules = [name for name in names if module_of(module, name)]
        names = [*modules, *ast.literal_eval(assigned(module)["__all__"])]
    else:
        defined = [x.name for x in statements(module) if isinstance(x, ast.FunctionDef | ast.ClassDef)]
        names += [name for name in defined if not name.startswith("_")]
    return names + list(runs._FUNCTIONS) if module == runs.__name__ else names


def module_of(module: str, name: str) -> str | None:
    """Returns the module of ours that a module calls by this name, or None if it is another object."""
    if name not in imported(module):
        return None
    origin, name = imported(module)[name]
    if origin != module and name in imported(origin):  # as `processes.dense`, a function and a file
        return module_of(origin, name)
    return f"{origin}.{name}" if statements(origin) and statements(f"{origin}.{name}") else None


def public_modules(module: str) -> set[str]:
    """Returns a module and those that it offers: by export, or by `submodules`."""
    modules = {path for name in exported(module) if (path := module_of(module, name))}
    lazy = assigned(module).get("__getattr__")
    names = assigned(module).get("_SUBPACKAGES", lazy.args[1] if isinstance(lazy, ast.Call) else None)
    if names is not None:
        modules |= {f"{module}.{name}" for name in ast.literal_eval(names)}
    return {module}.union(*map(public_modules, modules))


def home(module: str, name: str) -> tuple[str, str]:
    """Returns the module of ours that defines an object or imports it from others, and its name there."""
    origin, original = imported(module).get(name, (module, name))
    if origin != module and statements(origin):
        return home(origin, original)
    return runs._FUNCTIONS.get(name, (module, name)) if module == runs.__name__ else (module, name)


def public_objects(package: str) -> set[tuple[str, str]]:
    """Returns the homes of all public functions, classes and constants."""
    pairs = [(module, name) for module in public_modules(package) for name in exported(module)]
    return {home(module, name) for module, name in pairs if module_of(module, name) is None}
