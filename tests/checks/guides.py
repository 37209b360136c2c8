"""Spoils what guides samples, flows and heads in the ways that `table` does not: see each function below.

    python -m tests.checks.guides

A call ends in one clear error of this library that names the argument, gives a marked result (NaN, or -1 for
a draw), or is legal and gives numbers. Anything else is a defect: silent, unclear, or NaN where the call is
legal. It runs without the checks of types that the tests of this folder have, which users have not either.
"""

import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from d3pm_jax import beliefs, flows, likelihood, sampling
from d3pm_jax.sampling import guidance
from tests.checks import table
from tests.checks.constructors import WRONG, report
from tests.checks.table import B, K, T

PROCESS = table.PROCESSES["uniform"]
ROOMS = ("flows.", "heads.", "sampling.guidance.", "sampling.steering.")
L = 3
KEY = jax.random.key(0)


class Try(NamedTuple):
    """Holds a call, what it is given, and what has to come of it."""

    name: str
    f: Callable[..., Any]
    arguments: dict[str, Any]
    changed: str  # the argument that is wrong, which an error has to name
    is_legal: bool = False
    passes_on: bool = False  # an infinite number that comes out again is no secret


def outcome(call: Try, jit: bool) -> tuple[str, str]:
    """Says what came of a call, and how: under jit with its arrays as arguments of the program."""
    arrays = {name: x for name, x in call.arguments.items() if isinstance(x, jax.Array)} if jit else {}
    others = {name: x for name, x in call.arguments.items() if name not in arrays}
    try:
        f = functools.partial(call.f, **others)
        result = jax.block_until_ready(jax.jit(lambda arrays: f(**arrays))(arrays) if jit else f())
    except (TypeError, ValueError) as error:
        said = str(error)
        is_clear = call.changed in said and "\n" not in said and table.raised_here(error)
        kind = "clear" if is_clear and not call.is_legal else "unclear"
        return kind, f"{type(error).__name__}: {said.splitlines()[0][:200]}"
    except Exception as error:
        return "unclear", f"{type(error).__name__}: {str(error)[:200]}"
    numbers = table.numbers(result)
    is_marked = any(np.isnan(x).any() or (x == -1).any() for x in numbers)
    if call.is_legal:
        return ("NaN" if is_marked else "legal"), ""
    if is_marked:
        return "marked", ""
    return ("legal" if call.passes_on and any(np.isposinf(x).any() for x in numbers) else "silent"), ""


# ---- What returns functions: it is called, and what comes back is used ----


def network(xt: Any, time: Any, inputs: Any = None) -> Any:
    """Logits that depend on what it is told, if anything."""
    logits = jnp.zeros((*xt.shape, K)) + time[:, None, None] / T
    for leaf in jax.tree.leaves(inputs):
        logits = logits + leaf.reshape(len(leaf), -1).astype(logits.dtype).sum(1)[:, None, None]
    return logits


def log_prob(one_hots: Any, time: Any) -> Any:
    return -jnp.sum(jnp.square(one_hots[..., 0]), axis=-1)


def draw(guided: Any, B: int = B) -> Any:
    """Samples of a guided network."""
    denoiser = sampling.Denoiser(PROCESS, guided, "leave_one_out")
    return sampling.sample(KEY, denoiser, (B, L)).x0


def draw_without_classifier(**arguments: Any) -> Any:
    return draw(guidance.classifier_free(**arguments))


def draw_by_classifier(**arguments: Any) -> Any:
    return draw(guidance.by_classifier(**arguments))


def draw_noise(row: Any = 1, stream: Any = 0, **arguments: Any) -> Any:
    return sampling.per_example(**arguments)(row, stream)


def run_with_noise_of(**arguments: Any) -> Any:
    noise = sampling.per_example(**arguments)
    x = jnp.zeros((B, L), jnp.int32)
    return sampling.run(sampling.Denoiser(PROCESS, network), x, noise).x0


def bound_with_noise_of(**arguments: Any) -> Any:
    noise = sampling.per_example(**arguments)
    x0 = jnp.zeros((B, L), jnp.int32)
    return likelihood.all_t_bound(network, PROCESS, x0, lambda t: noise(t)).steps


