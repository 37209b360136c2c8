"""Slips of a loss: what else it may make of the answer of the network, and other laws of x_t."""

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor

import torch_ref
from parity_tests.against import hints
from parity_tests.against.program import Program, Slip
from parity_tests.frameworks import to_torch
from torch_ref.losses import continuous
from torch_ref.schedules.continuous import linear

Mean = Callable[[Any], Any]


def mean_of(shape: tuple[int, ...]) -> Mean:
    """The mean over what a loss [N, B, L] has more axes than this shape."""

    def mean(x: Any) -> Any:
        while x.ndim > len(shape):
            x = x.mean(-1)
        return x

    return mean


def changed_by(noise: str, K: int, keep: np.ndarray) -> np.ndarray:
    """The probability that x_t is not x_0, where a place is left alone with probability keep."""
    if noise == "mask":
        return 1 - keep
    return (1 - keep) * (K - 1) / K


def of_noise(
    noise: str, K: int, keep: np.ndarray, before: np.ndarray | None
) -> Iterator[tuple[str, np.ndarray]]:
    """Other probabilities that x_t is not x_0, in words; `before` is what is kept one step earlier."""
    yield "with alpha and 1 - alpha exchanged in the noise", changed_by(noise, K, 1 - keep)
    yield "with noise of alpha squared", changed_by(noise, K, keep**2)
    yield "with noise of the root of alpha", changed_by(noise, K, np.sqrt(np.maximum(keep, 0)))
    if noise == "uniform":
        yield "with noise that never draws x_0 again", 1 - keep
    if before is not None:
        yield "with noise of one step earlier", changed_by(noise, K, before)
        of_step = keep / np.where(before > 0, before, 1.0)
        yield "with noise of one step alone, Q in place of Qbar", changed_by(noise, K, of_step)


def of_values(program: Program, asked: Any, K: int) -> Iterator[Slip]:
    """Every slip of the value that is tested, as numbers of the shape of the user's."""
    mean = mean_of(asked.value.shape)
    reshaped = asked.logits.reshape(*asked.logits.shape[:2], asked.logits.shape[3], asked.logits.shape[2])
    others = {
        "with logits of one place before": asked.logits.roll(1, 2),
        "with logits of one place behind": asked.logits.roll(-1, 2),
        "with logits reshaped where axes are to be swapped": reshaped.mT,
    }
    terms = _steps(program, asked, K) if program.T else _continuous(program, asked, K)
    for words, numbers in terms[1:]:
        yield words, lambda numbers=numbers: _numpy(mean(numbers(asked.logits)))
    base = terms[0][1]
    for words, logits in others.items():
        yield words, lambda logits=logits: _numpy(mean(base(logits)))
    size = asked.xt[0].numel()
    yield "summed over places, not averaged", lambda: _numpy(mean(base(asked.logits)) * asked.xt.shape[2])
    yield "summed over the batch and places", lambda: _numpy(mean(base(asked.logits)) * size)
    yield "in bits, not nats", lambda: _numpy(mean(base(asked.logits)) / np.log(2))
    yield "with the other sign", lambda: _numpy(-mean(base(asked.logits)))
    if program.T:
        yield from _of_hybrid(program, asked, K)


def _numpy(x: Tensor) -> np.ndarray:
    return x.detach().numpy()


Terms = list[tuple[str, Callable[[Tensor], Tensor]]]  # from logits [N, B, L, V] to terms [N, B, L]


def _continuous(program: Program, asked: Any, K: int) -> Terms:
    """The loss, first without a slip, then with one."""
    level, rate = program.level_and_rate(asked.t)
    rate = rate[..., None]
    beta = 1 - level

    if program.noise == "uniform":
        nelbo = continuous.uniform_nelbo

        def uniform(logits: Tensor) -> Tensor:
            return nelbo(linear, logits, asked.x0, asked.xt, beta)

        return [
            ("", lambda logits: rate * uniform(logits)),
            ("without the factor -alpha'", uniform),
            ("as the cross entropy alone", lambda logits: _cross_entropy(logits, asked.x0)),
        ]

    masked = (asked.xt == K).to(level.dtype)  # [N, B, L]
    weight = rate / beta[..., None]
    sigma = -level.log()[..., None]
    of_sigma = rate / level[..., None]

    def ce(logits: Tensor) -> Tensor:
        return _cross_entropy(torch_ref.forbid(logits, K), asked.x0)

    def share(counted: Tensor, axes: tuple[int, ...]) -> Tensor:
        """Terms whose mean over places is a mean over masks."""
        places = counted.mean(axes, keepdim=True)
        return counted / torch.where(places > 0, places, 1.0)

    def with_mask(logits: Tensor) -> Tensor:
        return weight * _cross_entropy(logits, asked.x0) * masked

    terms: Terms = [
        ("", lambda logits: weight * ce(logits) * masked),
        ("without the weight -alpha' / (1 - alpha)", lambda logits: ce(logits) * masked),
        ("with the weight 1 / (1 - alpha), without -alpha'", lambda x: ce(x) * masked / beta[..., None]),
        ("with the weight 1 / t", lambda logits: ce(logits) * masked / asked.t[..., None]),
        ("with the weight -alpha' / alpha", lambda logits: ce(logits) * masked * of_sigma),
        ("with the weight sigma' / sigma, without expm1", lambda x: ce(x) * masked * of_sigma / sigma),
        ("with the mean weight of the batch", lambda x: weight.mean(1, keepdim=True) * ce(x) * masked),
        ("with every place counted, not the masked ones", lambda logits: weight * ce(logits)),
        ("with the places counted that are not masked", lambda logits: weight * ce(logits) * (1 - masked)),
        ("with the mask among the categories that are predicted", with_mask),
        ("with cross entropy of every place and no weight", ce),
    ]
    for words, axes in (("its", (2,)), ("the batch's", (1, 2))):
        divided = f"divided by the number of {words} masks, not of places"
        terms.append((divided, lambda x, axes=axes: weight * ce(x) * share(masked, axes)))
        alone = f"{divided}, and without the weight"
        terms.append((alone, lambda x, axes=axes: ce(x) * share(masked, axes)))
    return terms


