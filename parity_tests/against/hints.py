"""Names the slip that gives just the numbers of a function, for slips that are often made."""

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import product
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from parity_tests import run
from parity_tests.compare import TOLERANCES
from parity_tests.frameworks import Arguments, Function, flat, precision
from torch_ref import numerics
from torch_ref.losses import variational

EPSILONS = tuple(float(f"1e-{k}") for k in (*range(4, 13), 15, 16, 18, 20, 24, 30, 38, 40))
BUT_FOR = "but for"  # of a description, which is no slip
LOSSES = ("posterior_kl", "hybrid", "direct_kl", "marginal_kl", "prior_kl", "smoothed_cross_entropy")


class Slip(NamedTuple):
    """A slip in words, and a function that makes it: of the twin's function and its arguments."""

    words: str
    numbers: Callable[[Function, Arguments], Tensor]


def distance(theirs: np.ndarray, ours: np.ndarray, scale: np.ndarray, draws: bool = False) -> np.ndarray:
    """How far each number is from ours on the scale of its terms; inf for NaN and where one is infinite.

    Of draws that differ, how far u is from where the result changes.
    """
    if draws:
        apart = np.maximum(scale, np.finfo(np.float64).tiny)
    else:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            apart = np.abs(theirs.astype(np.float64) - ours.astype(np.float64)) / scale
        apart = np.where(np.isnan(apart), np.inf, apart)
    return np.where(theirs == ours, 0.0, apart)


def find_slips(
    call: Any, dtype: str, theirs: np.ndarray, ours: np.ndarray, scale: np.ndarray, is_draw: bool
) -> tuple[str, ...]:
    """Names the slips that give these numbers everywhere, else at t > 1, else at 1 < t < T.

    Where none does, names what is true of every number that differs and not of the others.
    """
    tolerance = TOLERANCES[dtype]["draw" if is_draw else "yours"]
    args = run.torch_arguments(call.case, dtype)
    twin = run.function("torch", call.pair)
    slips = list(_slips_of_draws(twin, args) if is_draw else slips_of(twin, args, torch.tensor(theirs)))
    with precision(dtype), torch.no_grad():
        numbers = [slip.numbers(twin, args).numpy() for slip in slips]

    differ = distance(theirs, ours, scale, is_draw) > tolerance
    t = _time(args, differ.shape)
    scopes = {"": np.ones_like(differ), " at t > 1": t > 1, " at 1 < t < T": (t > 1) & (t < t.max())}
    for scope_words, scope in scopes.items():
        if not (differ & scope).any():
            continue
        fitting = []
        for slip, x in zip(slips, numbers, strict=True):
            same = (_distance_of_slip(theirs, x, scale, is_draw) <= tolerance)[scope].all()
            # A slip that changes none of the numbers that differ is not what is wrong with them.
            moves = (distance(x, ours, scale, is_draw) > tolerance)[differ & scope].any()
            if same and moves:
                fitting.append(slip.words + scope_words)
        if fitting:
            return tuple(fitting)
    return tuple(_describe_differing(differ, ours, t))


def _distance_of_slip(theirs: np.ndarray, slip: np.ndarray, scale: np.ndarray, is_draw: bool) -> np.ndarray:
    """The distance where NaN, a way to say that there is no distribution, is the -inf of a slip."""
    return distance(np.where(np.isnan(theirs) & np.isneginf(slip), -np.inf, theirs), slip, scale, is_draw)


def _describe_differing(differ: np.ndarray, ours: np.ndarray, t: np.ndarray) -> Iterator[str]:
    """Says what is true of every number that differs and not of the others."""
    if (t == 1).any() and (t[differ] == 1).all():
        yield f"{BUT_FOR} t = 1"
    if np.isneginf(ours[differ]).all():
        yield f"{BUT_FOR} entries that are -inf, where it has something else"


def _time(args: Arguments, shape: tuple[int, ...]) -> np.ndarray:
    """t of each number, 2 without one."""
    t = args.get("t", torch.tensor(2)).numpy()
    return np.broadcast_to(t.reshape(t.shape + (1,) * (len(shape) - t.ndim)), shape)


def _slips_of_draws(twin: Function, args: Arguments) -> Iterator[Slip]:
    """Those that change which category is drawn."""
    yield from _shifted()
    yield from _turned()
    yield from _options(twin, args)


def slips_of(twin: Function, args: Arguments, theirs: Tensor) -> Iterator[Slip]:
    # Asked for by each slip that changes no more than the result, and computed by the first of them.
    result = cache(partial(_first, twin, args))
    if "process" in args:
        yield from _shifted()
        yield from _turned()
        yield from _with_epsilon()
    if "T" in args:
        # alpha_bar of iDDPM is cos^2, with beta at most 0.999 as here.
        change = lambda beta: (1 - (1 - beta) ** 2).clamp(max=0.999)  # noqa: E731
        yield _changed(result, "with alpha_bar squared, as iDDPM has it", change)
    yield from _options(twin, args)
    yield from _in_loss(twin, args)
    yield from _of_result(result, theirs)


