"""Fixtures of these tests; settings are in the conftest.py above."""

import jax
import numpy as np
import pytest


@pytest.fixture
def optimised():
    """New programs as users compile them: for tests of the last bits, of memory, or with much to compute."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def x64():
    """float64 throughout the test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=["float64", "float32"])
def close(request):
    """The comparison that numbers of other programs have to pass, with JAX in each of the two types."""
    tolerance = {"float64": 1e-10, "float32": 1e-6}[request.param]
    with jax.enable_x64(request.param == "float64"):
        yield lambda found, right: np.testing.assert_allclose(found, right, rtol=tolerance, atol=tolerance)