def _cross_entropy(logits: Tensor, x0: Tensor) -> Tensor:
    return -logits.log_softmax(-1).gather(-1, x0[..., None])[..., 0]


def _steps(program: Program, asked: Any, K: int) -> Terms:
    """The loss of steps, first without a slip, then with one that is not of tables."""
    process = program.process(torch_ref, program.T, K)
    belief = program.belief
    weight = program.ce_weight

    def hybrid(logits: Tensor) -> Any:
        return torch_ref.hybrid(
            process, _head(program, logits, K), asked.x0, asked.xt, asked.t.long(), weight, belief
        )

    def laws(logits: Tensor) -> tuple[Tensor, Tensor]:
        log_p = torch_ref.p_logits(process, _head(program, logits, K), asked.xt, asked.t.long(), belief)
        return torch_ref.q_posterior(process, asked.x0, asked.xt, asked.t.long()), log_p

    def reversed_kl(logits: Tensor) -> Tensor:
        log_q, log_p = laws(logits)
        return torch_ref.numerics.kl(log_p, log_q) + weight * hybrid(logits).ce

    def naive_kl(logits: Tensor) -> Tensor:
        log_q, log_p = laws(logits)
        return (log_q.exp() * (log_q - log_p)).sum(-1) + weight * hybrid(logits).ce

    def without_evidence(logits: Tensor) -> Tensor:
        before = asked.t.long() - 1
        log_q = process.log_q_probs(asked.x0, before)
        log_p = process.log_push(_head(program, logits, K).log_softmax(-1), before)
        return torch_ref.numerics.kl(log_q, log_p) + weight * hybrid(logits).ce

    return [
        ("", lambda logits: hybrid(logits).loss),
        ("with KL(p, q) in place of KL(q, p)", reversed_kl),
        ("with 0 log 0 = NaN where a probability of the KL is 0", naive_kl),
        ("without the evidence of x_t in both laws of x_{t-1}", without_evidence),
        ("as the cross entropy alone", lambda logits: hybrid(logits).ce),
        ("as ce_weight times the cross entropy alone", lambda logits: weight * hybrid(logits).ce),
        ("as the KL alone, without the cross entropy", lambda logits: hybrid(logits).kl),
        ("with ce_weight on the KL", lambda logits: hybrid(logits).ce + weight * hybrid(logits).kl),
        ("with the cross entropy unweighted", lambda logits: hybrid(logits).kl + hybrid(logits).ce),
        ("times T", lambda logits: program.T * hybrid(logits).loss),
    ]


def _head(program: Program, logits: Tensor, K: int) -> Tensor:
    return torch_ref.forbid(logits, K) if program.noise == "mask" else logits


def _of_hybrid(program: Program, asked: Any, K: int) -> Iterator[Slip]:
    """The slips of tables, beliefs and epsilons that are tested of `hybrid` itself."""
    mean = mean_of(asked.value.shape)

    @wraps(torch_ref.hybrid)
    def twin(**args: Any) -> Tensor:
        return mean(torch_ref.hybrid(**args).loss)

    args = {
        "process": program.process(torch_ref, program.T, K),
        "logits_x0": _head(program, asked.logits, K),
        "x0": asked.x0,
        "xt": asked.xt,
        "t": asked.t.long(),
        "ce_weight": program.ce_weight,
        "belief": program.belief,
    }
    for slip in hints.slips_of(twin, args, to_torch(asked.value)):
        yield slip.words, lambda slip=slip: _numpy(slip.numbers(twin, args))
