"""Specs of processes build what they say."""

import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import config
from tests.families import all_steps

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.filterwarnings("ignore:x_T still depends")]


def test_configs_build_what_they_say():
    beta = config.Linear(0.1, 0.9, rescale=False)
    for build, expected in [
        (config.Gaussian(9, 10, beta, bands=2), d3pm.gaussian(beta.build(10), 9, 2)),
        (config.Gaussian(9, 10, beta), d3pm.gaussian(beta.build(10), 9)),
        (config.Banded(9, 10, beta, bands=2), d3pm.banded(beta.build(10), 9, 2)),
    ]:
        np.testing.assert_array_equal(all_steps(build.build())[1], all_steps(expected)[1])
