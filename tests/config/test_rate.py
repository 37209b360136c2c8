"""Rates against their formulas in NumPy, and what is refused of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from d3pm_jax import config as configs
from d3pm_jax.config import CosineRate, InverseSqrtRate, WSDRate, io as config_io
from d3pm_jax.errors import UserError
from tests import tiny

COUNTS = np.array([0, 1, 2, 9, 19, 69, 70, 71, 88, 99, 100, 250], np.int32)


def wsd(n, shape):
    x = np.clip((n - 70.0) / 30.0, 0.0, 1.0)
    return 1.0 - shape(x)


FORMULAS = [
    (configs.ConstantRate(), lambda n: np.ones(len(n))),
    (CosineRate(100), lambda n: 0.5 * (1 + np.cos(np.pi * np.minimum(n, 100) / 100))),
    (InverseSqrtRate(20), lambda n: np.minimum(1.0, (n + 1.0) ** -0.5 * 20**0.5)),
    (WSDRate(100, 30), lambda n: wsd(n, np.sqrt)),
    (WSDRate(100, 30, "linear"), lambda n: wsd(n, lambda x: x)),
]


@pytest.mark.parametrize(("rate", "formula"), FORMULAS, ids=[str(rate) for rate, _ in FORMULAS])
def test_a_rate_is_its_formula_in_both_types(rate, formula):
    warm = np.minimum(1.0, (COUNTS + 1.0) / 20)
    optimizer = configs.AdamW(lr=3e-3, warmup_steps=20, rate=rate)
    for x64, tolerance in ((True, 1e-15), (False, 3e-7)):
        with jax.enable_x64(x64):
            part = [jnp.asarray(rate.build()(jnp.asarray(n))) for n in COUNTS]
            whole = [jnp.asarray(optimizer.learning_rate(jnp.asarray(n))) for n in COUNTS]
        assert whole[0].dtype == (jnp.float64 if x64 else jnp.float32)
        np.testing.assert_allclose(part, formula(COUNTS), rtol=10 * tolerance, atol=tolerance)
        np.testing.assert_allclose(whole, 3e-3 * formula(COUNTS) * warm, rtol=10 * tolerance, atol=tolerance)


def test_warm_up_and_the_inverse_square_root_meet_in_the_rate_of_attention_is_all_you_need():
    optimizer = configs.AdamW(lr=1.0, warmup_steps=20, rate=InverseSqrtRate(20))
    n = COUNTS + 1.0
    wanted = np.minimum(n**-0.5, n * 20**-1.5) * 20**0.5
    actual = [optimizer.learning_rate(jnp.asarray(x)) for x in COUNTS]
    np.testing.assert_allclose(actual, wanted, rtol=1e-6)


def test_steps_beyond_the_end_are_refused_with_the_cure():
    for rate in (CosineRate(100), WSDRate(100, 30)):
        optimizer = configs.Lion(rate=rate)
        optimizer.check_steps(100)
        assert rate.build()(jnp.asarray(99)) > 0  # that of the last step
        assert rate.build()(jnp.asarray(100)) == 0
        with pytest.raises(
            ValueError, match=r"optimizer.rate.steps = 100: .* pass --optimizer.rate.steps 101"
        ):
            optimizer.check_steps(101)
    configs.Lion(rate=InverseSqrtRate(5)).check_steps(10**6)
    config = dataclasses.replace(tiny.get_config(), optimizer=configs.AdamW(rate=WSDRate(10, 11)))
    with pytest.raises(
        UserError, match=r"optimizer.rate.decay_steps = 11 is more than optimizer.rate.steps = 10"
    ):
        config_io.check_config(config)


def test_a_rate_without_build_says_so():
    @dataclasses.dataclass(frozen=True)
    class Nothing(configs.Rate):
        pass

    with pytest.raises(UserError, match="Nothing defines no build: "):
        configs.AdamW(rate=Nothing()).learning_rate(0)
