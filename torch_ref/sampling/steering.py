"""Draws samples that a score prefers: the best of some, or by particles that are selected on the way."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torch_ref import numerics
from torch_ref.beliefs import Belief
from torch_ref.processes.base import Process
from torch_ref.sampling import laws
from torch_ref.sampling.chain import Row, State, run_plan
from torch_ref.sampling.denoise import Denoise
from torch_ref.sampling.noise import CLEAN, SELECT, Streams
from torch_ref.sampling.sampler import PRIOR_STEP, Problem, Sampler, count_calls, prepare, shape_logits

Score = Callable[[Tensor], Tensor]  # clean examples [M, *S] -> [M]
SCORE = "score"  # what a particle had when it was last selected


class Steered(NamedTuple):
    """Holds what was drawn by particles: R rows, N samples of P particles each."""

    x0: Tensor  # [N, *S]
    particles: Tensor  # [N, P, *S]
    scores: Tensor  # [N, P]
    log_weights: Tensor  # [R, N, P]
    ancestors: Tensor  # [R, N, P]
    effective_size: Tensor  # [R, N]
    failed_at: Tensor  # []
    calls: Tensor  # [N]
    program_calls: Tensor  # []


def resample(log_weights: Tensor, u: Tensor) -> Tensor:
    """Draws particle j of P at (j + u) / P of the sum of all weights; -1 where there is none."""
    N, P = log_weights.shape
    ancestors = torch.full((N, P), -1)
    for i in range(N):
        top = log_weights[i].max()
        if not torch.isfinite(top):
            continue
        ends = (log_weights[i] - top).exp().cumsum(0)
        scaled = ends * (P / ends[-1])
        scaled[ends == ends[-1]] = P
        for j in range(P):
            # j + u < end, where whole numbers are compared first.
            is_before = scaled.floor() + (u[i] < scaled - scaled.floor()) > j
            ancestors[i, j] = is_before.int().argmax()
    return ancestors


def effective_size(log_weights: Tensor) -> Tensor:
    """(sum w)^2 / sum w^2; 0 where there are no weights."""
    top = log_weights.max(dim=-1, keepdim=True).values
    weights = (log_weights - top).exp()
    size = weights.sum(dim=-1) ** 2 / (weights**2).sum(dim=-1)
    return torch.where(torch.isfinite(top[:, 0]), size, 0.0)


def choose_best(score: Score, candidates: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the candidate of largest score for each sample, the first among equals, and all scores."""
    scores = score(candidates.flatten(0, 1)).reshape(candidates.shape[:2])
    best = []
    for of_sample, score_of_each in zip(candidates, scores, strict=True):
        # `argmax` of PyTorch may give any of those that are equal.
        first = int((score_of_each == score_of_each.max()).int().argmax())
        is_possible = bool(score_of_each.max() > -torch.inf)
        best.append(of_sample[first] if is_possible else torch.full_like(of_sample[0], -1))
    return torch.stack(best), scores


def run_steered(
    score: Score,
    sampler: Sampler,
    denoise: Denoise,
    process: Process,
    xT: Tensor,
    noise: Streams,
    belief: Belief = "d3pm",
    x0: Tensor | None = None,
    known: Tensor | None = None,
    plan: Sequence[Row] | None = None,
) -> Steered:
    """Runs a sampler with P particles of each sample, which go on by exp of how much their scores rise."""
    N, P, *S = xT.shape
    if x0 is not None and known is not None:
        x0 = x0.repeat_interleave(P, dim=0)
        known = known.repeat_interleave(P, dim=0)
    prepared = prepare(sampler, denoise, process, xT.flatten(0, 1), noise, belief, x0, known, plan)
    said = prepared.problem.said
    rows: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def take_row(state: State, row: Row) -> State:
        before = state.memory[SCORE]
        said.clear()
        after = prepared.take_row(state, row)
        counts = after.calls > state.calls
        clean = after.x
        if said:
            clean = _draw_clean(prepared.problem, *said[0], after.x, row)
        scores = score(clean.clamp(min=0))
        # On the way -inf says nothing; at the end it means never.
        counts = counts & (scores > -torch.inf) | (row.number == 1)
        scores = torch.where(counts, scores, before)
        log_weights = (scores - before).reshape(N, P)
        ancestors = resample(log_weights, _of_samples(noise(row.number, SELECT), N))
        failed = ((after.x < 0) | (state.x < 0)).reshape(N, -1).any(dim=1) | (ancestors[:, 0] < 0)
        index = (torch.arange(N)[:, None] * P + ancestors.clamp(min=0)).flatten()
        x = after.x[index].reshape(N, -1)
        x[failed] = -1
        memory = {name: values[index] for name, values in (after.memory | {SCORE: scores}).items()}
        size = torch.where(failed, 0.0, effective_size(log_weights))
        rows.append((memory[SCORE].reshape(N, P), log_weights, ancestors, size))
        return after._replace(x=x.reshape(after.x.shape), memory=memory)

    memory = prepared.memory | {SCORE: torch.zeros(N * P)}
    chain = count_calls(run_plan(take_row, prepared.plan, prepared.x, memory), denoise)
    of_samples = chain.x0.reshape(N, P, *S)
    chosen = (_of_samples(noise(PRIOR_STEP, SELECT), N) * P).floor().long().clamp(max=P - 1)
    scores, log_weights, ancestors, sizes = (torch.stack(column) for column in zip(*rows, strict=True))
    return Steered(
        of_samples[torch.arange(N), chosen],
        of_samples,
        scores[-1],
        log_weights,
        ancestors,
        sizes,
        chain.failed_at,
        chain.calls.reshape(N, P).sum(dim=1),
        chain.program_calls,
    )


def _draw_clean(problem: Problem, xt: Tensor, logits: Tensor, x: Tensor, row: Row) -> Tensor:
    """Draws x_0 of what the network said of x_t, given the x_s that was drawn then."""
    process = problem.process
    t = torch.full(x.shape[:1], row.t)
    s = torch.full(x.shape[:1], row.s)
    u = problem.noise(row.number, CLEAN)
    shaped, belief = shape_logits(problem, logits, xt, t)
    if problem.sampler.needs_extra_mask:
        drawn = numerics.categorical(laws.denoiser_of(process, shaped, xt, t, belief), u)
        clean = torch.where(x == laws.mask_of(process), drawn, x)
    elif row.s == 0:
        clean = x
    else:
        evidence = process.log_q_x0(x, s)
        log_p = laws.leave_one_out_of(process, shaped, xt, t, belief) + evidence
        is_ruled_out = (log_p == -torch.inf).all(dim=-1, keepdim=True)
        clean = numerics.categorical(torch.where(is_ruled_out, evidence, log_p), u)
    if problem.x0 is None:
        return clean
    return torch.where(problem.unknown, clean, problem.x0)


def _of_samples(u: Tensor, N: int) -> Tensor:
    """Returns the uniform of the first place of the first particle of each of N samples, [N]."""
    return u.reshape(N, -1)[:, 0]
