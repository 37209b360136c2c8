"""Weights by the names of the twin: to the bit, and safe on disk."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from d3pm_jax.weights import twin
from tests.models.small import randomised, small, small_score_net


def test_frequencies_of_time_are_saved_with_the_weights():
    _, params = randomised(small_score_net)
    np.testing.assert_array_equal(twin.to_torch(params)["frequencies"], params["frequencies"][...])


def test_convert_goes_both_ways_to_the_bit():
    _, params = randomised(small)
    state_dict = twin.to_torch(params)
    assert state_dict["conv_in.weight"].shape == (8, 1, 3, 3)
    assert state_dict["temb1.weight"].shape == (32, 8)
    assert "down.0.blocks.0.norm1.weight" in state_dict
    back = twin.from_torch(jax.tree.map(jnp.zeros_like, params), state_dict)
    jax.tree.map(np.testing.assert_array_equal, back, params)


def test_axes_of_kernels_are_those_of_pytorch():
    """Rows stay rows: a turn both ways would come back to the bit."""
    numbers = np.arange(2 * 3 * 4 * 5)
    for shape, order in (
        ((2, 3, 4, 5), (3, 2, 0, 1)),
        ((3, 4, 5), (2, 1, 0)),
        ((4, 5), (1, 0)),
        ((5,), (0,)),
    ):
        kernel = numbers[: np.prod(shape)].reshape(shape)
        (weight,) = twin.to_torch({"kernel": kernel}).values()
        np.testing.assert_array_equal(weight, np.transpose(kernel, order))


def test_convert_names_what_does_not_fit():
    _, params = randomised(small)
    state_dict = twin.to_torch(params)
    kernel = state_dict.pop("conv_in.weight")
    with pytest.raises(ValueError, match=r"missing \['conv_in.weight'\], left over \['other'\]"):
        twin.from_torch(params, state_dict | {"other": kernel})
    with pytest.raises(ValueError, match=r"conv_in.weight has shape \(8, 1, 3\)"):
        twin.from_torch(params, state_dict | {"conv_in.weight": kernel[..., 0]})


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    _, params = nnx.split(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    file = tmp_path / "w.safetensors"
    twin.save(file, params)
    before = file.read_bytes()

    def fail(self, content):
        with self.open("wb") as out:
            out.write(content[:9])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="no space"):
        twin.save(file, jax.tree.map(jnp.zeros_like, params))
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]
    assert file.read_bytes() == before


class Own(nnx.Module):
    """A network of one's own: a list of layers, and what its twin calls otherwise."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.embed = nnx.Linear(4, 3, rngs=rngs)
        self.symbols = nnx.Embed(5, 3, rngs=rngs)
        self.layers = nnx.List([nnx.Conv(3, 2, (5,), rngs=rngs), nnx.Linear(2, 3, rngs=rngs)])


def test_networks_of_ones_own_have_lists_of_layers_and_convolutions_of_one_axis():
    _, params = nnx.split(Own())
    state_dict = twin.to_torch(params)
    shapes = {name: x.shape for name, x in state_dict.items()}
    assert shapes["layers.0.weight"] == (2, 3, 5)
    assert shapes["layers.1.weight"] == (3, 2)
    assert shapes["embed.weight"] == (3, 4)
    assert shapes["symbols.weight"] == (5, 3)
    back = twin.from_torch(jax.tree.map(jnp.zeros_like, params), state_dict)
    jax.tree.map(np.testing.assert_array_equal, back, params)
