"""A sampler of a user's own beside the law of ours, on a random network of a few places."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from scipy import stats
from torch import Tensor

import d3pm_jax
from d3pm_jax.sampler_laws import enumerate_sampler
from d3pm_jax.sampling import named
from parity_tests.against import sample_slips
from parity_tests.against.comparing import Finding, Unfit
from parity_tests.against.program import Program, call_as
from parity_tests.against.sample_slips import World

K = 3
L = 4
NUM_CALLS = 4
NUM_SAMPLES = 100_000
NUM_AGAIN = 50  # to see whether the seed counts
LEVEL = 1e-4
LEVEL_APART = 1e-3  # of two alphas that are not the same


class Denoise:
    """The network that a sampler is given."""

    def __init__(self, world: World):
        self.world = world
        self.num_asked = 0
        self.alphas: set[float] = set()

    def __call__(self, x: Any, alpha: Any) -> Tensor:
        """log p(x_0 | x), [n, L, K]."""
        return self._answer(self.world.denoiser, x, alpha)

    def leave_one_out(self, x: Any, alpha: Any) -> Tensor:
        """log p(x_0 at a place | x at the others), [n, L, K]."""
        return self._answer(self.world.leave_one_out, x, alpha)

    def _answer(self, of_world: Any, x: Any, alpha: Any) -> Tensor:
        self.num_asked += 1
        if not torch.is_tensor(x) or x.is_floating_point() or tuple(x.shape[1:]) != (L,) or len(x) == 0:
            raise Unfit("asks denoise at x that is no tensor of integers [n, L] with n from 1 on")
        if x.min() < 0 or x.max() >= self.world.V:
            raise Unfit(f"asks denoise at x = {int(x.max())}, outside 0..{self.world.V - 1}")
        try:
            alpha = torch.as_tensor(alpha).detach().double().reshape(-1).numpy()
        except (TypeError, ValueError, RuntimeError):
            raise Unfit(f"asks denoise at alpha of {type(alpha).__name__}: pass a number, or [n]") from None
        if len(alpha) not in (1, len(x)):
            raise Unfit(f"asks denoise at alpha of {len(alpha)} numbers: pass one, or [n], here {len(x)}")
        outside = ~((alpha >= -1e-6) & (alpha <= 1 + 1e-6))
        if outside.any():
            raise Unfit(f"asks denoise at alpha = {alpha[outside][0]:g}, outside [0, 1]")
        self.alphas.update(np.unique(alpha))
        log_p = of_world(x.cpu().numpy(), np.clip(alpha, 0, 1))
        return torch.tensor(log_p, dtype=torch.get_default_dtype())


def check_sample(program: Program, finding: Finding) -> Iterator[Finding]:
    """The law of what it draws in 4 calls of the network."""
    world = World(program.noise, K, L)
    denoise = Denoise(world)
    first = _draw(program, denoise, NUM_AGAIN, seed=0)
    if (first != _draw(program, denoise, NUM_AGAIN, seed=0)).any():
        raise Unfit("is not deterministic in its seed: two calls with seed 0 differ; draw all by `seed`")
    if (first == _draw(program, denoise, NUM_AGAIN, seed=1)).all():
        raise Unfit("does not depend on its seed: seeds 0 and 1 give the same; draw all by `seed`")

    drawn = _draw(program, denoise, NUM_SAMPLES, seed=2)
    counts = np.bincount(world.number(drawn), minlength=len(world.states))
    alphas = program.alphas(NUM_CALLS)
    ours = enumerate_ours(program, world)
    finding = finding._replace(process=program.noise, quantity="draw", size=NUM_SAMPLES)
    if not is_told(counts, ours):
        yield finding
        return
    if program.assumed:
        _check_levels(program, denoise)
    i = int(np.argmax(np.abs(counts - NUM_SAMPLES * ours)))
    differ = np.abs(counts - NUM_SAMPLES * ours).sum() / 2
    words = f"x = {' '.join(map(str, world.states[i]))}"
    if program.noise == "mask":
        masked = counts[(world.states == K).any(axis=1)].sum()
        if masked:
            words = (
                f"{masked / NUM_SAMPLES:.1%} of the samples have masks left: draw these places too; {words}"
            )
    yield finding._replace(
        differ=int(differ),
        difference=differ / NUM_SAMPLES,
        theirs=f"{counts[i] / NUM_SAMPLES:.4f}",
        ours=f"{ours[i]:.4f}",
        input=words,
        hints=tuple(_find_slips(world, alphas, counts)),
    )


def _check_levels(program: Program, denoise: Denoise) -> None:
    """Raises Unfit where the network was asked at alphas that the schedule that is assumed has not."""
    asked = np.array(sorted(denoise.alphas))
    apart = np.abs(asked[:, None] - program.alphas(NUM_CALLS)).min(axis=1)
    if apart.max() > LEVEL_APART:
        other = f"asks denoise at alpha = {asked[apart.argmax()]:.4g}, which is none"
        raise Unfit(program.give_schedule(other))


def _draw(program: Program, denoise: Denoise, n: int, seed: int) -> np.ndarray:
    world = denoise.world
    denoise.num_asked = 0
    words = (
        f"; called as sample(denoise, K, L, n, seed, calls) with K = {K}, L = {L}, n = {n}, seed = {seed}, "
        f"calls = {NUM_CALLS}"
    )
    x = call_as(words, program.functions["sample"], denoise, K, L, n, seed, NUM_CALLS)
    if not torch.is_tensor(x):
        raise Unfit(f"gives {type(x).__name__}, no tensor")
    if tuple(x.shape) != (n, L):
        raise Unfit(f"gives shape {list(x.shape)}, not [n, L], here {[n, L]}")
    if x.is_floating_point() or x.is_complex():
        raise Unfit(f"gives {str(x.dtype).removeprefix('torch.')}, no integers: return integers [n, L]")
    if x.min() < 0 or x.max() >= world.V:
        raise Unfit(f"gives category {int(x.max() if x.min() >= 0 else x.min())}, outside 0..{K - 1}")
    if not denoise.num_asked:
        raise Unfit("never asks denoise")
    return x.cpu().numpy()


def enumerate_ours(program: Program, world: World) -> np.ndarray:
    """The law of JAX's ancestral sampler of these steps, over all states [S]."""
    process = program.process(d3pm_jax, NUM_CALLS, K)

    def network(x: jax.Array, t: jax.Array) -> jax.Array:
        logits = world.logits(x, jnp.asarray(program.alphas(NUM_CALLS))[t], jnp)
        return jnp.pad(logits, ((0, 0), (0, 0), (0, world.V - K)), constant_values=-jnp.inf)

    law = enumerate_sampler(named.ancestral(), process, L, network).law
    every = np.zeros(len(world.states))
    every[(world.states < K).all(axis=1)] = law
    return every


def _find_slips(world: World, alphas: np.ndarray, counts: np.ndarray) -> list[str]:
    """The slips whose laws are not told apart from what was drawn, the likeliest first."""
    fitting = []
    for words, chain in sample_slips.slips(sample_slips.ancestral(world, alphas)):
        with np.errstate(all="ignore"):
            law = chain.law()
        if np.isfinite(law).all() and not is_told(counts, law):
            held = counts > 0
            fitting.append((-float(counts[held] @ np.log(law[held])), words))
    return [words for _, words in sorted(fitting)]


def is_told(counts: np.ndarray, law: np.ndarray) -> bool:
    """Whether counts are told apart from a law, by the G-test; rare states are taken together."""
    expected = counts.sum() * law
    if (counts[law <= 1e-15] > 0).any():
        return True
    rare = expected < 10
    observed = np.append(counts[~rare], counts[rare].sum()).astype(float)
    expected = np.append(expected[~rare], expected[rare].sum())
    kept = expected > 0
    observed, expected = observed[kept], expected[kept]
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(observed > 0, observed * np.log(observed / expected), 0.0)
    statistic = 2 * (terms.sum() - observed.sum() + expected.sum())
    return bool(stats.chi2.sf(statistic, len(observed) - 1) < LEVEL)
