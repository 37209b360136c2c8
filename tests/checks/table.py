"""Calls every public function with every argument spoilt in turn, and says what came of it.

    python -m tests.checks.table [FUNCTION ...]

A call ends in a clear error (TypeError or ValueError of this library that names the argument), gives a marked
result (NaN, or -1 for a draw), or is legal: `LEGAL` says why. Anything else is a defect: silent, or unclear.
It runs without the checks of types that the tests of this folder have, which users have not either.
"""

import collections
import dataclasses
import inspect
import math
import sys
import traceback
import typing
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import d3pm_jax as d3pm
from d3pm_jax import (
    beliefs,
    blocks,
    compat,
    enumeration,
    flows,
    heads,
    likelihood,
    losses,
    numerics,
    oracles,
    orders,
    posteriors,
    projection,
    sampling,
    schedules,
    timesteps,
)
from d3pm_jax.losses import continuous, gidd
from d3pm_jax.processes import Process

K = 4
T = 5
B = 2
S = (2, 3)
NUMPY = np.random.default_rng(0)
UNIT = jnp.asarray(NUMPY.random(S), jnp.float32)
P = np.array([0.1, 0.2, 0.3, 0.4])
R = np.array([[-1.0, 1, 0, 0], [1, -2, 1, 0], [0, 1, -2, 1], [0, 0, 1, -1]])


def make_processes() -> dict[str, Process]:
    """Makes one of each family, in the float type of JAX at the time."""
    return {
        "uniform": d3pm.uniform(d3pm.reciprocal(T), K),
        "absorbing": d3pm.absorbing(d3pm.reciprocal(T), K, K - 1),
        "marginal": d3pm.marginal(d3pm.reciprocal(T), P),
        "dense": d3pm.dense([*np.tile(np.eye(K) / 2 + P / 2, (T - 1, 1, 1)), np.full((K, K), 1 / K)]),
        "masked": d3pm.masked(d3pm.uniform(d3pm.reciprocal(T), K - 1), d3pm.reciprocal(T)),
    }


PROCESSES = make_processes()


def logits_of(xt: Any, t: Any) -> Any:
    return jnp.zeros((*xt.shape, K))


def i32(*x: Any) -> Any:
    return jnp.asarray(x, jnp.int32)


def params_of_all(v: Any) -> Any:
    return jnp.zeros((*v.shape, 5))


def params_of_others(v: Any) -> Any:
    return jnp.zeros((*v.shape[:-1], K - v.shape[-1], 5))


LOGITS = jnp.zeros((*S, K))
PARAMS = ("floats", jnp.zeros((*S, 5)))
CATEGORIES = ("categories", i32([0, 1, 2], [2, 1, 0]))

CHANGES = {
    "x": ("categories of a whole", i32([0, 1, 2], [2, 1, 0])),
    "time": ("whole numbers from 0", i32(0, 5)),
}

