"""Share of puzzles that a run of examples/sudoku.py solves where noise disturbs the order of the cells.

    python benchmarks/sudoku_noise.py RUN [--puzzles 1000] [--seed 1] [--noise 0,0.05,0.5]

The puzzles are those that the example takes, and a cell is filled in by each call. Gumbel noise, times so
much, is added to the score of each empty cell, as Kim et al. (2025, 2502.06768) do with 0.5. Prints how many
percent of puzzles are solved by the largest probability and by the largest margin, the gain of the second
above the first on the same puzzles, and how many clues were changed.
"""

import argparse
import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from d3pm_jax import runs
from d3pm_jax.config import io
from d3pm_jax.sampling import Sampler
from d3pm_jax.sampling.places import Candidates, LargestProbability, Margin, One, Order, Reveal

CONFIG = Path(__file__).parents[1] / "examples" / "sudoku.py"


@dataclasses.dataclass(frozen=True)
class Noisy(Order):
    """Disturbs the order of another one."""

    order: Order
    noise: float

    def score(self, candidates: Candidates) -> Array:
        score = self.order.score(candidates)
        if self.noise == 0:
            return score
        gumbel = -jnp.log(-jnp.log(candidates.uniforms()))
        return score + self.noise * gumbel


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run")
    parser.add_argument("--puzzles", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--noise", default="0,0.05,0.5")
    args = parser.parse_args(words)

    sudoku = io.load_module(CONFIG)
    run = runs.open(args.run, CONFIG)
    rng = np.random.default_rng([args.seed, 2])
    boards = np.stack([sudoku.find_solutions(sudoku.BLANK, 1, rng)[0] for _ in range(args.puzzles)])
    given = np.stack([sudoku.make_puzzle(board, rng) for board in boards])
    is_clue = given != sudoku.EMPTY
    print("noise | probability | margin | margin above probability | clues changed")
    for noise in map(float, args.noise.split(",")):
        drawn = []
        for order in (Noisy(LargestProbability(), noise), Margin(noise)):
            sampler = Sampler(Reveal(order, One()))
            draw = runs.Draw(known=(given, is_clue), sampler=sampler)
            drawn.append(run.sample(jax.random.key(args.seed), args.puzzles, draw).x0)
        x = np.stack(drawn)
        by_probability, by_margin = np.all(x == boards, axis=(2, 3)).astype(int)
        shares = map(sudoku.in_percent, (by_probability, by_margin, by_margin - by_probability))
        print(f"{noise:5}", *shares, np.sum((x != given) & is_clue), sep=" | ", flush=True)


if __name__ == "__main__":
    main()
