"""Compiles a step of a transformer for four devices, whole on each and cut over them, and prints its memory.

Nothing is allocated.
"""

import json

import jax

from d3pm_jax import config as configs
from d3pm_jax.data import Description
from d3pm_jax.program.compiled import cost
from d3pm_jax.program.parts import build
from d3pm_jax.program.parts.completed import complete


def measured(fsdp):
    """(bytes of the state, bytes of a step on a device)."""
    config = configs.Config(
        data=configs.Arrays("train.npy", "test.npy", 28, "array"),
        process=configs.Absorbing(28, 100, configs.Reciprocal(), mask_id=27),
        model=configs.Transformer(width=832, num_layers=8, num_heads=8, see_time=False),
        optimizer=configs.Adam(),
        train=configs.Train(1, batch_size=8, remat=True),
        mesh=configs.Mesh(fsdp=fsdp),
    )
    parts = build.build(complete(config, Description((128,), 28, None, "array")))
    stored = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(parts.state))
    return stored, cost.measure_step(parts)[0].memory


def main():
    assert jax.device_count() == 4
    print(json.dumps([measured(fsdp) for fsdp in (1, 4)]))
