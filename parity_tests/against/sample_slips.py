"""Laws of samplers of a few places, right and with a slip, by sums over all states."""

import itertools
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

TEMPERATURES = (0.2, 0.5, 0.7, 0.8, 0.9, 0.95, 1.05, 1.1, 1.25, 1.5, 2.0)

Laws = np.ndarray  # of each place in each state [S, L, V]


class World:
    """Knows all states of L places, and a random network that agrees with no law of x_0.

    It is asked at each alpha, and where a place is not masked too: it does not copy what it sees.
    """

    def __init__(self, noise: str, K: int, length: int):
        self.noise = noise
        self.K = K
        self.V = K + (noise == "mask")
        self.length = length
        self.states = np.array(list(itertools.product(range(self.V), repeat=length)))  # [S, L]
        rng = np.random.default_rng(60)
        self.at_half, self.slope = rng.normal(size=(2, len(self.states), length, K))

    def number(self, x: np.ndarray) -> np.ndarray:
        """The number of each state [N, L] in `states`."""
        return x @ self.V ** np.arange(self.length - 1, -1, -1)

    def logits(self, x: Any, alpha: Any, xp: ModuleType = np) -> Any:
        """The network's logits of x_0 at a place, given the others [N, L, K]; xp is numpy, or of JAX."""
        number = self.number(x)
        shift = xp.reshape(2 * xp.asarray(alpha) - 1, (-1, 1, 1))
        return 1.5 * (xp.asarray(self.at_half)[number] + shift * xp.asarray(self.slope)[number])

    def leave_one_out(self, x: np.ndarray, alpha: float | np.ndarray) -> np.ndarray:
        """log p(x_0 at a place | the others), [N, L, K]."""
        return _normalize(self.logits(x, alpha))

    def denoiser(self, x: np.ndarray, alpha: float | np.ndarray) -> np.ndarray:
        """log p(x_0 | x_t), [N, L, K]: with the evidence of x_t at the place itself."""
        log_p = self.leave_one_out(x, alpha)
        if self.noise == "mask":
            return log_p
        alpha = np.reshape(np.asarray(alpha, float), (-1, 1, 1))
        return _normalize(log_p + np.log(alpha * np.eye(self.K)[x] + (1 - alpha) / self.K))


def _normalize(log_p: np.ndarray) -> np.ndarray:
    log_p = log_p - log_p.max(axis=-1, keepdims=True)
    return log_p - np.log(np.exp(log_p).sum(axis=-1, keepdims=True))


class Chain(NamedTuple):
    """What an ancestral sampler does, each part of which a slip replaces."""

    world: World
    grid: np.ndarray  # [calls + 1]  alpha, from noise to x_0
    asked: np.ndarray  # [calls]  the alpha that the network is asked at
    place: Callable[[World, np.ndarray, float, float], list[tuple[float, Laws]]]  # p, alpha_t, alpha_s
    of_p: Callable[[np.ndarray], np.ndarray] = lambda p: p  # what is done to the network's p(x_0)
    of_laws: Callable[[Laws], Laws] = lambda laws: laws  # to the law of x_s
    of_last: Callable[[Laws], Laws] = lambda laws: laws  # to the law of x_0
    starts_from: int | None = None  # one category in place of noise
    is_denoiser: bool = False  # p(x_0 | x_t) in place of leave-one-out

    def law(self) -> np.ndarray:
        """The law of what is drawn, [S]."""
        world = self.world
        law = (world.states == (world.K if world.noise == "mask" else self.starts_from)).all(axis=1) * 1.0
        if world.noise == "uniform" and self.starts_from is None:
            law = np.full(len(world.states), 1 / len(world.states))
        ask = world.denoiser if self.is_denoiser else world.leave_one_out
        for i, (a, s) in enumerate(itertools.pairwise(self.grid)):
            p = self.of_p(np.exp(ask(world.states, self.asked[i])))
            after = np.zeros_like(law)
            for weight, laws in self.place(world, p, a, s):
                laws = self.of_laws(laws)
                if i == len(self.grid) - 2:
                    laws = self.of_last(laws)
                after += weight * law @ _products(world, laws)
            law = after
        return law