# What arguments of a name are unless `SPECIAL` says otherwise: a role, and a value that is fine.
ROLES: dict[str, tuple[str, Any]] = {
    "x0": ("categories", i32([0, 1, 2], [2, 1, 0])),
    "xt": ("categories", i32([3, 1, 1], [2, 1, 0])),
    "xT": ("categories", i32([0, 1, 1], [2, 1, 0])),
    "k": ("categories", i32([0, 1, 1], [2, 1, 0])),
    "t": ("steps", i32(2, 5)),
    "u": ("noise", UNIT),
    "u_low": ("noise", UNIT),
    "weight": ("weights", UNIT),
    "time": ("time", UNIT[:, 0]),
    "p_t": ("probabilities", UNIT[:, 0]),
    "index": ("indices", i32(0, 1)),
    "key": ("key", jax.random.key(0)),
    "n": ("count", 2),
    "T": ("count", T),
    "K": ("count", K),
    "L": ("count", 3),
    "B": ("count", 3),
    "D": ("count", 3),
    "length": ("count", 6),
    "block": ("count", 3),
    "num_blocks": ("count", 3),
    "steps": ("count", 3),
    "mask_id": ("category", K - 1),
    "belief": ("choice", "leave_one_out"),
    "process": ("process", PROCESSES["uniform"]),
    "inner": ("process", PROCESSES["uniform"]),
    "denoise": ("function", logits_of),
    "log_prob": ("function", lambda one_hots, time: -jnp.sum(one_hots, axis=(1, 2))),
    "fill_in": ("function", lambda xt: logits_of(xt, None)),
    "order": ("noise", UNIT),
    "given": ("booleans", UNIT < 0.5),
    "log_law": ("log probabilities", jnp.full(K ** UNIT[0].size, -math.log(K) * UNIT[0].size)),
    "known": ("history", sampling.Known(i32([0, 1, 2], [2, 1, 0]), UNIT < 0.5)),
    "mask": ("booleans", UNIT < 0.5),
    "noise": ("function", lambda t, stream=0: UNIT),
    "term": ("function", losses.posterior_kl),
    "reverse": ("function", posteriors.p_logits),
    "schedule": ("function", schedules.continuous.linear),
    "step": ("function", lambda x, t: x),
    "score": ("function", lambda x: jnp.zeros(len(x))),
    "particles": ("count", 2),
    "sampler": ("history", sampling.Sampler()),
    "plan": ("plan", tuple(sampling.Row(n, n, n - 1) for n in range(T, 0, -1))),
    "shape": ("counts", S),
    "record": ("indices of steps", (0, 2)),
    "grid": ("indices of steps", (2, 5)),
    "first": ("indices", i32(3)[0]),
    "start": ("history", sampling.PartWay(i32([0, 1, 2], [2, 1, 0]), 0.5)),
    "watch": ("skip", None),
    "history": ("history", timesteps.empty_history(T)),
    "beta": ("host", np.full(T, 0.5)),
    "gamma": ("host", np.full(T, 0.5)),
    "alpha_bar": ("host", np.linspace(1, 0, T + 1)),
    "pi": ("host", P),
    "p0": ("host", P),
    "prior": ("host", P),
    "weights": ("function", d3pm.processes.rank_weights),
    "distances": ("host", np.sort(NUMPY.random((K, 2)))),
    "level_rates": ("host", np.array([0.5, 2.0])),
    "W": ("host", np.full((K, K), 1 / K)),
    "R": ("host", R),
    "rate": ("host", R),
    "left": ("host", np.linspace(1, 0, T + 1) ** 2),
    "s": ("host", np.array([0.5, 2.0])),
    "durations": ("host", np.full(T, 3.0)),
    "embeddings": ("host floats", NUMPY.random((K, 2))),
    "costs": ("host", NUMPY.random((T + 1, T + 1))),
    "Q": ("host", np.full((T, K, K), 1 / K)),
    "p": ("host", jnp.full(T, 1 / T)),
    "least_count": ("count from 0", 3),
    "bands": ("count", 2),
    "p_uniform": ("number", 0.2),
    "name": ("skip", "beta"),
    "num_codes": ("count", 9),
    "base": ("count", 3),
    "bits": ("bits", i32([0, 1, 1], [1, 1, 0])),
    "num_fixed": ("count", 1),
    "transform": ("function", flows.mixture_affine),
    "inverse": ("function", flows.invert_mixture_affine),
}
SPECIAL: dict[str, dict[str, tuple[str, Any]]] = {
    "numerics.log_prob": {"logits": ("floats", jnp.zeros((*S, K)))},
    "processes.knn_graph": {"k": ("count", 2)},
    "processes.knn_rate": {"k": ("count", 2)},
    "processes.by_place": {
        "processes": ("processes", [PROCESSES["uniform"], PROCESSES["marginal"]]),
        "places": ("counts", (2,)),
    },
    "processes.random_walk": {"beta": ("host", np.full(T, 0.9))},
    "timesteps.uniform": {"u": ("noise", UNIT[:, 0])},
    "timesteps.low_discrepancy": {"u": ("noise", UNIT[0, 0])},
    "timesteps.antithetic": {"u": ("noise", UNIT[0, 0])},
    "timesteps.importance": {"u": ("noise", UNIT[:, 0]), "p": ("probabilities or 0", jnp.full(T, 1 / T))},
    "timesteps.update": {"kl": ("floats", UNIT[:, 0])},
    "likelihood.strata_bound": {"u": ("noise", UNIT.T)},
    "orders.mixture": {"nats": ("floats", UNIT)},
    "orders.given_first": {"order": ("noise of a whole", UNIT)},
    "orders.by_block": {
        "block_order": ("noise of a whole", UNIT),
        "inner_order": ("noise of a whole", NUMPY.random((*S, 2), np.float32)),
    },
    "enumeration.fill_in_law": {"shape": ("counts", S[1:])},
    "enumeration.chain_law": {"shape": ("counts", S[1:])},
    "oracles.markov_chain": {"start": ("host", P), "step": ("host", np.full((K, K), 1 / K))},
    "oracles.tree": {
        "parents": ("host", np.array([0, 0])),
        "root": ("host", P),
        "steps": ("host", np.full((2, K, K), 1 / K)),
    },
    "oracles.product_mixture": {"weights": ("host", P), "p": ("host", np.full((K, 3, K), 1 / K))},
    "oracles.table": {"p": ("host", np.full((K, K), 1 / K**2))},
    "timesteps.probabilities": {"inner": ("number", 0.1)},
    "schedules.linear": {"start": ("number", 0.5)},
    "likelihood.mean_and_se": {"x": ("floats", UNIT[0])},
    "likelihood.bits_per_dim": {"nats": ("floats", UNIT[0])},
    "numerics.log_matmul": {
        "log_p": ("floats", jnp.zeros((2, K))),
        "table": ("floats", jnp.full((K, 5), 0.5)),
    },
    "numerics.log_add": {"a": ("floats", UNIT), "b": ("floats", UNIT)},
    "losses.mean_over_steps": {"x": ("floats", UNIT)},
    "heads.residual_logistic": {"output": ("floats", jnp.zeros((*S, 2)))},
    "heads.bounded_logistic": {"output": ("floats", jnp.zeros((*S, 2)))},
    "sampling.chain.run_chain": {"xT": ("whole numbers", i32([0, 1], [1, 2]))},
    "sampling.run": {"x": CATEGORIES},
    "sampling.run, known": {"x": CATEGORIES},
    "sampling.steering.resample": {"log_weights": ("floats", jnp.zeros((3, 4))), "u": ("noise", UNIT[0])},
    "sampling.steering.effective_size": {"log_weights": ("floats", jnp.zeros((3, 4)))},
    "sampling.steering.choose_best": {"candidates": ("whole numbers", i32([[0], [1]], [[2], [0]]))},
    "sampling.guidance.combine_logits": {"gamma": ("number", 2.0)},
    "sampling.guidance.tilt_logits": {"gamma": ("number", 2.0)},
    "sampling.guidance.first_order_changes": CHANGES,
    "sampling.guidance.all_changes": CHANGES,
    "flows.softplus_threshold": {"x": CATEGORIES, "u": ("floats", LOGITS)},
    "flows.gumbel": {"x": CATEGORIES},
    "flows.log_gumbel_posterior": {"x": CATEGORIES},
    "flows.gumbel_threshold": {"x": CATEGORIES, "u": ("floats", LOGITS)},
    "flows.signed_softplus": {"u": ("floats", UNIT)},
    "flows.draw_code": {"x": CATEGORIES},
    "flows.from_code": {"code": ("whole numbers from 0", i32([0, 1, 8], [2, 5, 3]))},
    "flows.to_digits": {"code": ("codes", i32([0, 1, 8], [2, 5, 3])), "digits": ("count", 2)},
    "flows.from_digits": {"digits": ("digits", i32([0, 1, 2], [2, 0, 1]))},
    "flows.affine": {"v": ("floats", UNIT), "shift": ("floats", UNIT)},
    "flows.invert_affine": {"z": ("floats", UNIT), "shift": ("floats", UNIT)},
    "flows.mixture_logit": {"v": ("floats", UNIT)},
    "flows.invert_mixture_logit": {"z": ("floats", UNIT)},
    "flows.mixture_affine": {"v": ("floats", UNIT), "params": PARAMS},
    "flows.invert_mixture_affine": {"z": ("floats", UNIT), "params": PARAMS},
    "flows.coupling": {"conditioner": ("function", params_of_others)},
    "flows.invert_coupling": {"conditioner": ("function", params_of_others)},
    "flows.autoregressive": {"conditioner": ("function", params_of_all)},
    "flows.invert_autoregressive": {"conditioner": ("function", params_of_all)},
    "flows.linear": {"matrix": ("matrix", jnp.eye(K))},
    "flows.invert_linear": {"matrix": ("matrix", jnp.eye(K))},
    "flows.importance_bound": {"log_weights": ("floats", UNIT)},
    "Process.draw_step": {"x": CATEGORIES},
    "losses.projected": {"weight": ("weights of a whole", UNIT)},
    "losses.any_order.any_order_draw": {
        "x0": ("whole numbers of a whole", i32([0, 1, 2], [2, 1, 0])),
        "n": ("indices", i32(1, 2)),
        "u": ("noise of a whole", UNIT),
        "weight": ("weights of a whole", UNIT),
    },
    "losses.any_order.any_order_nelbo": {"logits_x0": ("floats", heads.forbid(LOGITS, K - 1))},
    "losses.continuous.absorbing_nelbo": {"logits_x0": ("floats", heads.forbid(LOGITS, K - 1))},
    "losses.gidd.gidd_nelbo": {
        "logits_x0": ("floats", heads.forbid(LOGITS, K - 1)),
        "gamma": ("number", 1.0),
    },
    "losses.gidd.gidd_draw": {
        "x0": ("whole numbers from 0", i32([0, 1, 2], [2, 1, 0])),
        "gamma": ("number", 1.0),
    },
    "processes.interpolating": {"gamma": ("number", 1.0)},
    "heads.forbid_beyond": {"sizes": ("host", np.full(S, K))},
    "losses.continuous.absorbing_draw": {"x0": ("whole numbers from 0", i32([0, 1, 2], [2, 1, 0]))},
}
PER_ELEMENT = ("kl", "loc", "log_scale", "log_x")  # floats [*S]; every other array of floats is [*S, K]

