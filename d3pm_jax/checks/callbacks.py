"""Checks what functions return that were passed to a kernel: a network, noise, a term of the bound.

Their annotation says how they are called and what they have to return, `declared` which values that may have:

    Noise = Annotated[Callable[[Int[Array, ""]], Float[Array, " B *S"]], Called("t", "return uniforms")]

    @declared(x0=CATEGORIES, noise=NOISE)
    def f(process: Process, x0: Int[Array, " B *S"], noise: Noise) -> ...

The axes of what is returned are those of the kernel's arguments and of what the function was called with. In
a loop values are never known, so that they are marked there: see `marked`.
"""

import functools
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple, ParamSpec, TypeVar, get_args, get_type_hints

from d3pm_jax.checks.annotations import (
    Expected,
    check_array,
    list_options,
    read_annotation,
    read_shape,
)
from d3pm_jax.checks.arrays import describe
from d3pm_jax.checks.depth import SHAPES, depth, depth_within
from d3pm_jax.checks.ranges import AllowedRange, Outside, check_range, find_outside, is_known, mark, to_jax
from d3pm_jax.checks.shapes import Shape, Sizes, add_sizes, bind_shape

P = ParamSpec("P")
R = TypeVar("R")


class Called(NamedTuple):
    """Says in the annotation of a function how it is called, and what it has to return.

    A function whose annotation does not say so must not be called before the kernel returns: kernels in it
    would not be checked.
    """

    arguments: str  # their names, as "xt, time"
    cure: str  # says in an error what it has to return


