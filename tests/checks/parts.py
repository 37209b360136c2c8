"""Calls what samplers are made of with every argument and every field spoilt in turn.

    python -m tests.checks.parts [PART ...]

Functions of laws, places, shapings and plans; the fields of every slot; what parts of a user's own return;
and what a chain is run with. A call ends in a clear error that names what is wrong, gives a marked result
where only a run can see it (NaN, or -1 for a draw), or is legal. Anything else is a defect: silent, unclear,
or NaN, which is a mark where the values were known. It runs without the checks of types that the tests of
this folder have, which users have not either.
"""

import dataclasses
import functools
import inspect
import itertools
import re
import sys
import typing
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import d3pm_jax as d3pm
from d3pm_jax import beliefs, sampling
from d3pm_jax.config import samplers
from d3pm_jax.numerics import inverse_cdf
from d3pm_jax.sampling import (
    chain,
    correctors,
    laws,
    named,
    places,
    plans,
    sampler,
    shaping,
    speculative,
    transitions,
)
from d3pm_jax.sampling.correctors import Corrected, Corrector, RateCorrector
from d3pm_jax.sampling.fields import Slot
from d3pm_jax.sampling.places import Reveal
from d3pm_jax.sampling.steps import LawStep, Step, Taken
from d3pm_jax.sampling.transitions import OwnReverse, Remask
from d3pm_jax.schedules import continuous
from tests.checks import constructors, table
from tests.checks.constructors import Result
from tests.checks.table import Bad, K, S, T, i32, raised_here, spoilt_once

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
LOG_LAW = ("log probabilities", jnp.log(jnp.full(LAW.shape, 1 / K)))
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
    "score_log_rates": {"log_scores": LOGITS, "xt": CATEGORIES, "t": STEPS, "s": BEFORE},
    "tweedie_logits": {"log_scores": LOGITS, "xt": CATEGORIES, "t": STEPS, "s": BEFORE},
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
    "acceptance": {"log_p": LOG_LAW, "log_q": LOG_LAW, "drafted": CATEGORIES},
    "leftover_logits": {"log_p": LOG_LAW, "log_q": LOG_LAW},
    "top_k": {"logits": LOGITS, "k": ("count", 2)},
    "top_p": {"logits": LOGITS, "p": ("positive share", 0.5)},
    "top_p_below": {"logits": LOGITS, "p": ("positive share", 0.5)},
    "find_level": {"strength": ("positive share", 0.5), "T": ("count", T)},
    "with_belief": {"belief": ("choice", "denoiser"), "f": ("function", d3pm.p_logits)},
}
FUNCTIONS = {f.__name__: f for f in (plans.find_level, beliefs.with_belief)}
for module in (laws, places, shaping, speculative):
    FUNCTIONS |= {name: getattr(module, name) for name in table.functions_of_module(module)}
# These ask which process it is.
NOT_CALLED = {"mask_of", "is_absorbing", "require_mixing", "require_absorbing"}

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


def any_case(which: str, case: Any) -> bool:
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


# ---- Fields ----

