"""Puts arrays on devices and fetches them, also where the devices are those of several processes."""

from typing import Any

import jax
import numpy as np
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import NamedSharding


def is_described(mesh: Any) -> bool:
    """Says whether the devices of a mesh are only described: programs compile for them, and none runs."""
    return type(mesh.devices.flat[0].client).__name__ == "CompileOnlyPyClient"


def place(tree: Any, sharding: NamedSharding | None) -> Any:
    """Puts arrays, which each process holds whole, on the devices of a sharding, or on one by default.

    On devices that are only described nothing can be put: there arrays become their shapes.
    """
    if sharding is not None and is_described(sharding.mesh):
        return jax.tree.map(lambda leaf: leaf.update(sharding=sharding), jax.eval_shape(lambda: tree))
    if sharding is None or sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    # `device_put` would reach the devices of this process alone. Each process cuts the parts of its own
    # devices out of its copy.
    def place_array(x: Any) -> jax.Array:
        return jax.make_array_from_callback(np.shape(x), sharding, lambda index: np.asarray(x)[index])

    return jax.tree.map(place_array, tree)


def place_part(tree: Any, sharding: NamedSharding) -> Any:
    """Puts arrays on the devices of a sharding, of which each process holds its part of the first axis."""
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), tree)


def fetch(tree: Any) -> Any:
    """Returns arrays as those of NumPy, whole in every process; all processes have to take part."""

    def gather_array(x: Any) -> Any:
        if not isinstance(x, jax.Array) or x.is_fully_addressable:
            return x
        return process_allgather(x, tiled=True)

    return jax.device_get(jax.tree.map(gather_array, tree))
