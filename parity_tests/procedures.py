"""The rows of whole procedures: training, its bound and a reverse chain from the same noise."""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import jax
import numpy as np

from parity_tests import compare, runs, settings
from parity_tests.compare import TOLERANCES, Row, without_tolerance
from parity_tests.frameworks import precision
from parity_tests.runs import Evaluated, Trained
from parity_tests.settings import Arrays, Noise, Setting

SETTINGS = tuple(Setting(name) for name in settings.PROBLEMS)  # of the report


class Entry(NamedTuple):
    """A difference before it is a row."""

    pair: str
    quantity: str
    label: str  # the end of the name of the case
    difference: compare.Difference
    tolerance: str  # its name in `TOLERANCES`


class Outcome(NamedTuple):
    """The rows of one procedure in one float type."""

    rows: list[Row]
    title: str
    drift: Arrays  # which two -> [steps]  the largest `_relative` difference of any parameter


class Side(NamedTuple):
    """Everything that one framework computes."""

    trained: Trained
    evaluated: Evaluated
    noisy: Arrays  # x_t in "training" and for the "bound"


def outcome(setting: Setting, dtype: str) -> Outcome:
    """JAX beside PyTorch; in float32 both also beside PyTorch in float64, with the same noise.

    The bound and the chain are those of the averaged weights that JAX trained. In float64 each framework
    follows its own chain; in float32 the twin draws every x_{t-1} from the x_t of JAX.
    """
    with precision(dtype), jax.default_matmul_precision("highest"):
        noise = settings.noise(setting)
        sides = {"jit": _in_jax(setting, noise)}
        weights = sides["jit"].trained.ema[-1]
        chains = sides["jit"].evaluated.chains
        follow = None
        if dtype == "float32":
            follow = chains
        sides["torch"] = _in_torch(setting, noise, weights, follow)

        distances = {}
        for name, arguments in _tables(setting, noise).items():
            _, distances[name] = runs.draw_torch(setting, *arguments)
        distances |= runs.distances(setting, weights, chains)

    if dtype == "float32":
        with precision("float64"):
            sides["torch64"] = _in_torch(setting, noise, weights, follow)

    rows = []
    drift = {}
    for first, second in (("torch", "jit"), ("torch", "torch64"), ("jit", "torch64")):
        if second in sides:
            sides_compared = f"{first} = {second}"
            rows += _compare(setting, dtype, sides_compared, sides[first], sides[second], distances)
            drift[sides_compared] = measure_drift(
                sides[first].trained.parameters, sides[second].trained.parameters
            )
    return Outcome(rows, f"{describe(setting)}, {dtype}", drift)


def cost(setting: Setting, matmul: str) -> Outcome:
    """JAX in float32 with this matmul precision beside JAX with the highest: shown, not held to anything."""
    with precision("float32"):
        noise = settings.noise(setting)
        with jax.default_matmul_precision("highest"):
            best = _in_jax(setting, noise)
        with jax.default_matmul_precision(matmul):
            weights = best.trained.ema[-1]
            cheaper = best._replace(
                trained=runs.train_jax(setting), evaluated=runs.evaluate_jax(setting, weights)
            )
    no_distances = dict.fromkeys((*best.noisy, *best.evaluated.chains), np.zeros(()))
    sides_compared = f"{matmul} = highest"
    rows = list(_compare(setting, "float32", sides_compared, cheaper, best, no_distances))
    drift = {sides_compared: measure_drift(cheaper.trained.parameters, best.trained.parameters)}
    title = f"{describe(setting)}, matmul precision {matmul}"
    return Outcome([without_tolerance(row) for row in rows], title, drift)


def describe(setting: Setting) -> str:
    """The setting in words."""
    return f"{setting.name}, T = {setting.T}"


def _in_jax(setting: Setting, noise: Noise) -> Side:
    trained = runs.train_jax(setting)
    noisy = {name: runs.draw_jax(setting, *x) for name, x in _tables(setting, noise).items()}
    return Side(trained, runs.evaluate_jax(setting, trained.ema[-1]), noisy)


def _in_torch(setting: Setting, noise: Noise, weights: Arrays, follow: Arrays | None) -> Side:
    noisy = {name: runs.draw_torch(setting, *x)[0] for name, x in _tables(setting, noise).items()}
    evaluated = runs.evaluate_torch(setting, weights, follow)
    return Side(runs.train_torch(setting, noise), evaluated, noisy)