# Which of `constructors.WRONG` are right for a field.
NUMBERS_FROM_0 = ("0", "2.5", "2**32")
SHARE = ("0",)
COUNT = ()
POSITIVE = ("2.5", "2**32")
POSITIVE_SHARE = ()
PART = ()
FLAG = ("True",)
FUNCTION = ("a class",)
FIELDS: dict[Callable[..., Any], dict[str, tuple[str, ...]]] = {
    transitions.OwnReverse: {"reverse": FUNCTION},
    transitions.Keep: {"c": SHARE},
    transitions.Mixture: {"kappa": SHARE},
    transitions.Cap: {"eta": SHARE},
    transitions.Rescale: {"eta": SHARE},
    transitions.WhileHeld: {"held": SHARE},
    transitions.Remask: {"schedule": PART},
    transitions.RemaskLoop: {"schedule": PART, "rows": COUNT, "alpha": SHARE},
    correctors.Gibbs: {"moves": COUNT},
    correctors.RateCorrector: {"moves": COUNT, "h": POSITIVE},
    correctors.Corrected: {"corrector": PART, "between": PART},
    places.DrawnProbability: {"temperature": NUMBERS_FROM_0},
    places.Margin: {"noise": NUMBERS_FROM_0},
    places.Cosine: {"rows": COUNT},
    places.Even: {"rows": COUNT},
    places.Threshold: {"threshold": (*POSITIVE, "inf")},
    places.Factor: {"factor": (*POSITIVE, "inf")},
    places.EntropyBound: {"bound": (*NUMBERS_FROM_0, "inf")},
    places.Reveal: {"order": PART, "count": PART},
    places.FirstHitting: {"schedule": (*FUNCTION, "None")},
    places.PathPlanning: {"rows": COUNT, "eta": NUMBERS_FROM_0},
    speculative.Speculative: {"drafts": COUNT, "order": PART, "schedule": (*FUNCTION, "None")},
    shaping.Shaping: {
        "temperature": POSITIVE,
        "forbid": ("[]", "(-1,)"),  # which are compared with K when there is one
        "top_k": (*COUNT, "None"),
        "top_p": POSITIVE_SHARE,
        "top_p_below": POSITIVE_SHARE,
    },
    sampling.Sampler: {
        "step": PART,
        "shaping": PART,
        "block": (*COUNT, "None"),
        "passes": COUNT,
        "noises_known": FLAG,
    },
    sampling.Denoiser: {"process": PART, "network": FUNCTION, "belief": ()},
    named.ddim: {"c": SHARE},
    named.psi: {"kappa": SHARE},
    named.remdm_cap: {"eta": SHARE},
    named.remdm_rescale: {"eta": SHARE},
    named.remdm_loop: {"rows": COUNT, "alpha": SHARE},
    named.first_hitting: {"schedule": (*FUNCTION, "None")},
    named.margin: {"noise": NUMBERS_FROM_0},
    named.speculative: {"drafts": COUNT},
    named.llada: {"rows": COUNT},
    named.p2: {"rows": COUNT, "eta": NUMBERS_FROM_0},
    named.maskgit: {"rows": COUNT, "choice_temperature": NUMBERS_FROM_0},
    named.fast_dllm_threshold: {"threshold": (*POSITIVE, "inf")},
    named.fast_dllm_factor: {"factor": (*POSITIVE, "inf")},
    named.entropy_bound: {"bound": (*NUMBERS_FROM_0, "inf")},
    named.blocks: {"block": (*COUNT, "None")},
    named.predictor_corrector: {"moves": COUNT, "h": POSITIVE},
    named.gibbs: {"moves": COUNT},
    named.repaint: {"passes": COUNT, "noises_known": FLAG},
    samplers.choose_sampler: {"name": (), "fields": ("None", "{}")},
}
GOOD: dict[Callable[..., Any], dict[str, Any]] = {
    transitions.OwnReverse: {"reverse": d3pm.p_logits},
    correctors.Corrected: {"corrector": correctors.Gibbs()},
    sampling.Denoiser: {"process": ABSORBING, "network": table.logits_of},
    samplers.choose_sampler: {"name": "maskgit"},
}
OTHER_PARTS = {"another part": sampling.Sampler(), "a class of parts": places.One, "a function": print}
WRONG_FIELDS = constructors.WRONG | OTHER_PARTS
# Another word for a field.
ALIASES = {"choice_temperature": "temperature", "name": "sampler"}


def results_of_fields(wanted: Callable[[str, str], bool] = any_case) -> Iterator[Result]:
    """Spoils every field of every slot, and every argument of the named samplers."""
    for make, fields in FIELDS.items():
        for name, right in fields.items():
            word = rf"\b({name}|{ALIASES.get(name, name)})\b"
            takes_functions = "a class" in right
            for case, value in WRONG_FIELDS.items():
                if not wanted(make.__name__, case):
                    continue
                is_right = case in right or (takes_functions and case in ("a class of parts", "a function"))
                f = functools.partial(make, **GOOD.get(make, {}) | {name: value})
                kind, how = outcome(f, word, lambda result, is_right=is_right: is_right, may_mark=False)
                yield kind, f"{make.__name__}({name}) {case}", how

            def traced(x: Any, make: Any = make, name: str = name) -> Any:
                make(**GOOD.get(make, {}) | {name: x})
                return x

            kind, how = outcome(lambda f=traced: jax.jit(f)(1.0), word, lambda result: False, may_mark=False)
            yield kind, f"{make.__name__}({name}) traced", how


