"""Networks that compile in a second, their weights and their inputs."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from d3pm_jax.models import ScoreNet, UNet


def small(**changes):
    options = {
        "ch": 8,
        "ch_mult": (1, 2),
        "num_res_blocks": 1,
        "attn_resolutions": (4,),
        "groups": 4,
    } | changes
    return UNet(5, 1, 8, 100, rngs=nnx.Rngs(0), **options)


def small_score_net(**changes):
    options = {"ch": 8, "ch_mult": (1, 2), "num_res_blocks": 1, "groups": 4} | changes
    return ScoreNet(5, 1, 100, rngs=nnx.Rngs(0), **options)


def randomised(build, **options):
    """(graphdef, parameters) of build(**options), with no zeros as after initialisation."""
    graphdef, shapes = nnx.split(nnx.eval_shape(lambda: build(**options)))
    rng = np.random.default_rng(7)
    return graphdef, jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) * 0.2, x.dtype), shapes)


def initial(build):
    """(graphdef, parameters) of build() as it initialises them; one program, quick to compile."""
    graphdef = nnx.graphdef(nnx.eval_shape(build))
    init = jax.jit(lambda: nnx.split(build())[1]).lower()
    return graphdef, init.compile(compiler_options={"xla_backend_optimization_level": 0})()


def images(n=2):
    return jax.random.randint(jax.random.key(3), (n, 8, 8, 1), 0, 5), jnp.array([1, 100][:n], jnp.int32)
