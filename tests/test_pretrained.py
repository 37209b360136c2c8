"""The weights in the repository load in JAX and in PyTorch, and give the number that stands beside them."""

import hashlib
import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from d3pm_jax import likelihood, losses, respace
from d3pm_jax.config import io as config_io
from d3pm_jax.config.objective import logits_keywords
from d3pm_jax.runs import exported
from d3pm_jax.sampling import even_grid
from d3pm_jax.weights import twin
from torch_ref.runs import exported as torch_exported

FOLDER = Path(__file__).parent.parent / "pretrained"
FILE = FOLDER / "bin_mnist.safetensors"
STEPS = 10

# Each mark is two by two pixels.
SEVEN = """
..............
..............
...########...
...########...
..........##..
.........##...
.........##...
........##....
........##....
.......##.....
.......##.....
......##......
......##......
..............
"""
TWO = """
..............
..............
....######....
...##....##...
.........##...
.........##...
........##....
.......##.....
......##......
.....##.......
....##........
...#########..
...########...
..............
"""


def drawn(text: str) -> np.ndarray:
    marks = np.array([[mark == "#" for mark in line] for line in text.split()])
    return np.kron(marks, np.ones((2, 2), int))[..., None]


def test_the_file_is_the_one_that_was_measured_and_small():
    recorded = json.loads(FILE.with_suffix(".json").read_text())
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() == recorded["sha256"]
    assert FILE.stat().st_size <= 5_000_000


def test_two_drawn_digits_have_the_recorded_bound_and_shuffled_pixels_a_worse_one():
    digits = np.stack([drawn(SEVEN), drawn(TWO)])
    shuffled = np.random.default_rng(0).permutation(digits.reshape(2, -1), axis=1).reshape(digits.shape)
    config = config_io.from_json(json.loads(twin.read_metadata(FILE)["config"]))
    all_steps = config.process.build()
    network = exported.denoiser(FILE)
    process = respace(all_steps, even_grid(all_steps.T, STEPS))
    term = partial(losses.posterior_kl, **logits_keywords(config.loss))

    @jax.jit
    def bound(x0):
        return likelihood.estimate_bound(jax.random.key(0), network, process, x0, jnp.arange(4), term).total()

    nats = bound(np.concatenate([digits, shuffled]))
    recorded = json.loads(FILE.with_suffix(".json").read_text())["nats_of_drawn_digits"]
    np.testing.assert_allclose(nats[:2], recorded, rtol=1e-4)
    assert nats[2:].min() > 3 * nats[:2].max()


@pytest.mark.slow  # networks and files of both have tests in parity_tests
def test_pytorch_has_the_same_logits():
    xt = np.stack([drawn(SEVEN), drawn(TWO)])
    t = np.array([3, 60])
    with torch.no_grad():
        theirs = torch_exported.denoiser(FILE)(torch.tensor(xt), torch.tensor(t)).numpy()
    ours = jax.jit(exported.denoiser(FILE))(xt, t)
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())