def is_slot(x: Any, module: Any) -> bool:
    return inspect.isclass(x) and issubclass(x, Slot) and x.__module__ == module.__name__


def all_fields() -> dict[str, set[str]]:
    """Returns the fields of every slot, and the arguments of every named sampler, by name."""
    fields = {name: set(inspect.signature(f).parameters) for name, f in named.SAMPLERS.items()}
    for module in (transitions, correctors, places, speculative, shaping, sampler):
        for name, part in vars(module).items():
            if is_slot(part, module) and dataclasses.is_dataclass(part):
                fields[name] = {field.name for field in dataclasses.fields(part)}
    return {name: names for name, names in fields.items() if names}


# ---- What parts of one's own return ----

UNIFORM = table.PROCESSES["uniform"]
KEY = jax.random.key(0)
B, L = S
DRAWN = jnp.zeros((B, L), jnp.int32)
KNOWN = sampling.Known(X, UNIT < 0.5)


def own(base: type, method: str, result: Any, **members: Any) -> Any:
    """Makes a part of a user's own, with a method that returns this."""
    returned = result if method == "moves" else lambda self, *arguments: result
    return type(f"My{base.__name__}", (base,), {**members, method: returned})()


def draw_by_bayes(self: Any, view: Any) -> Taken:
    answer = view.ask(view.x, view.t)
    law = d3pm.p_logits(view.process, answer.logits, view.x, view.t, answer.belief)
    return Taken(inverse_cdf.categorical(law, view.noise(0)), view.memory, view.see(answer))


def law_by_bayes(self: Any, view: Any, answer: Any) -> Any:
    return d3pm.p_logits(view.process, answer.logits, view.x, view.t, answer.belief)


def own_law(method: str, result: Any, **members: Any) -> Any:
    return own(LawStep, method, result, **{"law": law_by_bayes, **members})


class Returns(NamedTuple):
    """Holds a method that a user may write: what it has to return, and what takes one that returns that."""

    name: str
    role: str
    good: Any
    make: Callable[[Any], Any]  # a step of a sampler
    word: str


