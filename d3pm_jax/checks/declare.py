"""Wraps functions in the checks that they declare."""

import functools
import inspect
import types
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple, ParamSpec, TypeVar

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from d3pm_jax.checks import annotations, values
from d3pm_jax.checks.annotations import Expected, Sizes
from d3pm_jax.checks.values import Range

P = ParamSpec("P")
R = TypeVar("R")

MOST_SEEN = 1000  # kinds of calls that a function remembers
Testers = list[tuple[int, Callable[[Any], bool]]]  # of the arguments at these places

_inside: ContextVar[bool] = ContextVar("inside", default=False)  # of a function that checked its arguments


class Argument(NamedTuple):
    """Says what an argument must be."""

    expected: Expected
    allowed: Range | None


class Declaration(NamedTuple):
    """Says what all arguments of a function must be, in their order."""

    names: tuple[str, ...]
    arguments: dict[str, Argument]
    process: str | None  # which argument knows K or T or both


def declared(**ranges: Range) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Makes a decorator that checks what a function is given: see `checks`.

    Args:
        ranges: which values the arguments of these names may have.
    """

    def decorate(f: Callable[P, R]) -> Callable[P, R]:
        return _wrap(f, _declaration(f, ranges))

    return decorate


def like(declared_function: Callable, f: Callable[P, R]) -> Callable[P, R]:
    """Returns f with the checks of another function, whose place it takes."""
    return _wrap(f, declared_function.declaration)  # pyright: ignore[reportFunctionMemberAccess]


def bare(f: Callable[P, R]) -> Callable[P, R]:
    """Returns f without the check of values: for arguments that are known to be in range.

    Its program under `jit` is that of f alone; types and shapes are still checked. A function that declares
    nothing is returned as it is.
    """
    if isinstance(f, functools.partial) and bare(f.func) is not f.func:
        return functools.partial(bare(f.func), *f.args, **f.keywords)
    if isinstance(f, types.MethodType) and hasattr(f.__func__, "bare"):
        return functools.partial(f.__func__.bare, f.__self__)  # pyright: ignore[reportFunctionMemberAccess]
    return getattr(f, "bare", f)


def _wrap(f: Callable[P, R], declaration: Declaration) -> Callable[P, R]:
    seen: dict[Any, Testers] = {}

    @functools.wraps(f)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        if _inside.get():
            return f(*args, **kwargs)
        key = None if kwargs else _key(args)
        testers = seen.get(key)
        if testers is not None and all(fine(args[i]) for i, fine in testers):
            return _nested(f, args, {})
        given = _named(declaration, args, kwargs)
        if given is None:
            return f(*args, **kwargs)  # which says what is missing, or one too many
        sizes = _types_and_shapes(declaration, given)
        wrong = _values(declaration, given, sizes)
        if key is not None and all(a is b for a, b in zip(args, given.values(), strict=True)):
            _remember(seen, key, _testers(declaration, args, sizes))
        return functools.reduce(values.mark, wrong, _call(f, given, len(args)))

    checked.declaration, checked.bare = declaration, _unchecked(f, declaration)  # pyright: ignore
    return checked


def _unchecked(f: Callable[P, R], declaration: Declaration) -> Callable[P, R]:
    @functools.wraps(f)
    def unchecked(*args: P.args, **kwargs: P.kwargs) -> R:
        given = _named(declaration, args, kwargs)
        if given is None:
            return f(*args, **kwargs)
        _types_and_shapes(declaration, given)
        return _call(f, given, len(args))

    return unchecked


def _declaration(f: Callable, ranges: dict[str, Range]) -> Declaration:
    parameters = inspect.signature(f).parameters
    expected = {name: annotations.read(p.annotation) for name, p in parameters.items() if name != "self"}
    missing = ranges.keys() - expected.keys()
    assert not missing, f"{f.__name__} has no {missing}"
    arguments = {name: Argument(x, ranges.get(name)) for name, x in expected.items()}
    process = next((name for name in parameters if name in ("self", "process", "history")), None)
    return Declaration(tuple(parameters), arguments, process)


def _named(declaration: Declaration, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the arguments by name, in the order they came in; None if one is unknown or too many."""
    if len(args) > len(declaration.names) or any(name not in declaration.names for name in kwargs):
        return None
    given = dict(zip(declaration.names, args, strict=False))
    return None if any(name in given for name in kwargs) else {**given, **kwargs}


def _call(f: Callable[..., R], given: dict[str, Any], positional: int) -> R:
    converted = [(name, _to_int32(x)) for name, x in given.items()]
    return _nested(f, [x for _, x in converted[:positional]], dict(converted[positional:]))


def _nested(f: Callable[..., R], args: Sequence[Any], kwargs: dict[str, Any]) -> R:
    token = _inside.set(True)
    try:
        return f(*args, **kwargs)
    finally:
        _inside.reset(token)


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
        elif hasattr(x, "log_q_probs"):
            key.append((type(x), x.K, x.T))
        else:
            return None
    return tuple(key)


def _remember(seen: dict[Any, Testers], key: Any, testers: Testers) -> None:
    if len(seen) == MOST_SEEN:
        seen.clear()
    seen[key] = testers


def _testers(declaration: Declaration, args: tuple[Any, ...], sizes: Sizes) -> Testers:
    ranges = [declaration.arguments[name].allowed if name != "self" else None for name in declaration.names]
    return [
        (i, values.tester(x, allowed, sizes))
        for i, (x, allowed) in enumerate(zip(args, ranges, strict=False))
        if allowed is not None and isinstance(x, jax.Array)
    ]


def _to_int32(x: Any) -> Any:
    """Returns arrays of integers as int32, which can hold K and T, and everything else as it is."""
    whole = isinstance(x, np.ndarray | np.generic) or (isinstance(x, jax.Array) and x.dtype != jnp.int32)
    return jnp.asarray(x, jnp.int32) if whole and jnp.issubdtype(x.dtype, jnp.integer) else x


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
        token = _inside.set(False)
        try:
            return f(*args, **kwargs)
        finally:
            _inside.reset(token)

    return outside


def _values(declaration: Declaration, given: dict[str, Any], sizes: Sizes) -> list[Array]:
    """Checks the values that are known, and returns for each other argument where it is out of range."""
    unknown = []
    for name, (_, allowed) in declaration.arguments.items():
        x = given.get(name)
        if allowed is None or x is None:
            continue
        if isinstance(x, jax.Array) and (isinstance(x, jax.core.Tracer) or not x.is_fully_addressable):
            unknown.append((x, allowed))
        else:
            values.check(name, x, allowed, sizes)
    return [values.outside(x, allowed, sizes) for x, allowed in unknown]