FOREIGN = {"None": None, "dict": {"a": 1}}
NOT_ARRAYS = {"list": [[0, 1, 2], [2, 1, 0]], "str": "abc", "bool": True}
NOT_NUMBERS = {"str": "abc", "list": [1], "bool": True, "complex": 1j, "array": np.zeros(2)}


class Bad(NamedTuple):
    """Holds a spoilt argument."""

    case: str
    value: Any
    element: tuple[int, ...] | None = (
        None  # which element of x it spoils, if not all: others stay as they are
    )


def spoilt(role: str, good: Any) -> Iterator[Bad]:
    """Yields what to pass in the place of a good value."""
    for case, value in FOREIGN.items() if role != "skip" else ():
        yield Bad(case, value)
    if role in ARRAYS:
        yield from spoilt_array(role, good)
    elif role in ("count", "count from 0", "category"):
        yield from (Bad(case, x) for case, x in NOT_NUMBERS.items())
        yield from (Bad(f"{x}", x) for x in (1.5, float("nan"), float("inf"), -1, 2**40))
        if role != "count from 0" and role != "category":
            yield Bad("0", 0)
        if role == "category":
            yield Bad("K", K)
    elif role == "number":
        yield from (Bad(case, x) for case, x in NOT_NUMBERS.items())
        yield from (Bad(f"{x}", x) for x in (float("nan"), float("inf"), -1.0))
    elif role == "choice":
        yield from (Bad(f"{x!r}", x) for x in ("Bayes", 1, True, 0.5, ["bayes"]))
    elif role in ("function", "process", "denoiser", "history", "key"):
        yield from (Bad(f"{x!r}", x) for x in (1, "abc", True, 1.5, np.zeros(2)))
    elif role == "plan":
        yield from (Bad(f"{x!r}", x) for x in (1.5, "ab", True, (1.5,), ((T, T, 1.5),), ((1, T, T - 1),), ()))
    elif role in ("counts", "indices of steps"):
        yield from (Bad(f"{x!r}", x) for x in (1.5, "ab", True, (1.5,), ("a",), (True,), (-1, 2), (2**40,)))
    elif role.startswith("host"):
        yield from spoilt_on_host(role, good)


