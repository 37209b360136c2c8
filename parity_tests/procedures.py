"""The rows of whole procedures: training, its bound and a reverse chain from the same noise."""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import jax
import numpy as np

from parity_tests import compare, runs, settings
from parity_tests.compare import TOLERANCES, Row, free
from parity_tests.frameworks import precision
from parity_tests.runs import Evaluated, Trained
from parity_tests.settings import Arrays, Noise, Setting

Entry = tuple[str, str, str, compare.Difference, str]  # pair, what, case, found, tolerance
SETTINGS = tuple(Setting(name) for name in settings.KINDS)  # of the report


class Outcome(NamedTuple):
    """Of one procedure in one float type."""

    rows: list[Row]
    title: str
    drift: Arrays  # which two -> [steps]  the largest `_relative` difference of any parameter


class Side(NamedTuple):
    """Everything that one framework gives."""

    trained: Trained
    evaluated: Evaluated
    drawn: Arrays  # x_t in "training" and for the "bound"


def outcome(setting: Setting, dtype: str) -> Outcome:
    """JAX beside PyTorch; in float32 both also beside PyTorch in float64, with the same noise.

    The bound and the chain are those of the averaged weights that JAX trained. In float64 each framework
    follows its own chain; in float32 the twin draws every x_{t-1} from the x_t of JAX.
    """
    with precision(dtype), jax.default_matmul_precision("highest"):
        noise = settings.noise(setting)
        sides = {"jit": _in_jax(setting, noise)}
        weights, chains = sides["jit"].trained.ema[-1], sides["jit"].evaluated.chains
        follow = chains if dtype == "float32" else None
        sides["torch"] = _in_torch(setting, noise, weights, follow)
        distances = {k: runs.draw_torch(setting, *x)[1] for k, x in _tables(setting, noise).items()}
        distances |= runs.distances(setting, weights, chains)
    if dtype == "float32":
        with precision("float64"):
            sides["torch64"] = _in_torch(setting, noise, weights, follow)
    rows, drift = [], {}
    for a, b in (("torch", "jit"), ("torch", "torch64"), ("jit", "torch64")):
        if b in sides:
            rows += _compare(setting, dtype, f"{a} = {b}", sides[a], sides[b], distances)
            drift[f"{a} = {b}"] = _drift(sides[a].trained, sides[b].trained)
    return Outcome(rows, f"{name(setting)}, {dtype}", drift)


def cost(setting: Setting, matmul: str) -> Outcome:
    """JAX in float32 with this matmul precision beside JAX with the highest: shown, not held to anything."""
    with precision("float32"):
        noise = settings.noise(setting)
        with jax.default_matmul_precision("highest"):
            best = _in_jax(setting, noise)
        with jax.default_matmul_precision(matmul):
            weights = best.trained.ema[-1]
            other = best._replace(
                trained=runs.train_jax(setting), evaluated=runs.evaluate_jax(setting, weights)
            )
    none = dict.fromkeys((*best.drawn, *best.evaluated.chains), np.zeros(()))
    rows = _compare(setting, "float32", f"{matmul} = highest", other, best, none)
    drift = {f"{matmul} = highest": _drift(other.trained, best.trained)}
    return Outcome([free(row) for row in rows], f"{name(setting)}, matmul precision {matmul}", drift)


def name(setting: Setting) -> str:
    """In words."""
    return f"{setting.name}, T = {setting.T}"


def _in_jax(setting: Setting, noise: Noise) -> Side:
    trained = runs.train_jax(setting)
    drawn = {k: runs.draw_jax(setting, *x) for k, x in _tables(setting, noise).items()}
    return Side(trained, runs.evaluate_jax(setting, trained.ema[-1]), drawn)


def _in_torch(setting: Setting, noise: Noise, weights: Arrays, follow: Arrays | None) -> Side:
    drawn = {k: runs.draw_torch(setting, *x)[0] for k, x in _tables(setting, noise).items()}
    evaluated = runs.evaluate_torch(setting, weights, follow)
    return Side(runs.train_torch(setting, noise), evaluated, drawn)


