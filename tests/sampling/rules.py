"""The rules of samplers a second time: from their papers, by sums over x_0 and dense matrices, in NumPy.

Nothing here calls the library. x is [B, L], a belief [B, L, K] of probabilities; a law is [B, L, K], and the
places of an example are drawn each on its own from it. Where places have processes of their own, a matrix
is [L, K, K] in place of [K, K], with K categories at each: what a place does not have, it never becomes.
"""

import itertools
from typing import NamedTuple

import numpy as np

T = 4
K = 3
MASK = K - 1
BETA = np.array([0.15, 0.3, 0.5, 1.0])
GAMMA = np.array([0.6, 0.3, 0.18, 0.09])
P_UNIFORM = 0.4  # of "interpolating"
PI = np.array([0.5, 0.2, 0.3])
INNER_PI = np.array([0.7, 0.3])
BY_PLACE = " by place"  # behind the name of a family
SIZES = (2, 3, 5)  # of the data at each place, by place
PIS = (np.array([0.4, 0.6]), np.array([0.5, 0.2, 0.3]), np.array([0.1, 0.3, 0.0, 0.35, 0.25]))


class World(NamedTuple):
    """A process as its matrices, and a law of the data over all states."""

    name: str  # of the family
    Q: np.ndarray  # [T + 1, K, K], or by place [T + 1, L, K, K], the identity first
    prior: np.ndarray  # [K] or [L, K]
    alpha: np.ndarray  # [T + 1], alpha_bar; of a mask on top that of the process below
    pi: np.ndarray  # [K] or [L, K]
    keep_bar: np.ndarray | None  # [T + 1], the probability of no mask, of a mask on top
    data: tuple[int, ...]  # categories of the data; of places those of the largest

    @property
    def K(self) -> int:
        return self.Q.shape[-1]

    @property
    def mask(self) -> int:
        return self.K - 1

    @property
    def is_data(self) -> np.ndarray:
        """Which categories the data may have, [K] or [L, K]."""
        is_any = np.isin(np.arange(self.K), self.data)
        if self.pi.ndim == 1:
            return is_any
        return is_any & (np.arange(self.K) < np.array(SIZES)[:, None])

    @property
    def Qbar(self) -> np.ndarray:
        """Products of Q, of the same shape."""
        return np.array(list(itertools.accumulate(self.Q, np.matmul)))

    @property
    def has_mask(self) -> bool:
        return self.name in ("absorbing", "masked")


def make_world(name: str) -> World:
    """K = 3 and T = 4: a process of `cases.ALL`, or one by place."""
    if name.endswith(BY_PLACE):
        return _make_world_by_place(family_of(name))
    alpha = np.concatenate([[1.0], np.cumprod(1 - BETA)])
    pi = {"uniform": np.full(K, 1 / K), "marginal": PI, "absorbing": np.eye(K)[MASK]}.get(name)
    if pi is not None:
        data = (0, 1) if name == "absorbing" else (0, 1, 2)
        return World(name, _mix(BETA, pi), pi, alpha, pi, None, data)
    if name == "masked":
        Q = np.zeros((T + 1, K, K))
        Q[:, :2, :2] = _mix(BETA, INNER_PI)
        Q[:, MASK, MASK] = 1.0
        for t in range(T):
            Q[t + 1, :2, :2] *= 1 - GAMMA[t]
            Q[t + 1, :2, MASK] = GAMMA[t]
        keep_bar = np.concatenate([[1.0], np.cumprod(1 - GAMMA)])
        prior = np.append(keep_bar[-1] * INNER_PI, 1 - keep_bar[-1])
        return World(name, Q, prior, alpha, np.append(INNER_PI, 0.0), keep_bar, (0, 1))
    if name == "interpolating":
        time = np.arange(T + 1) / T
        c = 2 * P_UNIFORM / (1 - P_UNIFORM) * np.sqrt(time * (1 - time))
        alpha = (1 - time) / (1 + c)
        b = np.stack([c / 2, c / 2, time], axis=1) / (1 + c)[:, None]
        of_step = [np.eye(K)]
        for t in range(1, T + 1):
            a = alpha[t] / alpha[t - 1]
            of_step.append(a * np.eye(K) + (b[t] - a * b[t - 1]))
        return World(name, np.array(of_step), np.eye(K)[MASK], alpha, np.eye(K)[MASK], None, (0, 1))
    Q = [np.eye(K)]
    if name == "banded":
        to_next = np.diag(np.ones(K - 1), 1) / K
        for beta in GAUSSIAN_BETA:
            q = beta * (to_next + to_next.T)
            Q.append(q + np.diag(1 - q.sum(1)))
        return World(name, np.array(Q), np.full(K, 1 / K), alpha, np.full(K, 1 / K), None, (0, 1, 2))
    assert name == "gaussian"
    for beta in GAUSSIAN_BETA:
        weights = np.exp(-4 * np.arange(-K + 1, K) ** 2 / ((K - 1) ** 2 * beta))
        row = weights / weights.sum()
        q = np.array([[row[K - 1 + j - i] if i != j else 0.0 for j in range(K)] for i in range(K)])
        Q.append(q + np.diag(1 - q.sum(1)))
    return World(name, np.array(Q), np.full(K, 1 / K), alpha, np.full(K, 1 / K), None, (0, 1, 2))


