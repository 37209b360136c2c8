"""Specs of schedules build what they say."""

import numpy as np
import pytest

from d3pm_jax import config, processes, schedules
from tests.config.test_process import POINTS

T = 10
P0 = (0.5, 0.3, 0.2)
INFORMATION = config.MutualInformation(P0)
MASK = np.array([0.0, 0.0, 0.0, 1.0])
RATE = processes.knn_rate(POINTS, 2)

# schedule -> what the spec gives, and what the function gives for the same numbers
SPECS = {
    "linear": (config.Linear(0.1, 0.8, rescale=False).build(T), schedules.linear(T, 0.1, 0.8)),
    "cosine": (config.Cosine(0.1, 0.9).build(T), schedules.cosine(T, 0.1, 0.9)),
    "cosine_squared": (config.CosineSquared(0.1, 0.5).build(T), schedules.cosine_squared(T, 0.1, 0.5)),
    "reciprocal": (config.Reciprocal(2.0).build(T), schedules.reciprocal(T, 2.0)),
    "log_linear": (config.LogLinear(0.1).build(T), schedules.log_linear(T, 0.1)),
    "polynomial": (config.Polynomial(3.0).build(T), schedules.polynomial(T, 3.0)),
    "mutual_information": (
        INFORMATION.resampling(T, MASK),
        schedules.mutual_information(T, np.array([*P0, 0.0]), MASK),
    ),
    "mutual_information_steps": (
        INFORMATION.durations(T, RATE),
        schedules.mutual_information_steps(T, np.array([*P0, 0.0]), RATE),
    ),
}
REASONS = {
    "information_left": "what a schedule does, not one",
    "information_left_by_rate": "what a schedule does, not one",
    "from_alpha_bar": "an array of the user's: derive from config.Schedule and call it in build",
    "check_betas": "a check",
    "continuous": "alpha of time, for bounds in continuous time: a run has T steps",
}


def test_every_schedule_has_a_spec_or_a_reason():
    assert SPECS.keys() | REASONS.keys() == {name for name in schedules.__all__ if name.islower()}
    parts = [part for part in vars(config).values() if isinstance(part, type)]
    specs = {x.__name__.lower() for x in parts if issubclass(x, config.Schedule)} - {"schedule"}
    assert {name.replace("_", "") for name in SPECS} - {"mutualinformationsteps"} == specs


@pytest.mark.parametrize("name", SPECS)
def test_specs_build_what_the_functions_give(name):
    actual, expected = SPECS[name]
    np.testing.assert_array_equal(actual, expected)


def test_linear_config_keeps_the_noise_of_1000_steps():
    assert config.Linear(1e-4, 0.02).build(100)[-1] == pytest.approx(0.2)
    assert config.Linear(1e-4, 0.02, rescale=False).build(100)[-1] == 0.02
    with pytest.raises(ValueError, match=r"beta = 1.1\d* at t = 6 .* rescale=False"):
        config.Linear(1e-4, 0.02).build(10)


def test_mutual_information_follows_what_the_process_does(tmp_path):
    """Each process gives the schedule the distribution, or the rates, that it has itself."""
    pi = np.array([0.2, 0.3, 0.5])
    for spec, moves_to in [
        (config.Uniform(3, T, INFORMATION), np.full(3, 1 / 3)),
        (config.Absorbing(3, T, INFORMATION, 1), np.array([0.0, 1.0, 0.0])),
        (config.Marginal(T, INFORMATION, tuple(pi)), pi),
    ]:
        beta = schedules.mutual_information(T, np.array(P0), moves_to)
        np.testing.assert_array_equal(spec.build().spec.beta, beta)
    mask = config.Absorbing(4, T, INFORMATION, 3).build()
    np.testing.assert_allclose(mask.spec.beta, schedules.reciprocal(T), rtol=1e-9)
    np.save(tmp_path / "x.npy", POINTS)
    walks = [config.FromRate(f"{tmp_path}/x.npy", 2, T, INFORMATION, speed).build() for speed in (1.0, 9.0)]
    expected = processes.from_rate(RATE, schedules.mutual_information_steps(T, np.array([*P0, 0.0]), RATE))
    tree = config.Hierarchical((1.0, 3.0), T, INFORMATION).build()
    R = processes.hierarchical_rate(np.array([1.0, 3.0]))
    steps = schedules.mutual_information_steps(T, np.array([*P0, 0.0]), R)
    np.testing.assert_array_equal(tree.spec.Q, processes.from_rate(R, steps).spec.Q)
    for walk in walks:
        np.testing.assert_allclose(walk.spec.Q, expected.spec.Q, rtol=1e-9)


def test_mutual_information_may_fall_by_a_power():
    spec = config.MutualInformation(P0, power=2.0)
    t = np.arange(T + 1) / T
    np.testing.assert_allclose(spec.resampling(T, MASK), schedules.polynomial(T, 2.0), rtol=1e-9)
    steps = schedules.mutual_information_steps(T, np.array([*P0, 0.0]), RATE, 1 - t**2)
    np.testing.assert_array_equal(spec.durations(T, RATE), steps)


def test_a_schedule_that_does_not_fit_says_what_does():
    with pytest.raises(ValueError, match=r"Uniform, Marginal, FromRate, .* such as Reciprocal.* for a mask"):
        config.Gaussian(3, T, INFORMATION).build()
    with pytest.raises(ValueError, match="p0 has 3 categories, but the process has 2"):
        config.Uniform(2, T, INFORMATION).build()
    for power, cure in ((20.0, "smaller"), (1e-13, "larger")):
        message = rf"MutualInformation\.power = {power:g} is too .* for 10 steps: .* a {cure} power"
        with pytest.raises(ValueError, match=message):
            config.MutualInformation(P0, power).durations(T, RATE)
        config.MutualInformation(P0, power).durations(1, RATE)
    with pytest.raises(
        ValueError,
        match="beta = 1 at t = 10 is reached only after an infinite time: take a schedule that ends below 1",
    ):
        config.Reciprocal().durations(T, RATE)
