"""Compares the memory that `d3pm train --dry-run` tells with what the first step of that program takes.

    python benchmarks/memory.py [--batch-size 8] [--layers 6]

A Transformer of width 512 on sequences of 256, on CPU devices. What a step adds is the highest resident
memory while it runs, less that after it is compiled and its state is placed. Needs Linux.
"""

import argparse
import ctypes
import gc
import re
from pathlib import Path

import jax
import jax.numpy as jnp

from d3pm_jax.config import Absorbing, Config, Digits, Reciprocal, Train, Transformer
from d3pm_jax.data import Description
from d3pm_jax.program.compiled import cost
from d3pm_jax.program.machine.devices import use_all_cores
from d3pm_jax.program.parts import build
from d3pm_jax.program.parts.completed import complete
from d3pm_jax.training.diffusion import draw_noise


def resident(name: str) -> int:
    """Returns a line of this process's status in bytes: VmRSS now, VmHWM the highest since it was reset."""
    line = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert line is not None
    return 1024 * int(line.group(1))


def measure(batch_size: int, layers: int) -> tuple[cost.Cost, int, int]:
    """Returns the cost of a step as told, the number of devices, and the bytes that the first step adds."""
    config = Config(
        data=Digits(),  # is not read
        process=Absorbing(K=29, steps=100, beta=Reciprocal(), mask_id=28),
        model=Transformer(width=512, num_layers=layers, num_heads=8),
        train=Train(steps=1, batch_size=batch_size),
    )
    parts = build.build(complete(config, Description((256,), 28)))
    step_cost, compiled = cost.measure_step(parts)
    parts = build.initialize_state(parts)
    abstract, _ = cost.abstract_inputs(parts)
    batch = {"x": jax.device_put(jnp.zeros((batch_size, 256), jnp.int32), abstract["x"].sharding)}
    state = parts.state
    place = abstract["x"].sharding
    noise = draw_noise(config.timesteps, parts.key, state.step, None, (batch_size, 256), 100, place)
    jax.block_until_ready((state, batch, noise))
    gc.collect()
    # What compiling left would be used again, and not count.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    jax.block_until_ready(compiled(state, parts.recipe.process, batch, noise, parts.key))
    return step_cost, parts.mesh.size, resident("VmHWM") - before


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--layers", type=int, default=6)
    args = parser.parse_args()
    use_all_cores(args.batch_size)
    step_cost, devices, added = measure(args.batch_size, args.layers)
    expected = step_cost.added * devices
    arguments = f"{step_cost.arguments / 1e9:.3f} GB of arguments each"
    print(f"told: {expected / 1e9:.3f} GB on {devices} devices, which have {arguments}")
    print(f"added by the first step: {added / 1e9:.3f} GB, {added / expected:.3f} of what was told")


if __name__ == "__main__":
    main()
