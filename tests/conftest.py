"""Strict JAX settings for every test; two CPU devices, as the trainer uses."""

import jax
import numpy as np
import pytest

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)


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
