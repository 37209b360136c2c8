"""Work by parts: the same as at once, whatever does not divide."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from d3pm_jax.cpu import tiles


@pytest.mark.parametrize("shape", [(2, 3, 5), (4, 7), (6,), (2, 0)])
def test_every_element_is_taken(shape, monkeypatch):
    monkeypatch.setattr(tiles, "FLOATS", 42)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(*shape, 3))
    g = rng.normal(size=shape)
    actual = tiles.apply_by_parts(lambda x, g: (x * g[..., None], g + 1), *map(jnp.asarray, (x, g)))
    for a, b in zip(actual, (x * g[..., None], g + 1), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("floats", [1, 5, 7, 100])
@pytest.mark.parametrize("shape", [(2, 3, 5), (4, 7), (6,), (2, 0)])
def test_an_array_is_replaced_once_at_every_element(shape, floats, monkeypatch):
    monkeypatch.setattr(tiles, "FLOATS", 42)
    rng = np.random.default_rng(0)
    array = rng.normal(size=(*shape, 3))
    x = rng.normal(size=(*shape, 3))
    g = rng.normal(size=shape)
    actual = tiles.update_by_parts(
        lambda a, x, g: 2 * a + x * g[..., None], *map(jnp.asarray, (array, x, g)), floats=floats
    )
    np.testing.assert_allclose(actual, 2 * array + x * g[..., None], rtol=1e-5, atol=1e-6)


def doubled(x):
    """Twice each example, and its sum over the last axis: NaN where it has one."""
    return jnp.sum(x, axis=-1), 2 * x


def zeros(x):
    """What no sum is."""
    return jnp.zeros(x.shape[:-1]), 0 * jnp.nan_to_num(x)


@pytest.mark.parametrize("floats", [32, 1000])
def test_the_parts_with_a_nan_are_made_otherwise_and_no_others(floats, monkeypatch):
    """Pairs of the 11 elements, a quarter of a part, from a NaN on or the last; of each example of a vmap."""
    monkeypatch.setattr(tiles, "FLOATS", floats)
    x = np.ones((4, 2, 11, 2), np.float32)
    x[1, 0, 4], x[2, 1, 1], x[2, 0, 2], x[2, 0, 10] = (np.nan,) * 4
    otherwise = np.zeros((4, 11), bool)
    otherwise[1, 4:6] = otherwise[2, 1:3] = otherwise[2, 9:] = True
    if floats == 1000:  # all in one part
        otherwise[1:3] = True

    def work(x):
        return tiles.apply_by_parts(doubled, x, otherwise=zeros)

    for actual in (
        jax.jit(jax.vmap(work))(x),
        [jnp.stack(y) for y in zip(*map(jax.jit(work), x), strict=True)],
    ):
        expected = np.broadcast_to(np.where(otherwise, 0.0, 2.0)[:, None], (4, 2, 11))
        np.testing.assert_array_equal(actual[0], expected)
        np.testing.assert_array_equal(actual[1], np.stack([expected, expected], -1))


def test_elsewhere_a_nan_is_mended_by_parts(monkeypatch):
    """Eight of the 11 elements, a part of a CPU, from each NaN on or the last."""
    monkeypatch.setattr(tiles, "FLOATS", 32)
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *args, default, **platforms: default(*args))
    x = np.ones((2, 11, 2), np.float32)
    x[0, 1] = np.nan
    shapes = []

    def zeros_of_part(x):
        shapes.append(x.shape)
        return zeros(x)

    sums, twice = jax.jit(lambda x: tiles.apply_by_parts(doubled, x, otherwise=zeros_of_part))(x)
    expected = np.full((2, 11), 2.0)
    expected[:, 1:9] = 0.0
    np.testing.assert_array_equal(sums, expected)
    np.testing.assert_array_equal(twice, np.stack([expected, expected], -1))
    assert set(shapes) == {(2, 8, 2)}


def test_elsewhere_what_needs_no_memory_is_done_at_once(monkeypatch):
    monkeypatch.setattr(tiles, "FLOATS", 32)
    x = jax.ShapeDtypeStruct((2, 64, 2), jnp.float32)
    traced = jax.jit(lambda x: tiles.apply_by_parts(doubled, x)).trace(x)
    assert "stablehlo.while" in traced.lower(lowering_platforms=("cpu",)).as_text()
    assert "stablehlo.while" not in traced.lower(lowering_platforms=("cuda",)).as_text()
