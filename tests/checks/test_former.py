"""What kernels of older versions took is refused with its cure."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import config as configs, posteriors
from d3pm_jax.cli import reading
from d3pm_jax.config.objective import logits_keywords
from d3pm_jax.errors import UserError
from d3pm_jax.losses import variational
from tests import tiny

CURE = (
    'first_step no longer exists: write belief="official" for "x0", and leave "bayes" out, '
    "the rule of all other beliefs"
)
PROCESS = d3pm.uniform(d3pm.reciprocal(4), 3)
X = jnp.array([0, 1, 2])
T = jnp.array(1)
U = jnp.array([0.1, 0.5, 0.9])
LOGITS = jnp.arange(9.0).reshape(3, 3)
KERNELS = {  # and their arguments before `belief`
    "p_logits": (d3pm.p_logits, (PROCESS, LOGITS, X, T)),
    "p_joint": (posteriors.p_joint, (PROCESS, LOGITS, X, T)),
    "p_sample": (d3pm.p_sample, (PROCESS, LOGITS, X, T, U)),
    "posterior_kl": (d3pm.posterior_kl, (PROCESS, LOGITS, X, X, T)),
    "posterior_kl_definition": (variational.posterior_kl_definition, (PROCESS, LOGITS, X, X, T)),
    "hybrid": (d3pm.hybrid, (PROCESS, LOGITS, X, X, T, 0.1)),
}


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_name_the_cure_for_a_first_step(name):
    kernel, args = KERNELS[name]
    for first_step in ("bayes", "x0"):
        refused = f"^belief = '{first_step}': it must be 'd3pm' or 'official' or .*; {CURE}"
        with pytest.raises(ValueError, match=refused):
            kernel(*args, first_step)
        with pytest.raises(ValueError, match=refused):
            jax.jit(lambda logits, x=first_step: kernel(args[0], logits, *args[2:], x))(LOGITS)
        with pytest.raises(TypeError, match=f"^{CURE}$"):
            kernel(*args, first_step=first_step)
        with pytest.raises(TypeError, match=f"^{CURE}"):
            jax.jit(lambda logits, x=first_step: kernel(args[0], logits, *args[2:], first_step=x))(LOGITS)
        with pytest.raises(TypeError, match=f"^{CURE}$"):
            kernel(*args, first_step, None, "denoiser")


def test_chains_and_bounds_name_the_cure():
    reverse = partial(d3pm.p_logits, first_step="x0")
    term = partial(d3pm.posterior_kl, first_step="x0")
    with pytest.raises(TypeError, match=CURE):
        d3pm.ancestral(lambda xt, t: LOGITS[xt], PROCESS, X[:, None], lambda t: U[:, None], reverse=reverse)
    with pytest.raises(TypeError, match=CURE):
        d3pm.all_t_bound(lambda xt, t: LOGITS[xt], PROCESS, X[:, None], lambda t: U[:, None], term)
    with pytest.raises(ValueError, match=CURE):
        d3pm.all_t_bound(lambda xt, t: LOGITS[xt], PROCESS, X[:, None], lambda t: U[:, None], belief="x0")


def test_another_value_is_refused_without_it():
    with pytest.raises(ValueError, match=r"^belief = 'Bayes': it must be .* or 'denoiser'$"):
        d3pm.p_logits(PROCESS, LOGITS, X, T, "Bayes")


@pytest.mark.parametrize("kind", [configs.HybridLoss, configs.StochasticBound])
def test_objectives_name_the_cure(kind):
    with pytest.raises(TypeError, match=f"^{kind.__name__} has no field first_step: {CURE}$"):
        kind(first_step="x0", belief="d3pm")
    with pytest.raises(TypeError, match=CURE):
        dataclasses.replace(kind(), first_step="bayes")
    for first_step in ("bayes", "x0"):
        loss = kind()
        object.__setattr__(loss, "belief", first_step)  # the checks of these tests would refuse it first
        config = dataclasses.replace(tiny.get_config(), loss=loss)
        with pytest.raises(ValueError, match=rf"^loss\.belief = '{first_step}': it must be .*; {CURE}$"):
            config.check()


@pytest.mark.parametrize("flag", ["--loss.first-step", "--loss.first_step"])
def test_commands_name_the_cure(flag):
    for words in ([flag, "x0"], [f"{flag}=x0"]):
        with pytest.raises(UserError, match=f"^no field {flag} in this config: {CURE}$"):
            reading.apply_overrides(tiny.get_config(), words, "d3pm train CONFIG")


def test_official_takes_the_prediction_at_t_1_alone():
    """It is what first_step="x0" was."""
    t = jnp.array([1, 2, 4])
    xt = X[::-1]
    log_p0 = d3pm.log_p_x0(PROCESS, LOGITS)
    expected = jnp.where(t[:, None] == 1, log_p0, d3pm.p_logits(PROCESS, LOGITS, xt, t))
    actual = d3pm.p_logits(PROCESS, LOGITS, xt, t, "official")
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    as_published = d3pm.hybrid(PROCESS, LOGITS, X, xt, t, 0.1)
    official = d3pm.hybrid(PROCESS, LOGITS, X, xt, t, 0.1, "official")
    np.testing.assert_array_equal(official.ce, as_published.ce)
    np.testing.assert_array_equal(official.kl, jnp.where(t == 1, as_published.ce, as_published.kl))
    assert official.kl[0] != as_published.kl[0]


@dataclasses.dataclass(frozen=True)
class OwnObjective(configs.Objective):
    """An objective of a user's own with both fields of older versions."""

    first_step: posteriors.FirstStep = "x0"
    belief: str = "d3pm"


@dataclasses.dataclass(frozen=True)
class OwnHybrid(configs.HybridLoss):
    """One that derives from ours and has the field that ours had."""

    first_step: posteriors.FirstStep = "x0"


@pytest.mark.parametrize("kind", [OwnObjective, OwnHybrid])
def test_the_first_step_of_an_own_objective_is_read(kind):
    assert logits_keywords(kind(belief="d3pm")) == {"belief": "official"}
    assert logits_keywords(kind(first_step="bayes", belief="d3pm")) == {"belief": "d3pm"}
    for belief in ("leave_one_out", "denoiser"):  # where it was without effect
        assert logits_keywords(kind(belief=belief)) == {"belief": belief}


@pytest.mark.parametrize("belief", ["leave_one_out", "denoiser"])
def test_a_first_step_that_does_nothing_is_refused(belief):
    config = dataclasses.replace(tiny.get_config(), loss=OwnHybrid(belief=belief))
    with pytest.raises(ValueError, match=f"first_step = 'x0' .* does nothing for belief = '{belief}'"):
        config.check()
    for loss in (
        OwnHybrid(first_step="bayes", belief=belief),
        OwnHybrid(belief="d3pm"),
        OwnHybrid(belief="official"),
    ):
        loss.check()


def test_a_first_step_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"^first_step = 'foo': it must be 'bayes' or 'x0'$"):
        logits_keywords(OwnHybrid(first_step="foo", belief="d3pm"))


def test_an_own_objective_that_reads_the_first_step_of_ours_names_the_cure():
    class Reading(configs.HybridLoss):
        def rule(self):
            return self.first_step

    with pytest.raises(AttributeError, match=f"^Reading has no field first_step: {CURE}$"):
        Reading().rule()
    assert getattr(Reading(), "first_step", "bayes") == "bayes"
    with pytest.raises(AttributeError, match="'Reading' object has no attribute 'last_step'"):
        Reading().last_step  # noqa: B018
