"""What a forward process does to one element, against the matrices of small processes."""

import math
from itertools import accumulate

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import entr

from d3pm_jax.evaluation import process_effect
from tests import families


@pytest.mark.filterwarnings("ignore:x_T still depends on x_0")
@pytest.mark.parametrize("name", families.NAMES)
def test_effect_is_that_of_the_matrices(name, x64):
    case = families.make(name)
    N = len(case.data)
    x0 = jnp.array(case.data, jnp.int32)
    Qbar = list(accumulate(case.Q, np.matmul, initial=np.eye(3)))
    effects = [process_effect.compute_effect(case.process, x0, t) for t in range(5)]
    for Q, (unchanged, lost) in zip(Qbar, effects, strict=True):
        joint = Q[case.data] / N
        information = math.log(N) + entr(joint.sum(0)).sum() - entr(joint).sum()
        assert unchanged == pytest.approx(np.diag(Q)[case.data].mean())
        assert 1 - lost == pytest.approx(information / math.log(N), abs=1e-12)


def test_weight_of_a_mask_is_that_of_its_cross_entropy(x64):
    case = families.make("extra mask")
    effects = [
        process_effect.compute_effect(case.process, jnp.array(case.data, jnp.int32), t) for t in range(5)
    ]
    alpha_bar = np.cumprod([1.0, *(1 - families.BETA)])
    expected = (alpha_bar[:-1] - alpha_bar[1:]) / (1 - alpha_bar[1:])
    np.testing.assert_allclose(
        [process_effect.cross_entropy_weight(*effects[t : t + 2]) for t in range(4)], expected, rtol=1e-12
    )
    assert math.isnan(process_effect.cross_entropy_weight(effects[0], effects[0]))
