"""Work by parts: the same as at once, whatever does not divide."""

import jax.numpy as jnp
import numpy as np
import pytest

from d3pm_jax.numerics import tiles


@pytest.mark.parametrize("shape", [(2, 3, 5), (4, 7), (6,), (2, 0)])
def test_every_element_is_taken(shape, monkeypatch):
    monkeypatch.setattr(tiles, "FLOATS", 42)
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=(*shape, 3)), rng.normal(size=shape)
    found = tiles.over_parts(lambda x, g: (x * g[..., None], g + 1), *map(jnp.asarray, (x, g)))
    for a, b in zip(found, (x * g[..., None], g + 1), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("floats", [1, 5, 7, 100])
@pytest.mark.parametrize("shape", [(2, 3, 5), (4, 7), (6,), (2, 0)])
def test_an_array_is_replaced_once_at_every_element(shape, floats, monkeypatch):
    monkeypatch.setattr(tiles, "FLOATS", 42)
    rng = np.random.default_rng(0)
    array, x, g = rng.normal(size=(*shape, 3)), rng.normal(size=(*shape, 3)), rng.normal(size=shape)
    found = tiles.update_by_parts(
        lambda a, x, g: 2 * a + x * g[..., None], *map(jnp.asarray, (array, x, g)), floats=floats
    )
    np.testing.assert_allclose(found, 2 * array + x * g[..., None], rtol=1e-5, atol=1e-6)