def methods() -> Iterator[Returns]:
    """Yields every method of a part that a user may write, with what it returns."""
    law = jnp.log(jnp.full((B, L, K), 1 / K))
    ones = jnp.ones(B, jnp.int32)
    unit = jnp.full((B, L), 0.5)
    start = {"n": jnp.zeros(B)}
    none = {"move": lambda self, view, step: view.x}
    every = {"num_rows": lambda self, places: places}
    yield Returns("OwnReverse.reverse", "law", law, lambda x: OwnReverse(lambda *arguments: x), "law")
    yield Returns("LawStep.law", "law", law, lambda x: own_law("law", x), "law")
    yield Returns("LawStep.choose", "draw", DRAWN, lambda x: own_law("choose", x), "draw")
    leap = functools.partial(own_law, "leap", leaps=True)
    yield Returns("LawStep.leap", "law", law, lambda x: Corrected(RateCorrector(), leap(x)), "leap")
    yield Returns("LawStep.remember", "memory", {}, lambda x: own_law("remember", x), "memory")
    yield Returns("LawStep.start", "start", start, lambda x: own_law("start", x), "start")
    yield Returns("Step.draw", "taken", DRAWN, lambda x: own(Step, "draw", x), "draw")
    yield Returns("Taken.x", "draw", DRAWN, lambda x: own(Step, "draw", Taken(x, {})), "draw")
    yield Returns("Taken.memory", "memory", {}, lambda x: own(Step, "draw", Taken(DRAWN, x)), "memory")
    calls = {"count_calls": lambda self, plan: None}
    yield Returns(
        "Taken.calls", "calls", ones, lambda x: own(Step, "draw", Taken(DRAWN, {}, None, x), **calls), "calls"
    )
    yield Returns(
        "Taken.program_calls",
        "calls of a program",
        jnp.asarray(2, jnp.int32),
        lambda x: own(Step, "draw", Taken(DRAWN, {}, None, ones, x), **calls),
        "program_calls",
    )
    yield Returns(
        "Step.count_calls",
        "number",
        3,
        lambda x: own(Step, "count_calls", x, draw=draw_by_bayes),
        "calls|count_calls",
    )
    yield Returns(
        "Step.plan",
        "plan",
        chain.plan_levels(range(T, -1, -1)),
        lambda x: own(Step, "plan", x, draw=draw_by_bayes),
        "plan|row",
    )
    yield Returns("Order.score", "score", unit, lambda x: Reveal(own(places.Order, "score", x)), "score")
    yield Returns(
        "Count.count", "count", ones, lambda x: Reveal(count=own(places.Count, "count", x)), "count"
    )
    count = {"count": lambda self, candidates, score: ones}
    yield Returns(
        "Count.num_rows",
        "number",
        L,
        lambda x: Reveal(count=own(places.Count, "num_rows", x, **count)),
        "num_rows",
    )
    yield Returns(
        "Revealing.choose",
        "chosen",
        unit > 0,
        lambda x: own(places.Revealing, "choose", x, **every),
        "choose",
    )
    choose = {"choose": lambda self, candidates: candidates.masked}
    yield Returns(
        "Revealing.choose_remasked",
        "chosen",
        unit > 1,
        lambda x: own(places.Revealing, "choose_remasked", x, **every, **choose, remasks=True),
        "choose_remasked",
    )
    yield Returns(
        "Revealing.num_rows",
        "number",
        L,
        lambda x: own(places.Revealing, "num_rows", x, **choose),
        "num_rows",
    )
    yield Returns(
        "Sigma.sigma", "sigma", 0.1 * unit, lambda x: Remask(own(transitions.Sigma, "sigma", x)), "sigma"
    )
    sigma = {"sigma": lambda self, view, most: 0 * unit}
    yield Returns(
        "Sigma.start", "start", start, lambda x: Remask(own(transitions.Sigma, "start", x, **sigma)), "start"
    )
    yield Returns(
        "Sigma.remember",
        "memory",
        {},
        lambda x: Remask(own(transitions.Sigma, "remember", x, **sigma)),
        "memory",
    )
    yield Returns(
        "Corrector.move", "draw", DRAWN, lambda x: Corrected(own(Corrector, "move", x, moves=1)), "move"
    )
    yield Returns(
        "Corrector.moves",
        "number",
        1,
        lambda x: Corrected(own(Corrector, "moves", x, **none)),
        "moves",
    )


OF_UNIFORM = ("LawStep.leap", "Taken.x", "OwnReverse.reverse")  # an absorbing process has no such rates
BY_HAND: dict[str, Any] = {
    "None": None,
    "1": 1,
    "2.5": 2.5,
    "-1": -1,
    "'abc'": "abc",
    "()": (),
    "{}": {},
    "a number by name": {"n": 1.5},
    "a text by name": {"n": "abc"},
    "an array by another name": {"other": jnp.zeros(B)},
    "an array of another shape": {"n": jnp.zeros(B + 1)},
    "integers": {"n": jnp.zeros(B, jnp.int32)},
    "object": object(),
    "a class": dict,
    "texts": np.array(["a", "b"]),
    "zeros [2]": np.zeros(2),
    "rows of floats": ((T, T, 1.5),),
    "rows above T": ((1, T + 1, 0),),
    "rows that stop": ((1, T, 1),),
    "2**40": 2**40,
}
RETURNS_RIGHT = {
    "memory": ("{}",),
    # Whatever is remembered is numbers, of any names and shapes.
    "start": tuple(set(BY_HAND) - {"'abc'", "a text by name", "object", "a class", "texts", "2**40"}),
    "number": ("1",),
    "calls of a program": ("None",),  # as many as of the example that has most
}