ARRAYS = {
    "categories": "integer",
    "categories of a whole": "integer",  # where each element has a part in what is said of the others
    "steps": "integer",
    "indices": "integer",
    "whole numbers": "integer",
    "whole numbers from 0": "integer",
    "whole numbers of a whole": "integer",
    "noise": "float",
    "noise of a whole": "float",
    "time": "float",
    "probabilities": "float",
    "probabilities or 0": "float",
    "log probabilities": "float",
    "weights": "float",
    "weights of a whole": "float",
    "floats": "float",
    "booleans": "bool",
    "bits": "integer",
    "codes": "integer",
    "digits": "integer",
    "matrix": "float",
}
OUT_OF_RANGE = {
    "categories": (-1, K, 2**31 - 1, -(2**31)),
    "categories of a whole": (-1, K, 2**31 - 1, -(2**31)),
    "steps": (-1, T + 1, 2**31 - 1),
    "indices": (-1,),
    "whole numbers": (),
    "whole numbers from 0": (-1,),
    "whole numbers of a whole": (-1,),
    "noise": (-0.5, 1.0, np.nan, np.inf, -np.inf),
    "noise of a whole": (-0.5, 1.0, np.nan, np.inf, -np.inf),
    "time": (-0.5, 1.5, np.nan, np.inf),
    "probabilities": (-0.5, 0.0, 1.5, np.nan, np.inf),
    "probabilities or 0": (-0.5, 1.5, np.nan),
    "log probabilities": (0.5, np.nan, np.inf),
    "weights": (-0.5, np.nan, np.inf),
    "weights of a whole": (-0.5, np.nan, np.inf),
    "floats": (np.nan, np.inf, -np.inf),
    "booleans": (),
    "bits": (-1, 2),
    "codes": (-1, 9),
    "digits": (-1, 3),
    "matrix": (np.nan,),
}


