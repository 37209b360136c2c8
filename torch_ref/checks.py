"""Refuses arguments that mean nothing, as d3pm_jax does: `declared` says what those of a function must be."""

import inspect
from collections.abc import Callable
from functools import wraps
from math import inf
from typing import Any, Literal, ParamSpec, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor

Belief = Literal["d3pm", "official", "leave_one_out", "denoiser"]
BELIEFS = get_args(Belief)
NUMBERS = (Tensor, np.ndarray, np.generic, int, float)

P = ParamSpec("P")
R = TypeVar("R")

# What numbers an argument may hold, by a word: integers or floats, and the range. Its end may be K or T of
# the process, or another argument.
RANGES: dict[str, tuple[str, str, float, float | str, str]] = {
    "categories": ("integer", "[", 0, "K", ")"),
    "steps": ("integer", "[", 1, "T", "]"),
    "steps_or_0": ("integer", "[", 0, "T", "]"),
    "steps_up_to_t": ("integer", "[", 0, "t", "]"),
    "steps_up_to_s": ("integer", "[", 0, "s", "]"),
    "index": ("integer", "[", 0, 2**31, ")"),
    "count": ("integer", "[", 1, 2**24, "]"),
    "two_or_more": ("integer", "[", 2, 2**31, ")"),
    "bits": ("integer", "[", 0, 1, "]"),
    "noise": ("float", "[", 0, 1, ")"),
    "share": ("float", "[", 0, 1, "]"),
    "below_1": ("float", "[", 0, 1, ")"),
    "up_to_2": ("float", "(", 0, 2, "]"),
    "time": ("float", "(", 0, 1, "]"),
    "inner_time": ("float", "(", 0, 1, ")"),
    "rounded_share": ("float", "[", -0.01, 1.01, "]"),
    "probability": ("float", "(", 0, 1, "]"),
    "log_probability": ("float", "[", -inf, 1e-3, "]"),
    "positive": ("float", "(", 0, inf, ")"),
    "from_0": ("float", "[", 0, inf, "]"),
    "finite_from_0": ("float", "[", 0, inf, ")"),
    "from_1": ("float", "[", 1, inf, ")"),
    "finite": ("float", "(", -inf, inf, ")"),
    "not_nan": ("float", "[", -inf, inf, "]"),
    # Any, NaN too: a network that ends in a head says itself what is wrong with its x_t.
    "floats": ("float", "", 0, 0, ""),
    "integers": ("integer", "", 0, 0, ""),
    "booleans": ("boolean", "", 0, 0, ""),
}


def declared(**specs: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Makes a decorator that checks arguments by "axes range", such as "*S K floats"; "..." begins as *S."""
    split_specs = {name: spec.split() for name, spec in specs.items()}

    def decorate(f: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(f)
        # The function itself refuses a call that does not fit: `signature.bind` takes as long as a check.
        names = list(signature.parameters)
        may_be_none = {name for name in names if signature.parameters[name].default is None}

        @wraps(f)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            arguments = dict(zip(names, args, strict=False)) | kwargs
            # Checked in the order of the signature, whatever that of the call.
            values = {name: arguments[name] for name in names if name in arguments}
            owner: Any = values.get("process", values.get("self"))
            sizes = {axis: getattr(owner, axis, values.get(axis)) for axis in "KT"}
            ends = values | {axis: (size,) for axis, size in sizes.items() if isinstance(size, int)}
            for name, x in values.items():
                if name in split_specs and (x is not None or name not in may_be_none):
                    _check(name, x, split_specs[name], ends)
            if values.get("belief", "d3pm") not in BELIEFS:
                raise ValueError(f"belief = {values['belief']!r}: it must be one of {BELIEFS}")
            if owner is not None and hasattr(owner, "loop_over_places"):
                axes = {
                    name: specs.get(name, "").rpartition(" ")[0]
                    for name in values
                    if values[name] is not None
                }
                axes = {name: of_name for name, of_name in axes.items() if of_name in ("*S", "*S K", "...")}
                if {"*S", "*S K"} & set(axes.values()):
                    others = {name: x for name, x in values.items() if x is not owner}
                    return owner.loop_over_places(f, others, axes)
            return f(*args, **kwargs)

        return checked

    return decorate


def _check(name: str, x: Any, spec: list[str], ends: dict[str, Any]) -> None:
    """Raises TypeError, ValueError for what is no such array, or has other axes than those before."""
    *axes, word = spec
    kind, opens, low, high, closes = RANGES[word]
    if not isinstance(x, NUMBERS) or isinstance(x, bool):
        raise TypeError(f"{name} is {x!r}, expected {kind}s")
    x = torch.as_tensor(x)
    is_whole = not (x.is_floating_point() or x.is_complex() or x.dtype == torch.bool)
    # A plain number may be whole where floats are expected.
    is_right = is_whole if kind == "integer" else x.is_floating_point() or (is_whole and not axes)
    if kind == "boolean":
        is_right = x.dtype == torch.bool
    if not is_right:
        raise TypeError(f"{name} has dtype {x.dtype}, expected {kind}s")
    _bind_shape(name, tuple(x.shape), axes, ends)
    if not opens:
        return
    last = torch.as_tensor(ends.get(high, inf) if isinstance(high, str) else high, device=x.device)
    # Steps and those that they must not be after may have fewer axes than the other.
    if x.ndim < last.ndim:
        x = x.reshape(x.shape + (1,) * (last.ndim - x.ndim))
    last = last.reshape(last.shape + (1,) * (x.ndim - last.ndim))
    above = x > low if opens == "(" else x >= low
    inside = above & (x < last if closes == ")" else x <= last)
    if not _holds_everywhere(inside):
        value = x.expand_as(inside)[~inside][0].item()
        raise ValueError(f"{name} = {value:g} is outside {opens}{low}, {high}{closes}")


def _holds_everywhere(is_right: Tensor) -> bool:
    """Tells whether all are true; where no value can be read, as by a compiler, they count as true."""
    if torch.compiler.is_compiling():
        return True
    try:
        return bool(is_right.all())
    except RuntimeError:  # under torch.vmap, or on the device "meta"
        return True


def _bind_shape(name: str, shape: tuple[int, ...], axes: list[str], ends: dict[str, Any]) -> None:
    """Raises ValueError where an axis has another size than one of its name before; the first sets it."""
    if axes == ["..."] and "*S" in ends:
        expected = ends["*S"][: len(shape)]
    elif axes == ["..."]:
        first = ends.setdefault("...", shape)
        expected = first[: len(shape)] + shape[len(first) :]
    else:
        num_starred = len(shape) - sum(not axis.startswith("*") for axis in axes)
        expected = ()
        for axis in axes:
            size = (int(axis),) if axis.isdigit() else shape[len(expected) :][:1]
            if axis.startswith("*"):
                size = shape[len(expected) :][: max(num_starred, 0)]
            expected += ends.setdefault(axis, size)
    if shape != expected:
        raise ValueError(f"{name} has shape {shape}, expected {expected} [{' '.join(axes)}]")
