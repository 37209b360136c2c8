"""Arguments of a user's functions: K, T, batch and shape all different, x_t possible given x_0."""

import copy
import dataclasses
import inspect
from collections.abc import Callable, Iterator
from itertools import product
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import torch_ref
from parity_tests import run
from parity_tests.against.loading import takes
from parity_tests.against.signatures import ANY, CONSTRUCTORS, PROCESSES, Signature
from parity_tests.cases import INF, Case, K, T, uniforms
from parity_tests.families import CONSTRUCTED, FAMILIES, USUAL, Build, Family, build, random
from parity_tests.frameworks import Arguments, Function, precision, to_torch
from parity_tests.pairs import PAIRS

B = 2 * T  # every t twice
S = (2, 3)
KINDS = ("", "confident", "forbidden")  # logits; some of the last are -inf
CONFIDENT = {"float64": 100.0, "float32": 10.0}  # their size, whose probabilities the type can hold
OPTIONS = {  # the default first
    "belief": ("d3pm", "official", "leave_one_out", "denoiser"),
    "mask_id": (None, K - 1),
}


@dataclasses.dataclass(frozen=True)
class UserProcess(torch_ref.Process):
    """The dense matrices of `torch_ref`, with the name and the betas that a user's code may ask for."""

    name: str = ""
    beta: Tensor | None = None  # [T]


class Call(NamedTuple):
    """One call of a user's function, and the pair and the case that have its result."""

    process: str
    input: str
    pair: str
    case: Case
    theirs: Callable[[Arguments], Tensor]  # from the arguments of the twin


def calls(signature: Signature, f: Function, dtype: str) -> Iterator[Call]:
    """Every call of a function in one float type."""
    if signature.name in CONSTRUCTORS:
        yield from _constructor_calls(signature, f, dtype)
        return

    defaults = {name: OPTIONS[name][0] for name in signature.optional if name in OPTIONS}
    others = []
    for name in defaults:
        if name in inspect.signature(f).parameters:
            others += [{name: value} for value in OPTIONS[name][1:]]

    for process, case in _cases(signature, f, dtype):
        # The other options with moderate logits only, whose cases have no name.
        options = [{}]
        if not case.name:
            options += others
        for option in options:
            words = [f"{name} = {value}" for name, value in option.items()]
            if case.name:
                words = [case.name, *words]
            args = {k: run.rounded(x, dtype) for k, x in (case.args | defaults | option).items()}
            yield Call(
                "any" if signature.name in ANY else process,
                ", ".join(words),
                signature.pair,
                case._replace(args=args),
                _make_call(signature, f, process),
            )


def _cases(signature: Signature, f: Function, dtype: str) -> Iterator[tuple[str, Case]]:
    """The name of a process, and the arguments of a call with it."""
    if "process" not in signature.required:
        pair = PAIRS[signature.pair]
        if dtype in pair.dtypes:
            for case in pair.cases(dtype):
                if all(takes(f, name) for name in case.args):
                    yield "", case
        return

    kinds = ("",)
    if {"logits_x0", "logits_prev"} & {*signature.required}:
        kinds = KINDS
    processes = tuple(PROCESSES)
    if signature.name in ANY:
        processes = ("absorbing_extra",)
    for process, kind in product(processes, kinds):
        values = situation(process, kind, dtype)
        name = f"{kind} logits" if kind else ""
        yield process, Case(name, {argument: values[argument] for argument in signature.required})


