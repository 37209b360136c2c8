"""What `losses.projected` is compared with: heads and losses by name, hidden states and a kernel."""

from collections.abc import Iterator
from functools import partial
from types import ModuleType
from typing import Any

import jax
import numpy as np
import torch
from torch import Tensor

import torch_ref
from parity_tests import scales
from parity_tests.cases import Case
from parity_tests.families import Family, random
from parity_tests.frameworks import Function, flat

B = 3
WIDTH = 4
T = 7
BELIEFS = ("d3pm", "official", "leave_one_out", "denoiser")
FAMILIES = ("uniform", "absorbing_extra", "masked")
OF_TIME = {  # the loss: its family and head
    "absorbing_nelbo": ("absorbing_extra", "forbidden"),
    "uniform_nelbo": ("uniform", "residual"),
    "uniform_generalized_kl": ("uniform", "residual"),
    "gidd_nelbo": ("absorbing_extra", "forbidden"),
    "absorbing_score_entropy": ("absorbing_extra", "absorbing_log_scores"),
    "uniform_score_entropy": ("uniform", "log_scores"),
}
NOISE = {"p_uniform": 0.3, "gamma": 1.0}


def cases(dtype: str) -> Iterator[Case]:
    """Every belief with every kind of process, every loss of rows, and K from 2 to 257."""
    for i, belief in enumerate(BELIEFS):
        for family in FAMILIES:
            quick = (belief, family) in (("denoiser", "uniform"), ("leave_one_out", "masked"))
            yield _case(family, 27, "hybrid", i, dtype, quick=quick, belief=belief)
    for i, K in enumerate((2, 257)):
        yield _case("uniform", K, "hybrid", 4 + i, dtype, belief="denoiser")
        yield _case("marginal", 257, "hybrid", 6 + i, dtype, belief=("d3pm", "leave_one_out")[i])
        yield _case("absorbing", K, "cross_entropy", 8 + i, dtype)
        yield _case("absorbing_extra", 257, "absorbing_nelbo", 10 + i, dtype, head="forbidden", tied=i == 1)
    yield _case("masked", 257, "hybrid", 12, dtype, belief="denoiser")
    yield _case("uniform", 27, "cross_entropy", 13, dtype, (100,), quick=True, bias=False)  # two rounds
    yield _case("dense", 27, "direct_kl", 14, dtype, tied=True)
    yield _case("dense", 27, "smoothed_cross_entropy", 15, dtype, eager=dtype == "float64")
    for i, (loss, (family, head)) in enumerate(OF_TIME.items()):
        quick = loss in ("absorbing_nelbo", "uniform_score_entropy")
        yield _case(family, 27, loss, 16 + i, dtype, quick=quick, head=head, tied=i % 2 == 1)


def _case(
    family: str,
    K: int,
    loss: str,
    seed: int,
    dtype: str,
    shape: tuple[int, ...] = (2, 2),
    quick: bool = False,
    eager: bool = False,
    bias: bool = True,
    **names: Any,
) -> Case:
    """Weights of 0 in places; x_t is x_0, the mask or anything, so that not all pairs are impossible."""
    rng = random(80, seed)
    S = (B, *shape)
    x0 = rng.integers(0, max(K - 1, 1), S)
    kind = rng.random(S)
    xt = np.where(kind < 0.4, K - 1, np.where(kind < 0.7, x0, rng.integers(0, K, S)))
    t = rng.integers(1, T + 1, B)
    tied = names.get("tied", False)
    args = {
        "process": Family(family, K, T),
        "hidden": rng.normal(size=(*S, WIDTH)),
        "kernel": rng.normal(size=(K, WIDTH) if tied else (WIDTH, K)),
        "bias": rng.normal(size=K) if bias else None,
        "x0": x0,
        "xt": xt,
        "t": (t - 0.5) / T if loss in OF_TIME else t,
        "weight": rng.exponential(1.0, S) * (rng.random(S) < 0.7),
    }
    names = {"loss": loss, "head": "residual", "tied": False, "belief": "d3pm"} | names
    return Case(f"K = {K}, {family}, {loss}, {names['belief']}", args | names, eager, quick)


