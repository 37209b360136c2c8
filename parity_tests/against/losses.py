"""A loss of a user's own beside ours: what it asks the network, what it makes of the answer, its gradient.

The network of ours writes down the x_t and t that it is asked about. So the loss may draw both itself, as it
does in training: ours is computed of the same, and their laws are tested.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from scipy import stats
from torch import Tensor

import d3pm_jax
from d3pm_jax.losses import continuous
from d3pm_jax.schedules.continuous import linear
from parity_tests.against import loss_slips
from parity_tests.against.comparing import Finding, Unfit, check_value, measure
from parity_tests.against.program import Program, call, fitting_slips
from parity_tests.compare import TOLERANCES

K = 5
B = 8
L = 6
NUM_CALLS = 192
NUM_COMPARED = 24  # of the calls; the laws are of all
LEVEL = 1e-5  # of each test of a law
BINS = 10
FEW = 100  # examples of a noise level where much is left open


class Asked(NamedTuple):
    """What a loss asked the network, in each of N calls, and what came of it."""

    x0: Tensor  # [N, B, L]
    xt: Tensor  # [N, B, L]
    t: Tensor  # [N, B]
    logits: Tensor  # [N, B, L, V]
    value: np.ndarray  # [N], [N, B] or [N, B, L]
    gradient: np.ndarray  # [N, B, L, V]


class Network:
    """Logits of fixed tables, which depend on the place, on x_t there and next to it, and on t."""

    def __init__(self, categories: int):
        rng = np.random.default_rng(50)
        size = (L, categories, categories)
        self.own, self.next, self.of_time = torch.tensor(rng.normal(size=(3, *size)))
        self.asked: list[tuple[Tensor, Tensor, Tensor]] = []  # x_t, t, logits

    def __call__(self, xt: Any, t: Any) -> Tensor:
        if not torch.is_tensor(xt) or xt.is_floating_point() or tuple(xt.shape) != (B, L):
            raise Unfit("asks the network at x_t that is no tensor of integers [B, L]")
        if xt.min() < 0 or xt.max() >= self.own.shape[-1]:
            raise Unfit(f"asks the network at x_t = {int(xt.max())}, outside 0..{self.own.shape[-1] - 1}")
        time = torch.as_tensor(t).detach().reshape(-1)
        if len(time) not in (1, B):
            raise Unfit(f"asks the network at t of shape {list(torch.as_tensor(t).shape)}, not [B]")
        time = time.expand(B)
        place = torch.arange(L)
        logits = self.own[place, xt] + self.next[place, xt.roll(-1, 1)]
        logits = logits + torch.cos(3.0 * time.double())[:, None, None] * self.of_time[place, xt]
        leaf = (1.5 * logits).to(torch.get_default_dtype()).requires_grad_()
        self.asked.append((xt.clone(), time.clone(), leaf))
        return leaf.clone()  # which the loss may write into


def check_loss(program: Program, finding: Finding) -> Iterator[Finding]:
    """The laws of t and of x_t, and the loss and its gradient where it was asked."""
    asked = _ask(program)
    yield _compare_times(program, finding, asked)
    noise = _compare_noise(program, finding, asked)
    yield noise
    if noise.note:
        return
    yield from _compare_values(program, finding, Asked._make(x[:NUM_COMPARED] for x in asked))


def _ask(program: Program) -> Asked:
    calls = []
    network = Network(K + (program.noise == "mask"))
    for i in range(NUM_CALLS):
        x0 = torch.tensor(np.random.default_rng(i).integers(0, K, (B, L)))
        torch.manual_seed(i)
        value = call(program.functions["loss"], network, x0.clone(), K)
        if len(network.asked) != i + 1:
            raise Unfit(f"asks the network {len(network.asked) - i} times, not once")
        shape = tuple(value.shape) if torch.is_tensor(value) else ()
        if shape not in ((), (B,), (B, L)):
            raise Unfit(f"gives shape {list(shape)}, not [], [B] or [B, L], here {[B, L]}")
        value = check_value(value, torch.empty(shape).numpy())
        xt, t, leaf = network.asked[-1]
        _check_time(program, t)
        gradient = _gradient(value, leaf)
        calls.append((x0, xt, t, leaf.detach(), value.detach(), gradient))
    x0, xt, t, logits, value, gradient = (torch.stack(x) for x in zip(*calls, strict=True))
    return Asked(x0, xt, t, logits, value.numpy(), gradient.numpy())


def _gradient(value: Tensor, logits: Tensor) -> Tensor:
    gradient = None
    if value.requires_grad:
        (gradient,) = torch.autograd.grad(value.sum(), logits, allow_unused=True)
    if gradient is None:
        raise Unfit("does not depend on the logits of the network, or is detached")
    return gradient


def _check_time(program: Program, t: Tensor) -> None:
    low, high = (1, program.T) if program.T else (0, 1)
    outside = (t < low) | (t > high) | t.isnan()
    if program.T:
        outside |= t != t.round()
    if outside.any():
        where = f"1..{program.T}" if program.T else "[0, 1]"
        raise Unfit(f"asks the network at t = {t[outside][0].item():g}, outside {where}: pass the t of ours")


# ---- Laws ----


def _compare_times(program: Program, finding: Finding, asked: Asked) -> Finding:
    """t is uniform on 1..T or (0, 1], each example's its own."""
    finding = finding._replace(process="t", quantity="draw", size=asked.t.numel())
    t = asked.t.double().numpy()
    if (t == t[:, :1]).all() and program.T != 1:
        at = f"{len(t)} batches of {B}"
        return finding._replace(differ=t.size, input=at, hints=("with one t for the whole batch",))
    bins = BINS
    expected = np.full(bins, t.size / bins)
    if program.T:
        # Steps as the middles of parts of [0, 1].
        t_unit = (t - 0.5) / program.T
        every = (np.arange(program.T) + 0.5) / program.T
        bins = min(BINS, program.T)
        expected = np.histogram(every, bins, (0, 1))[0] * (t.size / program.T)
    else:
        t_unit = t
    counts = np.histogram(t_unit, bins, (0, 1))[0]
    if stats.chisquare(counts, expected).pvalue > LEVEL:
        return finding
    slips = []
    if program.T and t.max() < program.T:
        slips.append(f"with t that is never {program.T}, the last step")
    if program.T and t.min() > 1:
        slips.append("with t that is never 1, the first step")
    return _of_worst(finding, counts, expected, f"t in part {{}} of {bins}", slips)


