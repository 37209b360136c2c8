"""Says how much kernels check, which depends on where they are called from."""

import contextlib
import functools
import types
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import jax

P = ParamSpec("P")
R = TypeVar("R")

ALL = "types, shapes and values"
CALLED = "types, shapes and values, but no times of networks"
SHAPES = "types and shapes"
NOTHING = "nothing"

# A plain context variable would not do. jit runs the program that it has traced before: a jitted function
# that calls a kernel, traced inside of another kernel, has no marks in it, and would have none when it is
# called from outside. The value of a user context is part of what jit compares, so it traces anew.
depth = jax.make_user_context(default_value=ALL)


@contextlib.contextmanager
def values_in_range() -> Iterator[None]:
    """Lets kernels take the values of their arguments as in range; types and shapes are still checked.

    It is for arguments that cannot be out of range, such as data that was checked on the host and noise that
    was just drawn: under `jit` kernels then compute no marks, and their program is that of their formula
    alone. It is entered by `with`, or as a decorator around a whole function. Functions that are passed to
    kernels are called as ever, see `depth_within`.

    Inside of a kernel, where nothing is checked, it makes the kernels that are called there check types and
    shapes: for arguments that come from a function of the user.

    Never enter it around a `yield`: two generators that are closed in another order than they were started
    leave the depth of one of them behind.
    """
    with depth(SHAPES):
        yield


def bare(f: Callable[P, R]) -> Callable[P, R]:
    """Returns a kernel with `values_in_range` entered around it, and any other function as it is.

    Networks of this library are checked as kernels are, and those of a user call kernels with values that
    nobody has checked.
    """
    if calls_kernel(f):
        return values_in_range()(f)
    return f


def depth_within(f: Callable[..., Any]) -> str:
    """Returns how much is checked within a function that was passed to a kernel: as if called from outside.

    A function of the user, such as a network, computes values that nobody has checked, and may pass them to
    kernels. Networks in it may be told times of another scale, such as normalised ones: t is right where the
    kernel makes it. Where f is a kernel itself, such as a term of the bound, it is called with values that
    are in range. But the network decides the shape of its logits, so that its types and shapes are checked.
    """
    return SHAPES if calls_kernel(f) else CALLED


def is_declared(f: Any) -> bool:
    """Tells whether f is what `declared` returned.

    A wrapper of such a function, by `functools.wraps` or `jax.jit`, has a copy of its attributes and may do
    anything else, so the attribute has to lead back to f itself.
    """
    return getattr(f, "checked", None) is f


def calls_kernel(f: Any) -> bool:
    """Tells whether f, or its `__call__`, is what `declared` returned, with or without bound arguments."""
    if isinstance(f, functools.partial):
        f = f.func
    if isinstance(f, types.MethodType):
        f = f.__func__
    # A network is called by the method of its class.
    return is_declared(f) or is_declared(type(f).__call__)
