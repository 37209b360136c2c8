"""Wraps functions in the checks that they declare."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeVar, get_type_hints

from d3pm_jax.checks.annotations import (
    Expected,
    ResultShape,
    check_array,
    is_callback,
    read_annotation,
    read_shape,
    read_tuple,
)
from d3pm_jax.checks.callbacks import Callback, call_collecting, check_returns, read_callback
from d3pm_jax.checks.depth import ALL, CALLED, NOTHING, depth, is_declared
from d3pm_jax.checks.ranges import (
    CATEGORIES,
    AllowedRange,
    Outside,
    at_least,
    check_places,
    check_range,
    find_outside,
    is_known,
    locate,
    mark,
    subtract_steps,
    to_jax,
)
from d3pm_jax.checks.shapes import AxisSize, Shape, Sizes, bind_shape

P = ParamSpec("P")
R = TypeVar("R")

# The names of arguments that know K, T, the length of examples, and other ends of ranges.
OWNERS = ("self", "process", "denoiser", "history")


class Declaration(NamedTuple):
    """Says what the arguments of a function must be, by name and in their order."""

    expected: dict[str, Expected]
    allowed: dict[str, AllowedRange]  # those that have a range
    late: dict[str, AllowedRange]  # those whose range ends at the K of what a function returns
    callbacks: dict[str, Callback]  # those that are functions, and must return what their annotation says
    process: str | None  # which argument knows ends of ranges: a process, a network, or a history
    known_ends: frozenset[str]  # which ones it may know, such as K, T and a length
    results: ResultShape
    default_callbacks: dict[str, Callable]  # the defaults of arguments that are called
    tuples: dict[str, type]  # of arguments that are named tuples of arrays, which are checked one by one


def declared(**ranges: AllowedRange) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Makes a decorator that checks the arguments of a function: see `checks`.

    Args:
        ranges: which values the arguments of these names may have; of a function, what it returns.
    """

    def decorate(f: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(f)
        parameters = signature.parameters
        missing = ranges.keys() - parameters.keys()
        assert not missing, f"{f.__name__} has no {missing}"
        tuples = {
            name: cls for name, x in parameters.items() if (cls := read_tuple(x.annotation)) is not None
        }
        expected = {}
        for name, parameter in parameters.items():
            expected[name] = read_annotation(parameter.annotation)
            if name in tuples:
                fields = get_type_hints(tuples[name], include_extras=True)
                expected |= {f"{name}.{field}": read_annotation(hint) for field, hint in fields.items()}
        process = next((name for name in parameters if name in OWNERS), None)
        _check_order_of_prefixes(f.__name__, expected)
        results = read_shape(signature.return_annotation)
        default_callbacks = {
            name: x.default
            for name, x in parameters.items()
            if x.default is not x.empty and is_callback(x.annotation)
        }
        callbacks = {
            name: callback
            for name, x in parameters.items()
            if (callback := read_callback(x.annotation, ranges.get(name))) is not None
        }
        allowed = {name: x for name, x in ranges.items() if name not in callbacks and name not in tuples}
        for name in ranges.keys() & tuples.keys():
            # Of a named tuple it is the first array.
            allowed[f"{name}.{tuples[name]._fields[0]}"] = ranges[name]  # pyright: ignore[reportAttributeAccessIssue]
        late = {}
        if process is None and not _has_K(expected):
            late = {name: x for name, x in allowed.items() if x.high == "K"}
        allowed = {name: x for name, x in allowed.items() if name not in late}
        known_ends = frozenset(
            {"K", "T", "length"} | {x.high for x in ranges.values() if isinstance(x.high, str)}
        )
        declaration = Declaration(
            expected, allowed, late, callbacks, process, known_ends, results, default_callbacks, tuples
        )
        return _check_calls(f, declaration)

    return decorate


def _has_K(expected: dict[str, Expected]) -> bool:
    """Tells whether an argument says what K is: it is K itself, or an array with an axis K."""
    shapes = [argument.shape for argument in expected.values() if argument.shape is not None]
    return "K" in expected or any("K" in shape.words for shape in shapes)


def like(declared_function: Callable, f: Callable[P, R]) -> Callable[P, R]:
    """Returns f with the checks of another function, whose place it takes, unless it declares its own."""
    if is_declared(f):
        return f
    return _check_calls(f, declared_function.declaration)  # pyright: ignore[reportFunctionMemberAccess]


def _check_calls(f: Callable[P, R], declaration: Declaration) -> Callable[P, R]:
    # Pyright knows the arguments of f as P alone, and would refuse those that were checked.
    function: Callable[..., R] = f
    names = tuple(name for name in declaration.expected if "." not in name)

    @functools.wraps(f)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        current_depth = depth.value
        if current_depth == NOTHING:
            return function(*args, **kwargs)
        positional = names[: len(args)]
        if len(args) > len(names) or any(name not in names or name in positional for name in kwargs):
            # The function itself says which argument it does not know, or that there are too many.
            return function(*args, **kwargs)

        # The function has its defaults by itself, and they are not checked. Only a default that is called,
        # such as a term of the bound, is made a callback: it is called with the logits of a network.
        passed = dict(zip(positional, args, strict=True))
        values: dict[str, Any] = {**declaration.default_callbacks, **passed, **kwargs}
        tuples = {name: values[name] for name in declaration.tuples if values.get(name) is not None}
        for name, fields in tuples.items():
            if isinstance(fields, declaration.tuples[name]):
                values |= {f"{name}.{field}": x for field, x in fields._asdict().items()}
        sizes = _check_types_and_shapes(declaration, values)
        if current_depth == CALLED:
            # Without its end the range of times is not checked.
            sizes.pop("max_time", None)
        outside = []
        checks_values = current_depth in (ALL, CALLED)
        if checks_values:
            outside = _check_ranges(declaration, declaration.allowed, values, sizes)
        for name, callback in declaration.callbacks.items():
            if values.get(name) is not None:
                values[name] = check_returns(name, values[name], callback, sizes, checks_values)
        as_passed = {name: values.get(name) for name in declaration.late}
        for name, x in values.items():
            if declaration.expected[name].entry_type is not None and hasattr(x, "dtype"):
                values[name] = to_jax(x, declaration.allowed.get(name))
        for name, fields in tuples.items():
            values[name] = fields._replace(
                **{field: values.pop(f"{name}.{field}") for field in fields._fields}
            )

        checked_args = [values[name] for name in positional]
        checked_kwargs = {name: x for name, x in values.items() if name not in positional}
        # What the function computes and passes to kernels is in range if its arguments are.
        if not declaration.callbacks:
            with depth(NOTHING):
                result = function(*checked_args, **checked_kwargs)
            return mark(result, declaration.results, outside)

        with depth(NOTHING):
            result, outside_of_returns = call_collecting(function, *checked_args, **checked_kwargs)
        if checks_values:
            # Only now K is known of a kernel that reads it from what a network returns.
            outside += outside_of_returns
            outside += _check_ranges(declaration, declaration.late, as_passed, sizes)
        return mark(result, declaration.results, outside)

    checked.declaration = declaration  # pyright: ignore[reportAttributeAccessIssue]
    # A wrapper copies the attributes of what it wraps: see `depth.is_declared`.
    checked.checked = checked  # pyright: ignore[reportAttributeAccessIssue]
    return checked


def _check_order_of_prefixes(function_name: str, expected: dict[str, Expected]) -> None:
    """Asserts that a shape "..." is declared behind the first `*S`, if there is one.

    Shapes are compared in the order of the arguments, and a prefix with the *S that was there before.
    """
    prefix = None
    shapes = {name: argument.shape for name, argument in expected.items() if argument.shape is not None}
    for name, shape in shapes.items():
        if shape.is_prefix:
            prefix = name
        elif "*S" in shape.words:
            assert prefix is None, f"{function_name}: {prefix} has to come after {name}"
            return


def _check_types_and_shapes(declaration: Declaration, values: dict[str, Any]) -> Sizes:
    """Converts the values in place, and returns the sizes of their axes, K and T among them."""
    sizes: Sizes = {}
    for name, expected in declaration.expected.items():
        if name not in values or (values[name] is None and expected.is_optional):
            continue
        x = values[name]
        # Where a number or an array is allowed, what has a dtype is checked as the array.
        is_array = expected.convert is None or hasattr(x, "dtype")
        if expected.entry_type is not None and is_array:
            x = check_array(name, x, expected.entry_type)
            if expected.shape is not None:
                bind_shape(name, x.shape, expected.shape, sizes)
        elif expected.convert is not None:
            x = expected.convert(name, x)
        values[name] = x

        # K and T of the process are those of all arrays, whatever was read from arrays before. Arguments K
        # and T only count where nothing has said them yet.
        if name == declaration.process:
            owner = name if name == "history" else getattr(x, "name_in_errors", "the process")
            for axis in declaration.known_ends:
                size = getattr(x, axis, None)
                if size is not None:
                    sizes[axis] = AxisSize(size, owner)
        elif name in ("K", "T"):
            sizes.setdefault(name, AxisSize(x, name))
    return sizes


def _check_ranges(
    declaration: Declaration, ranges: dict[str, AllowedRange], values: dict[str, Any], sizes: Sizes
) -> list[Outside]:
    """Checks the values that are known, and computes where the others are out of range."""
    expected = declaration.expected
    owner = None if declaration.process is None else values.get(declaration.process)
    process: Any = getattr(owner, "process", owner)  # of a network that holds it
    find_missing = getattr(process, "find_missing", None)
    missing = []
    unknown = []

    def check(name: str, x: Any, shape: Shape | None, allowed: AllowedRange) -> None:
        if is_known(x):
            check_range(name, x, allowed, sizes)
        else:
            unknown.append((x, shape, allowed))

    for name, allowed in ranges.items():
        x = values.get(name)
        # A network without classes knows no end of labels, and says itself that it takes none.
        has_end = not isinstance(allowed.high, str) or allowed.high in sizes
        if x is None or not has_end:
            continue
        measure = allowed.measure
        if measure is not None:
            check(measure.words, measure.compute(values), expected[measure.like].shape, allowed)
            continue
        check(name, x, expected[name].shape, allowed)
        if allowed is CATEGORIES and find_missing is not None:
            is_missing = find_missing(x)
            if is_known(is_missing):
                check_places(name, x, is_missing, process.sizes)
            else:
                missing.append(locate(is_missing, expected[name].shape))
        if allowed.not_after:
            check(
                f"{allowed.not_after} - {name}",
                subtract_steps(values[allowed.not_after], x),
                expected[name].shape,
                at_least(0),
            )
    # These come last: they are compared with K and T, which may be arguments that were just checked.
    return missing + [find_outside(x, shape, allowed, sizes) for x, shape, allowed in unknown]
