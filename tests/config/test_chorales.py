"""Data, network and losses of configs/chorales.py, and what benchmarks/exact_chorales.py computes."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from d3pm_jax import absorbing, likelihood
from d3pm_jax.config import io

ROOT = Path(__file__).parents[2]
chorales = io.load_module(ROOT / "configs" / "chorales.py")
exact = io.load_module(ROOT / "benchmarks" / "exact_chorales.py")
K = chorales.CATEGORIES + 1
LENGTHS = {"train": [40, 50], "valid": [35], "test": [36]}


@pytest.fixture
def data(tmp_path):
    """Two pieces to train on: of all pitches of a voice, from its lowest on, and with a silence."""
    arrays = {}
    for split, lengths in LENGTHS.items():
        frames = np.arange(sum(lengths))[:, None]
        arrays[split] = (chorales.VOICE_RANGES[:, 0] + 35 + frames % 12).astype(np.int16)
        arrays[split][5, 2] = -1
        arrays[f"{split}_lengths"] = np.array(lengths)
    np.savez(tmp_path / "pieces.npz", **arrays)
    return chorales.Chorales(str(tmp_path / "pieces.npz"))


def make_network(causal):
    """A small network with random weights, also where it begins with zeros."""
    network = chorales.ChoraleNet(K, 8, 1, 2, 0.0, 0.0, causal, nnx.Rngs(0))
    graphdef, state = nnx.split(network)
    leaves, tree = jax.tree.flatten(state)
    rng = np.random.default_rng(0)
    leaves = [leaf + jnp.asarray(0.5 * rng.normal(size=leaf.shape), jnp.float32) for leaf in leaves]
    network = nnx.merge(graphdef, jax.tree.unflatten(tree, leaves))
    return jax.jit(lambda xt, phase: jax.nn.log_softmax(network(xt, jnp.ones(1), label=phase)))


def test_windows_lie_in_one_piece_and_keep_to_the_ranges(data):
    train = data.open_training()
    assert len(train) == 40 - 31 + 50 - 31
    assert len(data.open("valid")) == len(data.open("test")) == 1
    first, other = train[0], train[9 + 5]
    assert [first["label"], other["label"]] == [0, 5]
    np.testing.assert_array_equal(other["x"][0], chorales.VOICE_RANGES[:, 0] + (40 + 5) % 12)
    # The lowest note of each voice is there, and 11 semitones above it: the soprano could go up by 10.
    ups = [(chorales.transpose(first["x"], n) - first["x"]) for n in (-5, 0, 6, 40)]
    assert [np.unique(up[first["x"] > 0]).tolist() for up in ups] == [[0], [0], [6], [10]]
    assert all((up[first["x"] == 0] == 0).all() for up in ups)


def test_half_of_the_masks_are_all_at_the_end():
    process = absorbing(1 / np.arange(128, 0, -1), K=K, mask_id=K - 1)
    u = np.random.default_rng(0).random((256, 32, 4)).astype("f")
    x0 = jnp.ones((256, 32, 4), jnp.int32)
    t = jnp.full(256, 64)
    masked = np.asarray(chorales.HalfPrefixes().draw(process, x0, t, jnp.asarray(u)) == K - 1)
    np.testing.assert_array_equal(masked[::2], u[::2] < 0.5)
    places = masked[1::2].reshape(128, -1)
    assert (np.diff(places.astype(int), axis=1) >= 0).all()
    first = places.argmax(axis=1)
    np.testing.assert_array_equal(first // 4, (32 * u[1::2, 0, 0] ** 0.25).astype(int))
    assert set(first % 4) == {0, 1, 2, 3}


@pytest.mark.slow
@pytest.mark.parametrize("causal", [False, True])
def test_the_benchmark_goes_by_the_chain_rule(causal, data):
    """Of a piece as long as a window; a causal network needs one call, and sees nothing that comes later."""
    fill_in = make_network(causal)
    piece = data.read_pieces("test")[0][:32]
    opened = exact.Opened(fill_in, K - 1, 32, causal, [piece])
    (windows, phase, frame, valid), *more = exact.list_windows(opened)
    assert valid == 32
    assert not more
    log_p = exact.predict_frame(opened, windows, phase, frame)[:32]
    nats = -np.take_along_axis(log_p, piece[..., None], axis=2)[..., 0]
    order = jnp.arange(128.0).reshape(1, 32, 4) / 128
    expected = likelihood.chain_rule(
        lambda xt: fill_in(xt, jnp.zeros(1, jnp.int32)), piece[None], order, K - 1
    )
    np.testing.assert_allclose(nats, expected[0], rtol=1e-4, atol=1e-5)