def _compare_noise(program: Program, finding: Finding, asked: Asked) -> Finding:
    """x_t is x_0 at each place with the probability that the schedule says, each place on its own."""
    finding = finding._replace(process="x_t", quantity="draw", size=asked.xt.numel())
    changed = (asked.xt != asked.x0).numpy()  # [N, B, L]
    if program.noise == "mask" and (asked.xt[changed] != K).any():
        raise Unfit("asks the network at x_t that is neither x_0 nor the mask, K, at some place")
    keep = _keep(program, asked.t)  # [N, B]
    expected = loss_slips.changed_by(program.noise, K, keep)
    hints = list(_shared_noise(changed, expected))
    if not hints:
        if _is_law(changed, expected):
            return finding
        if program.assumed:
            return finding._replace(note=program.give_schedule("the noise of x_t is not that"))
        others = loss_slips.of_noise(program.noise, K, keep, _before(program, asked.t))
        hints = [words for words, other in others if _is_law(changed, other)]
    bins = np.array_split(np.argsort(expected, axis=None), BINS)
    counts = np.array([changed.reshape(-1, L)[i].sum() for i in bins])
    means = np.array([L * expected.ravel()[i].sum() for i in bins])
    return _of_worst(finding, counts, means, f"noise level {{}} of {BINS}", hints)


def _shared_noise(changed: np.ndarray, p: np.ndarray) -> Iterator[str]:
    """Says how noise is not a place's own; places [N, B, L] are to be changed with probabilities p [N, B]."""
    usual = (p > 0.1) & (p < 0.9)
    if usual.sum() < FEW:
        return
    if not changed.any():
        yield "with the network asked at x_0, not at x_t"
        return
    if (changed == changed[:1]).all():
        yield "with the same noise in every call"
        return
    of_example = changed.mean(axis=-1)[usual]
    if ((of_example == 0) | (of_example == 1)).all():
        yield "with one noise for all places of an example"
    # What is changed at one level is changed at every other that is higher, if the noise is the same.
    level = p[..., None]
    counted = usual[..., None]
    kept_highest = np.where(counted & ~changed, level, 0.0).max(axis=1)  # [N, L]
    changed_lowest = np.where(counted & changed, level, 1.0).min(axis=1)
    if (kept_highest < changed_lowest).all():
        yield "with the same noise for every example of a batch"


def _keep(program: Program, t: Tensor) -> np.ndarray:
    if program.T:
        return program.alphas(program.T)[t.long().numpy()]
    return program.level_and_rate(t)[0].double().numpy()


def _before(program: Program, t: Tensor) -> np.ndarray | None:
    """alpha_bar one step before."""
    if not program.T:
        return None
    return program.alphas(program.T)[t.long().numpy() - 1]