def _products(world: World, laws: Laws) -> np.ndarray:
    """The probabilities [S, S] of states after states, whose places move each on its own."""
    product = np.ones((len(laws), len(laws)))
    for place in range(world.length):
        product *= laws[:, place, world.states[:, place]]
    return product


# ---- One step of a place ----


def _reveal(world: World, p: np.ndarray, r: float) -> Laws:
    """Masked places become x_0 with probability r; the others stay."""
    revealed = np.concatenate([r * p, np.full((*p.shape[:2], 1), 1 - r)], axis=-1)
    return np.where((world.states == world.K)[..., None], revealed, np.eye(world.V)[world.states])


def _share(a: float, s: float) -> float:
    return (s - a) / (1 - a)


def of_masks(world: World, p: np.ndarray, a: float, s: float) -> list[tuple[float, Laws]]:
    """Bayes' rule: (alpha_s - alpha_t) / (1 - alpha_t) of the masks are revealed."""
    return [(1.0, _reveal(world, p, _share(a, s)))]


def _of_all_places(world: World, p: np.ndarray, a: float, s: float) -> list[tuple[float, Laws]]:
    r = _share(a, s)
    drawn = np.concatenate([p, np.zeros((*p.shape[:2], 1))], axis=-1)
    return [(1.0, r * drawn + (1 - r) * np.eye(world.V)[world.states])]


def _as_if_masked(world: World, p: np.ndarray, a: float, s: float) -> list[tuple[float, Laws]]:
    r = _share(a, s)
    return [(1.0, np.concatenate([r * p, np.full((*p.shape[:2], 1), 1 - r)], axis=-1))]


def _at_once(world: World, p: np.ndarray, a: float, s: float) -> list[tuple[float, Laws]]:
    r = _share(a, s)
    return [(r, _reveal(world, p, 1.0)), (1 - r, _reveal(world, p, 0.0))]


def _noised_anew(world: World, p: np.ndarray, a: float, s: float) -> list[tuple[float, Laws]]:
    if world.noise == "uniform":
        return [(1.0, s * p + (1 - s) / world.K)]
    x0 = _reveal(world, p, 1.0)
    return [(1.0, s * x0 + (1 - s) * np.eye(world.V)[world.K])]


def of_uniform(
    world: World, p: np.ndarray, a: float, s: float, seen: float | None = None, left: float | None = None
) -> list[tuple[float, Laws]]:
    """q(x_t | x_s) sum_{x_0} q(x_s | x_0) p(x_0), normalised; `seen` and `left` are other alphas of both."""
    keep = a / s if seen is None else seen
    left = s if left is None else left
    evidence = keep * np.eye(world.K)[world.states] + (1 - keep) / world.K
    joint = evidence * (left * p + (1 - left) / world.K)
    return [(1.0, joint / joint.sum(axis=-1, keepdims=True))]


# ---- What is done to a law ----


def most_likely(p: np.ndarray) -> np.ndarray:
    """All on the largest."""
    return np.eye(p.shape[-1])[p.argmax(axis=-1)]


def with_other_gumbel(p: np.ndarray) -> np.ndarray:
    """The law of the largest of log p - Gumbel, which is the smallest of Gumbel - log p.

    Of Gumbels the largest has a simple law; that of the smallest follows by inclusion and exclusion.
    """
    V = p.shape[-1]
    inverse = 1 / np.maximum(p, 1e-300)
    result = np.zeros_like(p)
    for k in range(V):
        others = [j for j in range(V) if j != k]
        for size in range(V):
            for chosen in itertools.combinations(others, size):
                total = inverse[..., [k, *chosen]].sum(axis=-1)
                result[..., k] += (-1) ** size * inverse[..., k] / total
    return np.where(p > 0, np.clip(result, 0, 1), 0.0)


