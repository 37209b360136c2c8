"""The rows of the report: each case in every way that should give the same."""

from collections.abc import Callable, Iterator
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

# Which two results are held to each other.
SAME = (
    ("torch", "jit"),
    ("torch", "jax"),
    ("jax", "jit"),
    ("torch", "torch64"),
    ("jit", "jit64"),
)
LOGITS = ("logits_x0", "logits_prev")
OF_LOGITS = (  # kernels that take the output of a network, which may be bfloat16
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
    if name in OF_LOGITS:
        return (*PAIRS[name].dtypes, "bfloat16")
    return PAIRS[name].dtypes


def rows(name: str, dtype: str, quick: bool = False) -> Iterator[Row]:
    """Every comparison of one pair in one float type; bfloat16 is that of logits and their gradient alone.

    With quick, those of the quick cases only, and not without jit as well.
    """
    for case in PAIRS[name].cases(working(dtype)):
        if quick and not case.quick:
            continue
        if quick and PAIRS[name].jit:
            case = case._replace(eager=False)
        args = {}
        for argument, x in case.args.items():
            args[argument] = rounded(x, dtype if argument in LOGITS else working(dtype))
        yield from _compare(name, case._replace(args=args), dtype)


def _compare(name: str, case: Case, dtype: str) -> Iterator[Row]:
    """Every two results of a case that should be the same."""
    results = _evaluate(name, case, dtype)
    scales, gradient_scales = measure_scales(name, case, results["torch"])
    is_draw = PAIRS[name].scale is None
    for first, second in SAME:
        if first not in results or second not in results:
            continue

        outputs = zip(results[first].outputs, results[second].outputs, scales, strict=True)
        for actual, expected, scale in outputs:
            if is_draw:
                quantity = "draw"
                difference = compare.compare_draws(actual, expected, scale, working(dtype))
            else:
                quantity = "value"
                difference = compare.compare_arrays(actual, expected, scale, working(dtype))
            comparison = f"{first} = {second} {quantity}"
            tolerance = TOLERANCES[dtype][quantity]
            yield compare.make_row(name, case.name, dtype, comparison, difference, tolerance)

        for argument, scale in gradient_scales.items():
            actual = results[first].gradients[argument]
            expected = results[second].gradients[argument]
            difference = compare.compare_arrays(actual, expected, scale, dtype)
            comparison = f"{first} = {second} gradient"
            tolerance = TOLERANCES[dtype]["gradient"]
            yield compare.make_row(name, case.name, dtype, comparison, difference, tolerance)


def _evaluate(name: str, case: Case, dtype: str) -> dict[str, Result]:
    """The results by the names that `SAME` uses."""
    pair = PAIRS[name]
    with precision(dtype):
        results = {"torch": call_torch(name, case, dtype)}
        weights = [frameworks.weight(x, i) for i, x in enumerate(results["torch"].outputs)]
        if pair.jit:
            results["jit"] = call_jax(name, case, dtype, True, weights)
        if case.eager:
            results["jax"] = call_jax(name, case, dtype, False, weights)

    family = case.args.get("process")
    has_other_zeros = family is not None and family.name in OTHER_ZEROS_IN_FLOAT32
    if dtype != "float64" and not has_other_zeros:
        weights64 = [w.astype(np.float64) for w in weights]
        with precision("float64"):
            results["torch64"] = call_torch(name, case, "float64")
            if pair.jit:
                results["jit64"] = call_jax(name, case, "float64", True, weights64)
    return results


@cache
def function(lib: str, name: str) -> Function:
    """The kernel of this name in "torch" or in "jax", as a function of the arguments of a case."""
    return PAIRS[name].call(LIBRARIES[lib], name)


def call_torch(name: str, case: Case, dtype: str) -> Result:
    """Calls the twin with the arguments of a case."""
    f = function("torch", name)
    return frameworks.call_torch(f, torch_arguments(case, dtype), PAIRS[name].differentiable)


def torch_arguments(case: Case, dtype: str) -> Arguments:
    """The arguments of a case as tensors; call it inside `precision(dtype)`."""
    return {k: frameworks.to_torch(_build_family("torch", x, dtype)) for k, x in case.args.items()}


def call_jax(name: str, case: Case, dtype: str, jit: bool, weights: list[np.ndarray]) -> Result:
    """Calls the kernel of JAX with the arguments of a case."""
    args = {k: frameworks.to_jax(_build_family("jax", x, dtype)) for k, x in case.args.items()}
    f = function("jax", name)
    return frameworks.call_jax(f, args, PAIRS[name].differentiable, jit, weights)


def _build_family(lib: str, x: Any, dtype: str) -> Any:
    """The process of a family; any other argument as it is."""
    if isinstance(x, Family):
        return build(lib, x, dtype)
    return x


def rounded(x: Any, dtype: str) -> Any:
    """A float array that dtype holds exactly, in float64 or bfloat16."""
    if not frameworks.is_float(x):
        return x
    if dtype == "bfloat16":
        return x.astype(BFLOAT16)
    return x.astype(dtype).astype(np.float64)


def measure_scales(name: str, case: Case, values: Result) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """The scale of each output (for draws: the distance of u from a boundary) and of each gradient."""
    pair = PAIRS[name]
    call = function("torch", name)
    with precision("float64"), torch.no_grad():
        args = torch_arguments(case, "float64")
        if pair.scale is None:
            boundaries = [np.array(np.inf)]
            if pair.cdf is not None:
                boundaries = _measure(pair.cdf, call, args)
            distances = [_distance(args.get("u"), cdf) for cdf in boundaries]
            return distances * len(values.outputs), {}
        outputs = _measure(pair.scale, call, args)
        terms = outputs
        if pair.gradient_scale is not None:
            terms = _measure(pair.gradient_scale, call, args)

    # One scale is that of every output.
    if len(outputs) == 1:
        outputs = outputs * len(values.outputs)
    gradients = {k: _gradient_scale(terms, values.outputs, g) for k, g in values.gradients.items()}
    return [_expand(s, x.ndim) for s, x in zip(outputs, values.outputs, strict=True)], gradients


def _measure(measure: Measure, call: Function, args: Arguments) -> list[np.ndarray]:
    return [np.asarray(x) for x in frameworks.flat(measure(call, args))]


def _distance(u: torch.Tensor | None, cdf: np.ndarray) -> np.ndarray:
    if u is None:
        return cdf
    return np.abs(u.numpy()[..., None] - cdf).min(axis=-1)


def _gradient_scale(terms: list[np.ndarray], outputs: list[np.ndarray], gradient: np.ndarray) -> np.ndarray:
    """The terms of a row times the sum of |w| over the outputs that it reaches."""
    lead = gradient.shape[:-1]
    weights = [np.abs(frameworks.weight(x, i)) for i, x in enumerate(outputs)]
    reached = sum(_reduce(w, lead, np.sum) for w in weights)
    largest = np.max([_reduce(s, lead, np.max) for s in terms], axis=0)
    return _expand(reached * largest, gradient.ndim)


def _reduce(x: np.ndarray, lead: tuple[int, ...], over: Callable[..., Any]) -> np.ndarray:
    """x [*lead, ..] to [*lead]; where it has other axes, to []."""
    if x.shape[: len(lead)] != lead:
        return over(x)
    return over(x, axis=tuple(range(len(lead), x.ndim)))


def _expand(x: np.ndarray, ndim: int) -> np.ndarray:
    """Trailing axes of size 1 up to ndim."""
    return x.reshape(x.shape + (1,) * (ndim - x.ndim))
