"""The twin refuses what JAX refuses, over the pairs: `python -m parity_tests.refusals` has all of them."""

import collections

import jax
import numpy as np
import pytest

from parity_tests.pairs import PAIRS
from parity_tests.refusals import calls

CATEGORIES_STEPS_NOISE = ("x0", "xt", "x", "t", "u", "u_low", "time")
# Processes of positions; digits, whose end is a number of another argument; a head reads no values, so that
# it goes through `torch.vmap`.
LEFT = ("autoregressive", "flows", "heads.residual_logistic")
OF_VALUES = tuple(name for name in PAIRS if not name.startswith(LEFT))


def count(names, wanted):
    with jax.debug_key_reuse(False):
        outcomes = list(calls(names, wanted))
    assert not [x for x in outcomes if x[0] == "silent"]
    return collections.Counter(kind for kind, _, _ in outcomes)


@pytest.mark.filterwarnings("ignore:x_T still depends")
def test_shapes_types_and_values():
    names = ("q_sample", "posterior_kl", "categorical", "timesteps.uniform")
    assert count(names, lambda argument, bad: True)["refused"] > 80


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:x_T still depends")
def test_values_of_every_pair():
    def is_value(argument, bad):
        is_array = isinstance(bad.value, np.ndarray) and bad.what.startswith("value")
        return argument in CATEGORIES_STEPS_NOISE and is_array

    assert count(OF_VALUES, is_value)["refused"] > 300