def wrong_returns(returned: Returns) -> Iterator[tuple[str, Any, str]]:
    """Yields what a method may return by mistake, and the outcome besides an error that is right."""
    for case, value in BY_HAND.items():
        if isinstance(value, dict | tuple) and value and returned.role not in ("memory", "start", "plan"):
            continue
        yield case, value, "legal" if case in RETURNS_RIGHT.get(returned.role, ()) else ""
    good = returned.good
    if not isinstance(good, jax.Array):
        return
    for dtype in ("int32", "float32", "bool", "complex64"):
        if good.dtype != dtype:
            yield f"dtype {dtype}", good.astype(dtype), ""
    yield "a rank more", good[None], ""
    if good.ndim == 0:
        return
    yield "a rank less", good[0], ""
    yield "an example more", jnp.concatenate([good, good[:1]]), ""
    yield "no examples", good[:0], ""
    if returned.role == "law":
        yield "of NaN", good * jnp.nan, "marked"
        yield "of -inf", jnp.full_like(good, -jnp.inf), "marked"
    if returned.role == "sigma":
        for value in (NAN, 1.5, -0.5):
            yield f"of {value}", jnp.full_like(good, value), "marked"
    if returned.role == "score":
        yield "of NaN", good * jnp.nan, "marked"
    if returned.role == "draw":
        for value in (K, -2, 2**31 - 1):
            yield f"of {value}", jnp.full_like(good, value), "marked"
    if returned.role == "count":
        # Fewer than none is none, and then masks are left.
        yield "of -1", jnp.full_like(good, -1), "marked"


def sample_by(step: Callable[[], Any], process: Any, jit: bool, belief: Any = "d3pm", **slots: Any) -> Any:
    """Draws two examples, all masked, by a sampler of a step."""
    denoiser = sampling.Denoiser(process, lambda x, t: table.logits_of(x, t) + t[:, None, None], belief)

    def draw(x: Any) -> sampling.Chain:
        return sampling.run(denoiser, x, lambda row, stream: UNIT, sampling.Sampler(step(), **slots))

    return (jax.jit(draw) if jit else draw)(jnp.full(S, K - 1, jnp.int32))


def results_of_returns(jit: bool, wanted: Callable[[str, str], bool] = any_case) -> Iterator[Result]:
    """Lets every method of a user's part return something else."""
    for returned in methods():
        process = UNIFORM if returned.name in OF_UNIFORM else ABSORBING
        for case, value, right in wrong_returns(returned):
            # A part sees the arrays of a loop in either way, so that what is refused is refused alike.
            if not wanted(returned.name, case) or (jit and not right and case != "None"):
                continue
            make = functools.partial(returned.make, value)
            for slots in ({}, {"passes": 2}):
                is_of_row = returned.name.startswith(("Step", "Taken", "LawStep"))
                if slots and not (is_of_row and (right or case in ("None", "2.5", "a rank less"))):
                    continue
                f = functools.partial(sample_by, make, process, jit, **slots)
                legal = lambda result, right=right: right == "legal"  # noqa: E731
                kind, how = outcome(f, rf"\b({returned.word})\b", legal, may_mark=right == "marked")
                yield kind, f"{returned.name} returns {case} {slots or ''}", how


# ---- What a chain is run with ----


def network(x: Any, t: Any) -> Any:
    return table.logits_of(x, t)


