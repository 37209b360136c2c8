"""Calls every public function that takes functions with each of these returning something else.

    python -m tests.checks.returns [FUNCTION ...]

The functions are those of `table` with an argument in the role "function". A call ends in a clear error,
which names that argument and the shape that came back, or gives a marked result, where only a run can see the
value that came back. Anything else is a defect: silent, unclear, or NaN in the place of an error.
"""

import collections
import functools
import sys
import warnings
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from d3pm_jax.processes import Process
from tests.checks import table
from tests.checks.table import Call

DEFECTS = ("silent", "unclear", "NaN")
OUTCOMES = ("clear", "marked", *DEFECTS)

TYPES: dict[str, Callable[[Any], Any]] = {
    "None": lambda x: None,
    "str": lambda x: "abc",
    "dict": lambda x: {"logits": x},
    "tuple": lambda x: (x, x),
    "True": lambda x: True,
    "dtype bool": lambda x: x > 0,
    "dtype complex64": lambda x: x.astype(np.complex64),
    "integers for floats": lambda x: x.astype(np.float32 if x.dtype.kind == "i" else np.int32),
}
SHAPES: dict[str, Callable[[Any], Any]] = {
    "a number": lambda x: x.reshape(-1)[0],
    "a rank more": lambda x: x[None],
    "a rank less": lambda x: x[0],
    "no last axis": lambda x: x[..., 0],
    "last axis longer": lambda x: jnp.concatenate([x, x[..., :1]], axis=-1),
    "last axis of size 1": lambda x: x[..., :1],
    "last axis of size 0": lambda x: x[..., :0],
    "first axis longer": lambda x: jnp.concatenate([x, x[:1]]),
    "axes reversed": lambda x: x.T,
    "flat": lambda x: x.reshape(-1),
}
SIGNATURES: dict[str, Callable[..., Any]] = {
    "no argument": lambda: None,
    "many arguments": lambda a, b, c, d, e, f: None,
    "a keyword": lambda *args, scale: None,
}
# Values that an argument of this name must not return.
VALUES = {
    "denoise": (np.nan, np.inf),
    "fill_in": (np.nan, np.inf),
    "reverse": (np.nan, np.inf),
    "score": (np.nan, np.inf),
    "term": (np.nan,),
    "noise": (np.nan, np.inf, 1.0, -0.5),
    "schedule": (np.nan, np.inf, 1.5, -0.5),
    "weights": (np.nan, np.inf, -0.5),
    "step": (),
    "log_prob": (np.nan, np.inf, 0.5),
    "conditioner": (np.nan,),
    "transform": (np.nan,),
    "inverse": (np.nan,),
}


# Weights may be real numbers of any type, and nested ones.
HARMLESS = {("weights", "integers for floats"), ("weights", "tuple")}
# What the network of a function without a process returns says itself what K is, and x_0 has to fit it.
NO_K = {"likelihood.chain_rule", "orders.all_orders", "enumeration.fill_in_law"}


class Bad(NamedTuple):
    """Holds a function that returns something else, and what has to be in the error."""

    case: str
    f: Callable
    said: str
    is_value: bool = False


def set_first(x: Any, value: float) -> Any:
    first = (0,) * x.ndim
    if isinstance(x, np.ndarray):
        x = x.copy()
        x[first] = value
        return x
    return x.at[first].set(value)


def change_return(f: Callable, spoil: Callable[[Any], Any], of_each: bool = False) -> Callable:
    """Returns f with what it returns spoilt: of a named tuple each array, or the tuple itself."""

    @functools.wraps(f)
    def changed(*args: Any, **kwargs: Any) -> Any:
        result = f(*args, **kwargs)
        if of_each and isinstance(result, tuple):
            return type(result)(*map(spoil, result))
        return spoil(result)

    return changed


