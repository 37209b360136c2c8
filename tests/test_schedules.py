"""Schedules against their published values."""

import numpy as np
import pytest

from d3pm_jax import config, schedules


def test_linear_is_that_of_the_paper():
    beta = schedules.linear(1000)
    assert beta.dtype == np.float64
    np.testing.assert_allclose(beta[[0, 499, 999]], [1e-4, 1e-4 + 499 / 999 * 0.0199, 0.02], rtol=1e-15)


def test_cosine_is_that_of_the_official_code():
    alpha_bar = np.cumprod(1 - schedules.cosine(1000))
    np.testing.assert_allclose(alpha_bar[-2:], [0.00156, 1.56e-6], rtol=2e-3)
    u = np.arange(1000) / 1000
    f = np.cos((u + 0.008) / 1.008 * np.pi / 2)
    np.testing.assert_allclose(alpha_bar[:-1], f[1:] / f[0], rtol=1e-12)


@pytest.mark.parametrize("T", [1, 2, 1000])
def test_reciprocal_makes_alpha_bar_linear(T):
    np.testing.assert_allclose(
        np.cumprod(1 - schedules.reciprocal(T)), 1 - np.arange(1, T + 1) / T, atol=1e-12
    )
    assert schedules.reciprocal(T)[-1] == 1.0


@pytest.mark.parametrize("make", [schedules.linear, schedules.cosine, schedules.reciprocal])
def test_every_number_of_steps_works_or_says_why(make):
    for T in (1, 2, 3, 50):
        assert make(T).shape == (T,)
    with pytest.raises(ValueError, match="T = 0: a process needs at least 1 step"):
        make(0)


@pytest.mark.parametrize("value", [0.0, -0.1, 1.5, np.nan])
def test_beta_outside_its_range_is_named(value):
    with pytest.raises(ValueError, match=rf"beta = {value:g} at t = 2 is outside \(0, 1\]"):
        schedules.check_betas(np.array([0.5, value]))


def test_linear_config_keeps_the_noise_of_1000_steps():
    assert config.Linear(1e-4, 0.02).build(100)[-1] == pytest.approx(0.2)
    assert config.Linear(1e-4, 0.02, rescale=False).build(100)[-1] == 0.02
    with pytest.raises(ValueError, match=r"beta = 1.1\d* at t = 6 .* rescale=False"):
        config.Linear(1e-4, 0.02).build(10)
