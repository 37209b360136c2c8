"""Wraps functions in the checks that they declare."""

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeVar

import jax
import jax.core
import jax.numpy as jnp

from d3pm_jax.checks import annotations, values
from d3pm_jax.checks.annotations import Expected, Sizes
from d3pm_jax.checks.former import refuse_first_step
from d3pm_jax.checks.values import Outside, Range

P = ParamSpec("P")
R = TypeVar("R")

MOST_SEEN = 1000  # kinds of calls that a function remembers
Testers = list[tuple[int, Callable[[Any], bool]]]  # of the arguments at these places

# Whether a function that checked its arguments is running. jit traces anew for each: marks are not inside.
_nested = jax.make_user_context(default_value=False)


class Argument(NamedTuple):
    """Says what an argument must be."""

    expected: Expected
    allowed: Range | None


class Declaration(NamedTuple):
    """Says what all arguments of a function must be, in their order."""

    names: tuple[str, ...]
    arguments: dict[str, Argument]
    process: str | None  # which argument knows K or T or both
    results: Any  # the shape of what it returns, or a tuple of them


def declared(**ranges: Range) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Makes a decorator that checks what a function is given: see `checks`.

    Args:
        ranges: which values the arguments of these names may have.
    """

    def decorate(f: Callable[P, R]) -> Callable[P, R]:
        return _wrap(f, _declaration(f, ranges))

    return decorate


def like(declared_function: Callable, f: Callable[P, R]) -> Callable[P, R]:
    """Returns f with the checks of another function, whose place it takes, unless it has its own."""
    if bare(f) is not f:
        return f
    return _wrap(f, declared_function.declaration)  # pyright: ignore[reportFunctionMemberAccess]


def bare(f: Callable[P, R]) -> Callable[P, R]:
    """Returns f without the check of values: for arguments that are known to be in range.

    Its program under `jit` is that of f alone; types and shapes are still checked. A function that declares
    nothing is returned as it is.
    """
    if isinstance(f, functools.partial) and bare(f.func) is not f.func:
        return type(f)(bare(f.func), *f.args, **f.keywords)
    if isinstance(f, types.MethodType) and bare(f.__func__) is not f.__func__:
        return functools.partial(bare(f.__func__), f.__self__)
    checked, unchecked = getattr(f, "forms", (None, f))
    return unchecked if checked is f else f  # a wrapper of ours has our attributes, but is another function


def _wrap(f: Callable[P, R], declaration: Declaration) -> Callable[P, R]:
    seen: dict[Any, Testers] = {}

    @functools.wraps(f)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        if _nested.value:
            return f(*args, **kwargs)
        key = None if kwargs else _key(args)
        testers = seen.get(key)
        if testers is not None and all(fine(args[i]) for i, fine in testers):
            with _nested(True):
                return f(*args, **kwargs)
        given = _named(declaration, args, kwargs)
        if given is None:
            return f(*args, **kwargs)  # which says what is missing, or one too many
        sizes = _types_and_shapes(declaration, given)
        unknown = _values(declaration, given, sizes)
        if key is not None and all(a is b for a, b in zip(args, given.values(), strict=True)):
            _remember(seen, key, _testers(declaration, args, sizes))
        return values.mark(_call(f, declaration, given, len(args)), declaration.results, unknown)

    checked.declaration = declaration  # pyright: ignore[reportAttributeAccessIssue]
    checked.forms = checked, _unchecked(f, declaration)  # pyright: ignore[reportAttributeAccessIssue]
    return checked


def _unchecked(f: Callable[P, R], declaration: Declaration) -> Callable[P, R]:
    @functools.wraps(f)
    def unchecked(*args: P.args, **kwargs: P.kwargs) -> R:
        given = _named(declaration, args, kwargs)
        if given is None:
            return f(*args, **kwargs)
        _types_and_shapes(declaration, given)
        return _call(f, declaration, given, len(args))

    return unchecked


def _declaration(f: Callable, ranges: dict[str, Range]) -> Declaration:
    signature = inspect.signature(f)
    parameters = signature.parameters
    expected = {name: annotations.read(p.annotation) for name, p in parameters.items() if name != "self"}
    missing = ranges.keys() - expected.keys()
    assert not missing, f"{f.__name__} has no {missing}"
    arguments = {name: Argument(x, ranges.get(name)) for name, x in expected.items()}
    process = next((name for name in parameters if name in ("self", "process", "history")), None)
    return Declaration(
        tuple(parameters), arguments, process, annotations.results(signature.return_annotation)
    )


def _named(declaration: Declaration, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the arguments by name, in the order they came in; None if one is unknown or too many."""
    if len(args) > len(declaration.names) or any(name not in declaration.names for name in kwargs):
        refuse_first_step(declaration.names, args, kwargs)
        return None
    given = dict(zip(declaration.names, args, strict=False))
    return None if any(name in given for name in kwargs) else {**given, **kwargs}