def situation(process: str, kind: str, dtype: str) -> dict[str, Any]:
    """The arguments of all kernels, for t = 1..T. Every process is its matrices: JAX compiles one program."""
    family = Family(f"{process}, matrices", K, T)
    shape = (B, *S)
    has_mask = process in ("absorbing_extra", "masked")  # the category K - 1, which x_0 never is
    x0 = random(40).integers(0, K - has_mask, shape)
    t = np.tile(np.arange(1, T + 1), 2)  # [B]
    size = 3.0
    if kind == "confident":
        size = CONFIDENT[dtype]
    logits = size * random(41).normal(size=(*shape, K))

    with precision("float64"):
        forward = build("torch", family, "float64")
        u = random(43).random(shape)
        xt = torch_ref.q_sample(forward, to_torch(x0), to_torch(t), to_torch(u)).numpy()
        columns = forward.Qbar(to_torch(t)).mT.numpy()  # [B, K, K]
        reach = columns[np.arange(B)[:, None, None], xt] > 0  # [B, *S, K]  the x_0 that x_t can come of
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
    drawn = random(42).random(reach.shape) < 0.4
    is_x0 = np.arange(K) == x0[..., None]
    other = (reach & ~drawn & ~is_x0).any(-1, keepdims=True)
    return drawn & (other | ~is_x0)


def _make_call(signature: Signature, f: Function, process: str) -> Callable[[Arguments], Tensor]:
    """Makes the function of a user one of the arguments of the twin."""
    defaults = _missing_defaults(signature, f)
    parameters = inspect.signature(f).parameters

    def call(args: Arguments) -> Tensor:
        arguments = dict(defaults)
        for name, x in args.items():
            if name in OPTIONS and name not in parameters:
                continue
            arguments[name] = x
        if "process" in arguments:
            arguments["process"] = _copy_process(arguments["process"], process)
        return f(**arguments)

    return call


def _missing_defaults(signature: Signature, f: Function) -> dict[str, Any]:
    """The defaults of `torch_ref` for the arguments that a user's function has no default for."""
    defaults = {}
    for parameter in inspect.signature(f).parameters.values():
        if parameter.default is parameter.empty and parameter.name in signature.optional:
            defaults[parameter.name] = signature.optional[parameter.name]
    return defaults


def _copy_process(process: torch_ref.Process, name: str) -> UserProcess:
    """Copies a process, because a user's function may write into it."""
    _, arguments = _bind_constructor(USUAL[name])
    beta = arguments.get("beta")
    if beta is not None:
        beta = torch.as_tensor(beta, dtype=process.pi.dtype)
    return UserProcess(**copy.deepcopy(vars(process)), name=name, beta=beta)


def _bind_constructor(make: Build) -> tuple[str, dict[str, Any]]:
    """The constructor that makes a process, and its arguments at K and T."""
    calls = []

    def record(name: str) -> Function:
        bind = inspect.signature(getattr(torch_ref, name)).bind
        return lambda *args, **kwargs: calls.append((name, bind(*args, **kwargs).arguments))

    # A library whose constructors write down their arguments. The outermost is called last.
    lib = SimpleNamespace(**{name: record(name) for name in (*CONSTRUCTORS, "masked", "dense")})
    lib.knn_graph = torch_ref.knn_graph
    lib.knn_rate = torch_ref.knn_rate
    make(lib, K, T)
    return calls[-1]


def _constructor_calls(signature: Signature, f: Function, dtype: str) -> Iterator[Call]:
    """The matrices that a constructor makes, which is done in float64, t = 1..T."""
    if dtype != "float64":
        return
    for family, make in (FAMILIES | CONSTRUCTED).items():
        name, arguments = _bind_constructor(make)
        if name == signature.name and all(takes(f, argument) for argument in arguments):
            case = Case("", {"process": Family(family, K, T), "t": np.arange(1, T + 1)})
            arguments = _missing_defaults(signature, f) | arguments
            yield Call(family, "", "Process.Q", case, _make_constructor_call(f, arguments))


def _make_constructor_call(f: Function, arguments: dict[str, Any]) -> Callable[[Arguments], Tensor]:
    """Makes the constructor of a user a function of no arguments, arrays as tensors."""
    tensors = dict(arguments)
    for name, x in arguments.items():
        if hasattr(x, "shape"):
            tensors[name] = torch.as_tensor(x)
    return lambda _: f(**tensors)