def spoilt(call: Call, name: str) -> Iterator[Bad]:
    """Yields what to pass in the place of a function that is fine."""
    good = call.good[name]
    result = returned(call, name)
    array = result[0] if isinstance(result, tuple) else result
    for case, f in SIGNATURES.items():
        yield Bad(case, f, f"{name} is called as {name}(")
    for case in ("None", "str", "dict"):
        yield Bad(case, change_return(good, TYPES[case]), f"{name}(")
    for case, spoil in TYPES.items():
        if case != "None" and (name, case) not in HARMLESS:
            yield Bad(f"{case} of an array", change_return(good, spoil, True), f"{name}(")
    for case, spoil in SHAPES.items():
        shape = spoil(array).shape
        if case == "last axis of size 1" and call.name in NO_K:
            yield Bad(case, change_return(good, spoil), f"{name}(", is_value=True)
        elif shape != array.shape and not (case == "last axis longer" and call.name in NO_K):
            said = f"has shape {shape}" if call.traced else str(shape)
            if name == "conditioner" and case.startswith("last axis"):
                said = "make the conditioner return"  # how many is a matter of the transform
            yield Bad(case, change_return(good, spoil, True), said)
    for value in VALUES[name]:
        bad = change_return(good, functools.partial(set_first, value=value), True)
        yield Bad(f"value {value:g}", bad, name, is_value=True)


def returned(call: Call, name: str) -> Any:
    """Returns the shapes of what the function returns when it is called."""
    results = []

    def note(x: Any) -> Any:
        results.append(jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), x))
        return x

    if call.traced:
        arrays = {n: call.good[n] for n in call.traced}
        others = {n: x for n, x in call.good.items() if n not in call.traced}
        jax.eval_shape(
            lambda x: call.f(**x, **{**others, name: change_return(call.good[name], note)}), arrays
        )
    else:
        call.f(**{**call.good, name: change_return(call.good[name], note)})
    return results[0]


def outcome(call: Call, name: str, bad: Bad, jit: bool) -> tuple[str, str]:
    """Says what came of a call with one function spoilt, and how: see `OUTCOMES`."""
    try:
        if jit:
            result = call.program(name, bad.f)({n: call.good[n] for n in call.traced})
        else:
            result = call.f(**{**call.good, name: bad.f})
    except (TypeError, ValueError) as error:
        said = str(error)
        is_clear = name in said and bad.said in said and "\n" not in said and table.raised_here(error)
        how = f"{type(error).__name__}: {said.splitlines()[0][:200]}"
        return ("clear" if is_clear else "unclear"), how
    except Exception as error:
        return "unclear", f"{type(error).__name__}: {str(error)[:200]}"
    if not any(np.isnan(x).any() or (x == -1).any() for x in table.numbers(result)):
        return "silent", ""
    return ("marked" if bad.is_value else "NaN"), ""


def calls(
    process: Process, jit: bool, names: Collection[str] = (), values: bool = True
) -> Iterator[tuple[str, str, str]]:
    """Makes the calls with one function spoilt.

    Args:
        process: what functions of a process are called with.
        jit: whether they are called under jit.
        names: of the functions that are called; none is all.
        values: whether wrong values are returned too, and not types, shapes and signatures alone.

    Yields:
        What came of it, which call it was, and how it ended.
    """
    for call in table.public(process):
        if (jit and not call.traced) or (names and call.name not in names):
            continue
        for name, role in call.roles.items():
            if role != "function":
                continue
            for bad in spoilt(call, name):
                if values or not bad.is_value:
                    kind, how = outcome(call, name, bad, jit)
                    yield kind, f"{call.name}({name}) {bad.case}", how


def main() -> None:
    """Prints each defect and the number of outcomes of each kind, without jit and under it."""
    names = sys.argv[1:]
    warnings.simplefilter("ignore")
    for mode, jit in (("eager", False), ("jit", True)):
        counts = collections.Counter()
        for kind, what, how in calls(table.PROCESSES["uniform"], jit, names):
            counts[kind] += 1
            if kind in DEFECTS:
                print(f"{kind:8} {what} {how}")
        print(f"{mode}:", ", ".join(f"{counts[kind]} {kind}" for kind in OUTCOMES))


if __name__ == "__main__":
    main()