def _at_temperature(temperature: float) -> Callable[[np.ndarray], np.ndarray]:
    def cool(p: np.ndarray) -> np.ndarray:
        power = p ** (1 / temperature)
        return power / power.sum(axis=-1, keepdims=True)

    return cool


# ---- Slips ----


def ancestral(world: World, alphas: np.ndarray) -> Chain:
    """The right one; alphas [calls + 1] are of t = 0..calls."""
    grid = alphas[::-1]
    place = of_masks if world.noise == "mask" else of_uniform
    return Chain(world, grid, grid[:-1], place)


def slips(right: Chain) -> Iterator[tuple[str, Chain]]:
    """Every slip that is tested."""
    grid = right.grid
    yield "with the network asked at the alpha of the step after", right._replace(asked=grid[1:])
    before = np.append(grid[0], grid[:-2])
    yield "with the network asked at the alpha of the step before", right._replace(asked=before)
    yield "with the network's times in the other order", right._replace(asked=right.asked[::-1])
    yield "with the network asked at 1 - alpha", right._replace(asked=1 - right.asked)
    yield "without the last step, which ends at x_0", right._replace(grid=grid[:-1])
    yield "with x_0 drawn whole and noised anew to each level", right._replace(place=_noised_anew)
    uniform_p = right._replace(of_p=lambda p: np.full_like(p, 1 / p.shape[-1]))
    yield "with categories that the network has no part in", uniform_p
    before_place = right._replace(of_p=lambda p: np.roll(p, 1, axis=1))
    yield "with the network's answer of one place before", before_place
    behind_place = right._replace(of_p=lambda p: np.roll(p, -1, axis=1))
    yield "with the network's answer of one place behind", behind_place
    changes = {
        "the most likely category": most_likely,
        "Gumbel noise of the other sign": with_other_gumbel,
    }
    changes |= {f"temperature {t:g}": _at_temperature(t) for t in TEMPERATURES}
    for words, change in changes.items():
        yield f"with {words} in the last step", right._replace(of_last=change)
        yield f"with {words} in every draw of x_0", right._replace(of_p=change)
        yield f"with {words} in every draw of x_s", right._replace(of_laws=change)
    if right.world.noise == "mask":
        yield "with visible places drawn again", right._replace(place=_of_all_places)
        yield "with every place drawn as if it were masked", right._replace(place=_as_if_masked)
        yield "with one decision to reveal for all places", right._replace(place=_at_once)
        shares = {
            "alpha_s - alpha_t of the masks revealed": lambda a, s: s - a,
            "alpha_s of the masks revealed": lambda a, s: s,
            "the same share of masks revealed in each step": lambda a, s: 1 / (len(grid) - 1),
        }
        for words, share in shares.items():
            yield f"with {words}", right._replace(place=_with_share(share))
        return
    yield "with p(x_0 | x_t) where leave-one-out belongs", right._replace(is_denoiser=True)
    without = right._replace(place=lambda world, p, a, s: of_uniform(world, p, a, s, seen=0.0))
    yield "without the evidence of x_t", without
    of_total = right._replace(place=lambda world, p, a, s: of_uniform(world, p, a, s, seen=a))
    yield "with q(x_t | x_0) in place of q(x_t | x_s)", of_total
    later = right._replace(place=lambda world, p, a, s: of_uniform(world, p, a, s, left=a))
    yield "with q(x_t | x_0) in place of q(x_s | x_0)", later
    yield "from category 0 in place of noise", right._replace(starts_from=0)


def _with_share(share: Callable[[float, float], float]) -> Callable:
    return lambda world, p, a, s: [(1.0, _reveal(world, p, min(1.0, share(a, s))))]