def _tables(setting: Setting, noise: Noise) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """x_0, t and u of every x_t that is drawn from x_0."""
    batches = np.stack([settings.batch(setting, i)["x"] for i in range(setting.steps)])
    given, every = settings.inputs(setting), np.arange(1, setting.T + 1)
    return {
        "training": (batches, noise.t, noise.u),
        "bound": (np.broadcast_to(given.x0, given.us[1:].shape), every, given.us[1:]),
    }


def _compare(setting: Setting, dtype: str, who: str, a: Side, b: Side, distances: Arrays) -> Iterator[Row]:
    """Every difference as a row."""
    differences = (
        *_trained(setting, a.trained, b.trained, dtype),
        *_evaluated(a, b, dtype),
        *_drawn(a, b, distances, dtype),
    )
    for pair, what, label, found, tolerance in differences:
        case = f"{name(setting)}, {label}"
        yield compare.row(pair, case, dtype, f"{who} {what}", found, TOLERANCES[dtype][tolerance])


def _trained(setting: Setting, a: Trained, b: Trained, dtype: str) -> Iterator[Entry]:
    """Every tensor after the first and the last step, and the metrics of all steps."""
    steps, tolerance = len(b.parameters), "trained text" if setting.kind.shape == settings.TEXT else "trained"
    for what, n in product(("parameters", "ema"), dict.fromkeys((1, steps))):
        x, y = getattr(a, what)[n - 1], getattr(b, what)[n - 1]
        for k in y:
            found = compare.arrays(x[k], y[k], _largest(y[k]), dtype)
            yield "training", f"{what}, step {n}", k, found, tolerance
    for k, y in b.metrics.items():
        found = compare.arrays(a.metrics[k], y, _largest(y), dtype)
        yield "training", "metrics, every step", k, found, tolerance


def _evaluated(a: Side, b: Side, dtype: str) -> Iterator[Entry]:
    """The logits, and the bound as a part of the whole; a term counts where its x_t is the same."""
    x, y = a.evaluated, b.evaluated
    found = compare.arrays(x.logits, y.logits, _largest(y.logits), dtype)
    yield "forward", "trained network", "logits", found, "forward"
    same = (a.drawn["bound"] == b.drawn["bound"]).reshape(*y.terms.shape, -1).all(axis=-1)
    total = y.terms.sum(axis=0) + y.prior
    found = compare.arrays(x.terms * same, y.terms * same, total, dtype)
    yield "bound", "terms", f"{same.size:,} terms", found, "bound"
    yield "bound", "prior", "prior", compare.arrays(x.prior, y.prior, total, dtype), "bound"


def _drawn(a: Side, b: Side, distances: Arrays, dtype: str) -> Iterator[Entry]:
    """How many of the integers differ, and how far from a boundary."""
    drawn = [(k, "x_t", k) for k in b.drawn] + [("chain", f"x_t, {k}", k) for k in b.evaluated.chains]
    for pair, what, k in drawn:
        x, y = ((side.drawn | side.evaluated.chains)[k] for side in (a, b))
        found = compare.draws(x, y, np.broadcast_to(distances[k], y.shape), dtype)
        yield pair, what, f"{y.size:,} integers", found, "draw"


def _drift(a: Trained, b: Trained) -> np.ndarray:
    steps = zip(a.parameters, b.parameters, strict=True)
    return np.array([max(_relative(x[k], y[k]) for k in y) for x, y in steps])


def _relative(x: np.ndarray, y: np.ndarray) -> float:
    """On the scale of the largest entry."""
    return float(np.abs(x.astype(np.float64) - y).max() / _largest(y))


def _largest(x: np.ndarray) -> np.ndarray:
    """Of the finite entries: a forbidden category has the logit -inf."""
    return np.abs(x[np.isfinite(x)]).max()
