"""Tries the judge on samplers whose law is known: right ones, and wrong ones with one slip each.

    python benchmarks/judge.py alarms       # 2,000 right samplers, 10^6 samples each
    python benchmarks/judge.py mutants      # right samplers and those with a slip, 10^6 samples each
    python benchmarks/judge.py intervals    # the total variation of named samplers against the enumerated one

A sampler here is a function in NumPy, as `d3pm judge` takes it. The target is a random network of 4 places,
and the enumerated law of the sampler that the function claims to be.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy import stats

from d3pm_jax import judge
from d3pm_jax.config.samplers import choose_sampler
from d3pm_jax.judge.figures import tv
from d3pm_jax.judge.judging import make_target
from d3pm_jax.judge.subjects import fit_steps, read_sampler, resolve
from d3pm_jax.judge.targets import known_target, list_states, make_network, make_process, read_target
from d3pm_jax.judge.verdicts import Samples, bound_below
from d3pm_jax.sampler_laws import enumerate_sampler

NUM = 1_000_000
RUNS = 2_000
LEVEL = 1e-4
CALLS = 4
LAWS = 10  # of right samplers
Shape = Callable[[np.ndarray], np.ndarray]


class Slips(NamedTuple):
    """Holds what a sampler does, each by default as it should."""

    shape: Shape = lambda p: p  # probabilities [.., K] -> what is drawn from
    shape_last: Shape = lambda p: p  # of the last row
    order: Callable[[np.ndarray, np.ndarray], np.ndarray] = lambda p, noise: noise
    """(p [n, L, K], noise [n, L]) -> scores; places of the least are revealed first"""
    at_once: int = 1  # places that one call reveals
    noise: Shape = lambda u: u  # uniforms
    alpha: Callable[[int, int], float] = lambda t, T: 1 - t / T  # what the network is told at step t of T
    share: Callable[[int], float] = lambda t: 1 / t  # of the masks that step t reveals
    see: Shape = lambda x: x  # x [n, L], as the network sees it
    answer: Shape = lambda p: p  # [n, L, K], of places, as it is used
    is_stale: bool = False  # uses what the network said a call before
    redraws: bool = False  # draws places that are not masked too, given the others
    belief: str = "leave_one_out"  # that the step of uniform noise takes
    start: int = 0  # the lowest category that uniform noise starts from


def draw(p: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Draws a category of each row of probabilities [.., K] by a uniform each."""
    cdf = np.cumsum(p, axis=-1)
    return np.sum(u[..., None] * cdf[..., -1:] >= cdf[..., :-1], axis=-1)


def one_at_a_time(slips: Slips, denoise, K, L, n, seed, calls):
    """Reveals a random place a call: `random_order`."""
    rng = np.random.default_rng(seed)
    x = np.full((n, L), K)
    rows = np.arange(n)
    noise = rng.random((n, L))
    before = None
    for i in range(0, L, slips.at_once):
        said = slips.answer(np.exp(denoise(slips.see(x), (x != K).mean(axis=1))))
        p = said if before is None or not slips.is_stale else before
        before = said
        score = np.where(x == K, slips.order(p, noise), np.inf)
        shape = slips.shape_last if i + slips.at_once >= L else lambda p: p
        for place in score.argsort(axis=1)[:, : slips.at_once].T:
            x[rows, place] = draw(shape(slips.shape(p[rows, place])), slips.noise(rng.random(n)))
    return x


def unmask(slips: Slips, denoise, K, L, n, seed, calls):
    """Reveals each mask with probability 1 / t at step t: `ancestral` under masks."""
    rng = np.random.default_rng(seed)
    x = np.full((n, L), K)
    for t in range(calls, 0, -1):
        ask = denoise.leave_one_out if slips.redraws else denoise
        p = slips.shape(slips.answer(np.exp(ask(slips.see(x), slips.alpha(t, calls)))))
        if t == 1:
            p = slips.shape_last(p)
        is_revealed = (x == K) & (rng.random((n, L)) < slips.share(t))
        if t == 1:
            is_revealed = (x == K) | slips.redraws
        x = np.where(is_revealed, draw(p, slips.noise(rng.random((n, L)))), x)
    return x


