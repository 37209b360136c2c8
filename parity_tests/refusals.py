"""Spoils each argument of each pair in turn: what JAX refuses its twin has to refuse too.

    python -m parity_tests.refusals [NAME ...]

Of a kernel one case is taken. A value that JAX takes is asked of it alone: the twin is free to.
"""

import collections
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import torch

from parity_tests.cases import Case
from parity_tests.families import Family, build
from parity_tests.frameworks import precision
from parity_tests.pairs import PAIRS
from parity_tests.run import function

OUTCOMES = ("refused", "unclear", "silent", "legal")
DEFECTS = ("unclear", "silent")
OF_NUMBERS = (-1, 0, 1.5, float("nan"), float("inf"), 2**40, "abc", None)


class Bad(NamedTuple):
    """Holds a spoilt argument, as a NumPy array or a plain value."""

    what: str
    value: Any


def spoil(x: Any) -> Iterator[Bad]:
    """Yields what to pass in the place of an argument: other values, shapes, types."""
    if isinstance(x, Family):
        yield from (Bad(repr(bad), bad) for bad in (None, "uniform", 3))
    elif isinstance(x, np.ndarray):
        is_float = np.issubdtype(x.dtype, np.floating)
        values = (-0.5, 1.0, 1.5, np.nan, np.inf, -np.inf) if is_float else (-1, 5, 8, 2**31 - 1)
        if x.size:
            for value in values:
                changed = x.copy()
                changed.flat[0] = value
                yield Bad(f"value {value:g}", changed)
        yield Bad("a rank more", x[None])
        if x.ndim:
            yield Bad("a rank less", x[0])
            yield Bad("first axis longer", np.concatenate([x, x]))
            yield Bad("last axis longer", np.concatenate([x, x], axis=-1))
        with np.errstate(invalid="ignore"):
            yield Bad("other type", x.astype(np.int64 if is_float else np.float64))
        yield Bad("complex", x.astype(np.complex64))
        yield Bad("text", "abc")
    elif isinstance(x, int | float):
        yield from (Bad(repr(bad), bad) for bad in OF_NUMBERS)
    elif isinstance(x, str):
        yield from (Bad(repr(bad), bad) for bad in ("nothing", 1, None))


def to_framework(lib: str, x: Any) -> Any:
    """Makes an argument of either framework, of the type that it has."""
    if isinstance(x, Family):
        return build(lib, x, "float64")
    if not isinstance(x, np.ndarray):
        return x
    return torch.tensor(x) if lib == "torch" else jax.numpy.asarray(x)


def call(lib: str, name: str, case: Case, argument: str, bad: Bad) -> BaseException | None:
    """Returns how a call with a spoilt argument ended: what it raised, None for a result."""
    args = {k: to_framework(lib, x) for k, x in (case.args | {argument: bad.value}).items()}
    try:
        jax.block_until_ready(function(lib, name)(**args))
    except Exception as error:
        return error
    return None


def outcome(name: str, case: Case, argument: str, bad: Bad) -> tuple[str, str]:
    """Says what came of a spoilt argument, and how."""
    if not isinstance(call("jax", name, case, argument, bad), TypeError | ValueError):
        return "legal", ""
    error = call("torch", name, case, argument, bad)
    if error is None:
        return "silent", ""
    how = f"{type(error).__name__}: {str(error).splitlines()[0][:100] if str(error) else ''}"
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    is_clear = isinstance(error, TypeError | ValueError) and "torch_ref" in last
    return ("refused" if is_clear else "unclear"), how


def calls(
    names: tuple[str, ...], wanted: Callable[[str, Bad], bool] = lambda argument, bad: True
) -> Iterator[tuple[str, str, str]]:
    """Makes the calls of these pairs. Yields what came of each, which call it was, and how it ended."""
    with precision("float64"):
        for name in names:
            case = next(PAIRS[name].cases("float64"))
            for argument, x in case.args.items():
                for bad in spoil(x):
                    if wanted(argument, bad):
                        kind, how = outcome(name, case, argument, bad)
                        yield kind, f"{name}({argument}) {bad.what}", how


def main() -> None:
    """Prints each defect and the number of outcomes of each kind."""
    warnings.simplefilter("ignore")
    counts = collections.Counter()
    for kind, what, how in calls(tuple(sys.argv[1:]) or tuple(PAIRS)):
        counts[kind] += 1
        if kind in DEFECTS:
            print(f"{kind:8} {what} {how}", flush=True)
    print(", ".join(f"{counts[kind]} {kind}" for kind in OUTCOMES))


if __name__ == "__main__":
    main()
