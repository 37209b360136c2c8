"""A loss of a user's own beside ours: what it asks the network, what it makes of the answer, and its gradient.

The network of ours writes down the x_t and t that it is asked about. So the loss may draw both itself, as it
does in training: ours is computed of the same, and their laws are tested.
"""

from collections.abc import Iterator
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
B = 32
L = 6
NUM_CALLS = 48
NUM_COMPARED = 6  # of the calls; the laws are of all
LEVEL = 1e-5  # of each test of a law
BINS = 10


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
    yield _compare_noise(program, finding, asked)
    yield from _compare_values(program, finding, Asked(*(x[:NUM_COMPARED] for x in asked)))


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
        (gradient,) = (
            torch.autograd.grad(value.sum(), leaf, allow_unused=True) if value.requires_grad else [None]
        )
        if gradient is None:
            raise Unfit("does not depend on the logits of the network, or is detached")
        calls.append((x0, xt, t, leaf.detach(), value.detach(), gradient))
    x0, xt, t, logits, value, gradient = (torch.stack(x) for x in zip(*calls, strict=True))
    return Asked(x0, xt, t, logits, value.numpy(), gradient.numpy())


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
    finding = finding._replace(process=f"{program.noise}, t", quantity="draw", size=asked.t.numel())
    t = asked.t.double().numpy()
    if (t == t[:, :1]).all():
        at = f"{len(t)} batches of {B}"
        return finding._replace(differ=t.size, input=at, hints=("with one t for the whole batch",))
    share = np.ceil(t) if program.T else t
    bins = min(BINS, program.T or BINS)
    share = (share - 1) / program.T if program.T else share
    counts = np.bincount(np.minimum(share * bins + 1e-9, bins - 1).astype(int).ravel(), minlength=bins)
    expected = t.size / bins * np.ones(bins)
    if program.T:
        every = np.minimum(np.arange(program.T) / program.T * bins + 1e-9, bins - 1).astype(int)
        expected = t.size * np.bincount(every, minlength=bins) / program.T
    if stats.chisquare(counts, expected).pvalue > LEVEL:
        return finding
    slips = []
    if program.T and t.max() < program.T:
        slips.append(f"with t that is never {program.T}, the last step")
    if program.T and t.min() > 1:
        slips.append("with t that is never 1, the first step")
    return _of_worst(finding, counts, expected, "t in part {} of " + str(bins), slips)


def _compare_noise(program: Program, finding: Finding, asked: Asked) -> Finding:
    """x_t is x_0 at each place with the probability that the schedule says, each place on its own."""
    finding = finding._replace(process=f"{program.noise}, x_t", quantity="draw", size=asked.xt.numel())
    changed = (asked.xt != asked.x0).numpy()  # [N, B, L]
    if program.noise == "mask" and (asked.xt[changed] != K).any():
        raise Unfit("asks the network at x_t that is neither x_0 nor the mask, K, at some place")
    keep = _keep(program, asked.t)  # [N, B]
    if _is_law(changed, loss_slips.changed_by(program.noise, K, keep)):
        return finding
    hints = list(_slips_of_noise(program, asked, changed, keep))
    expected = loss_slips.changed_by(program.noise, K, keep)
    order = np.argsort(expected, axis=None)
    bins = np.array_split(order, BINS)
    counts = np.array([changed.reshape(-1, L)[i].sum() for i in bins])
    means = np.array([L * expected.ravel()[i].sum() for i in bins])
    return _of_worst(finding, counts, means, "noise level {} of " + str(BINS), hints)


