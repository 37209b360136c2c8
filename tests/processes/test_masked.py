"""Masks on top of other processes: what is refused."""

import numpy as np
import pytest

import d3pm_jax as d3pm
from tests.processes.odd import PROCESSES, T


@pytest.mark.filterwarnings("ignore:x_T still depends")
def test_masked_processes_are_checked():
    with pytest.raises(ValueError, match="gamma has 3 steps, the inner process 12"):
        d3pm.masked(PROCESSES["uniform"](), d3pm.reciprocal(3))
    with pytest.raises(ValueError, match=r"gamma = 2 at t = 1 is outside"):
        d3pm.masked(PROCESSES["uniform"](), np.full(T, 2.0))