def family_of(name: str) -> str:
    """The name without what says that places have processes of their own."""
    return name.removesuffix(BY_PLACE)


def _make_world_by_place(family: str) -> World:
    """Places of 2, 3 and 5 categories, and with a mask one more for all."""
    alpha = np.concatenate([[1.0], np.cumprod(1 - BETA)])
    has_mask = family in ("absorbing", "masked")
    K = max(SIZES) + has_mask
    keep_bar = np.concatenate([[1.0], np.cumprod(1 - GAMMA)]) if family == "masked" else None
    by_place = []
    for size, own_pi in zip(SIZES, PIS, strict=True):
        pi = np.zeros(K)
        pi[:size] = np.full(size, 1 / size) if family == "uniform" else own_pi
        if family == "absorbing":
            pi = np.eye(K)[K - 1]
        Q = _mix(BETA, pi)
        prior = pi
        if keep_bar is not None:
            Q = np.concatenate([Q[:1], Q[1:] * (1 - GAMMA)[:, None, None]])
            Q[1:, :, K - 1] += GAMMA[:, None]
            Q[:, K - 1] = np.eye(K)[K - 1]
            prior = keep_bar[-1] * pi + (1 - keep_bar[-1]) * np.eye(K)[K - 1]
        by_place.append((Q, prior, pi))
    Q, prior, pi = (np.stack(x) for x in zip(*by_place, strict=True))
    return World(family, np.moveaxis(Q, 0, 1), prior, alpha, pi, keep_bar, tuple(range(max(SIZES))))