def replace(slips: Slips, denoise, K, L, n, seed, calls):
    """Draws x_s by Bayes' rule of a leave-one-out belief: `ancestral` under uniform noise."""
    rng = np.random.default_rng(seed)
    x = rng.integers(slips.start, K, (n, L))
    for t in range(calls, 0, -1):
        alpha_t = 1 - t / calls
        alpha_s = 1 - (t - 1) / calls
        ask = denoise.leave_one_out if slips.belief == "leave_one_out" else denoise
        believed = slips.answer(np.exp(ask(slips.see(x), slips.alpha(t, calls))))
        stay = alpha_t / alpha_s
        likelihood = stay * np.eye(K)[x] + (1 - stay) / K
        p = likelihood * (alpha_s * believed + (1 - alpha_s) / K)
        p = slips.shape(p / p.sum(axis=-1, keepdims=True))
        if t == 1:
            p = slips.shape_last(p)
        x = draw(p, slips.noise(rng.random((n, L))))
    return x


# ---- Slips ----


def cool(temperature: float) -> Shape:
    return lambda p: p ** (1 / temperature)


def keep_likeliest(p: np.ndarray) -> np.ndarray:
    return np.eye(p.shape[-1])[p.argmax(axis=-1)]


def cut_top_p(top_p: float) -> Shape:
    def cut(p: np.ndarray) -> np.ndarray:
        order = np.argsort(-p, axis=-1)
        sorted_p = np.take_along_axis(p, order, axis=-1)
        kept = np.cumsum(sorted_p, axis=-1) - sorted_p < top_p * sorted_p.sum(axis=-1, keepdims=True)
        return np.where(np.take_along_axis(kept, order.argsort(axis=-1), axis=-1), p, 0.0)

    return cut


def cut_top_2(p: np.ndarray) -> np.ndarray:
    return np.where(p > p.min(axis=-1, keepdims=True), p, 0.0)


RIGHT = {
    "random order": (one_at_a_time, "random_order", "mask"),
    "masks": (unmask, "ancestral", "mask"),
    "uniform noise": (replace, "ancestral", "uniform"),
}
MUTANTS: dict[str, tuple[str, Slips]] = {
    "temperature 0.98": ("random order", Slips(shape=cool(0.98))),
    "temperature 1.02": ("random order", Slips(shape=cool(1.02))),
    "top-p 0.99": ("random order", Slips(shape=cut_top_p(0.99))),
    "top-p 0.9": ("masks", Slips(shape=cut_top_p(0.9))),
    "top-k 2": ("masks", Slips(shape=cut_top_2)),
    "argmax of the last place": ("random order", Slips(shape_last=keep_likeliest)),
    "argmax in the last row": ("masks", Slips(shape_last=keep_likeliest)),
    "argmax in the last row, uniform noise": ("uniform noise", Slips(shape_last=keep_likeliest)),
    "order by confidence": ("random order", Slips(order=lambda p, noise: -p.max(axis=-1))),
    "order from left to right": ("random order", Slips(order=lambda p, noise: 0 * noise + np.arange(4))),
    "two places at a time": ("random order", Slips(at_once=2)),
    "asks at the time where the step goes": ("masks", Slips(alpha=lambda t, T: 1 - (t - 1) / T)),
    "asks with the noise in place of the signal": ("masks", Slips(alpha=lambda t, T: t / T)),
    "asks at a rounded time": ("uniform noise", Slips(alpha=lambda t, T: 1.0 if t < T else 0.0)),
    "reveals too few in each row but the last": ("masks", Slips(share=lambda t: 1 / (t + 1))),
    "reveals 1 / T in each row": ("masks", Slips(share=lambda t: 1 / CALLS)),
    "draws all places again in the last row": ("masks", Slips(redraws=True)),
    "answer of the call before": ("random order", Slips(is_stale=True)),
    "places of the answer shifted by one": ("random order", Slips(answer=lambda p: np.roll(p, 1, axis=1))),
    "categories reversed for the network": ("uniform noise", Slips(see=lambda x: 2 - x)),
    "the denoiser in place of leave-one-out": ("uniform noise", Slips(belief="denoiser")),
    "the start without a category": ("uniform noise", Slips(start=1)),
    "noise of 6 bits": ("masks", Slips(noise=lambda u: np.floor(64 * u) / 64)),
    "noise below 0.99": ("random order", Slips(noise=lambda u: 0.99 * u)),
}