def _is_law(changed: np.ndarray, p: np.ndarray) -> bool:
    """Whether places are changed with probabilities p [N, B], each place of an example on its own."""
    counts = changed.sum(axis=-1).ravel()
    p = np.clip(p, 1e-12, 1 - 1e-12).ravel()
    variance = L * p * (1 - p)
    order = np.argsort(p)
    bins = np.array_split(order, BINS)
    # One more, since a count that is expected to be far below 1 has no normal law.
    z = np.array([(counts[i] - L * p[i]).sum() / np.sqrt(variance[i].sum() + 1) for i in bins])
    if stats.chi2.sf(np.square(z).sum(), BINS) < LEVEL:
        return False
    usual = variance > 0.5
    if not usual.any():
        return True
    dispersion = np.square(counts - L * p)[usual].sum() / variance[usual].sum()
    return dispersion < 1 + 6 * np.sqrt(2 / max(1, usual.sum()))


def _of_worst(
    finding: Finding, counts: np.ndarray, expected: np.ndarray, words: str, slips: list[str]
) -> Finding:
    """The finding with the bin that is furthest from what is expected."""
    i = int(np.argmax(np.abs(counts - expected) / np.sqrt(expected + 1)))
    return finding._replace(
        differ=int(np.abs(counts - expected).sum() / 2),
        difference=float(np.abs(counts - expected).sum() / 2 / finding.size),
        theirs=f"{counts[i]}",
        ours=f"{expected[i]:.1f}",
        input=words.format(i + 1),
        hints=tuple(slips),
    )


# ---- Values ----


def _compare_values(program: Program, finding: Finding, asked: Asked) -> Iterator[Finding]:
    finding = finding._replace(process=program.noise)
    ours, gradient = _evaluate_ours(program, asked)  # [N, B, L], [N, B, L, V]
    mean = loss_slips.mean_of(asked.value.shape)
    tolerance = TOLERANCES[finding.dtype]["yours"]
    size = _sizes(program, asked, tolerance)[..., None]  # [N, B, 1]
    scale = mean(np.abs(ours) * size + size)
    slips = loss_slips.of_values(program, asked, K)

    def describe(at: tuple[int, ...]) -> str:
        return ", ".join(
            f"{word} {i}" for word, i in zip(("call", "example", "place", "logit"), at, strict=False)
        )

    yield measure(
        finding,
        asked.value,
        mean(ours),
        scale,
        lambda: fitting_slips(slips, asked.value, mean(ours), scale, tolerance),
        describe,
    )
    share = asked.value.size / ours.size  # of a place in a mean
    gradient_scale = np.broadcast_to(share * size[..., None], gradient.shape)
    of_logits = finding._replace(quantity="gradient of logits")
    yield measure(of_logits, asked.gradient, gradient, gradient_scale, list, describe)


def _sizes(program: Program, asked: Asked, tolerance: float) -> np.ndarray:
    """How large the terms of a loss are in each example [N, B], and more where digits are lost on the way."""
    if program.T:
        return np.ones(asked.t.shape, asked.value.dtype)
    level, rate = (x.numpy() for x in program.level_and_rate(asked.t))
    tiny = np.finfo(level.dtype).tiny
    beta = np.maximum(1 - level, tiny)  # near t = 0 it has lost digits
    weight = rate / beta
    if program.noise == "uniform":
        weight = weight / np.maximum(level, tiny)
    return (1 + weight) * (1 + 10 * np.finfo(level.dtype).eps / tolerance / beta)


def _evaluate_ours(program: Program, asked: Asked) -> tuple[np.ndarray, np.ndarray]:
    """Our loss of each place, and the gradient of what the user's has summed."""
    terms = _of_steps(program, asked) if program.T else _of_time(program, asked)

    def of_logits(logits: jax.Array) -> jax.Array:
        if program.noise == "mask":
            logits = d3pm_jax.forbid(logits, K)
        return terms(logits)

    value, pull_back = jax.vjp(jax.jit(of_logits), jnp.asarray(asked.logits.numpy()))
    (gradient,) = pull_back(jnp.full(value.shape, asked.value.size / value.size, value.dtype))
    return np.asarray(value), np.asarray(gradient)


def _of_steps(program: Program, asked: Asked) -> Callable[[jax.Array], jax.Array]:
    process = program.process(d3pm_jax, program.T, K)
    x0, xt, t = (jnp.asarray(x.numpy(), jnp.int32) for x in (asked.x0, asked.xt, asked.t))
    return lambda logits: d3pm_jax.hybrid(process, logits, x0, xt, t, program.ce_weight, program.belief).loss


def _of_time(program: Program, asked: Asked) -> Callable[[jax.Array], jax.Array]:
    """With a schedule that falls evenly time is 1 - alpha, and the loss is one in a unit of that."""
    x0, xt = (jnp.asarray(x.numpy(), jnp.int32) for x in (asked.x0, asked.xt))
    level, rate = (jnp.asarray(x.numpy()) for x in program.level_and_rate(asked.t))
    rate = rate[..., None]
    if program.noise == "uniform":
        return lambda logits: rate * continuous.uniform_nelbo(linear, logits, x0, xt, 1 - level)
    return lambda logits: rate * continuous.absorbing_nelbo(linear, logits, x0, xt, 1 - level, K)
