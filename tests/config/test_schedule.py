"""Specs of schedules beyond the function that each of them names."""

import pytest

from d3pm_jax import config


def test_linear_config_keeps_the_noise_of_1000_steps():
    assert config.Linear(1e-4, 0.02).build(100)[-1] == pytest.approx(0.2)
    assert config.Linear(1e-4, 0.02, rescale=False).build(100)[-1] == 0.02
    with pytest.raises(ValueError, match=r"beta = 1.1\d* at t = 6 .* rescale=False"):
        config.Linear(1e-4, 0.02).build(10)