DENOISER = sampling.Denoiser(ABSORBING, network)
NOISE = functools.partial(lambda row, stream: UNIT)
GOOD_OF_SAMPLE = {"key": KEY, "denoiser": DENOISER, "shape": S}
GOOD_OF_RUN = {"denoiser": DENOISER, "x": X, "noise": NOISE}
ANYTHING = constructors.WRONG | {
    "a process": ABSORBING,
    "a network": network,
    "a sampler": sampling.Sampler(),
    "a step": transitions.Bayes(),
    "known places": KNOWN,
    "part of the way": sampling.PartWay(X, 0.5),
    "two keys": jax.random.split(KEY),
    "words of a key": jax.random.key_data(KEY),
    "a name": "ddim",
    "rows": ((1, T, 0),),
}
# What is right for an argument, of all these.
RIGHT = {
    "key": (),
    "denoiser": (),
    "shape": ("words of a key",),  # which are 0
    "sampler": ("a sampler",),
    "first": ("0",),
    "known": ("None", "known places"),
    "start": ("None", "part of the way"),
    "plan": ("None",),
    "record": ("[]", "words of a key"),
    "x": (),
    "noise": (),
    "watch": ("None",),
}


def other_shapes() -> Iterator[tuple[str, Any]]:
    """Yields categories of other shapes and types than those of the chain."""
    yield "another batch", jnp.concatenate([X, X[:1]])
    yield "one example", X[:1]
    yield "no examples", X[:0]
    yield "a rank less", X[0]
    yield "a rank more", X[None]
    yield "another length", X[:, :2]
    yield "floats", UNIT
    yield "booleans", X > 0
    yield "K", X.at[0, 0].set(K)
    yield "-1", X.at[0, 0].set(-1)
    yield "a list", [[0, 1, 2], [2, 1, 0]]
    yield "None", None
    yield "a text", "abc"


def wrong_masks() -> Iterator[tuple[str, Any]]:
    """Yields masks of other shapes and types."""
    for case, x in other_shapes():
        if isinstance(x, jax.Array) and case not in ("booleans", "K", "-1"):
            yield case, x > 0 if case != "floats" else x
    yield "integers", X
    yield "None", None
    yield "True", True
    yield "a text", "abc"


WRONG_PLANS = {
    "a step too long": ((2, T, 1), (1, 1, 0)),
    "above T": ((1, T + 1, 0),),
    "below 0": ((2, T, -1), (1, -1, 0)),
    "not to 0": ((1, T, 1),),
    "not from T": ((1, 1, 0),),
    "a gap": ((2, T, 3), (1, 2, 0)),
    "numbered from 0": tuple((n - 1, n, n - 1) for n in range(T, 0, -1)),
    "of floats": ((1, 5.0, 0),),
    "of NaN": ((1, NAN, 0),),
    "of two entries": ((T, 0),),
    "of five entries": ((1, T, 0, -1, 0),),
    "of 2**40": ((1, 2**40, 0),),
    "of texts": (("1", "5", "0"),),
    "of None": (None,),
    "of another block": ((1, T, 0, 3),),
    "up above T": ((3, T, T + 2), (2, T + 2, T), (1, T, 0)),
    "an array of floats": np.full((1, 3), 5.0),
}
STEPS_OF_PLANS = {
    "Bayes": sampling.Sampler(),
    "Keep": sampling.Sampler(transitions.Keep()),
    "Reveal": sampling.Sampler(Reveal()),
    "blocks": sampling.Sampler(block=1),
    "noised": sampling.Sampler(noises_known=True),
}