def use_belief(belief: Any, f: Any) -> Any:
    return beliefs.with_belief(belief, f)(PROCESS, jnp.zeros((B, L, K)), *[jnp.zeros((B, L), int)] * 2, 1)


LABELS = jnp.array([1, 2], jnp.int32)
NULL = jnp.array([3, 3], jnp.int32)
CONDITION = jnp.ones((B, 2))
FREE = {"network": network, "inputs": LABELS, "null": NULL, "gamma": 2.0, "on": "x_s", "late": None}
BY = {"network": network, "log_prob": log_prob, "gamma": 1.5, "exact": False}
NOISE = {"key": KEY, "index": jnp.arange(B, dtype=jnp.int32), "shape": (L,)}
BELIEF = {"belief": "denoiser", "f": beliefs.to_denoiser}
# Which of the values in WRONG are right, by argument.
RIGHT = {
    "gamma": ("-1", "0", "2.5", "2**32"),
    "late": ("None", "0"),
    "exact": ("True",),
    "row": ("0",),
    "stream": ("0",),
    "shape": ("[]",),
    "inputs": (),
    "null": (),
}


def wrong_values() -> Iterator[Try]:
    """Yields every argument of what returns functions with every wrong value of `constructors`."""
    functions: list[tuple[str, Callable, dict[str, Any]]] = [
        ("classifier_free", draw_without_classifier, FREE),
        ("classifier_free on x_0", draw_without_classifier, FREE | {"on": "x_0", "late": 3}),
        ("by_classifier", draw_by_classifier, BY),
        ("per_example", draw_noise, NOISE | {"row": 1, "stream": 0}),
    ]
    for name, f, good in functions:
        yield Try(name, f, good, "", is_legal=True)
        for argument in good:
            for case, value in WRONG.items():
                # A class is a function too, and fails by itself.
                is_right = case in RIGHT.get(argument, ())
                if (argument, case) not in {("network", "a class"), ("log_prob", "a class")}:
                    yield Try(f"{name}({argument}) {case}", f, good | {argument: value}, argument, is_right)
    for argument in BELIEF:
        for case, value in WRONG.items():
            if case != "a class":
                yield Try(f"with_belief({argument}) {case}", use_belief, BELIEF | {argument: value}, argument)


def wrong_inputs() -> Iterator[Try]:
    """Yields conditions of other types, shapes, trees and numbers of examples, and networks of another K."""
    wrong: dict[str, tuple[Any, Any, str]] = {
        "null of floats": (LABELS, NULL.astype(float), "null"),
        "inputs of floats": (LABELS.astype(float), NULL, "null"),
        "inputs complex": (LABELS.astype(complex), NULL, "inputs"),
        "null of objects": (LABELS, np.array([None, 1], object), "null"),
        "null shorter": (LABELS, NULL[:1], "null"),
        "of one entry": (LABELS[:1], NULL[:1], "inputs"),
        "of three examples": (jnp.arange(3), jnp.arange(3), "inputs"),
        "of no examples": (LABELS[:0], NULL[:0], "inputs"),
        "another tree": ({"a": LABELS}, {"b": LABELS}, "null"),
        "another container": ([LABELS], (LABELS,), "null"),
        "a leaf more": ({"a": LABELS}, {"a": LABELS, "b": LABELS}, "null"),
        "a text in a tree": ({"a": "abc"}, {"a": "abc"}, "inputs"),
        "numbers": (1.0, 2.0, "inputs"),
        "of two sizes": ({"a": LABELS, "b": CONDITION[:1]}, {"a": LABELS, "b": CONDITION[:1]}, "inputs"),
    }
    right = {
        "a tree": ({"a": LABELS, "b": CONDITION}, {"a": NULL, "b": 0 * CONDITION}),
        "of NumPy": (np.array([1, 2]), np.array([3, 3], np.uint8)),
        "of bfloat16": (CONDITION.astype(jnp.bfloat16), CONDITION),
        "booleans": (LABELS > 1, NULL > 5),
        "nothing": (None, None),
    }
    gammas = (2.0, 1.0, 0.0)
    for gamma in gammas:
        for case, (inputs, null, word) in wrong.items():
            arguments = FREE | {"inputs": inputs, "null": null, "gamma": gamma}
            yield Try(f"classifier_free, {case}, gamma {gamma:g}", draw_without_classifier, arguments, word)
        for case, (inputs, null) in right.items():
            arguments = FREE | {"inputs": inputs, "null": null, "gamma": gamma}
            name = f"classifier_free, {case}, gamma {gamma:g}"
            yield Try(name, draw_without_classifier, arguments, "", is_legal=True)

    def wider(*arguments: Any) -> Any:
        return jnp.zeros((*arguments[0].shape, K + 1))

    for on in ("x_s", "x_0"):
        arguments = FREE | {"network": wider, "on": on}
        yield Try(f"classifier_free on {on}, K + 1", draw_without_classifier, arguments, f"{K + 1}]")
    for exact in (False, True):
        yield Try(f"by_classifier, exact {exact}", draw_by_classifier, BY | {"exact": exact}, "", True)
        arguments = BY | {"network": wider, "exact": exact}
        yield Try(f"by_classifier, exact {exact}, K + 1", draw_by_classifier, arguments, f"{K + 1}]")
        for value in (np.nan, np.inf, 0.5, 1.0):
            wrong_prob = functools.partial(of_value, value)
            arguments = BY | {"log_prob": wrong_prob, "exact": exact}
            yield Try(f"by_classifier, exact {exact}, {value}", draw_by_classifier, arguments, "log_prob")


