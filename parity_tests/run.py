"""The rows of the report: each case in every way that should give the same."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import torch

from parity_tests import compare, frameworks
from parity_tests.cases import Case
from parity_tests.compare import TOLERANCES, Row
from parity_tests.families import LIBRARIES, OTHER_ZEROS_IN_FLOAT32, Family, build
from parity_tests.frameworks import BFLOAT16, Arguments, Function, Result, precision, working
from parity_tests.pairs import PAIRS, Measure

SAME = (
    ("torch", "jit"),
    ("torch", "jax"),
    ("jax", "jit"),
    ("torch", "torch64"),
    ("jit", "jit64"),
)
LOGITS = ("logits_x0", "logits_prev")
OF_LOGITS = (  # what takes the output of a network, which may be bfloat16
    "log_p_x0",
    "p_logits",
    "p_prev",
    "p_sample",
    "posterior_kl",
    "direct_kl",
    "cross_entropy",
    "smoothed_cross_entropy",
    "hybrid",
    "losses.marginal_kl",
)


def dtypes(name: str) -> tuple[str, ...]:
    """In which float types a pair is compared."""
    return (*PAIRS[name].dtypes, *(("bfloat16",) if name in OF_LOGITS else ()))


def rows(name: str, dtype: str, quick: bool = False) -> Iterator[Row]:
    """Every comparison of one pair in one float type; bfloat16 is that of logits and their gradient alone.

    With quick, those of the quick cases only, and not without jit as well.
    """
    for case in PAIRS[name].cases(working(dtype)):
        if quick and not case.quick:
            continue
        if quick and PAIRS[name].jit:
            case = case._replace(eager=False)
        args = {k: rounded(v, dtype if k in LOGITS else working(dtype)) for k, v in case.args.items()}
        yield from _compare(name, case._replace(args=args), dtype)


def _compare(name: str, case: Case, dtype: str) -> Iterator[Row]:
    results = _evaluate(name, case, dtype)
    what = "draw" if PAIRS[name].scale is None else "value"
    scales, gradient_scales = measured(name, case, results["torch"])
    for a, b in SAME:
        if a not in results or b not in results:
            continue
        pairs = [(what, *x) for x in zip(results[a].outputs, results[b].outputs, scales, strict=True)]
        for k, scale in gradient_scales.items():
            pairs.append(("gradient", results[a].gradients[k], results[b].gradients[k], scale))
        for what_, x, y, scale in pairs:
            difference = compare.draws if what_ == "draw" else compare.arrays
            found = difference(x, y, scale, dtype if what_ == "gradient" else working(dtype))
            what_of = f"{a} = {b} {what_}"
            yield compare.row(name, case.name, dtype, what_of, found, TOLERANCES[dtype][what_])


def _evaluate(name: str, case: Case, dtype: str) -> dict[str, Result]:
    """The results by the names that `SAME` uses."""
    pair = PAIRS[name]
    with precision(dtype):
        results = {"torch": in_torch(name, case, dtype)}
        weights = [frameworks.weight(x, i) for i, x in enumerate(results["torch"].outputs)]
        if pair.jit:
            results["jit"] = in_jax(name, case, dtype, True, weights)
        if case.eager:
            results["jax"] = in_jax(name, case, dtype, False, weights)
    family = case.args.get("process")
    if dtype != "float64" and not (family and family.name in OTHER_ZEROS_IN_FLOAT32):
        with precision("float64"):
            results["torch64"] = in_torch(name, case, "float64")
            if pair.jit:
                results["jit64"] = in_jax(
                    name, case, "float64", True, [w.astype(np.float64) for w in weights]
                )
    return results


@cache
def function(lib: str, name: str) -> Function:
    return PAIRS[name].call(LIBRARIES[lib], name)


def in_torch(name: str, case: Case, dtype: str) -> Result:
    return frameworks.in_torch(function("torch", name), torch_arguments(case, dtype))


def torch_arguments(case: Case, dtype: str) -> Arguments:
    return {k: frameworks.to_torch(_built("torch", v, dtype)) for k, v in case.args.items()}


def in_jax(name: str, case: Case, dtype: str, jit: bool, weights: list[np.ndarray]) -> Result:
    args = {k: frameworks.to_jax(_built("jax", v, dtype)) for k, v in case.args.items()}
    return frameworks.in_jax(function("jax", name), args, jit, weights)


def _built(lib: str, x: Any, dtype: str) -> Any:
    return build(lib, x, dtype) if isinstance(x, Family) else x


def rounded(x: Any, dtype: str) -> Any:
    """A float array that dtype holds exactly, in float64 or bfloat16."""
    if not frameworks.is_float(x):
        return x
    return x.astype(BFLOAT16) if dtype == "bfloat16" else x.astype(dtype).astype(np.float64)


def measured(name: str, case: Case, values: Result) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Of each output (for draws: the distance of u from a boundary) and of each gradient."""
    pair, call = PAIRS[name], function("torch", name)
    with precision("float64"), torch.no_grad():
        args = torch_arguments(case, "float64")

        def measure(f: Measure | None) -> list[np.ndarray]:
            return [np.asarray(x) for x in frameworks.flat(f(call, args))] if f else [np.array(np.inf)]

        if pair.scale is None:
            return [_distance(args.get("u"), x) for x in measure(pair.cdf)] * len(values.outputs), {}
        outputs = measure(pair.scale)
        terms = measure(pair.gradient_scale) if pair.gradient_scale else outputs
    outputs = outputs if len(outputs) > 1 else outputs * len(values.outputs)
    gradients = {k: _gradient_scale(terms, values.outputs, g) for k, g in values.gradients.items()}
    return [_expand(s, x.ndim) for s, x in zip(outputs, values.outputs, strict=True)], gradients


def _distance(u: torch.Tensor | None, cdf: np.ndarray) -> np.ndarray:
    return cdf if u is None else np.abs(u.numpy()[..., None] - cdf).min(axis=-1)


def _gradient_scale(terms: list[np.ndarray], outputs: list[np.ndarray], gradient: np.ndarray) -> np.ndarray:
    """The terms of a row times the sum of |w| over the outputs that it reaches."""
    lead = gradient.shape[:-1]
    weights = [np.abs(frameworks.weight(x, i)) for i, x in enumerate(outputs)]
    reached = sum(_reduce(w, lead, np.sum) for w in weights)
    largest = np.max([_reduce(s, lead, np.max) for s in terms], axis=0)
    return _expand(reached * largest, gradient.ndim)


def _reduce(x: np.ndarray, lead: tuple[int, ...], over: Any) -> np.ndarray:
    """x [*lead, ..] to [*lead]; where it has other axes, to []."""
    axes = tuple(range(len(lead), x.ndim)) if x.shape[: len(lead)] == lead else None
    return over(x, axis=axes)


def _expand(x: np.ndarray, ndim: int) -> np.ndarray:
    """Trailing axes of size 1 up to ndim."""
    return x.reshape(x.shape + (1,) * (ndim - x.ndim))
