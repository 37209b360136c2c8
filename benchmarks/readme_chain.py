"""Draws the picture of the README: from noise to digits, with the network of pretrained/.

python benchmarks/readme_chain.py [--out docs/images/readme_chain.png]
"""

import argparse
from pathlib import Path

import jax
import numpy as np

import d3pm_jax as d3pm
from d3pm_jax import runs, show

ROWS = 3
SCALE = 2
SHOWN = (100, 90, 80, 70, 60, 50, 40, 30, 20, 10, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/images/readme_chain.png"), help="the picture")
    args = parser.parse_args()
    denoise = runs.denoiser("pretrained/bin_mnist.safetensors")
    process = d3pm.uniform(d3pm.cosine(100), K=2)
    denoiser = d3pm.Denoiser(process, denoise, "leave_one_out")
    chain = d3pm.sample(jax.random.key(0), denoiser, (ROWS, 28, 28, 1), record=list(SHOWN))
    images = show.to_rgb(np.asarray(chain.states), levels=2)  # [times, rows, 28, 28, 3]
    images = images.repeat(SCALE, axis=2).repeat(SCALE, axis=3)
    in_rows = images.swapaxes(0, 1).reshape(-1, *images.shape[2:])
    show.save_grid(args.out, in_rows, columns=len(SHOWN))


if __name__ == "__main__":
    main()