def draws() -> Iterator[tuple[str, Callable[..., Any], dict[str, Any], str, bool]]:
    """Yields a call, its arguments, a word of its error, and whether it is right."""
    for f, good, optional in (
        (sampling.sample, GOOD_OF_SAMPLE, ("sampler", "first", "known", "start", "plan", "record")),
        (sampling.run, GOOD_OF_RUN, ("sampler", "known", "plan", "record", "watch")),
    ):
        is_run = f is sampling.run
        for name in (*good, *optional):
            for case, value in ANYTHING.items():
                if not (callable(value) and name in ("noise", "watch")):
                    word = "plan|row" if name == "plan" else name
                    yield f"{f.__name__}({name}) {case}", f, good | {name: value}, word, case in RIGHT[name]
        for case, x in other_shapes():
            known = sampling.Known(x, UNIT < 0.5)
            yield f"{f.__name__}(known.x0) {case}", f, good | {"known": known}, "known", False
        for case, mask in wrong_masks():
            known = sampling.Known(X, mask)
            yield f"{f.__name__}(known.mask) {case}", f, good | {"known": known}, "known", False
        for known, (case, plan), (of_step, slots) in itertools.product(
            (None, KNOWN), WRONG_PLANS.items(), STEPS_OF_PLANS.items()
        ):
            is_long = of_step == "Keep" and case == "a step too long"
            starts_below = is_run and case == "not from T" and of_step in ("Bayes", "Keep", "noised")
            arguments = good | {"known": known, "plan": plan, "sampler": slots}
            which = f"{f.__name__}(plan) {case}, {of_step}{', known' * (known is not None)}"
            yield which, f, arguments, "plan|row|rows|block|blocks", is_long or starts_below
    for case, x in other_shapes():
        start = {"start": sampling.PartWay(x, 0.5)}
        yield f"sample(start.x0) {case}", sampling.sample, GOOD_OF_SAMPLE | start, "start", False
        if case != "None":
            yield f"run(x) {case}", sampling.run, GOOD_OF_RUN | {"x": x}, r"x|noise", False
    for strength in (0, -1, 1.5, NAN, INF, "abc", None, True, np.zeros(2), 1j):
        start = {"start": sampling.PartWay(X, typing.cast(Any, strength))}
        yield f"sample(start.strength) {strength}", sampling.sample, GOOD_OF_SAMPLE | start, "strength", False
    # After the last int32 the numbers go on as those of uint32.
    for first in (-1, 2**31, 2**40, 2.5, NAN, i32(0, 1), "abc", True):
        yield f"sample(first) {first}", sampling.sample, GOOD_OF_SAMPLE | {"first": first}, "first", False
    for shape in ((), (2.5, 3), (-1, 3), (2, -3), (2**40, 3), ("a",), (True, 3), (NAN,), 2, "23", (None,)):
        yield f"sample(shape) {shape}", sampling.sample, GOOD_OF_SAMPLE | {"shape": shape}, "shape", False
    for record in ((T + 1,), (-1,), (2.5,), ("a",), (True,), (2**40,), (None,), 3, "12"):
        yield f"run(record) {record}", sampling.run, GOOD_OF_RUN | {"record": record}, "record", False
    for case, u in {
        "another batch": jnp.concatenate([UNIT, UNIT[:1]]),
        "one example": UNIT[:1],
        "a rank less": UNIT[0],
        "a rank more": UNIT[None],
        "integers": X,
        "None": None,
        "a number": 0.5,
        "a text": "abc",
        "a list": [[0.5] * L] * B,
        "1": UNIT.at[0, 0].set(1.0),
        "NaN": UNIT.at[0, 0].set(NAN),
        "-0.5": UNIT.at[0, 0].set(-0.5),
    }.items():
        noises = GOOD_OF_RUN | {"noise": lambda row, stream, u=u: u}
        yield f"run(noise) returns {case}", sampling.run, noises, "noise", False
    logits = jnp.zeros((B, L, K))
    for case, said in {
        "another batch": jnp.concatenate([logits, logits[:1]]),
        "one example": logits[:1],
        "a rank less": logits[0],
        "K + 1": jnp.zeros((B, L, K + 1)),
        "integers": logits.astype(int),
        "booleans": logits > 0,
        "complex": logits.astype(complex),
        "None": None,
        "a number": 0.5,
        "a text": "abc",
        "two": (logits, logits),
        "NaN": logits * NAN,
    }.items():
        said_by = sampling.Denoiser(ABSORBING, lambda x, t, said=said: said)
        yield (
            f"run(network) returns {case}",
            sampling.run,
            GOOD_OF_RUN | {"denoiser": said_by},
            "network",
            False,
        )
    for case, kept in {
        "a text": "abc",
        "an object": object(),
        "2**40": 2**40,
        "a text by name": {"a": "abc"},
    }.items():
        watches = GOOD_OF_RUN | {"watch": lambda seen, kept=kept: kept}
        yield f"run(watch) returns {case}", sampling.run, watches, "watch", False
    for case, f in {"of one argument": lambda row: UNIT, "of none": lambda: UNIT}.items():
        yield f"run(noise) {case}", sampling.run, GOOD_OF_RUN | {"noise": f}, "noise", False
        one = GOOD_OF_RUN | {"denoiser": sampling.Denoiser(ABSORBING, f)}
        yield f"run(network) {case}", sampling.run, one, "network", False
    for case, f in {"of two arguments": lambda seen, more: seen.x, "of none": lambda: X}.items():
        yield f"run(watch) {case}", sampling.run, GOOD_OF_RUN | {"watch": f}, "watch", False
    for belief in ("d3pm", "leave_one_out"):
        for case, f in {"of two arguments": lambda process, logits: logits, "of none": lambda: X}.items():
            own = sampling.Sampler(OwnReverse(f))
            of_belief = sampling.Denoiser(ABSORBING, network, belief)
            arguments = GOOD_OF_RUN | {"sampler": own, "denoiser": of_belief}
            yield f"run, a reverse {case}, {belief}", sampling.run, arguments, "reverse", False
    for case, schedule in {
        "of NaN": lambda t: continuous.Level(t * NAN, t * NAN),
        "of None": lambda t: None,
        "of another shape": lambda t: continuous.Level(t[:1], t[:1]),
        "of integers": lambda t: continuous.Level(t.astype(int), t.astype(int)),
        "of one array": lambda t: t,
        "above 1": lambda t: continuous.Level(-t, 1 + t),
        "of no argument": lambda: None,
    }.items():
        hitting = sampling.Sampler(places.FirstHitting(schedule))
        sees_time = sampling.Denoiser(ABSORBING, lambda x, t: network(x, t) + t[:, None, None])
        masked = jnp.full(S, K - 1)
        arguments = GOOD_OF_RUN | {"sampler": hitting, "denoiser": sees_time, "x": masked}
        yield f"run, a schedule {case}", sampling.run, arguments, "schedule", False


