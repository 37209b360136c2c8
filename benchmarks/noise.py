"""Whether presampled noise saves time: `python benchmarks/noise.py CONFIG...`, steps with it and without.

For each config, rounds of STEPS steps on the same batch, in turn: the step draws its own noise, or it is read
from a file in a temporary folder and put on the devices, as `d3pm train --train.noise` does.
"""

import dataclasses
import statistics
import sys
import tempfile
import time
from pathlib import Path

import jax

from d3pm_jax import data
from d3pm_jax.config import io as config_io
from d3pm_jax.program.loop import presampled
from d3pm_jax.program.machine.devices import batch_sharding, use_all_cores
from d3pm_jax.program.parts import build
from d3pm_jax.program.parts.completed import complete
from d3pm_jax.training.step import make_step

STEPS = 5
ROUNDS = 25


def main(path: str) -> None:
    config = config_io.read_config_file(Path(path))
    rounds = 2 * ROUNDS + 2  # the first of both compile
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=rounds * STEPS))
    use_all_cores(config.train.batch_size)
    source = config.data.open("train")
    seed = config.train.seed
    B = config.train.batch_size
    parts = build.initialize_state(build.build(complete(config, config.data.describe())))
    sharding = batch_sharding(parts.mesh)
    rule = config.optimizer.build()
    decay = config.train.ema_decay
    step_fn = make_step(config.loss, config.timesteps, rule, parts.recipe.diffusion.predict, decay, sharding)
    batch = next(data.train_batches(source, B, seed, parts.recipe.categories))
    state = parts.state
    seconds: dict[str, list[float]] = {"drawn": [], "read": []}
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        presampled.write_noise(parts, config.train.steps, Path(folder) / "n.array_record")
        writing = (time.perf_counter() - begun) / config.train.steps
        noise_of = presampled.open_noise(parts, Path(folder) / "n.array_record")
        for turn in range(rounds):
            kind = ("drawn", "read", "read", "drawn")[turn % 4]
            begun = time.perf_counter()
            for i in range(STEPS):
                noise = None
                if kind == "read":
                    noise = noise_of(turn * STEPS + i)
                placed, noise = jax.device_put((batch, noise), sharding)
                state, row = step_fn(state, parts.recipe.process, placed, parts.key, noise)
                jax.block_until_ready(row["loss"])
            seconds[kind].append((time.perf_counter() - begun) / STEPS)
    tell(path, seconds["drawn"][1:], seconds["read"][1:], writing)


def tell(path: str, drawn: list[float], read: list[float], writing: float) -> None:
    """Prints seconds per step, drawn and read in turn, and those to write one."""
    ratio = statistics.median(a / b for a, b in zip(drawn, read, strict=True))
    print(f"{path}: {statistics.median(drawn) * 1e3:.2f} ms per step drawn, ", end="")
    print(f"{statistics.median(read) * 1e3:.2f} ms read: {ratio:.3f} times faster, ", end="")
    print(f"after {writing * 1e3:.2f} ms per step to write it")


if __name__ == "__main__":
    for path in sys.argv[1:] or sys.exit(__doc__):
        main(path)