def of_value(value: float, one_hots: Any, time: Any) -> Any:
    """log p(y | x), which is no probability for the first example."""
    log_p = log_prob(one_hots, time)
    return log_p.at[0].set(value)


def wrong_noise() -> Iterator[Try]:
    """Yields noise of another number of examples or another length, where it is used."""
    for f, word in ((run_with_noise_of, "noise"), (bound_with_noise_of, "noise")):
        yield Try(f.__name__, f, NOISE, "", is_legal=True)
        for case, change in {
            "an example more": {"index": jnp.arange(3)},
            "of one example": {"index": jnp.arange(1)},
            "longer": {"shape": (L + 1,)},
            "of one place": {"shape": (1,)},
            "of no axis": {"shape": ()},
            "an axis more": {"shape": (L, 1)},
        }.items():
            yield Try(f"{f.__name__} {case}", f, NOISE | change, word)
    for argument, value in {"row": 2.0, "stream": 1.0}.items():
        wrong = {"a float": value, "an array": np.arange(2), "2**31": 2**31, "-1 of JAX": jnp.int32(-1)}
        for case, x in wrong.items():
            yield Try(f"per_example {argument}, {case}", draw_noise, NOISE | {argument: x}, argument)
    for x in (np.int64(0), jnp.int32(0), 2**30 + 1, jnp.int32(2**30)):
        yield Try(f"per_example stream {x!r}", draw_noise, NOISE | {"stream": x}, "", is_legal=True)


# ---- Flows and heads: floats of every value and every width ----

# Of these +inf is that of another logit, or of a weight, and comes out again.
ANY_OUTPUT = ("heads.residual", "heads.forbid", "heads.log_scores", "heads.absorbing_log_scores")
PASS_ON = (*ANY_OUTPUT, "flows.importance_bound", "sampling.guidance.")


def public() -> Iterator[table.Call]:
    """Yields the functions of these rooms that take floats, as `table` calls them."""
    for call in table.public(PROCESS):
        if call.name.startswith(ROOMS) and floats_of(call):
            yield call


def floats_of(call: table.Call) -> list[str]:
    return [name for name in call.traced if jnp.issubdtype(call.good[name].dtype, jnp.floating)]


def infinite_floats() -> Iterator[Try]:
    """Yields NaN and infinite numbers, each in its first place: -inf where it is the log of 0 is legal."""
    for call in public():
        for name in floats_of(call):
            for value in (np.nan, np.inf, -np.inf):
                bad = np.array(call.good[name])
                bad[(0,) * bad.ndim] = value
                takes_log = value == -np.inf and name in ("logits", "null_logits", "log_p", "log_weights")
                takes_log |= value == -np.inf and call.name in ANY_OUTPUT
                takes_log |= value == -np.inf and name == "log_likelihood"
                yield Try(
                    f"{call.name}({name}) {value}",
                    call.f,
                    call.good | {name: jnp.asarray(bad)},
                    name,
                    is_legal=takes_log,
                    passes_on=call.name.startswith(PASS_ON),
                )


