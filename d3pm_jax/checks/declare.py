"""Wraps functions in the checks that they declare."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeVar

import jax
import jax.core

from d3pm_jax.checks.annotations import Expected, check_array, read_annotation, read_shape
from d3pm_jax.checks.depth import ALL, NOTHING, depth, is_declared
from d3pm_jax.checks.former import refuse_first_step
from d3pm_jax.checks.ranges import Interval, Outside, check_range, find_outside, mark, to_jax
from d3pm_jax.checks.shapes import Sizes, bind_shape

P = ParamSpec("P")
R = TypeVar("R")


class Declaration(NamedTuple):
    """Says what the arguments of a function must be, by name and in their order."""

    expected: dict[str, Expected]
    allowed: dict[str, Interval]  # those that have a range
    process: str | None  # which argument knows K or T or both
    results: Any  # the shape of what the function returns, or a tuple of them


def declared(**ranges: Interval) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Makes a decorator that checks the arguments of a function: see `checks`.

    Args:
        ranges: which values the arguments of these names may have.
    """

    def decorate(f: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(f)
        parameters = signature.parameters
        missing = ranges.keys() - parameters.keys()
        assert not missing, f"{f.__name__} has no {missing}"
        expected = {name: read_annotation(parameter.annotation) for name, parameter in parameters.items()}
        process = next((name for name in parameters if name in ("self", "process", "history")), None)
        results = read_shape(signature.return_annotation)
        return _check_calls(f, Declaration(expected, ranges, process, results))

    return decorate


def like(declared_function: Callable, f: Callable[P, R]) -> Callable[P, R]:
    """Returns f with the checks of another function, whose place it takes, unless it declares its own."""
    if is_declared(f):
        return f
    return _check_calls(f, declared_function.declaration)  # pyright: ignore[reportFunctionMemberAccess]


def _check_calls(f: Callable[P, R], declaration: Declaration) -> Callable[P, R]:
    function: Callable[..., R] = f
    names = tuple(declaration.expected)

    @functools.wraps(f)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        current_depth = depth.value
        if current_depth == NOTHING:
            return function(*args, **kwargs)
        positional = names[: len(args)]
        if len(args) > len(names) or any(name not in names or name in positional for name in kwargs):
            refuse_first_step(names, args, kwargs)
            # The function itself says which argument it does not know, or that there are too many.
            return function(*args, **kwargs)

        values = dict(zip(positional, args, strict=True)) | kwargs
        sizes = _check_types_and_shapes(declaration, values)
        outside = []
        if current_depth == ALL:
            outside = _check_ranges(declaration, values, sizes)
        for name, x in values.items():
            if declaration.expected[name].kind is not None and hasattr(x, "dtype"):
                values[name] = to_jax(x, declaration.allowed.get(name))

        # What the function computes and passes to kernels is in range if its arguments are.
        with depth(NOTHING):
            result = function(*[values.pop(name) for name in positional], **values)
        return mark(result, declaration.results, outside)

    checked.declaration = declaration  # pyright: ignore[reportAttributeAccessIssue]
    checked.checked = checked  # pyright: ignore[reportAttributeAccessIssue]
    return checked


def _check_types_and_shapes(declaration: Declaration, values: dict[str, Any]) -> Sizes:
    """Converts the values in place, and returns the sizes of their axes, K and T among them."""
    sizes: Sizes = {}
    for name, expected in declaration.expected.items():
        if name not in values or (values[name] is None and expected.is_optional):
            continue
        x = values[name]
        if expected.kind is not None and (expected.convert is None or hasattr(x, "dtype")):
            x = check_array(name, x, expected.kind)
            if expected.shape is not None:
                bind_shape(name, x.shape, expected.shape, sizes)
        elif expected.convert is not None:
            x = expected.convert(name, x)
        values[name] = x

        if name == declaration.process:
            owner = "process" if name == "self" else name
            for axis in ("K", "T"):
                if hasattr(x, axis):
                    sizes[axis] = (getattr(x, axis), owner)
        elif name in ("K", "T"):
            sizes.setdefault(name, (x, name))
    return sizes


def _check_ranges(declaration: Declaration, values: dict[str, Any], sizes: Sizes) -> list[Outside]:
    """Checks the values that are known, and computes where the others are out of range."""
    unknown = []
    for name, allowed in declaration.allowed.items():
        x = values.get(name)
        if x is None:
            continue
        if isinstance(x, jax.Array) and (isinstance(x, jax.core.Tracer) or not x.is_fully_addressable):
            unknown.append((x, declaration.expected[name].shape, allowed))
        else:
            check_range(name, x, allowed, sizes)
    # These come last: they are compared with K and T, which may be arguments that were just checked.
    return [find_outside(x, shape, allowed, sizes) for x, shape, allowed in unknown]