def columns(q: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The column of a matrix, or of that of each place, at each x [.., L], [.., L, K]."""
    if q.ndim == 2:
        return np.moveaxis(q[:, x], 0, -1)
    return q[np.arange(len(q)), :, x]


def entries(q: np.ndarray, x0: np.ndarray, xt: np.ndarray) -> np.ndarray:
    """The entry of a matrix, or of that of each place, at each x_0 and x_t [.., L], [.., L]."""
    if q.ndim == 2:
        return q[x0, xt]
    return q[np.arange(len(q)), x0, xt]


def push(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """p Q for each place, [.., L, K]."""
    return (p[..., None, :] @ q)[..., 0, :]


def pick(pi: np.ndarray, x: np.ndarray) -> np.ndarray:
    """pi at each x [.., L]."""
    if pi.ndim == 1:
        return pi[x]
    return pi[np.arange(len(pi)), x]


GAUSSIAN_BETA = np.array([0.8, 0.85, 0.9, 1.0])


def _mix(beta: np.ndarray, pi: np.ndarray) -> np.ndarray:
    """[T + 1, k, k]: (1 - beta) I + beta 1 pi^T, the identity first."""
    k = len(pi)
    return np.stack([np.eye(k)] + [(1 - b) * np.eye(k) + b * np.tile(pi, (k, 1)) for b in beta])


# ---- Beliefs ----


def all_states(L: int, K: int = K) -> np.ndarray:
    """[K^L, L], the last place fastest."""
    return np.array(list(itertools.product(range(K), repeat=L)))


def number_of(x: np.ndarray, K: int = K) -> np.ndarray:
    """The number of each state [B] among `all_states`."""
    return x @ K ** np.arange(x.shape[-1])[::-1]


def data_law(world: World, L: int, seed: int = 0) -> np.ndarray:
    """Random probabilities of all states, [K^L]; 0 where one is not of the data."""
    states = all_states(L, world.K)
    p = np.random.default_rng(seed).dirichlet(np.ones(len(states))) + 0.01
    p *= pick(world.is_data, states).all(-1)
    return p / p.sum()


def exact_beliefs(world: World, p0: np.ndarray, L: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the denoiser and the leave-one-out belief, [T + 1, K^L, L, K], and p_t [T + 1, K^L].

    A sum over x_0 of p(x_0) q(x_t | x_0), of all places or of the others. Where x_t cannot be, a belief is
    uniform over the data.
    """
    states = all_states(L, world.K)
    steps = len(world.Q)
    denoiser = np.zeros((steps, len(states), L, world.K))
    leave_one_out = np.zeros_like(denoiser)
    p_t = np.zeros((steps, len(states)))
    for t, q in enumerate(world.Qbar):
        evidence = entries(q, states[:, None], states[None])  # [x_0, x_t, L]
        for place in range(L):
            others = np.prod(np.delete(evidence, place, axis=-1), axis=-1)  # [x_0, x_t]
            for k in range(world.K):
                is_k = states[:, place] == k
                leave_one_out[t, :, place, k] = p0[is_k] @ others[is_k]
                denoiser[t, :, place, k] = p0[is_k] @ evidence[is_k].prod(-1)
        p_t[t] = p0 @ evidence.prod(-1)
    return _normalised(world, denoiser), _normalised(world, leave_one_out), p_t


def _normalised(world: World, belief: np.ndarray) -> np.ndarray:
    uniform = world.is_data / world.is_data.sum(-1, keepdims=True)
    total = belief.sum(-1, keepdims=True)
    return np.where(total > 0, belief / np.where(total > 0, total, 1), uniform)


def strip_evidence(world: World, denoiser: np.ndarray, x: np.ndarray, t: int) -> np.ndarray:
    """denoiser(x_0) / q(x_t | x_0), normalised; 0 where x_0 cannot become x_t, whatever the denoiser says."""
    evidence = columns(world.Qbar[t], x)
    leave_one_out = np.divide(denoiser, evidence, out=np.zeros_like(denoiser), where=evidence > 0)
    total = leave_one_out.sum(-1, keepdims=True)
    return np.divide(leave_one_out, total, out=leave_one_out, where=total > 0)


class Believed(NamedTuple):
    """What logits of a belief are to a law at t."""

    world: World
    leave_one_out: np.ndarray  # [B, L, K]


def read_belief(world: World, belief: str, predicted: np.ndarray, x: np.ndarray, t: int) -> Believed:
    """The leave-one-out belief that a law takes for a prediction, and the process that it takes it with.

    By the official rule x_1 says nothing of x_0: the prediction is p(x_0 | x_1).
    """
    if belief == "denoiser":
        return Believed(world, strip_evidence(world, predicted, x, t))
    if belief == "official" and t == 1:
        says_nothing = np.full_like(world.Q[:1], 1 / world.K)
        Q = np.concatenate([world.Q[:1], says_nothing, world.Q[2:]])
        return Believed(world._replace(Q=Q), predicted)
    return Believed(world, predicted)


def denoiser_of(world: World, leave_one_out: np.ndarray, x: np.ndarray, t: int) -> np.ndarray:
    """p(x_0 | x_t) ~ leave_one_out(x_0) q(x_t | x_0); 0 where x_t cannot be."""
    product = leave_one_out * columns(world.Qbar[t], x)
    total = product.sum(-1, keepdims=True)
    return np.divide(product, total, out=np.zeros_like(product), where=total > 0)


# ---- Laws of rows ----


def posterior(world: World, x: np.ndarray, t: int) -> np.ndarray:
    """q(x_{t-1} = j | x_t, x_0 = k) as [B, L, k, j]; 0 where x_0 cannot become x_t."""
    before = world.Qbar[t - 1]  # [k, j] or [L, k, j]
    step = columns(world.Q[t], x)  # [B, L, j]
    product = before * step[..., None, :]
    total = product.sum(-1, keepdims=True)
    return np.divide(product, total, out=np.zeros_like(product), where=total > 0)


def bayes(world: World, leave_one_out: np.ndarray, x: np.ndarray, t: int) -> np.ndarray:
    """Sum over x_0 of denoiser(x_0) q(x_{t-1} | x_t, x_0)."""
    return np.einsum("blk,blkj->blj", denoiser_of(world, leave_one_out, x, t), posterior(world, x, t))


def tweedie(world: World, leave_one_out: np.ndarray, x: np.ndarray, t: int, s: int) -> np.ndarray:
    """Sum over x_0 of denoiser(x_0) q(x_s | x_t, x_0); pi where nothing of x_0 is left, but of masks.

    What pi does not have stays, such as what is not masked, also where the official rule draws it anew.
    """
    if world.alpha[t] == 0 and not world.has_mask:
        return np.broadcast_to(world.pi, (*x.shape, world.K))
    forward = np.eye(world.K)
    for step in world.Q[s + 1 : t + 1]:
        forward = forward @ step
    product = world.Qbar[s] * columns(forward, x)[..., None, :]  # [B, L, x_0, x_s]
    total = product.sum(-1, keepdims=True)
    posterior_s = np.divide(product, total, out=np.zeros_like(product), where=total > 0)
    law = np.einsum("blk,blkj->blj", denoiser_of(world, leave_one_out, x, t), posterior_s)
    return np.where(pick(world.pi, x)[..., None] == 0, np.eye(world.K)[x], law)


def keep(world: World, leave_one_out: np.ndarray, x: np.ndarray, t: int, s: int, c: float) -> np.ndarray:
    """keep [x_s = x_t] + (alpha_s - keep alpha_t) p(x_0) + (1 - alpha_s - keep (1 - alpha_t)) pi."""
    alpha_t, alpha_s = world.alpha[t], world.alpha[s]
    kept = c * (1 - alpha_s) / (1 - alpha_t)
    law = (alpha_s - kept * alpha_t) * denoiser_of(world, leave_one_out, x, t)
    law = law + (1 - alpha_s - kept * (1 - alpha_t)) * world.pi
    return law + kept * np.eye(world.K)[x]


def psi(world: World, leave_one_out: np.ndarray, x: np.ndarray, t: int, kappa: float) -> np.ndarray:
    """Sum over x_0 of denoiser(x_0) (kappa q(x_{t-1} | x_t, x_0) + (1 - kappa) q(x_{t-1} | x_0))."""
    by_x0 = kappa * posterior(world, x, t) + (1 - kappa) * world.Qbar[t - 1]
    return np.einsum("blk,blkj->blj", denoiser_of(world, leave_one_out, x, t), by_x0)


def most_sigma(world: World, t: int, s: int) -> float:
    """min(1, (1 - alpha_s) / alpha_t)."""
    alpha_t, alpha_s = world.alpha[t], world.alpha[s]
    if alpha_t <= 1 - alpha_s:
        return 1.0
    return (1 - alpha_s) / alpha_t


def remask(
    world: World, leave_one_out: np.ndarray, x: np.ndarray, t: int, s: int, sigma: float | np.ndarray
) -> np.ndarray:
    """A mask to x_0 with (alpha_s - (1 - sigma) alpha_t) / (1 - alpha_t), others to the mask with sigma."""
    alpha_t, alpha_s = world.alpha[t], world.alpha[s]
    sigma = np.broadcast_to(sigma, x.shape)[..., None]
    mask = np.eye(world.K)[world.mask]
    to_x0 = (alpha_s - (1 - sigma) * alpha_t) / (1 - alpha_t)
    stay = (1 - alpha_s - sigma * alpha_t) / (1 - alpha_t)
    of_masked = to_x0 * denoiser_of(world, leave_one_out, x, t) + stay * mask
    of_others = (1 - sigma) * np.eye(world.K)[x] + sigma * mask
    return np.where((x == world.mask)[..., None], of_masked, of_others)


def sigma_of_confidence(world: World, x: np.ndarray, t: int, s: int, confidence: np.ndarray) -> np.ndarray:
    """The most, times a softmax over unmasked places of minus the probability when unmasked, [B, L]."""
    weights = np.where(x == world.mask, 0.0, np.exp(-confidence))
    total = weights.sum(-1, keepdims=True)
    return most_sigma(world, t, s) * np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)


