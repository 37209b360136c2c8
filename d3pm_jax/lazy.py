"""Makes the modules of a package its attributes, imported when they are first used."""

import importlib
from collections.abc import Callable, Collection
from types import ModuleType


def submodules(package: str, names: Collection[str]) -> Callable[[str], ModuleType]:
    """Returns a `__getattr__` of a package that imports its modules of these names.

    Args:
        package: its name.
        names: of the modules.

    Returns:
        The function, to be bound to `__getattr__` in the `__init__` of the package.
    """

    def import_submodule(name: str) -> ModuleType:
        if name in names:
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return import_submodule