def spoilt_array(role: str, good: Any) -> Iterator[Bad]:
    yield from (Bad(case, x) for case, x in NOT_ARRAYS.items())
    right = {"integer": "int32", "float": "float32", "bool": "bool_"}[ARRAYS[role]]
    others = [d for d in ("bool_", "complex64", "float32", "int32") if d != right]
    x = np.asarray(good)  # of which JAX would compile each change
    with np.errstate(invalid="ignore"):  # -inf as an integer
        of_types = {d: x.astype(getattr(np, d)) for d in others}
    yield from (Bad(f"dtype {d}", jnp.asarray(changed)) for d, changed in of_types.items())
    yield Bad("object array", np.array([None, 1], object))
    yield Bad("a rank more", jnp.asarray(x[None]))
    if x.ndim:
        yield Bad("a rank less", jnp.asarray(x[0]))
        for axis in range(x.ndim):
            for size in (1, 0):
                part = jnp.asarray(x.take(range(size), axis))
                yield Bad(f"axis {axis} of size {size}", part)
    for value in OUT_OF_RANGE[role]:
        where = (0,) * x.ndim
        changed = x.copy()
        changed[where] = value
        yield Bad(f"value {value:g}", jnp.asarray(changed), where)


def spoilt_on_host(role: str, good: Any) -> Iterator[Bad]:
    yield from (
        Bad(case, x) for case, x in {"str": "abc", "number": 0.5, "ragged": [[1.0], [1.0, 2.0]]}.items()
    )
    yield from (Bad(f"dtype {d}", np.asarray(good).astype(d)) for d in (bool, complex, object, str))
    yield Bad("a rank more", good[None])
    yield Bad("a rank less", good[0])
    yield Bad("empty", good[:0])
    yield Bad("of size 1", good[:1])
    for value in (np.nan, np.inf) if role == "host floats" else (np.nan, np.inf, -1.0, 7.0):
        bad = np.array(good, np.float64)
        changes = bad[(0,) * bad.ndim] != value
        bad[(0,) * bad.ndim] = value
        if changes:
            yield Bad(f"value {value:g}", bad)


@dataclasses.dataclass
class Call:
    """Holds a function and arguments that it takes."""

    name: str
    f: Callable
    roles: dict[str, str]
    good: dict[str, Any]
    programs: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def traced(self) -> list[str]:
        """Names the arguments that are arrays of JAX."""
        return [name for name, role in self.roles.items() if role in ARRAYS]

    @property
    def of_process(self) -> bool:
        """Tells whether the function knows the family of a process: it takes one, or is its method."""
        return self.name.startswith("Process.") or bool({"process", "denoiser"} & set(self.roles.values()))

    def optional(self, name: str) -> bool:
        return inspect.signature(self.f).parameters[name].default is None

    def program(self, changed: str | None, value: Any) -> Callable:
        """Returns the function of its arrays under jit, with one of its other arguments changed."""
        static = {n: x for n, x in self.good.items() if n not in self.traced}
        if changed is not None:
            return jax.jit(lambda arrays: self.f(**arrays, **{**static, changed: value}))
        return self.programs.setdefault("good", jax.jit(lambda arrays: self.f(**arrays, **static)))

    def result(self, jit: bool) -> Any:
        if "result" not in self.programs:
            if jit:
                result = self.program(None, None)({name: self.good[name] for name in self.traced})
            else:
                result = self.f(**self.good)
            self.programs["result"] = result
        return self.programs["result"]


def modules() -> dict[str, Any]:
    names = {
        "beliefs": beliefs,
        "posteriors": posteriors,
        "heads": heads,
        "blocks": blocks,
        "timesteps": timesteps,
        "likelihood": likelihood,
        "orders": orders,
        "enumeration": enumeration,
        "oracles": oracles,
    }
    public_names = {name: (m, functions_of_module(m)) for name, m in names.items()}
    listed = {"numerics": numerics, "losses": losses, "processes": d3pm.processes, "schedules": schedules}
    listed |= {"sampling": sampling, "compat": compat, "flows": flows}
    public_names |= {name: (m, m.__all__) for name, m in listed.items()}
    more = {"losses.any_order": losses.any_order, "losses.continuous": continuous}
    more |= {"schedules.continuous": schedules.continuous}
    more |= {"losses.score_entropy": losses.score_entropy}
    more |= {"losses.gidd": gidd}
    more |= {"sampling.chain": sampling.chain, "losses.variational": losses.variational}
    more |= {"sampling.guidance": sampling.guidance, "sampling.steering": sampling.steering}
    return public_names | {name: (m, functions_of_module(m)) for name, m in more.items()}