class SelfChecked:
    """Base of a function that a kernel takes as it is: what it calls of the user's is checked already."""

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Computes it."""
        raise NotImplementedError


class Callback(NamedTuple):
    """Holds what is known of an argument that is a function."""

    called: Called
    shapes: tuple[Shape | None, ...]  # of what it is called with
    tuple_type: type | None  # of a function that returns a named tuple of arrays
    returned: dict[str, Expected]  # by the name of the field; "" of a function that returns one array
    allowed: AllowedRange | None  # which values these may have


# Where functions returned values out of range, since the kernel or the step of its loop was entered.
_outside: ContextVar[list[Outside]] = ContextVar("outside")


def read_callback(annotation: Any, allowed: AllowedRange | None) -> Callback | None:
    """Returns what the annotation of a function says of it; None where it does not say how it is called."""
    for option in list_options(annotation):
        metadata = getattr(option, "__metadata__", ())
        called = next((x for x in metadata if isinstance(x, Called)), None)
        if called is None:
            continue
        argument_types, result = get_args(option.__origin__)
        shapes = tuple(read_annotation(argument_type).shape for argument_type in argument_types)
        hints = {"": result}
        tuple_type = None
        if hasattr(result, "_fields"):
            hints = get_type_hints(result)
            tuple_type = result
        returned = {field: _read_returned(hint, called) for field, hint in hints.items()}
        return Callback(called, shapes, tuple_type, returned, allowed)
    return None


def _read_returned(annotation: Any, called: Called) -> Expected:
    """Returns what an annotation asks for, with the cure of the function in the place of that of a type."""
    expected = read_annotation(annotation)
    if expected.entry_type is None:
        return expected
    return expected._replace(entry_type=expected.entry_type._replace(cure=called.cure))


def check_returns(
    name: str, f: Callable[..., Any], callback: Callback, sizes: Sizes, checks_values: bool
) -> Callable[..., Any]:
    """Returns f as a kernel calls it, with what it returns checked.

    Args:
        name: of the argument that it is.
        f: the function.
        callback: what it must return.
        sizes: of the axes of the kernel's arguments. Where they have no K, that of what f returns is added.
        checks_values: whether values out of range are refused or marked, and not types and shapes alone.
    """
    if isinstance(f, SelfChecked):
        return f
    call_as_text = f"{name}({callback.called.arguments})"
    inner_depth = depth_within(f)
    # What a kernel computes is in range if its arguments are.
    checks_values = checks_values and inner_depth != SHAPES

    # `inspect.signature` sees through it, which says whether a term takes a belief.
    @functools.wraps(f, (), ())
    def checked(*args: Any, **kwargs: Any) -> Any:
        with depth(inner_depth):
            result = call_by_signature(name, callback.called.arguments, f, *args, **kwargs)

        # A copy: the next call may have other axes, such as those of fewer examples.
        sizes_of_call = dict(sizes)
        names = callback.called.arguments.split(", ")
        for argument, shape, x in zip(names, callback.shapes, args, strict=False):
            if shape is not None:
                add_sizes(argument, x.shape, shape, sizes_of_call)
        result = _check_returned(call_as_text, result, callback, sizes_of_call, checks_values)
        if "K" in sizes_of_call:
            sizes.setdefault("K", sizes_of_call["K"])
        return result

    return checked


def call_by_signature(name: str, names: str, f: Callable[..., R], /, *args: Any, **kwargs: Any) -> R:
    """Returns f(*args, **kwargs), where f is a function of the user.

    Args:
        name: of the function, for an error.
        names: of its arguments, such as "xt, time".
        f, args, kwargs: the call.

    Raises:
        TypeError: f does not take these arguments; another error is that of its body.
    """
    try:
        return f(*args, **kwargs)
    except TypeError as error:
        try:
            signature = inspect.signature(f)
        except (TypeError, ValueError):
            # A function that is not of Python may have no signature.
            raise error from None
        try:
            signature.bind(*args, **kwargs)
        except TypeError:
            arguments = ", ".join([names, *(f"{key}={value!r}" for key, value in kwargs.items())])
            empty = inspect.Parameter.empty
            parameters = [x.replace(annotation=empty, default=empty) for x in signature.parameters.values()]
            raise TypeError(
                f"{name} is called as {name}({arguments}), but takes ({', '.join(map(str, parameters))}): "
                f"make it take these arguments"
            ) from error
        raise


def _check_returned(
    call_as_text: str, result: Any, callback: Callback, sizes: Sizes, checks_values: bool
) -> Any:
    if callback.tuple_type is None:
        return _check_value(call_as_text, result, callback.returned[""], callback, sizes, checks_values)
    if not isinstance(result, callback.tuple_type):
        raise TypeError(
            f"{call_as_text} is {describe(result)}, expected a {callback.tuple_type.__name__}: "
            f"{callback.called.cure}"
        )
    values = [
        _check_value(
            f"{call_as_text}.{field}", getattr(result, field), expected, callback, sizes, checks_values
        )
        for field, expected in callback.returned.items()
    ]
    return callback.tuple_type(*values)


def _check_value(
    name: str, x: Any, expected: Expected, callback: Callback, sizes: Sizes, checks_values: bool
) -> Any:
    if expected.entry_type is None:
        if expected.convert is None:
            return x
        return expected.convert(name, x)
    # What may stand for an array has its shape, and no type of entries.
    if expected.convert is not None and hasattr(x, "shape") and not hasattr(x, "dtype"):
        x = expected.convert(name, x)
        _check_shape(name, x.shape, expected, callback, sizes)
        return x
    # Where a derivative is taken, the values are an array under it, which outside of a program is known.
    # `stop_gradient` would give it too, but takes longer than this whole check.
    values = x
    while hasattr(values, "primal"):
        values = values.primal
    is_differentiated = values is not x
    values = check_array(name, values, expected.entry_type)
    _check_shape(name, values.shape, expected, callback, sizes)
    if callback.allowed is not None and checks_values:
        if is_known(values):
            check_range(name, values, callback.allowed, sizes)
        else:
            _outside.get().append(find_outside(values, expected.shape, callback.allowed, sizes))
    if is_differentiated:
        return x
    return to_jax(values, callback.allowed)


def _check_shape(
    name: str, shape: tuple[int, ...], expected: Expected, callback: Callback, sizes: Sizes
) -> None:
    if expected.shape is None:
        return
    try:
        bind_shape(name, shape, expected.shape, sizes)
    except ValueError as error:
        raise ValueError(f"{error}: {callback.called.cure}") from None


def call_collecting(f: Callable[..., R], /, *args: Any, **kwargs: Any) -> tuple[R, list[Outside]]:
    """Returns f(*args, **kwargs), and where functions returned values out of range that only it knows."""
    outside = []
    token = _outside.set(outside)
    try:
        return f(*args, **kwargs), outside
    finally:
        _outside.reset(token)


def marked(f: Callable[P, R]) -> Callable[P, R]:
    """Marks what the step of a loop returns, where a function that it calls returned values out of range.

    Where they are out of range is computed in the step, and leaves the loop with its result alone. So each
    loop of a kernel that calls a function of the user has its step wrapped.
    """
    return functools.wraps(f)(marked_as(inspect.signature(f).return_annotation, f))


def marked_as(returned: Any, f: Callable[P, R]) -> Callable[P, R]:
    """Marks what a function of the user returns, as `marked` does, by an annotation of it."""
    shape = read_shape(returned)

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        result, outside = call_collecting(f, *args, **kwargs)
        return mark(result, shape, outside)

    return call
