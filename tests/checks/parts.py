"""Calls what samplers are made of with every argument and every field spoilt in turn.

    python -m tests.checks.parts [PART ...]

Functions of laws, places, shapings and plans; the fields of every slot; what parts of a user's own return;
and what a chain is run with. A call ends in a clear error that names what is wrong, gives a marked result
where only a run can see it (NaN, or -1 for a draw), or is legal. Anything else is a defect: silent, unclear,
or NaN, which is a mark where the values were known. It runs without the checks of types that the tests of
this folder have, which users have not either.
"""

import collections
import functools
import inspect
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import d3pm_jax as d3pm
from d3pm_jax import beliefs
from d3pm_jax.sampling import laws, places, plans, shaping
from d3pm_jax.schedules import continuous
from tests.checks import table
from tests.checks.table import Bad, K, S, T, i32, raised_here, spoilt_once

OUTCOMES = ("clear", "marked", "legal", "unclear", "silent", "NaN")
DEFECTS = ("unclear", "silent", "NaN")
NAN = float("nan")
INF = float("inf")

# ---- Functions ----

ABSORBING = table.PROCESSES["absorbing"]
X = i32([0, 1, 2], [2, 1, 0])
UNIT = table.UNIT
LAW = jnp.log(jnp.full((*S, K), 1 / K))
FALLING = -jnp.sort(-UNIT, axis=-1)
RISING = jnp.sort(UNIT, axis=-1)
CATEGORIES = ("categories", X)
STEPS = ("steps", i32(2, 5))
BEFORE = ("steps from 0", i32(1, 4))
AFTER = ("steps from 0", i32(3, 5))
LOGITS = ("floats", LAW)
ROLES: dict[str, dict[str, tuple[str, Any]]] = {
    "keep_logits": {
        "log_denoiser": LOGITS,
        "xt": CATEGORIES,
        "t": STEPS,
        "s": BEFORE,
        "c": ("share", 0.5),
    },
    "mixture_logits": {
        "logits_loo": LOGITS,
        "log_denoiser": LOGITS,
        "xt": CATEGORIES,
        "t": STEPS,
        "kappa": ("share", 0.5),
    },
    "remask_logits": {
        "log_denoiser": LOGITS,
        "xt": CATEGORIES,
        "t": STEPS,
        "s": BEFORE,
        "sigma": ("time", 0.1 * UNIT),
    },
    "most_remasked": {"t": STEPS, "s": BEFORE},
    "renoise_logits": {"xt": CATEGORIES, "t": STEPS, "s": AFTER},
    "log_ratios": {"logits_loo": LOGITS, "xt": CATEGORIES, "t": STEPS},
    "log_rates": {"logits_loo": LOGITS, "xt": CATEGORIES, "t": STEPS, "s": BEFORE},
    "corrector_log_rates": {
        "logits_loo": LOGITS,
        "xt": CATEGORIES,
        "t": STEPS,
        "h": ("positive", 0.1),
    },
    "euler_logits": {"log_rate": LOGITS, "xt": CATEGORIES},
    "poisson_logits": {"log_rate": LOGITS, "xt": CATEGORIES},
    "leaving_probability": {"log_p": LOGITS, "xt": CATEGORIES},
    "leaving_logits": {"log_p": LOGITS, "xt": CATEGORIES},
    "gibbs_logits": {"logits_loo": LOGITS, "xt": CATEGORIES, "t": STEPS},
    "rank": {"score": ("scores", UNIT), "candidates": ("booleans", UNIT < 0.5)},
    "take_first": {
        "score": ("scores", UNIT),
        "candidates": ("booleans", UNIT < 0.5),
        "count": ("indices", i32(1, 2)),
    },
    "cosine_counts": {"n": ("count from 0", 3), "rows": ("count", 2)},
    "count_above": {"probability": ("shares", FALLING), "threshold": ("positive", 0.5)},
    "count_by_factor": {"probability": ("shares", FALLING), "factor": ("positive", 0.5)},
    "count_by_entropy": {"entropy": ("entropies", RISING), "bound": ("from 0", 0.5)},
    "next_hitting": {
        "masked_share": ("time", UNIT[:, 0]),
        "left": ("indices", i32(1, 2)),
        "u": ("noise", UNIT[:, 1]),
    },
    "time_of": {"schedule": ("function", continuous.linear), "masked_share": ("time", UNIT[:, 0])},
    "top_k": {"logits": LOGITS, "k": ("count", 2)},
    "top_p": {"logits": LOGITS, "p": ("positive share", 0.5)},
    "top_p_below": {"logits": LOGITS, "p": ("positive share", 0.5)},
    "find_level": {"strength": ("positive share", 0.5), "T": ("count", T)},
    "with_belief": {"belief": ("choice", "denoiser"), "f": ("function", d3pm.p_logits)},
}
FUNCTIONS = {f.__name__: f for f in (plans.find_level, beliefs.with_belief)}
for module in (laws, places, shaping):
    FUNCTIONS |= {name: getattr(module, name) for name in table.functions_of_module(module)}
