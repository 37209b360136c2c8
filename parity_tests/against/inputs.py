"""What a user's functions are called with: K, T, batch and shape all different, x_t possible given x_0."""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from inspect import signature
from itertools import product
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import torch_ref
from parity_tests import run
from parity_tests.against.loading import takes
from parity_tests.against.signatures import ANY, CONSTRUCTORS, PROCESSES, Ours
from parity_tests.cases import INF, Case, K, T, uniforms
from parity_tests.families import CONSTRUCTED, FAMILIES, USUAL, Build, Family, build, random
from parity_tests.frameworks import Arguments, Function, precision, to_torch
from parity_tests.pairs import PAIRS

B, S = 2 * T, (2, 3)  # every t twice
KINDS = ("", "confident", "forbidden")  # logits; some of the last are -inf
CONFIDENT = {"float64": 100.0, "float32": 10.0}  # their size, whose probabilities the type can hold
OPTIONS = {  # the default first
    "belief": ("d3pm", "official", "leave_one_out", "denoiser"),
    "mask_id": (None, K - 1),
}


@dataclasses.dataclass(frozen=True)
class Given(torch_ref.Process):
    """The dense matrices of `torch_ref`, and what else a program may have been written for."""

    name: str = ""
    beta: Tensor | None = None  # [T]


class Call(NamedTuple):
    """One call of a user's function, and the pair and the case that have its result."""

    process: str
    input: str
    pair: str
    case: Case
    theirs: Callable[[Arguments], Tensor]  # from the arguments of the twin


def calls(ours: Ours, f: Function, dtype: str) -> Iterator[Call]:
    """Every call of a function in one float type."""
    if ours.name in CONSTRUCTORS:
        yield from _constructed(ours, f, dtype)
        return
    default = {k: OPTIONS[k][0] for k in ours.optional if k in OPTIONS}
    others = [{k: x} for k in default if k in signature(f).parameters for x in OPTIONS[k][1:]]
    for process, case in _cases(ours, f, dtype):
        for option in ({}, *(() if case.name else others)):
            told = ", ".join([*filter(None, [case.name]), *(f"{k} = {x}" for k, x in option.items())])
            args = {k: run.rounded(x, dtype) for k, x in (case.args | default | option).items()}
            shown = "any" if ours.name in ANY else process
            yield Call(shown, told, ours.pair, case._replace(args=args), _called(ours, f, process))


def _cases(ours: Ours, f: Function, dtype: str) -> Iterator[tuple[str, Case]]:
    """(process, arguments)."""
    if "process" not in ours.required:
        given = PAIRS[ours.pair].cases(dtype) if dtype in PAIRS[ours.pair].dtypes else ()
        yield from (("", case) for case in given if all(takes(f, name) for name in case.args))
        return
    kinds = KINDS if {"logits_x0", "logits_prev"} & {*ours.required} else ("",)
    for process, kind in product(PROCESSES if ours.name not in ANY else ("absorbing_extra",), kinds):
        values = situation(process, kind, dtype)
        yield process, Case(f"{kind} logits" if kind else "", {k: values[k] for k in ours.required})


def situation(process: str, kind: str, dtype: str) -> dict[str, Any]:
    """The arguments of all kernels, for t = 1..T. Every process is its matrices: JAX compiles one program."""
    family = Family(f"{process}, matrices", K, T)
    shape, extra = (B, *S), process in ("absorbing_extra", "masked")
    x0, t = random(40).integers(0, K - extra, shape), np.tile(np.arange(1, T + 1), 2)
    size = CONFIDENT[dtype] if kind == "confident" else 3.0
    logits = size * random(41).normal(size=(*shape, K))
    with precision("float64"):
        noisy = map(to_torch, (x0, t, random(43).random(shape)))
        forward = build("torch", family, "float64")
        xt = torch_ref.q_sample(forward, *noisy).numpy()
        reach = forward.Qbar(to_torch(t)).mT.numpy()[np.arange(B)[:, None, None], xt] > 0  # x_t from each x_0
    if kind == "forbidden":
        logits[_forbidden(x0, reach)] = -INF
    return {
        "process": family,
        "x0": x0,
        "xt": xt,
        "t": t,
        "logits_x0": logits,
        "logits_prev": logits,
        "u": uniforms(dtype, shape, 44),
        "ce_weight": 0.01,
        "smoothing": 0.1,
        "kl": random(45).exponential(3.0, shape),
        "p_t": random(46).dirichlet(np.ones(B)),
    }


def _forbidden(x0: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Categories [.., K] at random; x_0 among them, whose loss is infinite, where x_t can come of another."""
    drawn, is_x0 = random(42).random(reach.shape) < 0.4, np.arange(K) == x0[..., None]
    other = (reach & ~drawn & ~is_x0).any(-1, keepdims=True)
    return drawn & (other | ~is_x0)


def _called(ours: Ours, f: Function, process: str) -> Callable[[Arguments], Tensor]:
    needed, named = _needed(ours, f), signature(f).parameters

    def call(args: Arguments) -> Tensor:
        given = needed | {k: x for k, x in args.items() if k in named or k not in OPTIONS}
        return f(**{k: _given(x, process) if k == "process" else x for k, x in given.items()})

    return call


def _needed(ours: Ours, f: Function) -> dict[str, Any]:
    """What a function must be given that `torch_ref` has a default for."""
    parameters = signature(f).parameters.values()
    return {
        p.name: ours.optional[p.name] for p in parameters if p.default is p.empty and p.name in ours.optional
    }


def _given(x: torch_ref.Process, process: str) -> Given:
    """A copy, which may be written to."""
    beta = _bound(USUAL[process])[1].get("beta")
    beta = None if beta is None else torch.as_tensor(beta, dtype=x.pi.dtype)
    return Given(**copy.deepcopy(vars(x)), name=process, beta=beta)


def _bound(make: Build) -> tuple[str, dict[str, Any]]:
    """The constructor that makes a process, and its arguments at K and T."""
    found = []

    def record(name: str) -> Function:
        bind = signature(getattr(torch_ref, name)).bind
        return lambda *args, **kwargs: found.append((name, bind(*args, **kwargs).arguments))

    lib = SimpleNamespace(**{name: record(name) for name in (*CONSTRUCTORS, "masked", "dense")})
    lib.knn_graph, lib.knn_rate = torch_ref.knn_graph, torch_ref.knn_rate
    make(lib, K, T)
    return found[-1]


def _constructed(ours: Ours, f: Function, dtype: str) -> Iterator[Call]:
    """The matrices that a constructor makes, which is done in float64, t = 1..T."""
    if dtype != "float64":
        return
    for family, make in (FAMILIES | CONSTRUCTED).items():
        name, arguments = _bound(make)
        if name == ours.name and all(takes(f, k) for k in arguments):
            case = Case("", {"process": Family(family, K, T), "t": np.arange(1, T + 1)})
            yield Call(family, "", "Process.Q", case, _constructing(f, _needed(ours, f) | arguments))


def _constructing(f: Function, arguments: dict[str, Any]) -> Callable[[Arguments], Tensor]:
    return lambda _: f(**{k: torch.as_tensor(x) if hasattr(x, "shape") else x for k, x in arguments.items()})
