"""Whether a noise bank saves time: `python benchmarks/noise.py CONFIG...`, steps with one and without.

For each config, rounds of STEPS steps on the same batch, in turn: the step draws its own noise, or it is read
from a bank in a temporary folder and put on the devices, as `d3pm train --train.noise` does.
"""

import dataclasses
import statistics
import sys
import tempfile
import time
from pathlib import Path

import jax

from d3pm_jax import config_io, data
from d3pm_jax.cli.setup import use_all_cores
from d3pm_jax.training import bank, run
from d3pm_jax.training.devices import batched
from d3pm_jax.training.step import build_optimizer, make_step

STEPS, ROUNDS = 5, 25


def main(path: str) -> None:
    config = config_io.from_file(Path(path))
    rounds = 2 * ROUNDS + 2  # the first of both compile
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=rounds * STEPS))
    use_all_cores(config.train.batch_size)
    source = data.open_split(config.data.name, config.data.train_split, config.data.dir)
    image, seed, B = source[0]["image"].shape, config.train.seed, config.train.batch_size
    parts = run.start(run.build(config, image, B))
    sharding = batched(parts.mesh)
    step_fn = make_step(config, parts.predict, build_optimizer(config.optimizer), sharding)
    batch = next(data.train_batches(source, B, seed, run.num_levels(config)))["image"]
    state, seconds = parts.state, {"drawn": [], "bank": []}
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        bank.write(parts, config.train.steps, Path(folder) / "n.array_record")
        writing = (time.perf_counter() - begun) / config.train.steps
        noise_of = bank.open_for(parts, Path(folder) / "n.array_record")
        for turn in range(rounds):
            kind = ("drawn", "bank", "bank", "drawn")[turn % 4]
            begun = time.perf_counter()
            for i in range(STEPS):
                noise = noise_of(turn * STEPS + i) if kind == "bank" else None
                x0, noise = jax.device_put((batch, noise), sharding)
                state, row = step_fn(state, parts.tr, x0, parts.key, noise)
                jax.block_until_ready(row["loss"])
            seconds[kind].append((time.perf_counter() - begun) / STEPS)
    drawn, banked = seconds["drawn"][1:], seconds["bank"][1:]
    ratio = statistics.median(a / b for a, b in zip(drawn, banked, strict=True))
    print(f"{path}: {statistics.median(drawn) * 1e3:.2f} ms per step drawn, ", end="")
    print(f"{statistics.median(banked) * 1e3:.2f} ms from the bank: {ratio:.3f} times faster, ", end="")
    print(f"after {writing * 1e3:.2f} ms per step to write it")


if __name__ == "__main__":
    for path in sys.argv[1:] or sys.exit(__doc__):
        main(path)