# These ask which process it is.
NOT_CALLED = {"mask_of", "require_mixing", "require_absorbing"}

# Roles of arrays that `table` has not: the one whose wrong types and shapes they share, and wrong values.
ARRAYS = {
    "steps from 0": ("steps", (-1, T + 1, 2**31 - 1)),
    "scores": ("floats", (NAN,)),
    "shares": ("floats", (-0.5, 1.5, NAN, INF)),
    "entropies": ("floats", (-0.5, NAN, -INF)),
} | {role: (role, values) for role, values in table.OUT_OF_RANGE.items()}
NUMBERS = {
    "share": (-0.5, 1.5, NAN, INF, -INF, 2, -1),
    "positive share": (0.0, -0.5, 1.5, NAN, INF, -INF, 2, 0),
    "positive": (0.0, -0.5, NAN, -INF, 0, -1),
    "from 0": (-0.5, NAN, -INF, -1),
}


def spoilt(role: str, good: Any) -> Iterator[Bad]:
    """Yields what to pass in the place of a good value."""
    if role in NUMBERS:
        yield from (Bad(case, value) for case, value in (table.FOREIGN | table.NOT_NUMBERS).items())
        yield from (Bad(f"number {value}", value) for value in NUMBERS[role])
        return
    if role not in ARRAYS:
        yield from spoilt_once(role, good)
        return
    alike, values = ARRAYS[role]
    yield from (bad for bad in spoilt_once(alike, good) if bad.element is None)
    x = np.asarray(good)
    if x.ndim:
        yield Bad("an example more", jnp.asarray(np.concatenate([x, x[:1]])))
    for value in values:
        changed = x.copy()
        changed[(0,) * x.ndim] = value
        yield Bad(f"value {value:g}", jnp.asarray(changed), (0,) * x.ndim)


def functions() -> Iterator[table.Call]:
    """Yields every public function that samplers are made of, with arguments that it takes."""
    for name, f in FUNCTIONS.items():
        if name in NOT_CALLED:
            continue
        arguments = dict(ROLES[name])
        if "process" in inspect.signature(f).parameters:
            arguments["process"] = ("process", ABSORBING)
        roles = {argument: role for argument, (role, _) in arguments.items()}
        yield table.Call(name, f, roles, {argument: good for argument, (_, good) in arguments.items()})


# Arrays whose shape no other argument says.
FREE = {
    "renoise_logits(xt)",
    "leaving_probability(log_p)",
    "log_p_x0(logits_x0)",
    "top_k(logits)",
    "top_p(logits)",
    "top_p_below(logits)",
    "count_above(probability)",
    "count_by_factor(probability)",
    "count_by_entropy(entropy)",
    "time_of(masked_share)",
}

# Floats of which the first one says nothing, at x_t = 0: it is no mask, nothing is drawn back to it, and no
# other category is left for where it goes.
UNUSED = {"remask_logits(log_denoiser)", "corrector_log_rates(logits_loo)", "leaving_logits(log_p)"}


def is_legal(which: str, role: str, bad: Bad, result: Any, jit: bool) -> bool:
    """Tells whether what came of a spoilt argument of a function is what its documentation says."""
    case = bad.case
    holds_inf = any(np.isinf(x).any() for x in table.numbers(result))
    of_shape = "axis" in case or "rank" in case or case == "an example more"
    return (
        (of_shape and which in FREE)
        or (case == "a rank less" and role in ("steps", "steps from 0"))  # one for all
        or (case == "value -inf" and role == "floats")  # probability 0
        or (case == "value inf" and role == "floats" and holds_inf)
        or (case == "value nan" and which in UNUSED)
        or (case == "value inf" and which == "leaving_probability(log_p)")  # rounding: as log 1
        # A boolean has no mark: a NaN comes last, and a count below 0 takes none.
        or (which.startswith("take_first(") and jit)
    )


Result = tuple[str, str, str]  # what came of a call, which one it was, and how it ended


def any_case(which: str, bad: Bad) -> bool:
    return True