def _shifted() -> Iterator[Slip]:
    for words, later in ((" one step later", 1), (" one step earlier", -1)):
        shift = lambda x, n=later: x[(torch.arange(len(x)) + n).clamp(0, len(x) - 1)]  # noqa: E731
        yield from _tables(shift, words, "t")


def _turned() -> Iterator[Slip]:
    yield from _tables(lambda x: x.mT, " transposed, a row for a column", "Q and Qbar")


def _with_epsilon() -> Iterator[Slip]:
    for eps in EPSILONS:
        yield from _tables(partial(torch.add, other=eps), f" + {eps:g} inside the log", "Q and Qbar")
        yield from _tables(partial(torch.clamp, min=eps), f" at least {eps:g} inside the log", "Q and Qbar")


def _in_loss(twin: Function, args: Arguments) -> Iterator[Slip]:
    """An epsilon in the logs of a KL, in that of a cross entropy, or in both."""
    kl_logs = {"": "", "p": "the log of p of the KL", "q and p": "both logs of the KL"}
    cross_entropies = {False: ""}
    name = inspect.unwrap(twin).__name__
    if name not in LOSSES:
        return
    if name == "hybrid":
        cross_entropies = {False: "", True: "the log of the cross entropy"}
    if name == "smoothed_cross_entropy":
        kl_logs, cross_entropies = {"": ""}, {True: "the log"}
    for eps in EPSILONS:
        changes = {
            f"{eps:g} added inside": partial(torch.add, other=eps),
            f"at least {eps:g} inside": partial(torch.clamp, min=eps),
        }
        for (words, change), (logs, of_kl), (of_log, of_ce) in product(
            changes.items(), kl_logs.items(), cross_entropies.items()
        ):
            where = " and ".join(filter(None, (of_kl, of_ce)))
            if where:
                numbers = partial(_loss_with_epsilon, change=change, logs=logs, of_log=of_log)
                yield Slip(f"with {words} {where}", numbers)


def _loss_with_epsilon(
    twin: Function, args: Arguments, change: Callable[[Tensor], Tensor], logs: str, of_log: bool
) -> Tensor:
    """The twin's loss, in which the KL and the cross entropy take the log of a changed probability."""

    def kl(log_q: Tensor, log_p: Tensor) -> Tensor:
        q = log_q.exp()
        changed_q = change(q) if logs == "q and p" else q
        return (torch.xlogy(q, changed_q) - torch.xlogy(q, change(log_p.exp()))).sum(dim=-1)

    def log_p_x0(process: Any, logits: Tensor) -> Tensor:
        return change(right_log_p_x0(process, logits).exp()).log()

    right_log_p_x0 = variational.log_p_x0
    with (
        patch.object(numerics, "kl", kl if logs else numerics.kl),
        patch.object(variational, "log_p_x0", log_p_x0 if of_log else right_log_p_x0),
    ):
        return _first(twin, args)


def _tables(change: Callable[[Tensor], Tensor], words: str, both: str) -> Iterator[Slip]:
    """Both tables of the process changed, or one of them."""
    for name, fields in (("Qbar", ("Q_cum",)), ("Q", ("Q_step",)), (both, ("Q_step", "Q_cum"))):

        def numbers(twin: Function, args: Arguments, fields: tuple[str, ...] = fields) -> Tensor:
            process = args["process"]
            tables = {field: change(getattr(process, field)) for field in fields}
            return _first(twin, {**args, "process": dataclasses.replace(process, **tables)})

        yield Slip(f"with {name}{words}", numbers)


def _options(twin: Function, args: Arguments) -> Iterator[Slip]:
    """The other conventions of the kernels that have them."""
    for option in ({"belief": "official"}, {"belief": "leave_one_out"}, {"belief": "denoiser"}):
        ((name, value),) = option.items()
        if name in inspect.signature(twin).parameters and args.get(name) != value:
            words = f'with {name}="{value}"'
            yield Slip(words, lambda twin, args, option=option: _first(twin, {**args, **option}))


def _of_result(result: Callable[[], Tensor], theirs: Tensor) -> Iterator[Slip]:
    """One thing done to our result."""
    for eps in EPSILONS:
        for sign in (1, -1):  # of a log, of minus a log
            change = lambda x, eps=eps, sign=sign: sign * torch.log(torch.exp(sign * x) + eps)  # noqa: E731
            yield _changed(result, f"with {eps:g} added inside the last log", change)
    yield _changed(result, "with the other sign", torch.neg)
    yield _changed(result, "as a probability, not its log", torch.exp)
    yield _changed(result, "in bits, not nats", lambda x: x / np.log(2))
    yield _changed(
        result, "not normalised over the last axis", lambda x: x + theirs.logsumexp(-1, keepdim=True)
    )


def _changed(result: Callable[[], Tensor], words: str, change: Callable[[Tensor], Tensor]) -> Slip:
    return Slip(words, lambda twin, args: change(result()))


def _first(twin: Function, args: Arguments) -> Tensor:
    return flat(twin(**args))[0]