def make_subject(name: str, base: str, slips: Slips) -> judge.Subject:
    """Makes the subject of a sampler with its slips."""
    function, claims, noise = RIGHT[base]
    sampler = choose_sampler(claims).sampler
    return judge.function_subject(name, partial(function, slips), noise, lambda calls: sampler)


def judge_mutants(num: int = NUM, names: tuple[str, ...] = ()) -> dict[str, float]:
    """Returns by how much the law of each is another, at least; those of right ones by their names too."""
    protocol = judge.Protocol(calls=(CALLS,), num=num, level=LEVEL)
    cases = {name: (name, Slips()) for name in RIGHT} | MUTANTS
    bounds = {}
    for name in names or cases:
        base, slips = cases[name]
        subject = make_subject(name, base, slips)
        (row,) = judge.judge(subject, "network", protocol)["rows"]
        print(f"{name:45} {row['verdict']}  ({row['event'] or 'no event'})", flush=True)
        bounds[name] = row["tv_at_least"]
        if base == "random order" and not bounds[name]:
            # Many places add up what one of them hardly shows.
            few = protocol._replace(num=num // 200)
            (row,) = judge.judge(subject, read_target("chain", 64), few)["rows"]
            print(
                f"{'  64 places of a chain':45} {row['verdict']}  ({row['event'] or 'no event'})", flush=True
            )
            bounds[name] = row["tv_at_least"]
    return bounds


def count_alarms(runs: int = RUNS, num: int = NUM) -> tuple[int, tuple[int, int]]:
    """Counts right samplers of which another law is said, and between which counts the binomial has 99%.

    As many draws of a law that is enumerated are what a right sampler gives.
    """
    laws = []
    for seed in range(LAWS):
        base = list(RIGHT)[seed % len(RIGHT)]
        laws.append(make_target(make_subject(base, base, Slips()), "network", CALLS, seed))
    rng = np.random.default_rng(0)
    alarms = 0
    for run in range(runs):
        target = laws[run % LAWS]
        states = list_states(target.K, target.length)
        chosen = Samples(states, rng.multinomial(num // 2, target.law))
        tested = [Samples(states, rng.multinomial(num // 30, target.law)) for _ in range(15)]
        bound, _ = bound_below((chosen, tested), target, Samples(states, target.law), None, LEVEL)
        alarms += bound > 0
    low, high = stats.binom.interval(0.99, runs, LEVEL)
    return alarms, (int(low), int(high))


def compare_intervals(num: int = NUM) -> list[tuple[str, float, float, float]]:
    """Returns samplers against a law of 4 places, with the enumerated total variation, and its two bounds."""
    oracle = read_target("chain", 4)
    lines = []
    for name in ("ancestral", "maskgit", "maskgit:choice_temperature=0", "remdm_cap:eta=0.5", "random_order"):
        for calls in (1, 2, 4):
            protocol = judge.Protocol(calls=(calls,), num=num)
            (row,) = judge.judge(name, oracle, protocol)["rows"]
            enumerated = enumerate_against(oracle, name, calls)
            lines.append((f"{name}, {calls} calls", enumerated, row["tv_at_least"], row["tv_at_most"]))
            print("{:45} TV {:.4f} in [{:.4f}, {:.4f}]".format(*lines[-1]), flush=True)
    return lines


def enumerate_against(oracle, name: str, calls: int) -> float:
    """Returns the total variation of the enumerated law of a sampler from that of an oracle."""
    target = known_target(oracle, "mask")
    sampler = resolve(read_sampler(name), calls)
    process = make_process("mask", oracle.K, fit_steps(sampler, "mask", (oracle.K, oracle.length), calls))
    network = make_network(target.leave_one_out, process)
    law = enumerate_sampler(sampler, process, oracle.length, network).law
    return tv(law, target.law)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="judge.py")
    parser.add_argument("part", choices=("alarms", "mutants", "intervals"))
    part = parser.parse_args().part
    if part == "alarms":
        print("alarms, and the 99% interval of a binomial:", count_alarms())
    elif part == "mutants":
        bounds = judge_mutants()
        print("told:", sum(bounds[name] > 0 for name in MUTANTS), "of", len(MUTANTS))
    else:
        compare_intervals()