def results_of_functions(jit: bool, wanted: Callable[[str, Bad], bool] = any_case) -> Iterator[Result]:
    """Spoils every argument of every function, in the ways that are wanted."""
    for call in functions():
        for name, role in call.roles.items():
            if jit and role not in ARRAYS and role not in NUMBERS:
                continue
            # A number is passed to the program where it is spoilt, and else a part of it.
            traced = [key for key, role_of_key in call.roles.items() if role_of_key in ARRAYS or key == name]
            fixed = {key: good for key, good in call.good.items() if key not in traced}
            program = jax.jit(lambda arrays, f=call.f, fixed=fixed: f(**arrays, **fixed))
            which = f"{call.name}({name})"
            for bad in filter(functools.partial(wanted, which), spoilt(role, call.good[name])):
                arguments = {**call.good, name: bad.value}
                f = functools.partial(call.f, **arguments)
                if jit:
                    if not isinstance(bad.value, jax.Array | float | int):
                        continue  # never reaches the function
                    f = functools.partial(program, {key: arguments[key] for key in traced})
                legal = functools.partial(is_legal, which, role, bad, jit=jit)
                kind, how = outcome(f, name, legal, may_mark=jit or role == "floats")
                yield kind, f"{which} {bad.case}", how


def outcome(
    f: Callable[[], Any], word: str, is_legal: Callable[[Any], bool], may_mark: bool
) -> tuple[str, str]:
    """Says what came of a call whose error has to have a word in it, and how."""
    try:
        result = jax.block_until_ready(f())
    except (TypeError, ValueError, d3pm.errors.UserError) as error:
        said = str(error)
        clear = re.search(word, said) and "\n" not in said and len(said) < 400 and raised_here(error)
        return ("clear" if clear else "unclear"), f"{type(error).__name__}: {said[:200]!r}"
    except Exception as error:
        return "unclear", f"{type(error).__name__}: {str(error)[:200]!r}"
    if is_legal(result):
        return "legal", ""
    if not any(np.isnan(x).any() or (x == -1).any() for x in table.numbers(result)):
        return "silent", ""
    return ("marked" if may_mark else "NaN"), ""


# ---- Steps that go the wrong way ----


def results_of_orders(jit: bool) -> Iterator[Result]:
    """Passes an s that is not before t, or not after it, to every law that goes from one to the other."""
    for name in ("keep_logits", "remask_logits", "most_remasked", "renoise_logits", "log_rates"):
        good = {key: value for key, (_, value) in ROLES[name].items()} | {"process": ABSORBING}
        high, low = ((3, 5), (2, 2)) if name != "renoise_logits" else ((2, 2), (3, 5))
        for case, t, s in (
            ("of each", i32(*low), i32(*high)),
            ("of one", i32(low[0], high[1]), i32(high[0], low[1])),
            ("of all", i32(low[0])[0], i32(*high)),
            ("to all", i32(*low), i32(high[0])[0]),
            ("of elements", jnp.broadcast_to(i32(*low)[:, None], S), i32(*high)),
            ("of two axes", i32(*low), jnp.broadcast_to(i32(*high)[:, None], S)),
        ):
            f = functools.partial(FUNCTIONS[name], **good | {"t": t, "s": s})
            if jit:
                arrays = {key: x for key, x in f.keywords.items() if isinstance(x, jax.Array)}
                others = {key: x for key, x in f.keywords.items() if key not in arrays}
                f = functools.partial(jax.jit(functools.partial(FUNCTIONS[name], **others)), **arrays)
            kind, how = outcome(f, r"\bs\b", lambda result: False, may_mark=jit)
            yield kind, f"{name}(s) {case}", how


def tables() -> dict[str, Iterator[Result]]:
    """Returns the results of all calls, by their title."""
    return {
        "functions, eager": results_of_functions(jit=False),
        "functions, jit": results_of_functions(jit=True),
        "orders, eager": results_of_orders(jit=False),
        "orders, jit": results_of_orders(jit=True),
    }


def main(names: list[str]) -> None:
    """Prints each defect and the number of outcomes of each kind."""
    warnings.simplefilter("ignore")
    for title, results in tables().items():
        counts = collections.Counter()
        for kind, which, how in results:
            if names and not which.startswith(tuple(names)):
                continue
            counts[kind] += 1
            if kind in DEFECTS:
                print(f"{kind:8} {which} {how}")
        print(f"{title}:", ", ".join(f"{counts[kind]} {kind}" for kind in OUTCOMES), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
