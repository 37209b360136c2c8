"""Makes the checks that parts of a config share; a message names the field as the command line does."""

from typing import Any

from d3pm_jax.errors import UserError


def undefined(part: Any, method: str) -> UserError:
    """Returns what to raise in a base: the class of a part does not define one of its methods."""
    return UserError(f"{type(part).__name__} defines no {method}: write that method in the class")


def check_at_least(part: str, spec: Any, **least: Any) -> None:
    """Raises ValueError where a field, unless it is None, is below its least value."""
    for name, limit in least.items():
        value = getattr(spec, name)
        if value is not None and value < limit:
            raise ValueError(f"{part}.{name} = {value}: it must be at least {limit}")


def check_shares(part: str, spec: Any, *names: str) -> None:
    """Raises ValueError where a field is outside [0, 1)."""
    for name in names:
        if not 0.0 <= getattr(spec, name) < 1.0:
            raise ValueError(f"{part}.{name} = {getattr(spec, name)}: it must be in [0, 1)")
