"""What a condition is worth: bounds with it and without it, example by example, and with that of another one.

    python benchmarks/conditions.py RUN WITHOUT [--limit N]

RUN was trained with the condition and WITHOUT by the same config and --data.no-conditioned. Two bounds on the
same example have the same noise. A difference is their mean over the test examples with its standard error.
"""

import argparse
import math

import numpy as np

from d3pm_jax import runs
from d3pm_jax.evaluation.bound import all_terms, evaluate_bound
from d3pm_jax.program.machine.devices import batch_sharding
from d3pm_jax.runs.run import Run

BATCH_SIZE = 99
SEED = 0


def compute_bits(run: Run, x0: np.ndarray, condition: np.ndarray | None) -> np.ndarray:
    """Returns the bound of each example in bits/dim, [N]."""
    parts = run.parts
    bound = all_terms(parts.recipe.diffusion.predict, SEED, parts.recipe.diffusion.term)
    sharding = batch_sharding(parts.mesh)
    extra_inputs = {} if condition is None else {"condition": condition}
    terms = evaluate_bound(bound, parts.params, parts.recipe.process, x0, BATCH_SIZE, sharding, extra_inputs)
    return np.asarray(terms.total()) / (x0[0].size * math.log(2))


def format_mean(bits: np.ndarray) -> str:
    """Returns a mean with its standard error."""
    return f"{bits.mean():.4f} +- {bits.std(ddof=1) / math.sqrt(len(bits)):.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("without")
    parser.add_argument("--limit", type=int, default=None, help="the first N test examples alone")
    options = parser.parse_args()

    run = runs.open(options.run)
    batch = run.read_batch("test", options.limit)
    x0 = batch["x"]
    condition = batch["condition"]
    bits = compute_bits(run, x0, condition)
    without = compute_bits(runs.open(options.without), x0, None)
    other = compute_bits(run, x0, np.roll(condition, 1, axis=0))
    print(f"{len(x0)} test examples, bits/dim")
    print(f"with the condition          {format_mean(bits)}")
    print(f"without it                  {format_mean(without)}")
    print(f"with that of another one    {format_mean(other)}")
    print(f"without it - with it        {format_mean(without - bits)}")


if __name__ == "__main__":
    main()
