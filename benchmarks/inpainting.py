"""Completes half digits, and has a classifier say what they are.

    python benchmarks/inpainting.py RUN_UNIFORM RUN_ABSORBING

The runs are those of configs/digits_uniform.py and configs/digits_absorbing.py. Of the first digits of the
test split the left or the top half is known; the other half is drawn by clean clamping, with passes, with
known elements that are noised, and by masks. Prints how many of the completed digits the classifier of
`digits_quality.py` takes for the class of the whole one, with a standard error, and what each costs. For
scale: the same of the whole digits, and of known halves beside the other half of another training digit, or
pixels drawn from their histograms.
"""

import sys
from typing import NamedTuple

import jax
import numpy as np
from digits_quality import TRAIN, Judge
from sklearn.datasets import load_digits

from d3pm_jax import runs
from d3pm_jax.kinds.image import mark_part
from d3pm_jax.sampling import Sampler, named

DIGITS = 150
SHAPE = (8, 8, 1)
PARTS = ("left", "top")


class Way(NamedTuple):
    """Says how halves are completed."""

    words: str
    run: int  # 0: of uniform noise, 1: of masks
    steps: int
    sampler: Sampler


WAYS = (
    Way("uniform, clean, 1 pass", 0, 100, Sampler()),
    Way("uniform, clean, 1 pass", 0, 25, Sampler()),
    Way("uniform, clean, 5 passes", 0, 25, named.repaint(5)),
    Way("uniform, clean, 10 passes", 0, 25, named.repaint(10)),
    Way("uniform, noised, 1 pass", 0, 25, named.repaint(1, noises_known=True)),
    Way("uniform, noised, 5 passes", 0, 25, named.repaint(5, noises_known=True)),
    Way("uniform, noised, 10 passes", 0, 25, named.repaint(10, noises_known=True)),
    Way("masks, 1 pass", 1, 25, Sampler()),
    Way("masks, 1 pass", 1, 100, Sampler()),
    Way("masks, one place a call", 1, 100, named.random_order()),
)


def complete_by_others(x0: np.ndarray, known: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Completes known parts of x0 [N, *S] without a network, by what it is called."""
    digits, _ = load_digits(return_X_y=True)
    images = digits[:TRAIN].reshape(-1, *SHAPE).astype(int)
    rng = np.random.default_rng(seed)
    others = images[rng.integers(0, TRAIN, len(x0))]
    pixels = np.stack([rng.choice(column, len(x0)) for column in images.reshape(TRAIN, -1).T], axis=1)
    return {
        "half of another digit": np.where(known, x0, others),
        "pixels by their histograms": np.where(known, x0, pixels.reshape(-1, *SHAPE)),
        "the whole digit": x0,
    }


def main(folders: list[str]) -> None:
    """Prints the table."""
    judge = Judge()
    digits, classes = load_digits(return_X_y=True)
    x0 = digits[TRAIN : TRAIN + DIGITS].reshape(-1, *SHAPE).astype(np.int32)
    labels = classes[TRAIN : TRAIN + DIGITS]

    def report(words: str, calls: str, x: dict[str, np.ndarray]) -> None:
        """Prints the share of each part that has the class of the whole digit."""
        shares = []
        for part in PARTS:
            share = float(np.mean(judge.classes(x[part]) == labels))
            shares.append(f"{share:.1%} +- {(share * (1 - share) / DIGITS) ** 0.5:.1%}")
        print(f"{words} | {calls} | {' | '.join(shares)}", flush=True)

    known = {part: mark_part(part, SHAPE) for part in PARTS}
    print(f"way | calls | {' | '.join(PARTS)} half known, {DIGITS} digits")
    by_part = {part: complete_by_others(x0, known[part], seed=0) for part in PARTS}
    for words in by_part["left"]:
        report(words, "0", {part: by_part[part][words] for part in PARTS})
    opened: dict[tuple[int, int], runs.Run] = {}
    for way in WAYS:
        key = way.run, way.steps
        if key not in opened:
            opened[key] = runs.open(folders[way.run], steps=way.steps)
        drawn = {}
        calls = 0.0
        for part in PARTS:
            draw = runs.Draw(known=(x0, known[part]), sampler=way.sampler)
            result = opened[key].sample(jax.random.key(0), DIGITS, draw, batch_size=DIGITS)
            drawn[part] = result.x0
            calls = float(np.mean(result.calls))
        report(f"{way.words}, {way.steps} steps", f"{calls:.0f}", drawn)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1:])
