"""Block diffusion: who sees whom, one pass against a call for each block, and times of blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from d3pm_jax import blocks
from tests.models.small import randomised
from tests.models.test_transformer import build

# The mask of bd3lms at 1c3e8f4, block_diff_mask(block_size=2, n=4).
RECORDED = """
11000000
11000000
00111100
00111100
00001100
00001100
00001111
00001111
"""


def test_the_layout_is_that_of_the_program():
    layout = blocks.block_layout(4, 2)
    expected = [[int(x) for x in row] for row in RECORDED.split()]
    np.testing.assert_array_equal(layout.attended.astype(int), expected)
    np.testing.assert_array_equal(layout.places, [0, 1, 2, 3, 0, 1, 2, 3])
    with pytest.raises(ValueError, match=r"^block = 3 does not divide length = 4: take a block that does$"):
        blocks.block_layout(4, 3)


@pytest.mark.usefixtures("x64")
def test_each_block_has_a_time_of_its_own_that_is_uniform():
    time = (jnp.arange(1000) + 1.0) / 1000
    times = np.asarray(blocks.block_times(time, 4))
    np.testing.assert_array_equal(times[:, 0], time)
    np.testing.assert_allclose(np.sort(times, axis=0), np.tile(time[:, None], 4), atol=1e-12)
    assert times.min() > 0
    np.testing.assert_allclose(times[250], [0.251, 0.501, 0.751, 0.001], rtol=1e-9)


NETWORKS = {"rotary": {}, "learned": {"positions": "learned", "shape": (6,)}}


@pytest.mark.parametrize("positions", ["rotary", pytest.param("learned", marks=pytest.mark.slow)])
def test_one_pass_is_a_call_for_each_block(positions):
    """Of a transformer: with padding, and with a block of all places, which is the network without x_0."""
    graphdef, params = randomised(build, see_time=False, **NETWORKS[positions])
    rng = np.random.default_rng(0)
    x0 = jnp.asarray(rng.integers(0, 4, (2, 6)))
    xt = jnp.where(jnp.asarray(rng.random((2, 6)) < 0.6), 4, x0)
    weight = jnp.ones((2, 6)).at[1, 5].set(0)
    time = jnp.ones(2, jnp.int32)

    @jax.jit
    def compute(params):
        network = nnx.merge(graphdef, params)
        passes = {}
        for block in (2, 6):
            layout = blocks.block_layout(6, block)
            both = jnp.concatenate([xt, x0], axis=1)
            in_one = network(both, time, layout=layout, weight=weight[:, layout.places])[:, :6]

            # Of each block: x_0 before it, x_t in it, and masks after it.
            of_place = jnp.arange(6)[None, None] // block
            of_call = jnp.arange(6 // block)[:, None, None]
            x = jnp.where(of_place < of_call, x0[None], jnp.where(of_place == of_call, xt[None], 4))
            weights = jnp.tile(weight[:, layout.places], (6 // block, 1))
            call = blocks.fill_blocks(network, block)
            calls = call(x.reshape(-1, 6), jnp.tile(time, 6 // block), weight=weights)
            calls = calls.reshape(-1, *in_one.shape)
            passes[block] = in_one, jnp.where((of_place == of_call)[..., None], calls, 0.0).sum(0)
        return passes, network(xt, time, weight=weight)

    passes, plain = compute(params)
    for in_one, calls in passes.values():
        np.testing.assert_allclose(in_one, calls, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(passes[6][0], plain, rtol=1e-5, atol=1e-6)
    assert np.abs(passes[2][0] - passes[6][0]).max() > 0.1


@pytest.mark.slow
def test_logits_have_no_gradient_by_what_they_are_not_to_see():
    """By x_0 of their own block and later ones, and by x_t of other blocks, exactly 0; by all else not."""
    graphdef, params = randomised(build, see_time=False)
    layout = blocks.block_layout(6, 2)
    vectors = jnp.asarray(np.random.default_rng(1).normal(size=(1, 12, 8)), jnp.float32)  # in the place of xt

    @jax.jit
    def gradients(params, vectors):
        def sums(vectors):
            network = nnx.merge(graphdef, params)
            network._embed_places = lambda xt, layout: vectors
            logits = network(jnp.zeros((1, 12), jnp.int32), jnp.ones(1, jnp.int32), layout=layout)
            return (logits[0, :6] * jnp.arange(5)[None]).sum(-1)  # [6]

        return jnp.abs(jax.jacobian(sums)(vectors)[:, 0]).max(-1)  # [6, 12]

    seen = np.asarray(gradients(params, vectors)) > 0
    place = np.arange(6)
    own = place[:, None] // 2 == place // 2
    before = place[:, None] // 2 > place // 2
    np.testing.assert_array_equal(seen, np.concatenate([own, before], axis=1))


def test_what_a_layout_is_not_for_is_refused():
    layout = blocks.block_layout(4, 2)
    x = jnp.zeros((1, 6), jnp.int32)
    time = jnp.ones(1, jnp.int32)
    grid = {"positions": "grid", "shape": (2, 3)}
    for options, words in (
        ({}, r"xt has shape \[1, 6\], and the layout is of 8 places: pass xt \[B, 8\]"),
        (grid, "a layout is of sequences whose places share their categories"),
        ({"shape": (3,), "sizes": (2, 3, 4)}, "make the network without sizes"),
    ):
        with pytest.raises(ValueError, match=words):
            nnx.eval_shape(lambda: build(**options)(x, time, layout=layout))  # noqa: B023

    def compute():
        network = build(shape=(4,))
        fill = blocks.fill_blocks(network, 2)
        fill(jnp.zeros((1, 4), jnp.int32), time)
        return fill(x, time)

    with pytest.raises(ValueError, match=r"has place 5, and the network is for 4 places: make it with shape"):
        nnx.eval_shape(compute)