def narrow_floats() -> Iterator[Try]:
    """Yields floats of few digits, of each argument alone and of all, and conditioners that return them."""
    for call in public():
        names = floats_of(call)
        for dtype in (jnp.bfloat16, jnp.float16):
            # Of each alone in the one type, as both are promoted alike.
            alone = [[name] for name in names] if dtype == jnp.bfloat16 else []
            for changed in [*alone, names]:
                narrow = {name: call.good[name].astype(dtype) for name in changed}
                yield Try(
                    f"{call.name}({', '.join(changed)}) {dtype.__name__}",
                    call.f,
                    call.good | narrow,
                    "",
                    is_legal=True,
                )
            for name in ("conditioner", "transform", "inverse"):
                if name not in call.good:
                    continue
                f = functools.partial(narrowed, call.good[name], dtype)
                good = call.good | {name: f}
                yield Try(f"{call.name}({name}) {dtype.__name__}", call.f, good, "", is_legal=True)


def narrowed(f: Callable, dtype: Any, *arguments: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(dtype), f(*arguments))


RNG = np.random.default_rng(0)
SQUARE = RNG.normal(size=(K, K))
LOW_RANK = RNG.normal(size=(K, K - 1)) @ RNG.normal(size=(K - 1, K))
SINGULAR = {
    "zeros": np.zeros((K, K)),
    "ones": np.ones((K, K)),
    "two rows alike": np.stack([SQUARE[0], *SQUARE[:-1]]),
    "a column of zeros": SQUARE * (np.arange(K) > 0),
    "of rank K - 1": LOW_RANK,
    "of rank K - 1, scaled": LOW_RANK * 10.0 ** np.arange(-6, 6, 3),
    "of rank 1": np.outer(SQUARE[0], SQUARE[1]),
}
INVERTIBLE = {
    "of normal numbers": SQUARE,
    "of large numbers": SQUARE * 1e12,
    "of small numbers": SQUARE * 1e-12,
    "diagonal": np.diag([1e-9, 1e-3, 1e3, 1e9]),
    "scaled rows": SQUARE * 10.0 ** np.arange(-6, 6, 3)[:, None],
    "scaled columns": SQUARE * 10.0 ** np.arange(-6, 6, 3),
    "a permutation": np.eye(K)[::-1],
    "nearly singular": np.eye(K) + np.ones((K, K)) * 1e4,
}


def matrices() -> Iterator[Try]:
    """Yields matrices with and without an inverse, in floats of each width."""
    z = jnp.ones((B, L, K))
    for case, matrix in (SINGULAR | INVERTIBLE).items():
        for dtype in (jnp.float32, jnp.bfloat16):
            narrow = jnp.asarray(matrix, dtype)
            if dtype == jnp.bfloat16 and case in ("of rank K - 1", "of rank K - 1, scaled", "of rank 1"):
                continue  # rounding to so few digits gives it an inverse
            yield Try(
                f"invert_linear, {case}, {dtype.__name__}",
                flows.invert_linear,
                {"z": z, "matrix": narrow},
                "matrix",
                is_legal=case in INVERTIBLE and (case, dtype) != ("nearly singular", jnp.bfloat16),
            )


def tries(jit: bool) -> Iterator[Try]:
    if jit:
        # One program for a call, where each operation would be one.
        yield from narrow_floats()
    else:
        # What is no array is the same under jit.
        yield from wrong_values()
    yield from wrong_inputs()
    yield from wrong_noise()
    yield from infinite_floats()
    yield from matrices()


def calls(jit: bool, wanted: Callable[[Try], bool] = lambda call: True) -> Iterator[tuple[str, str, str]]:
    """Yields what came of each call that is wanted, which one it was, and how it ended."""
    for call in tries(jit):
        if wanted(call):
            kind, how = outcome(call, jit)
            yield kind, call.name, how


def main() -> None:
    """Prints each defect and the number of outcomes of each kind, without jit and under it."""
    warnings.simplefilter("ignore")
    for mode, jit in (("eager", False), ("jit", True)):
        report(mode, calls(jit), [])


if __name__ == "__main__":
    main()
