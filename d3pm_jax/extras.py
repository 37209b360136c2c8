"""Requires the modules that an extra of the installation brings, and says how to install it."""

from importlib.util import find_spec

from d3pm_jax.errors import UserError


class MissingExtra(UserError, ModuleNotFoundError):
    """Its message is one line that names the part, the module that it lacks, and what to install."""


def write_install(*extras: str) -> str:
    """Writes how to install extras: in a clone, and by the name of the library once it is published."""
    names = ",".join(extras)
    return f"pip install -e '.[{names}]' in the clone ('d3pm-jax[{names}]' once it is published)"


def require(part: str, *modules: str, extra: str = "train") -> None:
    """Raises MissingExtra unless the modules, which an extra brings, are installed; imports none.

    Args:
        part: what needs them, as the message names it.
        modules: their names, without dots.
        extra: the name of the extra.
    """
    for name in modules:
        if find_spec(name) is None:
            raise MissingExtra(f"{part} needs {name}: {write_install(extra)}", name=name)
