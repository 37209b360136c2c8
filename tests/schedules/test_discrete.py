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


def test_cosine_without_a_limit_removes_everything():
    assert [schedules.cosine(T, largest=1.0)[-1] for T in range(1, 200)] == [1.0] * 199


STEPS = (1, 2, 3, 50, 1000, 4000)


@pytest.mark.parametrize("T", STEPS)
def test_cosine_squared_is_that_of_multinomial_diffusion(T):
    x = np.linspace(0, T + 1, T + 1)  # as its program has it: T + 1 points, the last of them at T + 1
    f = np.cos((x / (T + 1) + 0.008) / 1.008 * np.pi / 2) ** 2
    alpha = np.sqrt(np.clip((f / f[0])[1:] / (f / f[0])[:-1], 0.001, 1.0))
    np.testing.assert_allclose(schedules.cosine_squared(T), 1 - alpha, atol=1e-12)
    assert schedules.cosine_squared(T)[-1] == 1 - np.sqrt(0.001)


@pytest.mark.parametrize("T", [2, 100, 4000])
def test_small_betas_keep_their_digits(T):
    x = np.pi / 2 / 1.008 / T  # f((t - 1) / T) - f(t / T) at t = 1 as a product of two sines
    first = 2 * np.sin(x / 2) * np.sin((0.008 * T + 0.5) * x) / np.cos(0.008 * T * x)
    np.testing.assert_allclose(schedules.cosine(T)[0], first, rtol=1e-13)
    np.testing.assert_allclose(schedules.polynomial(T, 6.0)[0], float(T) ** -6, rtol=1e-13)


@pytest.mark.parametrize("T", STEPS)
def test_alpha_bar_has_its_closed_form(T):
    u = np.arange(1, T + 1) / T
    for beta, alpha_bar in (
        (schedules.reciprocal(T, scale=1.5), 1 - u / 1.5),
        (schedules.log_linear(T), np.exp(np.log1p(-(1 - 1e-3) * u))),
        (schedules.log_linear(T, eps=0.0), 1 - u),
        (schedules.polynomial(T), 1 - u**2),
        (schedules.polynomial(T, 0.5), 1 - u**0.5),
        (schedules.from_alpha_bar(np.cos(np.append(0.0, u)) ** 2), np.cos(u) ** 2),
    ):
        np.testing.assert_allclose(np.cumprod(1 - beta), alpha_bar, atol=1e-12)
    assert schedules.polynomial(T)[-1] == 1.0
    assert schedules.from_alpha_bar(np.append(1.0, 1 - u))[-1] == 1.0


@pytest.mark.parametrize("T", STEPS)
def test_schedules_of_the_text_code(T):
    t = np.arange(T)  # counted from 0
    np.testing.assert_allclose(schedules.reciprocal(T, 1.5), 1 / (1.5 * T - t), rtol=1e-12)
    low = 1e-3
    high = 0.2
    ours = schedules.linear(T, low, low + (high - low) * (T - 1) / T)
    np.testing.assert_allclose(ours, high * (t / T + (1 - t / T) * low / high), rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: schedules.cosine(5, offset=-0.1), "offset = -0.1: it must be at least 0"),
        (lambda: schedules.cosine(5, largest=1.5), r"largest = 1.5, outside \(0, 1\]: .*, and none is 0"),
        (
            lambda: schedules.cosine_squared(5, smallest=1.0),
            r"smallest = 1.0, outside \[0, 1\): choose a number in between",
        ),
        (lambda: schedules.reciprocal(5, scale=0.5), "scale = 0.5: it must be at least 1"),
        (lambda: schedules.log_linear(5, eps=1.0), r"eps = 1.0, outside \[0, 1\): choose"),
        (lambda: schedules.polynomial(5, power=0.0), "power = 0.0: it must be above 0"),
        (lambda: schedules.from_alpha_bar(np.array([0.9, 0.1])), r"start at 1, .* starting \[0.9 0.1\]"),
        (lambda: schedules.from_alpha_bar(np.array([1.0, 0.5, 0.5])), "from 0.5 to 0.5 at t = 2: .* fall"),
        (lambda: schedules.from_alpha_bar(np.array([1.0, 0.0, 0.0])), "from 0 to 0 at t = 2"),
        (lambda: schedules.from_alpha_bar(np.array([1.0, -0.1])), "from 1 to -0.1 at t = 1"),
    ],
)
def test_arguments_outside_their_range_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("T", [1, 2, 1000])
def test_reciprocal_makes_alpha_bar_linear(T):
    np.testing.assert_allclose(
        np.cumprod(1 - schedules.reciprocal(T)), 1 - np.arange(1, T + 1) / T, atol=1e-12
    )
    assert schedules.reciprocal(T)[-1] == 1.0


@pytest.mark.parametrize(
    "name", ["linear", "cosine", "cosine_squared", "reciprocal", "log_linear", "polynomial"]
)
def test_every_number_of_steps_works_or_says_why(name):
    make = getattr(schedules, name)
    for T in STEPS:
        assert make(T).shape == (T,)
        assert make(T).dtype == np.float64
    with pytest.raises(ValueError, match=r"T = 0, outside 1\.\.8388608"):
        make(0)
    if name != "linear":  # which rescales itself
        spec = getattr(config, "".join(word.capitalize() for word in name.split("_")))
        np.testing.assert_array_equal(spec().build(50), make(50))


@pytest.mark.parametrize("value", [0.0, -0.1, 1.5, np.nan])
def test_beta_outside_its_range_is_named(value):
    with pytest.raises(ValueError, match=rf"beta = {value:g} at t = 2 is outside \(0, 1\]"):
        schedules.check_betas(np.array([0.5, value]))