def weighted_sum(lib: ModuleType, name: str) -> Function:
    """The total, and what the loss returned, which has no gradient in either."""
    constant = torch.Tensor.detach if lib is torch_ref else jax.lax.stop_gradient

    def call(
        process: Any, loss: str, belief: str, x0: Any, t: Any, weight: Any, xt: Any, **parts: Any
    ) -> tuple[Any, ...]:
        f = partial(loss_of_rows(lib, loss), belief=belief)
        result = lib.losses.projected(process, f, _project(lib, process, xt=xt, **parts), (x0, xt, t), weight)
        return result.total, *map(constant, flat(result.values))

    return call


def loss_of_rows(lib: ModuleType, name: str) -> Function:
    """A loss by its name, which takes logits and (x_0, x_t, t), or the time in the place of t."""
    linear = lib.schedules.continuous.linear

    def loss(process: Any, logits: Any, x0: Any, xt: Any, t: Any, belief: str) -> Any:
        if name == "hybrid":
            return lib.hybrid(process, logits, x0, xt, t, 0.01, belief)
        if name == "direct_kl":
            return lib.direct_kl(process, logits, x0, xt, t)
        if name == "cross_entropy":
            return lib.cross_entropy(process, logits, x0)
        if name == "smoothed_cross_entropy":
            return lib.smoothed_cross_entropy(process, logits, x0, 0.2)
        if name == "gidd_nelbo":
            return lib.losses.gidd.gidd_nelbo(logits, x0, xt, t, process.K - 1, **NOISE)
        mask = {"mask_id": process.K - 1} if name.startswith("absorbing") else {}
        module = lib.losses.score_entropy if name.endswith("score_entropy") else lib.losses.continuous
        return getattr(module, name)(linear, logits, x0, xt, t, **mask)

    return loss


def _project(lib: ModuleType, process: Any, head: str, tied: bool, **parts: Any) -> Any:
    def finish(output: Any, xt: Any) -> Any:
        if head == "forbidden":
            return lib.forbid(lib.residual(output, xt), process.K - 1)
        return getattr(lib.heads, head)(output, xt)

    return lib.projection.Projection(**parts, finish=finish, tied=tied)


def scale(process: Any, loss: str, belief: str, x0: Tensor, t: Tensor, weight: Tensor, **parts: Any) -> Any:
    """Those of the loss at each place, behind their weighted sum."""
    logits = _project(torch_ref, process, **parts).logits()
    args = {"logits_x0": logits, "x0": x0, "xt": parts["xt"]}
    if loss == "hybrid":
        of_places = scales.hybrid(0.01, process=process, t=t, belief=belief, **args)
    elif loss == "direct_kl":
        of_places = (scales.direct_kl(process, logits, x0, args["xt"], t),)
    elif loss.endswith("cross_entropy"):
        of_places = (scales.rows(logits),)
    elif loss == "gidd_nelbo":
        of_places = scales.gidd_nelbo(logits, x0, t, **NOISE)
    else:
        if loss.endswith("score_entropy"):
            args["log_scores"] = args.pop("logits_x0")
        measure = {"uniform_generalized_kl": scales.absorbing_nelbo}.get(loss) or getattr(scales, loss)
        of_places = (measure(schedule="linear", time=t, **args),)
    return (weight * of_places[0]).sum(), *of_places


def gradient_scale(weight: Tensor, **args: Any) -> Tensor:
    """The largest of the loss at a place, its weight, and what the gradient of a logit is multiplied by."""
    largest = max(float(args[name].abs().max()) for name in ("hidden", "kernel"))
    of_first = scale(weight=weight, **args)[1]
    return (weight * of_first).max() * largest
