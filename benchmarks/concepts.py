"""Draws the pictures of docs/concepts.md: noise, one reverse step, terms of the bound, samplers.

python benchmarks/concepts.py [--out docs/images]
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from samplers_trained import save_small
from sklearn.datasets import load_digits

import d3pm_jax as d3pm
from d3pm_jax import sampling, show
from d3pm_jax.sampling import named

T = 40
LEVELS = 17
SHOWN = range(0, T + 1, 5)
PROCESSES = {
    "uniform": d3pm.uniform(d3pm.cosine(T), LEVELS),
    "Gaussian": d3pm.gaussian(d3pm.linear(T, 0.002, 0.4), LEVELS),
    "masks": d3pm.absorbing(d3pm.reciprocal(T), LEVELS + 1, mask_id=LEVELS),
}


def draw_forward(path: Path) -> None:
    """Draws a digit under three kinds of noise, a row for each, from the data to noise."""
    x0 = jnp.asarray(load_digits().images[:1].astype(np.int32))[..., None]
    u = jax.random.uniform(jax.random.key(0), (T + 1, *x0.shape))
    rows = [jnp.stack([d3pm.q_sample(process, x0, t, u[t]) for t in SHOWN]) for process in PROCESSES.values()]
    states = np.concatenate(rows, axis=1)  # [times, processes, 8, 8, 1]
    show.save_strip(path, show.to_rgb(states, LEVELS), list(SHOWN), "uniform, Gaussian, masks")


def draw_step(path: Path) -> None:
    """Draws bars of what is known of one element: its x_0, x_t, and x_{t-1} by either."""
    K = 5
    process = d3pm.uniform(d3pm.cosine(20), K)
    t = jnp.array(12)
    x0 = jnp.array(1)
    xt = jnp.array(3)
    belief = jnp.log(jnp.array([0.05, 0.6, 0.25, 0.05, 0.05]))  # of x_0, by the other elements
    bars = {
        "q(x_t | x_0 = 1)": process.Qbar(t)[x0],
        "q(x_{t-1} | x_t = 3, x_0 = 1)": jnp.exp(d3pm.q_posterior(process, x0, xt, t)),
        "what the network believes of x_0": jnp.exp(belief),
        "p(x_{t-1} | x_t = 3)": jnp.exp(d3pm.p_logits(process, belief, xt, t, "leave_one_out")),
    }
    canvas = Figure(figsize=(9, 1.9), layout="constrained")
    for axis, (title, p) in zip(canvas.subplots(1, len(bars), sharey=True), bars.items(), strict=True):
        axis.bar(range(K), np.asarray(p), color="#4477aa")
        axis.set_title(title, fontsize=8)
        axis.set_xticks(range(K))
        axis.set_ylim(0, 1)
    save_small(path, canvas)


def draw_bound(path: Path) -> None:
    """Draws the terms of the bound of three processes, for a network that knows the levels of each pixel."""
    digits = load_digits().images.astype(np.int32)[..., None]  # [N, 8, 8, 1]
    x0 = jnp.asarray(digits)
    bounds = {}
    for name, process in PROCESSES.items():
        shares = jax.nn.one_hot(x0, process.K).mean(axis=0)  # [8, 8, 1, K]
        log_shares = jnp.log(shares)

        def denoise(xt: jax.Array, time: jax.Array, log_shares: jax.Array = log_shares) -> jax.Array:
            return jnp.broadcast_to(log_shares, (len(xt), *log_shares.shape))

        # The level of a pixel says nothing of the others here, so that this belief is the leave-one-out one.
        key = jax.random.key(0)
        bound = d3pm.estimate_bound(key, denoise, process, x0, jnp.arange(len(x0)), belief="leave_one_out")
        terms = np.asarray(d3pm.bits_per_dim(bound.steps, 64).mean(axis=1))
        bounds[name] = {"steps": terms, "times": process.time[1:]}
        print(f"{name}: {terms.sum():.3f} bits per dimension in {T} terms")
    show.save_bound_terms(path, bounds)


def know_digits(digits: jax.Array, K: int) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Returns a network that knows all digits, of which each pixel is wrong once in 50 times; for masks.

    It weighs the digits by how well each explains what is not masked, and averages them.
    """
    mask = K - 1
    is_level = jax.nn.one_hot(digits.reshape(len(digits), -1), K)  # [N, 64, K]
    log_levels = jnp.log(0.98 * is_level + 0.02 / (K - 1)).at[..., mask].set(-jnp.inf)

    def denoise(xt: jax.Array, time: jax.Array) -> jax.Array:
        flat = xt.reshape(len(xt), -1)  # [B, 64]
        explained = jnp.where(flat == mask, 0.0, log_levels[:, jnp.arange(64), flat])  # [N, B, 64]
        log_weights = jax.nn.log_softmax(explained.sum(axis=-1), axis=0)  # [N, B]
        shares = jnp.einsum("nb,nlk->blk", jnp.exp(log_weights), jnp.exp(log_levels))
        return jnp.log(shares).reshape(*xt.shape, K)

    return denoise


def draw_samplers(path: Path) -> None:
    """Draws a digit by four samplers of 16 calls of the network each, a row for each sampler."""
    calls = 16
    K = LEVELS + 1
    digits = jnp.asarray(load_digits().images.astype(np.int32))[..., None]
    denoise = know_digits(digits, K)
    process = d3pm.absorbing(d3pm.reciprocal(calls), K, mask_id=LEVELS)
    short = d3pm.absorbing(d3pm.reciprocal(calls // 4), K, mask_id=LEVELS)
    samplers = {
        "ancestral": (named.ancestral(), process),
        "remdm_cap, eta = 0.2": (named.remdm_cap(eta=0.2), process),
        "maskgit, 16 rows": (named.maskgit(rows=calls), process),
        "blocks of 16 places": (named.blocks(block=16), short),
    }
    left = list(range(calls, -1, -2))
    canvas = Figure(figsize=(10, 4.3), layout="constrained")
    axes = canvas.subplots(len(samplers), len(left))
    for axis, rows_left in zip(axes[0], left, strict=True):
        axis.set_title(f"{calls - rows_left} calls", fontsize=9)
    for row, (title, (sampler, steps)) in zip(axes, samplers.items(), strict=True):
        denoiser = sampling.Denoiser(steps, denoise, "denoiser")
        chain = sampling.sample(jax.random.key(5), denoiser, (1, 8, 8, 1), sampler, record=left)
        states = show.to_rgb(np.asarray(chain.states)[:, 0], LEVELS)  # [9, 8, 8, 3]
        for axis, image in zip(row, states, strict=True):
            axis.imshow(image)
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel(title, fontsize=9, rotation=0, ha="right", va="center")
    save_small(path, canvas)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    args = parser.parse_args()
    draw_forward(args.out / "concepts_forward.png")
    draw_step(args.out / "concepts_step.png")
    draw_bound(args.out / "concepts_bound.png")
    draw_samplers(args.out / "concepts_samplers.png")


if __name__ == "__main__":
    main()
