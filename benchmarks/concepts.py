"""Draws the pictures of docs/concepts.md: noise on a digit, and one reverse step of one element.

python benchmarks/concepts.py [--out docs/images]
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from samplers_trained import save_small
from sklearn.datasets import load_digits

import d3pm_jax as d3pm
from d3pm_jax import show

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    args = parser.parse_args()
    draw_forward(args.out / "concepts_forward.png")
    draw_step(args.out / "concepts_step.png")


if __name__ == "__main__":
    main()
