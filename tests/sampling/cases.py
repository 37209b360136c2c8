"""One row for each named sampler: its slots, the processes that it is for, and its rule from `rules`."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from d3pm_jax import processes
from d3pm_jax.processes import Process
from d3pm_jax.sampling import LawStep, Sampler, named
from d3pm_jax.sampling.correctors import Corrected, Corrector
from tests.sampling import rules
from tests.sampling.rules import MASK, K, World

ALL = ("uniform", "marginal", "absorbing", "masked", "interpolating", "banded", "gaussian")
MIXING = ("uniform", "marginal", "absorbing")
ABSORBING = ("absorbing",)
BY_PLACE = tuple(name + rules.BY_PLACE for name in ("uniform", "marginal", "absorbing", "masked"))


def make_process(name: str) -> Process:
    """Makes the process of the library whose matrices `rules.make_world` writes out."""
    if name.endswith(rules.BY_PLACE):
        family = rules.family_of(name)
        return processes.by_place([_make_place(family, pi) for pi in rules.PIS])
    if name == "masked":
        return processes.masked(processes.marginal(rules.BETA, rules.INNER_PI), rules.GAMMA)
    if name == "interpolating":
        return processes.interpolating(rules.T, K, MASK, rules.P_UNIFORM)
    if name == "gaussian":
        return processes.gaussian(rules.GAUSSIAN_BETA, K)
    if name == "banded":
        return processes.banded(rules.GAUSSIAN_BETA, K, bands=1)
    if name == "absorbing":
        return processes.absorbing(rules.BETA, K, MASK)
    return processes.marginal(rules.BETA, rules.make_world(name).pi)


def _make_place(family: str, pi: np.ndarray) -> Process:
    """Makes the process of one place, of `rules.SIZES` categories."""
    size = len(pi)
    if family == "uniform":
        return processes.uniform(rules.BETA, size)
    if family == "absorbing":
        return processes.absorbing(rules.BETA, size + 1, size)
    process = processes.marginal(rules.BETA, pi)
    if family == "masked":
        return processes.masked(process, rules.GAMMA)
    return process


class Case(NamedTuple):
    """Holds a sampler, the processes that it is for, and its rule."""

    sampler: Sampler
    names: tuple[str, ...]  # of the processes
    # (world, leave_one_out [B, L, K], x [B, L], t, s, memory) -> the law of a row [B, L, K]
    law: Callable[..., np.ndarray] | None = None
    # of a sampler that reveals: (candidates of one example) -> the places that are revealed
    choose: Callable[[rules.Candidates], list[int]] | None = None
    # and those that are masked again
    remask: Callable[[rules.Candidates], list[int]] | None = None
    drafts: int = 0  # of a sampler that checks drafts, in a row at most
    # by the step t that a row begins at, where it may go
    reaches: Callable[[int], list[int]] = lambda t: [t - 1]
    # (world, leave_one_out, x, t) -> the law of all places in a move of the corrector, [B, L, K]
    move: Callable[..., np.ndarray] | None = None

    def is_for(self, name: str) -> bool:
        """Whether it is for a process, by place or of one K."""
        return rules.family_of(name) in self.names

    @property
    def goes_by_masks(self) -> bool:
        """Whether it reveals places, and not all places move."""
        return self.choose is not None or self.drafts > 0

    @property
    def between(self) -> LawStep:
        """The step that moves from level to level."""
        step = self.sampler.step
        if isinstance(step, Corrected):
            step = step.between
        assert isinstance(step, LawStep)
        return step

    @property
    def corrector(self) -> Corrector:
        """What moves at a level; of a case with `move`."""
        assert isinstance(self.sampler.step, Corrected)
        return self.sampler.step.corrector


def _remask(sigma: Callable[..., float | np.ndarray]) -> Callable[..., np.ndarray]:
    def law(world: World, belief: np.ndarray, x: np.ndarray, t: int, s: int, memory: dict) -> np.ndarray:
        return rules.remask(world, belief, x, t, s, sigma(world, x, t, s, memory))

    return law


def _bayes(world: World, belief: np.ndarray, x: np.ndarray, t: int, s: int, memory: dict) -> np.ndarray:
    return rules.bayes(world, belief, x, t)


def _leap(rule: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    return lambda world, belief, x, t, s, memory: rules.leap(world, belief, x, t, rule)


def _up_to(t: int) -> list[int]:
    return list(range(t + 1))


# Numbers are others than the defaults, so that a row which ignores its number is noticed.
CASES: dict[str, Case] = {
    "ancestral": Case(named.ancestral(), ALL, _bayes),
    "ddim": Case(
        named.ddim(0.7), MIXING, lambda w, p, x, t, s, m: rules.keep(w, p, x, t, s, 0.7), reaches=_up_to
    ),
    "psi": Case(named.psi(0.6), ALL, lambda w, p, x, t, s, m: rules.psi(w, p, x, t, 0.6)),
    "remdm_cap": Case(
        named.remdm_cap(0.3),
        ABSORBING,
        _remask(lambda w, x, t, s, m: min(0.3, rules.most_sigma(w, t, s))),
        reaches=_up_to,
    ),
    "remdm_rescale": Case(
        named.remdm_rescale(0.4),
        ABSORBING,
        _remask(lambda w, x, t, s, m: 0.4 * rules.most_sigma(w, t, s)),
        reaches=_up_to,
    ),
    "remdm_confidence": Case(
        named.remdm_confidence(),
        ABSORBING,
        _remask(lambda w, x, t, s, m: rules.sigma_of_confidence(w, x, t, s, m["confidence"])),
        reaches=_up_to,
    ),
    "remdm_loop": Case(
        named.remdm_loop(rows=4, alpha=0.55),
        ABSORBING,
        _remask(lambda w, x, t, s, m: 0.02 if s == t else 0.0),
        reaches=_up_to,
    ),
    "first_hitting": Case(
        named.first_hitting(), ABSORBING, choose=lambda c: rules.first_of(c.u, c.masked)[:1]
    ),
    "random_order": Case(named.random_order(), ABSORBING, choose=lambda c: rules.first_of(c.u, c.masked)[:1]),
    "least_entropy": Case(
        named.least_entropy(), ABSORBING, choose=lambda c: rules.first_of(-rules.entropy(c.p), c.masked)[:1]
    ),
    "margin": Case(named.margin(0.2), ABSORBING, choose=lambda c: rules.margin(c, 0.2)),
    "speculative": Case(named.speculative(2), ABSORBING, drafts=2),
    "maskgit": Case(
        named.maskgit(rows=2, choice_temperature=1.5), ABSORBING, choose=lambda c: rules.maskgit(c, 1.5)
    ),
    "llada": Case(named.llada(rows=2), ABSORBING, choose=rules.llada),
    "p2": Case(
        named.p2(rows=4, eta=1.4),
        ABSORBING,
        choose=lambda c: [place for place in rules.p2(c, 1.4) if c.masked[place]],
        remask=lambda c: [place for place in np.flatnonzero(c.revealed) if place not in rules.p2(c, 1.4)],
    ),
    "fast_dllm_threshold": Case(
        named.fast_dllm_threshold(0.5), ABSORBING, choose=lambda c: rules.fast_dllm_threshold(c, 0.5)
    ),
    "fast_dllm_factor": Case(
        named.fast_dllm_factor(1.5), ABSORBING, choose=lambda c: rules.fast_dllm_factor(c, 1.5)
    ),
    "entropy_bound": Case(named.entropy_bound(0.6), ABSORBING, choose=lambda c: rules.entropy_bound(c, 0.6)),
    "blocks": Case(named.blocks(1), ABSORBING, _bayes),
    "tau_leaping": Case(named.tau_leaping(), (*MIXING, "masked"), _leap(rules.poisson)),
    "euler": Case(named.euler(), (*MIXING, "masked"), _leap(rules.euler)),
    "tweedie": Case(
        named.tweedie(), MIXING, lambda w, p, x, t, s, m: rules.tweedie(w, p, x, t, s), reaches=_up_to
    ),
    "predictor_corrector": Case(
        named.predictor_corrector(moves=2, h=0.3),
        MIXING,
        _leap(rules.poisson),
        move=lambda w, p, x, t: rules.poisson(rules.corrector_rates(w, p, x, t, 0.3), x),
    ),
    "stratified": Case(
        named.stratified(), ALL, lambda w, p, x, t, s, m: rules.stratified(w, p, x, t, m["clock"])[0]
    ),
    "gibbs": Case(named.gibbs(moves=2), ALL, _bayes, move=lambda w, p, x, t: rules.gibbs(w, p, t)),
    "repaint": Case(named.repaint(passes=2), ALL, _bayes),
}
