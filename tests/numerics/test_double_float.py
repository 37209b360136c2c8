"""Sums of two floats, against fractions."""

import fractions
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from d3pm_jax.numerics import double_float

pytestmark = pytest.mark.optimised


def as_fraction(high, low):
    return fractions.Fraction(float(high)) + fractions.Fraction(float(low))


@pytest.mark.parametrize(
    ("dtype", "digits"), [(np.float32, 24), (np.float64, 53)], ids=["float32", "float64"]
)
def test_sums_products_and_quotients_of_pairs_are_exact_to_twice_the_digits(dtype, digits):
    rng = np.random.default_rng(0)
    a = dtype(rng.uniform(0.1, 1.0, 100))
    b = dtype(rng.uniform(0.1, 1.0, 100))
    low = [dtype(x * rng.uniform(-1, 1, 100) * 2.0 ** -(digits + 1)) for x in (a, b)]
    pairs = (a, low[0]), (b, low[1])
    exact = [[as_fraction(*x) for x in zip(*pair, strict=True)] for pair in pairs]
    for f, g in (
        (double_float.add, lambda x, y: x + y),
        (double_float.multiply, lambda x, y: x * y),
        (double_float.divide, lambda x, y: x / y),
    ):
        # A compiled product may be added to in one operation without rounding; called by hand it is rounded.
        with jax.enable_x64(dtype == np.float64):
            results = jax.device_get([jax.jit(f)(*pairs), f(*jax.tree.map(jnp.asarray, pairs))])
        for (high, low_part), i in itertools.product(results, range(100)):
            expected = g(exact[0][i], exact[1][i])
            assert abs(as_fraction(high[i], low_part[i]) / expected - 1) < fractions.Fraction(2) ** -(
                2 * digits - 4
            )
