"""Sums losses of projected logits that are spread over four devices, in every way."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import d3pm_jax as d3pm
from d3pm_jax import losses, projection

K = 16
WIDTH = 5
SHAPE = (8, 3)
AXES = ("data", "fsdp")


def finish(output, xt):
    return d3pm.residual(output, xt)


def make_inputs():
    rng = np.random.default_rng(0)
    process = d3pm.uniform(d3pm.reciprocal(8), K)
    x0 = jnp.asarray(rng.integers(0, K, SHAPE), jnp.int32)
    t = jnp.asarray(rng.integers(1, 9, SHAPE[0]), jnp.int32)
    xt = d3pm.q_sample(process, x0, t, jnp.asarray(rng.random(SHAPE), jnp.float32))
    weight = jnp.asarray(rng.random(SHAPE) * (rng.random(SHAPE) > 0.4), jnp.float32)
    floats = (rng.normal(size=shape) for shape in ((*SHAPE, WIDTH), (WIDTH, K), (K,)))
    parts = tuple(jnp.asarray(x, jnp.float32) for x in floats)
    return process, parts, (x0, xt, t), weight


def measure(devices, data, tied, categories):
    """Returns how far total, values, gradients, and costs by `by_rows`, are from those of one device."""
    process, (hidden, kernel, bias), rows, weight = make_inputs()
    mesh = Mesh(
        np.array(jax.devices()[:devices]).reshape(data, -1), AXES, axis_types=(AxisType.Auto,) * len(AXES)
    )
    spread = projection.Spread(mesh, AXES, categories)

    def put(x, *spec):
        return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))

    def compute(spread, tied, process, parts, rows, weight):
        def project(parts):
            hidden, kernel, bias = parts
            kernel = kernel.T if tied else kernel
            return projection.Projection(hidden, kernel, bias, rows[1], finish, tied, spread)

        def total(parts):
            return tuple(losses.projected(process, losses.posterior_kl, project(parts), rows, weight))

        def cost(logits, x0, xt, t):
            return losses.posterior_kl(process, logits, x0, xt, t)

        result = jax.value_and_grad(total, has_aux=True)(parts)
        return result, projection.by_rows(project(parts), cost, *rows)

    compiled = jax.jit(compute, static_argnums=(0, 1))
    expected = compiled(None, False, process, (hidden, kernel, bias), rows, weight)
    spread_parts = put(hidden, AXES), put(kernel, None, categories), put(bias)
    found = compiled(
        spread, tied, process, spread_parts, tuple(put(x, AXES) for x in rows), put(weight, AXES)
    )
    pairs = zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True)
    # Python's max would not see NaN.
    return float(np.max([np.abs(np.asarray(x) - np.asarray(y)).max() for x, y in pairs]))


def main():
    assert jax.device_count() == 4
    projection.PLACES_ON_CPU = 3
    projection.CATEGORIES_ON_CPU = 5
    cases = itertools.product((1, 2, 4), (False, True), (None, "fsdp"))
    print(json.dumps([[*case, measure(4, *case)] for case in cases]))