def ratios(world: World, leave_one_out: np.ndarray, x: np.ndarray, t: int) -> np.ndarray:
    """p_t(y) / p_t(x_t): sum over x_0 of denoiser(x_0) q_t(y | x_0) / q_t(x_t | x_0)."""
    denoiser = denoiser_of(world, leave_one_out, x, t)
    evidence = columns(world.Qbar[t], x)
    weights = np.divide(denoiser, evidence, out=np.zeros_like(denoiser), where=denoiser > 0)
    return push(weights, world.Qbar[t])


def rates(world: World, leave_one_out: np.ndarray, x: np.ndarray, t: int, s: int) -> np.ndarray:
    """R_y = log(alpha_s / alpha_t) pi(x_t) p_t(y) / p_t(x_t); keep_bar counts at a mask on top."""
    scale = np.log(world.alpha[s] / world.alpha[t]) * pick(world.pi, x)
    if world.keep_bar is not None:
        scale = np.where(x == world.mask, np.log(world.keep_bar[s] / world.keep_bar[t]), scale)
    rate = scale[..., None] * ratios(world, leave_one_out, x, t)
    if world.keep_bar is not None:
        rate[..., world.mask] = 0.0
    return np.where(np.eye(world.K)[x] > 0, 0.0, rate)


def corrector_rates(world: World, leave_one_out: np.ndarray, x: np.ndarray, t: int, h: float) -> np.ndarray:
    """R_y = h (pi(y) + pi(x_t) p_t(y) / p_t(x_t))."""
    rate = h * (world.pi + pick(world.pi, x)[..., None] * ratios(world, leave_one_out, x, t))
    return np.where(np.eye(world.K)[x] > 0, 0.0, rate)


