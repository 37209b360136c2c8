"""Strict JAX settings for every test; two CPU devices, as the trainer uses."""

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)


@pytest.fixture
def x64():
    """float64 throughout the test."""
    with jax.enable_x64(True):
        yield