def _call(f: Callable[..., R], declaration: Declaration, given: dict[str, Any], positional: int) -> R:
    """Calls f with arrays of JAX, integers as int32, which can hold K and T."""
    arrays = {name: a.allowed for name, a in declaration.arguments.items() if a.expected.array is not None}
    converted = [(n, values.to_jax(x, arrays[n]) if n in arrays else x) for n, x in given.items()]
    with _nested(True):
        return f(*(x for _, x in converted[:positional]), **dict(converted[positional:]))


def _key(args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Returns what the check of types and shapes depends on; None for anything that has to be looked at.

    A kernel that is called by hand again and again is not to spend its time on checks that it has passed.
    """
    key = []
    for x in args:
        if isinstance(x, jax.Array):
            known = not isinstance(x, jax.core.Tracer) and x.is_fully_addressable
            if not known or (x.dtype != jnp.int32 and getattr(x.dtype, "kind", "key") != "f"):
                return None
            key.append((x.shape, x.dtype))
        elif x is None or type(x) in (int, float, str):
            key.append((type(x), x))
        elif hasattr(x, "log_q_probs") and type(getattr(x, "K", None)) is type(getattr(x, "T", None)) is int:
            key.append((type(x), x.K, x.T))
        else:
            return None
    return tuple(key)


def _remember(seen: dict[Any, Testers], key: Any, testers: Testers) -> None:
    if len(seen) >= MOST_SEEN:
        seen.clear()
    seen[key] = testers


def _testers(declaration: Declaration, args: tuple[Any, ...], sizes: Sizes) -> Testers:
    ranges = [declaration.arguments[name].allowed if name != "self" else None for name in declaration.names]
    return [
        (i, values.tester(x, allowed, sizes))
        for i, (x, allowed) in enumerate(zip(args, ranges, strict=False))
        if allowed is not None and isinstance(x, jax.Array)
    ]


def _types_and_shapes(declaration: Declaration, given: dict[str, Any]) -> Sizes:
    """Converts the arguments in place, and returns the sizes of their axes, K and T among them."""
    sizes = Sizes()
    prefixes = []
    for name in declaration.names:
        if name not in given:
            continue
        if name in declaration.arguments:
            given[name] = _one(name, given[name], declaration.arguments[name].expected, sizes, prefixes)
        if name == declaration.process:
            for axis in (axis for axis in "KT" if hasattr(given[name], axis)):
                sizes.note(axis, getattr(given[name], axis), "process" if name == "self" else name)
        elif name in ("K", "T"):
            sizes.note(name, given[name], name)
    for name, shape in prefixes:
        annotations.check_prefix(name, shape, sizes)
    return sizes


def _one(name: str, x: Any, expected: Expected, sizes: Sizes, prefixes: list) -> Any:
    if expected.optional and x is None:
        return None
    if expected.array is None or (expected.convert is not None and not hasattr(x, "dtype")):
        x = x if expected.convert is None else expected.convert(name, x)
        return _as_callback(x) if expected.callback else x
    x = annotations.to_array(name, x, expected.array.kind)
    shape = expected.array.shape
    if shape is not None and shape.many == "...":
        prefixes.append((name, x.shape))
    elif shape is not None:
        annotations.bind(name, x.shape, shape, sizes)
    return x


def _as_callback(f: Callable) -> Callable:
    """Returns f as a checked function calls it: bare if it is one of ours, else as if called from outside."""
    kernel = bare(f)
    if kernel is not f:
        return kernel

    @functools.wraps(f)
    def outside(*args: Any, **kwargs: Any) -> Any:
        with _nested(False):
            return f(*args, **kwargs)

    return outside


def _values(declaration: Declaration, given: dict[str, Any], sizes: Sizes) -> list[Outside]:
    """Checks the values that are known, and tells of the others where they are out of range."""
    unknown = []
    for name, (expected, allowed) in declaration.arguments.items():
        x = given.get(name)
        if allowed is None or x is None:
            continue
        if isinstance(x, jax.Array) and (isinstance(x, jax.core.Tracer) or not x.is_fully_addressable):
            unknown.append((annotations.names_of_axes(expected, x.ndim), x, allowed))
        else:
            values.check(name, x, allowed, sizes)
    return [Outside(values.outside(x, allowed, sizes), axes) for axes, x, allowed in unknown]
