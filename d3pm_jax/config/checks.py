"""Checks the fields of parts against their annotations; a message names the field as the command line does.

What annotations mean is said in `checks.hints`. Those that are not understood, in parts of the user's own,
allow everything that is finite.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

from d3pm_jax.checks import (
    LARGEST_INT as LARGEST_INT,
    LARGEST_SIZE as LARGEST_SIZE,
    NOT_EMPTY as NOT_EMPTY,
    RISING as RISING,
    Allowed as Allowed,
    AnyPath as AnyPath,
    Categories as Categories,
    Count as Count,
    Epsilon as Epsilon,
    Interval as Interval,
    Natural as Natural,
    NonEmptyStr as NonEmptyStr,
    NotNegative as NotNegative,
    Positive as Positive,
    Probability as Probability,
    Seed as Seed,
    Size as Size,
    UnitInterval as UnitInterval,
    UpTo2 as UpTo2,
    UpTo5 as UpTo5,
    check_value,
    describe_hint as describe_hint,
    integers_from as integers_from,
    is_finite,
    is_restricted,
    matches_hint as matches_hint,
    name_conversion,
    shorten_value,
)
from d3pm_jax.errors import UserError, as_user_error

P = ParamSpec("P")
R = TypeVar("R")


class Free:
    """Marks a field that may change when a run is resumed, as `Annotated[int, Free]` does."""


class IsPath:
    """Marks a field that holds the path of a file, which a config file may give from its own folder."""


FilePath = Annotated[NonEmptyStr, IsPath]


class CheckedPart:
    """Base of the parts of a config that check more than the types of their fields."""

    def check(self) -> None:
        """Raises ValueError for a field that cannot be used."""


def undefined_method(part: Any, method: str) -> UserError:
    """Returns the error for a base class to raise where a class does not define one of its methods."""
    return UserError(f"{type(part).__name__} defines no {method}: write that method in the class")


def says(part: Any, name: str, *methods: str) -> bool:
    """Tells whether a class says by an attribute something of these methods, as they are in a part.

    That is so unless a class that derives from it has put one of them in another's place.
    """
    known = {name, *methods}
    definer = next((cls for cls in type(part).__mro__ if not known.isdisjoint(vars(cls))), object)
    return name in vars(definer)


def check_fields(name: str, part: Any) -> None:
    """Compares the fields of a part, and of the parts in it, with their annotations.

    Args:
        name: of the part, such as "process.beta"; "" for a whole config.
        part: a dataclass.

    Raises:
        ValueError: naming the field, its value, and what is allowed.
    """
    hints = hints_of(type(part))
    for field in dataclasses.fields(part):
        field_name = f"{name}.{field.name}" if name else field.name
        value = getattr(part, field.name)
        hint = hints.get(field.name, Any)
        if not (matches_hint(value, hint) and is_finite(value)):
            text = shorten_value(value)
            if is_restricted(hint) and matches_hint(value, hint):
                # Samplers take infinity, and JSON has no number for it.
                raise ValueError(f"{field_name} = {text}: a config holds finite numbers alone")
            cure = name_conversion(value, hint)
            raise ValueError(f"{field_name} = {text}: it must be {describe_hint(hint)}{cure}")

        items = value if isinstance(value, tuple) else (value,)
        for item in items:
            if dataclasses.is_dataclass(item) and not isinstance(item, type):
                check_fields(field_name, item)


def iterate_parts(part: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yields a part and every part in it, also those in tuples, each after its dotted name with a dot."""
    if isinstance(part, tuple):
        for i, item in enumerate(part):
            yield from iterate_parts(item, f"{name}{i}.")
    elif dataclasses.is_dataclass(part) and not isinstance(part, type):
        yield name, part
        for field in dataclasses.fields(part):
            yield from iterate_parts(getattr(part, field.name), f"{name}{field.name}.")


def field_values(part: Any) -> dict[str, Any]:
    """Returns the fields of a part by name."""
    return {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}


def check_number(name: str, value: Any, hint: Any) -> None:
    """Raises UserError unless a value, of Python or NumPy, is what an annotation allows."""
    with as_user_error():
        check_value(name, value, hint)


def checks_arguments(f: Callable[P, R]) -> Callable[P, R]:
    """Makes a function check its plain arguments, as sizes, paths and flags, against their annotations.

    What is no plain value, such as an array or a run, the function checks by itself.
    """
    signature = inspect.signature(f)
    hints = {name: x.annotation for name, x in signature.parameters.items() if _is_plain(x.annotation)}

    @functools.wraps(f)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        for name, hint in hints.items():
            if name in bound.arguments:
                with as_user_error():
                    bound.arguments[name] = check_value(name, bound.arguments[name], hint)
        return f(*bound.args, **bound.kwargs)

    return checked


def _is_plain(hint: Any) -> bool:
    """Tells whether an annotation says all of a value: it restricts it, or is of a flag, function or list."""
    return is_restricted(hint) or hint is bool or get_origin(hint) in (Callable, Sequence)


def check_instance(name: str, value: Any, cls: Any, cure: str) -> None:
    """Raises UserError unless a value is of a class, or of one of a union."""
    if not isinstance(value, cls):
        raise UserError(f"{name} is {shorten_value(value)}: {cure}")


def list_paths(part: Any) -> dict[str, str]:
    """Returns the values of the fields of a part that are marked with `IsPath`, by name."""
    marked = [name for name, hint in _hints_with_marks(type(part)).items() if _has_mark(hint, IsPath)]
    values = {name: getattr(part, name, None) for name in marked}
    return {name: value for name, value in values.items() if isinstance(value, str)}


def _has_mark(hint: Any, mark: type) -> bool:
    """Says whether an annotation, or one of the choices that it gives, has a mark."""
    args = get_args(hint)
    return mark in args or any(_has_mark(arg, mark) for arg in args)


class FreeFields:
    """Class attribute with the names of the `Free` fields; a class may set the attribute itself."""

    def __get__(self, instance: Any, owner: type) -> tuple[str, ...]:
        return free_fields(owner)


def free_fields(cls: type) -> tuple[str, ...]:
    """Lists the fields that a class, or one that it derives from, marks as `Free`."""
    # A class may declare a field of its base again, without the mark. Then it is still free: every class of
    # the line counts. A dict keeps the order, and each name once.
    hints = [item for base in reversed(cls.__mro__) for item in _hints_with_marks(base).items()]
    return tuple(dict.fromkeys(name for name, hint in hints if Free in get_args(hint)))


@functools.cache
def hints_of(cls: type) -> dict[str, Any]:
    """Returns the annotations of the fields of a class, without `Free`.

    There are none where they name what cannot be found.
    """
    hints = _hints_with_marks(cls)
    for name, hint in hints.items():
        if get_origin(hint) is not Annotated:
            continue
        hints[name], *marks = get_args(hint)
        for mark in marks:
            if mark is not Free:
                hints[name] = Annotated[hints[name], mark]
    return hints


def _hints_with_marks(cls: type) -> dict[str, Any]:
    """Returns the annotations of the fields of a class, or none where they cannot be evaluated."""
    try:
        return get_type_hints(cls, include_extras=True)
    except Exception:
        # An annotation in quotes is evaluated here, and may raise anything.
        return {}