def functions_of_module(module: Any) -> list[str]:
    return [name for name, f in vars(module).items() if is_public_function(f, module)]


def is_public_function(f: Any, module: Any) -> bool:
    public = inspect.isfunction(f) and not f.__name__.startswith(("_", "dispatch"))
    return public and f.__module__ == module.__name__


NOT_CALLED = {"numerics.band_width", "numerics.smallest_entry"}  # of a dtype, for tables
NOT_CALLED |= {"beliefs.with_belief"}  # of a function
NOT_CALLED |= {"blocks.fill_blocks", "oracles.network"}  # return functions
NOT_CALLED |= {"losses.projected"}  # of a projection, as `sum_projected`
NOT_CALLED |= {"losses.any_order.count_masks", "losses.any_order.weigh_masks"}  # of an objective
NOT_CALLED |= {"sampling.guidance.classifier_free", "sampling.guidance.by_classifier"}  # return functions
NOT_CALLED |= {
    "sampling.chain.run_plan",
    "sampling.chain.plan_levels",
    "sampling.chain.with_calls",
}  # the loop


def public(process: Process) -> Iterator[Call]:
    """Yields every public function of arrays and numbers once, and the methods of a process."""
    seen = set()
    for module, (m, names) in modules().items():
        for name in names:
            f = getattr(m, name)
            if inspect.isfunction(f) and f"{module}.{name}" not in NOT_CALLED and f not in seen:
                seen.add(f)
                yield call(f"{module}.{name}", f, process)
    yield call("losses.projected", sum_projected, process)
    yield call("sampling.run, known", run_with_known, process)
    yield call("sampling.sample, start", sample_part_way, process)
    for name in (
        "Q",
        "Qbar",
        "log_q_probs",
        "log_q_back",
        "log_push",
        "log_q_x0",
        "draw_q",
        "draw_step",
        "draw_prior",
        "respaced",
    ):
        yield call(f"Process.{name}", getattr(process, name), process)


def sum_projected(process: Process, weight: Any) -> losses.Projected:
    """Sums a loss of logits that are made of hidden states and a kernel."""
    x0 = ROLES["x0"][1]
    logits = projection.Projection(jnp.ones((*S, 2)), jnp.ones((2, K)), None, x0, lambda output, xt: output)
    return losses.projected(process, losses.cross_entropy, logits, (x0,), weight)


def run_with_known(denoiser: sampling.Denoiser, x: Any, noise: Any, x0: Any, mask: Any) -> sampling.Chain:
    """Runs a chain with known places, whose arrays are spoilt one by one."""
    return sampling.run(denoiser, x, noise, known=sampling.Known(x0, mask))


def sample_part_way(key: Any, denoiser: sampling.Denoiser, x0: Any) -> sampling.Chain:
    """Edits examples, which are spoilt."""
    return sampling.sample(key, denoiser, S, start=sampling.PartWay(x0, 0.5))


def call(name: str, f: Callable, process: Process) -> Call:
    roles = {}
    good = {}
    for parameter in inspect.signature(f).parameters.values():
        role, value = argument(name, parameter, process)
        roles[parameter.name] = role
        good[parameter.name] = value
    return Call(name, f, roles, good)


def argument(function: str, parameter: inspect.Parameter, process: Process) -> tuple[str, Any]:
    name = parameter.name
    if name in SPECIAL.get(function, {}):
        return SPECIAL[function][name]
    if name == "process":
        return "process", process
    if name == "denoiser":
        return "denoiser", sampling.Denoiser(process, logits_of, "leave_one_out")
    if name in ROLES:
        return ROLES[name]
    if float in (parameter.annotation, *typing.get_args(parameter.annotation)):
        return "number", 0.5 if parameter.default is parameter.empty else parameter.default
    return "floats", UNIT if name in PER_ELEMENT else jnp.zeros((*S, K))


def outcome(call: Call, name: str, bad: Bad, jit: bool) -> tuple[str, str]:
    """Says what came of a call with one argument spoilt, and how: see `OUTCOMES`."""
    arguments = {**call.good, name: bad.value}
    try:
        if jit:
            static_name = name if name not in call.traced else None
            program = call.program(static_name, bad.value)
            result = program({n: arguments[n] for n in call.traced})
        else:
            result = call.f(**arguments)
        jax.block_until_ready(result)
    except (TypeError, ValueError) as error:
        said = str(error)
        clear = name in said and "\n" not in said and raised_here(error)
        return ("clear" if clear else "unclear"), f"{type(error).__name__}: {said.splitlines()[0][:150]}"
    except Exception as error:
        return "unclear", f"{type(error).__name__}: {str(error)[:150]}"
    if legal(call, name, bad, result):
        return "legal", ""
    if not any(np.isnan(x).any() or (x == -1).any() for x in numbers(result)):
        return "silent", ""
    return ("marked" if elsewhere_as_before(call, call.roles[name], bad, result, jit) else "spread"), ""