def euler(rate: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Moves with probability R_y / max(1, sum R)."""
    moves = rate / np.maximum(1, rate.sum(-1, keepdims=True))
    return moves + (1 - moves.sum(-1, keepdims=True)) * np.eye(rate.shape[-1])[x]


def poisson(rate: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Moves with probability R_y exp(-sum R), that of one event; else stays."""
    moves = rate * np.exp(-rate.sum(-1, keepdims=True))
    return moves + (1 - moves.sum(-1, keepdims=True)) * np.eye(rate.shape[-1])[x]


def leap(world: World, leave_one_out: np.ndarray, x: np.ndarray, t: int, rule) -> np.ndarray:
    """A leap to t - 1; by Bayes' rule in the last row, and where alpha_t = 0."""
    if t == 1 or world.alpha[t] == 0:
        return bayes(world, leave_one_out, x, t)
    return rule(rates(world, leave_one_out, x, t, t - 1), x)


def stratified(
    world: World, leave_one_out: np.ndarray, x: np.ndarray, t: int, clock: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Leaves x_t where the sum of probabilities of leaving passes a whole number; also the sum after it."""
    law = bayes(world, leave_one_out, x, t)
    at_x = np.eye(world.K)[x] > 0
    others = np.where(at_x, 0.0, law)
    leaving = others.sum(-1)
    after = clock + leaving
    is_due = np.floor(after) > np.floor(clock)
    goes = others / np.where(leaving > 0, leaving, 1)[..., None]
    return np.where(is_due[..., None], goes, np.eye(world.K)[x]), after


def gibbs(world: World, leave_one_out: np.ndarray, t: int) -> np.ndarray:
    """Sum over x_0 of leave_one_out(x_0) q_t(x_t | x_0)."""
    return push(leave_one_out, world.Qbar[t])


# ---- Places ----


class Candidates(NamedTuple):
    """Holds what one example chooses places by, in one row."""

    p: np.ndarray  # [L, K], the denoiser
    drawn: np.ndarray  # [L], what each place would take
    masked: np.ndarray  # [L], which places may be revealed
    u: np.ndarray  # [L], the noise of the order
    at_start: int  # how many masks there were before the first row
    i: int  # the number of the row, from 1 on
    rows: int
    p_kept: np.ndarray  # [L], of what stands there, as if it were masked
    revealed: np.ndarray  # [L], which places were masked at the start and are no more

    @property
    def p_drawn(self) -> np.ndarray:
        return self.p[np.arange(len(self.drawn)), self.drawn]


def first_of(score: np.ndarray, candidates: np.ndarray) -> list[int]:
    """The candidates of one example, the largest score first, and of equal ones the smaller index."""
    return sorted(np.flatnonzero(candidates).tolist(), key=lambda place: (-score[place], place))


def entropy(p: np.ndarray) -> np.ndarray:
    return -np.sum(np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0), axis=-1)


def stay_masked(masks: int, i: int, rows: int) -> int:
    """floor(n cos(pi i / 2N) + 1e-9), at least 0, and 0 after the last row."""
    if i == rows:
        return 0
    return max(int(np.floor(masks * np.cos(np.pi * i / (2 * rows)) + 1e-9)), 0)


def maskgit(c: Candidates, temperature: float) -> list[int]:
    """The largest log p(drawn) + temperature (1 - i / N) Gumbel; as many stay as the cosine says."""
    score = np.log(np.where(c.masked, c.p_drawn, 1)) + temperature * (1 - c.i / c.rows) * -np.log(
        -np.log(c.u)
    )
    count = max(c.masked.sum() - stay_masked(c.at_start, c.i, c.rows), 0)
    return first_of(score, c.masked)[:count]


def llada(c: Candidates) -> list[int]:
    """The most probable draws, n // N in each row of N and one more in the first n mod N."""
    count = c.at_start // c.rows + (c.i <= c.at_start % c.rows)
    return first_of(c.p_drawn, c.masked)[:count]


def margin(c: Candidates, noise: float) -> list[int]:
    """The place of the largest p_1 - p_2 + noise Gumbel."""
    p = np.sort(c.p, axis=-1)
    return first_of(p[:, -1] - p[:, -2] + noise * -np.log(-np.log(c.u)), c.masked)[:1]


def p2(c: Candidates, eta: float) -> list[int]:
    """The places with a category after the row: all but n (N - i) // N of the lowest score."""
    with np.errstate(divide="ignore"):
        score = np.where(c.masked, np.log(c.p_drawn), eta * np.log(c.p_kept))
    stay = c.at_start * (c.rows - c.i) // c.rows
    return first_of(score, c.masked | c.revealed)[: c.at_start - stay]


def fast_dllm_threshold(c: Candidates, threshold: float) -> list[int]:
    """Those whose p(drawn) reaches the threshold, at least one."""
    order = first_of(c.p_drawn, c.masked)
    return order[: max(sum(c.p_drawn[order] >= threshold), 1)]


def fast_dllm_factor(c: Candidates, factor: float) -> list[int]:
    """The largest n with (n + 1) (1 - p_(n)) < factor, at least one."""
    order = first_of(c.p_drawn, c.masked)
    fits = [n for n in range(1, len(order) + 1) if (n + 1) * (1 - c.p_drawn[order[n - 1]]) < factor]
    return order[: max([1, *fits])]


def entropy_bound(c: Candidates, bound: float) -> list[int]:
    """The longest prefix, in rising order of entropy, whose sum less its largest is at most the bound."""
    entropies = entropy(c.p)
    order = first_of(-entropies, c.masked)
    prefixes = [entropies[order[:n]] for n in range(1, len(order) + 1)]
    fits = [len(prefix) for prefix in prefixes if prefix.sum() - prefix.max() <= bound]
    return order[: max([1, *fits])]


def draw_forward(world: World, q: np.ndarray, x: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Draws from the row of x [.., L] of a matrix q of the process, or of that of each place.

    Where a place stays or is drawn anew, u is cut into the shares of the others, then that of x, and that of
    a mask on top is last; of any other process into the shares of all in their order.
    """
    drawn = np.empty_like(x)
    for place in np.ndindex(x.shape):
        order = list(range(world.K))
        if world.name not in ("banded", "gaussian"):
            mask = [world.mask] if world.name == "masked" and x[place] != world.mask else []
            order = [k for k in order if k not in (x[place], *mask)] + [x[place]] + mask
        of_place = q if q.ndim == 2 else q[place[-1]]
        shares = np.cumsum(of_place[x[place], order])
        drawn[place] = order[min(int(np.sum(shares <= u[place])), world.K - 1)]
    return drawn


def draw(p: np.ndarray, u: np.ndarray) -> np.ndarray:
    """The category of p [.., K] that u falls into."""
    return np.minimum((np.cumsum(p, axis=-1) <= u[..., None]).sum(-1), p.shape[-1] - 1)