def _tables(setting: Setting, noise: Noise) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """x_0, t and u of every x_t that is drawn from x_0."""
    batches = np.stack([settings.batch(setting, i)["x"] for i in range(setting.steps)])  # [steps, B, *S]
    inputs = settings.inputs(setting)
    u = inputs.bound_noise[1:]  # [T, B, *S]
    return {
        "training": (batches, noise.t, noise.u),
        "bound": (np.broadcast_to(inputs.x0, u.shape), np.arange(1, setting.T + 1), u),
    }


def _compare(
    setting: Setting, dtype: str, sides: str, actual: Side, expected: Side, distances: Arrays
) -> Iterator[Row]:
    """Every difference as a row."""
    entries = (
        *_compare_trained(setting, actual.trained, expected.trained, dtype),
        *_compare_evaluated(actual, expected, dtype),
        *_compare_drawn(actual, expected, distances, dtype),
    )
    for entry in entries:
        yield compare.make_row(
            entry.pair,
            f"{describe(setting)}, {entry.label}",
            dtype,
            f"{sides} {entry.quantity}",
            entry.difference,
            TOLERANCES[dtype][entry.tolerance],
        )


def _compare_trained(setting: Setting, actual: Trained, expected: Trained, dtype: str) -> Iterator[Entry]:
    """Every tensor after the first and the last step, and the metrics of all steps."""
    steps = len(expected.parameters)
    tolerance = "trained"
    if setting.problem.shape == settings.TEXT:
        tolerance = "trained text"
    for field, n in product(("parameters", "ema"), dict.fromkeys((1, steps))):
        actual_tensors = getattr(actual, field)[n - 1]
        for name, y in getattr(expected, field)[n - 1].items():
            difference = compare.compare_arrays(actual_tensors[name], y, largest_entry(y), dtype)
            yield Entry("training", f"{field}, step {n}", name, difference, tolerance)
    for name, y in expected.metrics.items():
        difference = compare.compare_arrays(actual.metrics[name], y, largest_entry(y), dtype)
        yield Entry("training", "metrics, every step", name, difference, tolerance)


def _compare_evaluated(actual: Side, expected: Side, dtype: str) -> Iterator[Entry]:
    """The logits, and the terms of the bound on the scale of their sum."""
    x = actual.evaluated
    y = expected.evaluated
    difference = compare.compare_arrays(x.logits, y.logits, largest_entry(y.logits), dtype)
    yield Entry("forward", "trained network", "logits", difference, "forward")

    # A term counts where its x_t is the same: elsewhere the two are terms of other arguments.
    same = actual.noisy["bound"] == expected.noisy["bound"]  # [T, B, *S]
    same = same.reshape(*y.terms.shape, -1).all(axis=-1)  # [T, B]
    total = y.terms.sum(axis=0) + y.prior  # [B]
    difference = compare.compare_arrays(x.terms * same, y.terms * same, total, dtype)
    yield Entry("bound", "terms", f"{same.size:,} terms", difference, "bound")
    difference = compare.compare_arrays(x.prior, y.prior, total, dtype)
    yield Entry("bound", "prior", "prior", difference, "bound")


def _compare_drawn(actual: Side, expected: Side, distances: Arrays, dtype: str) -> Iterator[Entry]:
    """How many of the integers differ, and how far u is from a boundary where they do."""
    pairs = [(name, "x_t", name) for name in expected.noisy]
    pairs += [("chain", f"x_t, {name}", name) for name in expected.evaluated.chains]
    for pair, quantity, name in pairs:
        x = (actual.noisy | actual.evaluated.chains)[name]
        y = (expected.noisy | expected.evaluated.chains)[name]
        difference = compare.compare_draws(x, y, np.broadcast_to(distances[name], y.shape), dtype)
        yield Entry(pair, quantity, f"{y.size:,} integers", difference, "draw")


def measure_drift(actual: list[Arrays], expected: list[Arrays]) -> np.ndarray:
    """The largest difference of any parameter after each step, on the scale of its largest entry."""
    steps = zip(actual, expected, strict=True)
    return np.array([max(_relative(x[name], y[name]) for name in y) for x, y in steps])


def _relative(x: np.ndarray, y: np.ndarray) -> float:
    """The largest difference, on the scale of the largest entry."""
    return float(np.abs(x.astype(np.float64) - y).max() / largest_entry(y))


def largest_entry(x: np.ndarray) -> np.ndarray:
    """The largest of the finite entries: a forbidden category has the logit -inf."""
    return np.abs(x[np.isfinite(x)]).max()