DEFECTS = ("unclear", "silent", "spread")
OUTCOMES = ("clear", "marked", "legal", *DEFECTS)


def numbers(result: Any) -> list[np.ndarray]:
    return [np.asarray(x, np.float64) for x in jax.tree.leaves(result) if isinstance(x, jax.Array)]


OF_ALL_ELEMENTS = ("probabilities or 0", "log probabilities", "matrix")
OF_ALL_ELEMENTS += ("categories of a whole", "noise of a whole", "whole numbers of a whole")
OF_ALL_ELEMENTS += ("weights of a whole",)


def elsewhere_as_before(call: Call, role: str, bad: Bad, result: Any, jit: bool) -> bool:
    """Tells whether only what belongs to the spoilt element is marked, in arrays that have one for each."""
    if not bad.element or role in OF_ALL_ELEMENTS:
        return True
    element = bad.element[: len(S)]
    for actual, expected in zip(numbers(result), numbers(call.result(jit)), strict=True):
        if actual.shape[: len(element)] == S[: len(element)]:
            same = np.isclose(actual, expected, equal_nan=True) | np.isnan(actual) & np.isnan(expected)
            same[element] = True
            if not same.all():
                return False
    return True


def raised_here(error: BaseException) -> bool:
    """Tells whether the library itself raised it."""
    last = traceback.extract_tb(error.__traceback__)[-1].filename.replace("\\", "/")
    return "/d3pm_jax/" in last and "/site-packages/jax" not in last


# Arguments whose shape no other argument says.
FREE = {
    "posteriors.log_p_x0(logits_x0)",
    "heads.forbid(logits)",
    "heads.forbid_beyond(logits)",  # axes in front of the places are a batch's
    "heads.forbid_beyond(sizes)",
    "heads.bounded_logistic(output)",
    "blocks.block_times(time)",
    "timesteps.uniform(u)",
    "timesteps.stratified(u)",
    "timesteps.importance(u)",
    "timesteps.importance(p)",
    "likelihood.estimate_bound(x0)",
    "likelihood.stratified_bound(x0)",
    "likelihood.bits_per_dim(nats)",
    "orders.mixture(nats)",
    "orders.all_orders(x0)",
    "orders.by_block(inner_order)",
    "numerics.categorical(log_p)",
    "numerics.log1mexp(log_x)",
    "numerics.log_matmul(log_p)",
    "numerics.log_matmul(table)",
    "numerics.log_normalize(logits)",
    "numerics.log_sum(x)",
    "losses.mean_over_steps(x)",
    "losses.prior_kl(x0)",
    "losses.variational.per_step(x)",
    "sampling.per_example(index)",
    "sampling.steering.resample(log_weights)",
    "sampling.steering.effective_size(log_weights)",
    "sampling.steering.choose_best(candidates)",
    "compat.prior_bits(x0)",
    "schedules.continuous.linear(time)",
    "schedules.continuous.cosine(time)",
    "schedules.continuous.polynomial(time)",
    "sampling.chain.run_chain(xT)",
    "Process.Q(t)",
    "Process.Qbar(t)",
    "Process.log_q_probs(x0)",
    "Process.log_q_back(xt)",
    "Process.log_push(log_p)",
    "Process.log_q_x0(xt)",
    "Process.draw_prior(u)",
    "sampling.guidance.first_order_changes(x)",
    "sampling.guidance.all_changes(x)",
    "likelihood.strata_bound(u)",
    "numerics.log_add(a)",
    "flows.from_code(code)",
    "flows.to_digits(code)",
    "flows.from_digits(digits)",
    "flows.importance_bound(log_weights)",
    "flows.coupling(v)",
    "flows.invert_coupling(z)",
    "flows.autoregressive(v)",
    "flows.invert_autoregressive(z)",
    "flows.linear(v)",
    "flows.invert_linear(z)",
}
# Of shapes that are all the same to a function, those that are called under jit alone, where a shape is one
# program and not one for each operation. Without jit an axis of size 0 and a rank less are left.
WITH_JIT = ("axis 0 of size 1", "axis 1 of size 0", "axis 1 of size 1", "a rank more")
# Where one row is enough.
ONE_ROW = {
    "processes.unit_rows(embeddings)",
    "processes.rank_weights(distances)",
    "processes.gaussian_weights(distances)",
}
# Functions with a mask that know no K, or where the mask may be category K.
KNOWS_NO_K = {
    "losses.any_order.any_order_draw(mask_id)",
    "losses.continuous.absorbing_draw(mask_id)",
    "losses.gidd.gidd_draw(mask_id)",
    "likelihood.chain_rule(mask_id)",
    "orders.all_orders(mask_id)",
    "enumeration.fill_in_law(mask_id)",
}
# Where an infinite number gives a finite one: in the limit, or because it is passed over.
FINITE_LIMIT = (
    "heads.", "compat.logistic", "numerics.log1mexp", "timesteps.update", "numerics.log_prob",
    "compat.p_logits", "orders.mixture",
)  # fmt: skip


