"""Times the sampling of runs that take turns: CPU seconds for some samples of each, with all of its steps.

python benchmarks/sampling.py RUN [RUN ...] [--num 64] [--rounds 5]
"""

import argparse
import time
from pathlib import Path

import jax
import numpy as np

from d3pm_jax import runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, nargs="+", help="the folder of a run")
    parser.add_argument("--num", type=int, default=64, help="samples of each (64)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each (5)")
    args = parser.parse_args()
    opened = {str(path): runs.open(path) for path in args.run}
    seconds: dict[str, list[float]] = {name: [] for name in opened}

    # The first round compiles, and is not counted.
    for i in range(args.rounds + 1):
        for name, run in opened.items():
            before = time.process_time()
            run.sample(jax.random.key(i), args.num, batch_size=args.num)
            if i > 0:
                seconds[name].append(time.process_time() - before)
    for name, times in seconds.items():
        print(f"{name}: median {np.median(times):.3f} s ({min(times):.3f} to {max(times):.3f})")


if __name__ == "__main__":
    main()
