"""Sums of two floats, against fractions."""

import fractions

import jax
import numpy as np
import pytest

from d3pm_jax.numerics import double_float

pytestmark = pytest.mark.optimised


def as_fraction(high, low):
    return fractions.Fraction(float(high)) + fractions.Fraction(float(low))


def test_sums_products_and_quotients_of_pairs_are_exact_to_twice_the_digits():
    rng = np.random.default_rng(0)
    a = np.float32(rng.uniform(0.1, 1.0, 100))
    b = np.float32(rng.uniform(0.1, 1.0, 100))
    low = [np.float32(x * rng.uniform(-1, 1, 100) * 2.0**-25) for x in (a, b)]
    pairs = (a, low[0]), (b, low[1])
    exact = [[as_fraction(*x) for x in zip(*pair, strict=True)] for pair in pairs]
    for f, g in (
        (double_float.add, lambda x, y: x + y),
        (double_float.multiply, lambda x, y: x * y),
        (double_float.divide, lambda x, y: x / y),
    ):
        high, low_part = jax.device_get(jax.jit(f)(*pairs))
        for i in range(100):
            expected = g(exact[0][i], exact[1][i])
            assert abs(as_fraction(high[i], low_part[i]) / expected - 1) < 2.0**-44