def legal(call: Call, name: str, bad: Bad, result: Any) -> bool:
    """Tells whether what came of a spoilt argument is what the documentation says."""
    which = f"{call.name}({name})"
    case = bad.case
    role = call.roles[name]
    infinite = any(np.isinf(x).any() for x in numbers(result))
    return (
        (case == "None" and call.optional(name))
        or (case == "a rank less" and role in ("steps", "time"))  # one for all
        or (("axis" in case or "rank" in case) and which in FREE)
        or (case == "value -inf" and role == "floats")  # probability 0
        or (case == "value inf" and role == "floats" and (infinite or call.name.startswith(FINITE_LIMIT)))
        or (case == "value nan" and which == "timesteps.update(kl)")  # passed over
        or (case == "of size 1" and role == "host" and name in ("beta", "Q", "durations", "level_rates"))
        or (case == "of size 1" and which in ONE_ROW)
        or (name == "s" and case in ("a rank more", "a rank less", "of size 1", "empty", "number", "value 7"))
        or (case == "value inf" and which == "schedules.information_left(s)")  # the end of a chain
        or (case == "value 7" and name in ("durations", "level_rates"))
        or (
            name == "gamma" and case in ("-1.0", "array") and role == "number"
        )  # of each example, of any sign
        or (case == "dtype int32" and which == "likelihood.bits_per_dim(nats)")
        or (case in ("value inf", "value -1", "value 7") and name == "costs")
        or (case == f"{2**40}" and name == "D")
        or (case == "K" and which in KNOWS_NO_K)
    )


SPOILT: dict[tuple[str, int], tuple[Any, list[Bad]]] = {}


def spoilt_once(role: str, good: Any) -> list[Bad]:
    """Returns what `spoilt` yields, made once for all functions that share a value."""
    key = role, id(good)
    if key not in SPOILT:
        SPOILT[key] = good, list(spoilt(role, good))  # while the value is held, its id is of no other
    return SPOILT[key][1]


Wanted = Callable[[str, str, Bad], bool]  # of the name of a function, a role and a spoilt value


def calls(process: Process, jit: bool, wanted: Wanted) -> Iterator[tuple[str, str, str]]:
    """Makes the calls with one argument spoilt that are wanted, by function, role and value.

    Yields:
        What came of it, which call it was, and how it ended.
    """
    for call in public(process):
        # Functions without arrays see the same numbers under jit, and `per_example` returns a function.
        goes_under_jit = bool(call.traced) and call.name != "sampling.per_example"
        if jit and not goes_under_jit:
            continue
        for name, role in call.roles.items():
            for bad in spoilt_once(role, call.good[name]):
                if jit and name in call.traced and not isinstance(bad.value, jax.Array):
                    continue  # never reaches the function
                left_to_jit = bad.case in WITH_JIT and f"{call.name}({name})" in FREE
                if left_to_jit and goes_under_jit and not jit:
                    continue
                if wanted(call.name, role, bad):
                    kind, how = outcome(call, name, bad, jit)
                    yield kind, f"{call.name}({name}) {bad.case}", how


def main() -> None:
    """Prints each defect and the number of outcomes of each kind, here and in `constructors`."""
    names = sys.argv[1:]
    warnings.simplefilter("ignore")
    for mode, jit in (("eager", False), ("jit", True)):
        counts = collections.Counter()
        for kind, what, how in calls(
            PROCESSES["uniform"], jit, lambda name, role, bad: not names or name in names
        ):
            counts[kind] += 1
            if kind in DEFECTS:
                print(f"{kind:8} {what} {how}")
        print(f"{mode}:", ", ".join(f"{counts[kind]} {kind}" for kind in OUTCOMES))
    if not names:
        from tests.checks import constructors  # which imports this file

        constructors.main([])


if __name__ == "__main__":
    main()