def _slips_of_noise(program: Program, asked: Asked, changed: np.ndarray, keep: np.ndarray) -> Iterator[str]:
    if not changed.any():
        yield "with the network asked at x_0, not at x_t"
        return
    if (changed == changed[:1]).all():
        yield "with the same noise in every call"
    of_example = changed.mean(axis=-1)
    if ((of_example == 0) | (of_example == 1)).all():
        yield "with one noise for all places of an example"
    # The same noise gives what is changed at a level to every other that is higher.
    kept_highest = np.where(changed, -np.inf, 1 - keep[..., None]).max(axis=1)  # [N, L]
    changed_lowest = np.where(changed, 1 - keep[..., None], np.inf).min(axis=1)
    if (kept_highest <= changed_lowest + 1e-9).all():
        yield "with the same noise for every example of a batch"
    for words, other in loss_slips.of_noise(program.noise, K, keep, _before(program, asked.t)):
        if _is_law(changed, other):
            yield words


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
    """Whether places are changed with probabilities p [N, B], by levels of p, and independently in each example."""
    counts = changed.sum(axis=-1).ravel()
    p = np.clip(p, 1e-12, 1 - 1e-12).ravel()
    variance = L * p * (1 - p)
    order = np.argsort(p)
    bins = np.array_split(order, BINS)
    z = np.array([(counts[i] - L * p[i]).sum() / np.sqrt(variance[i].sum()) for i in bins])
    if stats.chi2.sf(np.square(z).sum(), BINS) < LEVEL:
        return False
    # Examples with hardly any variance have no normal law.
    usual = variance > 0.5
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
    ours, gradient, beta = _evaluate_ours(program, asked)  # [N, B, L], [N, B, L, V], [N, B]
    mean = loss_slips.mean_of(asked.value.shape)
    tolerance = TOLERANCES[finding.dtype]["yours"]
    # 1 - alpha near t = 0 has lost digits.
    lost = 1 + 10 * np.finfo(ours.dtype).eps / tolerance / np.maximum(beta, np.finfo(ours.dtype).tiny)
    scale = mean(np.abs(ours) * lost[..., None])
    slips = loss_slips.of_values(program, asked, K)

    def describe(at: tuple[int, ...]) -> str:
        return f"call {at[0]}" + "".join(f", {name} {i}" for name, i in zip(("example", "place"), at[1:]))

    yield measure(
        finding,
        asked.value,
        mean(ours),
        scale,
        lambda: fitting_slips(slips, asked.value, mean(ours), scale, tolerance),
        describe,
    )
    largest = np.abs(gradient).max(axis=(2, 3), keepdims=True) * lost[..., None, None]
    gradient_scale = np.broadcast_to(np.maximum(largest, np.finfo(ours.dtype).tiny), gradient.shape)
    of_logits = finding._replace(quantity="gradient of logits")
    yield measure(of_logits, asked.gradient, gradient, gradient_scale, list, describe)


def _evaluate_ours(program: Program, asked: Asked) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Our loss of each place, the gradient of what the user's has summed, and 1 - alpha."""
    x0, xt = (jnp.asarray(x.numpy(), jnp.int32) for x in (asked.x0, asked.xt))
    mask = K if program.noise == "mask" else None
    if program.T:
        alphas = program.alphas(program.T)
        t = jnp.asarray(asked.t.numpy(), jnp.int32)
        betas = d3pm_jax.from_alpha_bar(np.asarray(alphas, np.float64))
        process = d3pm_jax.uniform(betas, K) if mask is None else d3pm_jax.absorbing(betas, K + 1, K)
        beta = 1 - alphas[asked.t.long().numpy()]
    else:
        level, rate = program.level_and_rate(asked.t)
        beta = (1 - level).numpy()
        rate = jnp.asarray(rate.numpy())[..., None]

    def of_logits(logits: jax.Array) -> jax.Array:
        if mask is not None:
            logits = d3pm_jax.forbid(logits, K)
        if program.T:
            return d3pm_jax.hybrid(process, logits, x0, xt, t, program.ce_weight, program.belief).loss
        # With a schedule that falls evenly, time is 1 - alpha, and the loss one in a unit of that.
        if mask is None:
            return rate * continuous.uniform_nelbo(linear, logits, x0, xt, jnp.asarray(beta))
        return rate * continuous.absorbing_nelbo(linear, logits, x0, xt, jnp.asarray(beta), K)

    value, pull_back = jax.vjp(of_logits, jnp.asarray(asked.logits.numpy()))
    share = 1.0 / np.prod(value.shape[asked.value.ndim :], dtype=float)
    (gradient,) = pull_back(jnp.full(value.shape, share, value.dtype))
    return np.asarray(value), np.asarray(gradient), beta
