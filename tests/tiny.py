"""A config that trains in seconds, and a network that compiles in less, for the tests of the trainer."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from d3pm_jax.config import Adam, Config, Digits, Linear, Train, UNet, Uniform, io as config_io
from d3pm_jax.data import Description
from d3pm_jax.program.parts import build, network
from d3pm_jax.program.parts.completed import complete
from d3pm_jax.program.storage import checkpoint, names, run_folder
from d3pm_jax.training.diffusion import without_buffers

DIGITS = Description((8, 8, 1), 17, 10, "image")


def get_config() -> Config:
    return Config(
        data=Digits(),
        process=Uniform(K=17, steps=10, beta=Linear(0.2, 1.0, rescale=False)),
        model=UNet(ch=8, ch_mult=(1,), num_res_blocks=1, attn_resolutions=(), groups=4),
        optimizer=Adam(lr=1e-3),
        train=Train(
            steps=20, batch_size=16, ema_decay=0.9, log_every=5, checkpoint_every=4, keep_checkpoints=3
        ),
    )


def one_device_mesh():
    """In place of the mesh of all devices: a program for one compiles in less time."""
    return Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "fsdp"))


def build_checked(config, description):
    """Builds a config as it comes from a user."""
    config_io.check_config(config)
    return build.build(complete(config, description))


def write_run(workdir, config, step=7, description=None):
    """Writes a run on digits, without data, of random weights and a random average, and returns its state."""
    description = description or DIGITS
    parts = build.build(complete(config, description))
    rng = np.random.default_rng(0)

    def draw(x):
        return jnp.asarray(rng.normal(size=x.shape) * 0.1, x.dtype)

    params = jax.tree.map(draw, parts.state.params)
    average = jax.tree.map(draw, parts.state.params)
    state = build.initialize_state_from(parts, params).state
    state = dataclasses.replace(state, step=jnp.asarray(step, jnp.int32), ema=average)
    workdir.mkdir(parents=True)
    run_folder.write_run(workdir, config, description)
    checkpoint.save_checkpoint(workdir / names.CHECKPOINTS, step, state, keep=1)
    return state


def split(config, description, process, extra_mask=None):
    """In place of `network.split_network`: logits from a table of x_t, and in proportion to t."""
    K = process.K

    def predict(params, xt, t, key=None, label=None, weight=None, condition=None):
        late = t[:, None, None, None, None] / process.T
        return params["table"]["kernel"][xt] + late * params["late"]["bias"][None, None, None, None]

    def init(key):
        return {"table": {"kernel": 0.1 * jax.random.normal(key, (K, K))}, "late": {"bias": jnp.zeros(K)}}

    classes = network.network_classes(config, description)
    return network.Network(
        predict,
        init,
        without_buffers(predict),
        classes=classes,
        dropping=network.make_dropping(config.train.drop_condition, classes, description),
        extra_mask=extra_mask,
    )