NOT_TRACED = re.compile(r"(sample|run)\((plan|record|shape|sampler|watch|denoiser)\)")


def results_of_draws(jit: bool, wanted: Callable[[str, Any], bool] = any_case) -> Iterator[Result]:
    """Runs chains with every argument spoilt, the arrays of the call as those of a program under jit."""
    for which, f, arguments, word, is_right in draws():
        # Plans and what else is no array are the same under jit.
        if not wanted(which, arguments) or (jit and NOT_TRACED.match(which)):
            continue
        arrays = {name: x for name, x in arguments.items() if isinstance(x, jax.Array)}
        others = {name: x for name, x in arguments.items() if name not in arrays}
        for name in ("known", "start"):
            value = others.get(name)
            if jit and isinstance(value, tuple) and all(isinstance(x, jax.Array | float) for x in value):
                arrays[name] = others.pop(name)
        call = functools.partial(f, **arguments)
        if jit:
            call = functools.partial(jax.jit(functools.partial(f, **others)), **arrays)
        kind, how = outcome(call, rf"\b({word})\b", lambda result, r=is_right: r, may_mark=True)
        yield kind, which, how


def tables() -> dict[str, Iterator[Result]]:
    """Returns the results of all calls, by their title."""
    return {
        "functions, eager": results_of_functions(jit=False),
        "functions, jit": results_of_functions(jit=True),
        "orders, eager": results_of_orders(jit=False),
        "orders, jit": results_of_orders(jit=True),
        "fields": results_of_fields(),
        "own parts, eager": results_of_returns(jit=False),
        "own parts, jit": results_of_returns(jit=True),
        "draws, eager": results_of_draws(jit=False),
        "draws, jit": results_of_draws(jit=True),
    }


def main(names: list[str]) -> None:
    """Prints each defect and the number of outcomes of each kind."""
    warnings.simplefilter("ignore")
    for title, results in tables().items():
        constructors.report(title, results, names)


if __name__ == "__main__":
    main(sys.argv[1:])
