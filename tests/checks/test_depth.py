"""How much is checked goes by where a kernel is called from: outside, inside of another, in range."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import config as configs, losses, sampling
from d3pm_jax.checks import bare, declare, like, values_in_range
from d3pm_jax.checks.depth import depth, depth_within
from d3pm_jax.evaluation import bound, jumps
from d3pm_jax.numerics import double_float
from d3pm_jax.processes import tables
from d3pm_jax.program.measure import samples
from d3pm_jax.sampling.transitions import OwnReverse
from d3pm_jax.training.state import init_state
from d3pm_jax.training.step import make_step
from tests.checks import table

PROCESS = table.PROCESSES["uniform"]
X = jnp.array([[0, 1, 2], [2, 1, 0]])
T = jnp.array([2, 5])
U = table.UNIT
LOGITS = jnp.zeros((2, 3, 4))


def test_kernels_whose_values_are_in_range_add_nothing_to_a_program():
    def alone(process, x0, t, u):
        noise = double_float.noise_from_words(u, None)
        mix = tables.gather_steps(tuple(process.beta_bar), t, x0.shape)
        k = process._move_uniform(x0, mix, noise)
        drawn = jnp.where(k == process.K, x0, k)
        return jnp.where(jnp.isnan(mix[0]), -1, drawn)

    def text_of(f):
        return jax.jit(lambda *args: f(*args)).lower(PROCESS, X, T, U).as_text()

    assert text_of(values_in_range()(d3pm.q_sample)) == text_of(alone)
    assert text_of(bare(d3pm.q_sample)) == text_of(alone)
    assert text_of(d3pm.q_sample) != text_of(alone)


@pytest.mark.parametrize("wrapped", [lambda f: f, functools.partial])
def test_a_callback_of_ones_own_is_called_from_outside(wrapped):
    """Kernels within it are checked; those within a kernel are not, again."""

    @wrapped
    def denoise(xt, t):
        return d3pm.residual(jnp.zeros((2, 3, 4)), xt[0])

    with pytest.raises(ValueError, match=r"xt has shape \(3,\), expected \[2, 3\]"):
        sampling.run(d3pm.Denoiser(PROCESS, denoise), X, lambda t, stream: U)


@pytest.mark.parametrize("wrapper", [functools.wraps(d3pm.p_logits), jax.jit], ids=["wraps", "jit"])
def test_a_wrapper_of_a_kernel_is_another_function(wrapper):
    """It has the attributes of the kernel, which are not its own."""

    @wrapper
    def always_2(process, logits, xt, t):
        return (
            d3pm.p_logits(process, logits, xt, t) * 0
            + jnp.where(jnp.arange(4) == 2, 0.0, -jnp.inf)[None, None]
        )

    def denoise(xt, t):
        return LOGITS

    sampler = sampling.Sampler(OwnReverse(always_2))
    chain = sampling.run(d3pm.Denoiser(PROCESS, denoise), X, lambda t, stream: U, sampler)
    np.testing.assert_array_equal(chain.x0, 2)
    assert like(d3pm.p_logits, d3pm.p_logits) is d3pm.p_logits
    assert like(d3pm.p_logits, always_2) is not always_2


def test_what_was_compiled_inside_of_a_kernel_is_not_used_outside():
    draw = jax.jit(d3pm.q_sample)

    class Own(type(PROCESS)):
        def draw_q(self, x0, t, u, u_low=None):
            return draw(PROCESS, x0, t, u)

    process = Own(**{f.name: getattr(PROCESS, f.name) for f in dataclasses.fields(PROCESS)})
    process.draw_q(X, T, U)
    np.testing.assert_array_equal(draw(PROCESS, X, T, U - 1), -1)


def test_types_and_shapes_of_values_in_range_are_checked():
    with values_in_range():
        d3pm.q_sample(PROCESS, X + 9, T, U)
        with pytest.raises(ValueError, match=r"u has shape \(3,\), expected \[2, 3\] as in x0"):
            d3pm.q_sample(PROCESS, X, T, U[0])
        with pytest.raises(TypeError, match="x0 has dtype float32, expected integers"):
            d3pm.q_sample(PROCESS, U, T, U)
    with pytest.raises(ValueError, match="x0 contains 9"):
        d3pm.q_sample(PROCESS, X + 9, T, U)


def test_a_callback_is_checked_where_the_values_of_the_call_are_in_range():
    def denoise(xt, t):
        return d3pm.residual(LOGITS, xt + 9)

    @values_in_range()
    def draw():
        return sampling.run(d3pm.Denoiser(PROCESS, denoise), X, lambda t, stream: U)

    assert draw().failed_at == PROCESS.T


def test_a_kernel_as_a_callback_is_checked_but_for_values():
    refused = r"logits_x0 has shape \(2, 3, 3\), expected \[\*S, 4\] as in the process"
    with depth(depth_within(d3pm.p_logits)):
        with pytest.raises(ValueError, match=refused):
            d3pm.p_logits(PROCESS, LOGITS[..., :3], X, T)
        d3pm.p_logits(PROCESS, LOGITS, X + 9, T)


def noise(t):
    return U


INDEX = jnp.arange(2)
DEFAULT_CALLBACKS = {  # functions whose last callback is left at its default
    "all_t_bound": lambda denoise: d3pm.all_t_bound(denoise, PROCESS, X, noise),
    "estimate_bound": lambda denoise: d3pm.likelihood.estimate_bound(
        jax.random.key(0), denoise, PROCESS, X, INDEX
    ),
    "strata_bound": lambda denoise: d3pm.likelihood.strata_bound(denoise, PROCESS, X, U.T, noise),
    "stratified_bound": lambda denoise: d3pm.likelihood.stratified_bound(
        jax.random.key(0), denoise, PROCESS, X, INDEX, 2
    ),
    "run": lambda network: sampling.run(d3pm.Denoiser(PROCESS, network), X, lambda t, stream: U),
    "sample": lambda network: d3pm.sample(jax.random.key(0), d3pm.Denoiser(PROCESS, network), (2, 3)),
    "known": lambda network: sampling.run(
        d3pm.Denoiser(PROCESS, network), X, lambda t, stream: U, known=sampling.Known(X, X > 0)
    ),
    "start": lambda network: d3pm.sample(
        jax.random.key(0), d3pm.Denoiser(PROCESS, network), (2, 3), start=sampling.PartWay(X, 0.5)
    ),
}


@pytest.mark.parametrize("name", DEFAULT_CALLBACKS)
def test_logits_are_checked_where_a_callback_has_its_default(name):
    call = DEFAULT_CALLBACKS[name]
    refused = (
        r"^(denoise|network)\(xt, time\) has shape \(2, 3, 5\), expected \[2, 3, 4\] as in .*"
        r"and the process: return"
    )
    with pytest.raises(ValueError, match=refused):
        call(lambda xt, t: jnp.zeros((*xt.shape, 5)))
    with pytest.raises(
        TypeError, match=r"^(denoise|network)\(xt, time\) has dtype int32, expected floats: return"
    ):
        call(lambda xt, t: jnp.zeros((*xt.shape, 4), jnp.int32))


def test_bare_is_the_function_itself_where_it_declares_nothing():
    def draw(x0):
        return d3pm.q_sample(PROCESS, x0, T, U)

    assert bare(draw) is draw


@pytest.fixture
def no_marks(monkeypatch):
    """Fails where a program computes what is out of range."""

    def refuse(x, shape, allowed, sizes):
        raise AssertionError(f"an argument {x} is compared with {allowed}")

    monkeypatch.setattr(declare, "find_outside", refuse)


@pytest.mark.usefixtures("no_marks")
def test_a_method_of_a_process_as_a_callback_computes_no_marks():
    for f, args in ((PROCESS.log_q_probs, (X, T)), (functools.partial(PROCESS.log_q_probs, t=T), (X,))):
        with depth(depth_within(f)):
            jax.eval_shape(f, *args)


ABSORBING = table.PROCESSES["absorbing"]
TRAINED = {
    "hybrid": (PROCESS, configs.HybridLoss(), configs.LowDiscrepancy()),
    "official": (PROCESS, configs.HybridLoss(belief="official"), configs.Independent()),
    "stochastic": (PROCESS, configs.StochasticBound(), configs.Importance()),
    "absorbing": (ABSORBING, configs.ContinuousAbsorbing(), configs.RealTimes()),
    "uniform": (PROCESS, configs.ContinuousUniform(), configs.RealTimes()),
    "gidd": (d3pm.interpolating(5, 4, 3, 0.2), configs.GIDD(0.2), configs.RealTimes(2.0)),
    "scores of masks": (ABSORBING, configs.ScoreEntropy(), configs.RealTimes()),
    "scores": (PROCESS, configs.ScoreEntropy(), configs.RealTimes()),
    "dense": (table.PROCESSES["dense"], configs.HybridLoss(), configs.LowDiscrepancy()),
    "masked": (table.PROCESSES["masked"], configs.HybridLoss(), configs.LowDiscrepancy()),
}


def trained_step(objective, timesteps):
    """A step of a network of which the logits are a parameter."""
    head = configs.Head()

    def predict(params, xt, t, key=None):
        return head.logits(jnp.broadcast_to(params, (*xt.shape, 4)), xt, 4)

    optimizer = configs.Adam().build()
    step = make_step(objective, timesteps, optimizer, predict, 0.9)
    return step, init_state(jnp.zeros(4), optimizer, timesteps.start(5))


@pytest.mark.usefixtures("no_marks")
@pytest.mark.parametrize("name", TRAINED)
def test_a_training_step_computes_no_marks(name):
    process, objective, timesteps = TRAINED[name]
    step, state = trained_step(objective, timesteps)
    jax.eval_shape(step, state, process, {"x": X}, jax.random.key(0))


def test_an_own_objective_is_marked_in_a_training_step():
    class Shifted(configs.Objective):
        """Takes a category for x_0 that there is not."""

        def terms(self, process, logits, x0, xt, t, p_t):
            ce = losses.cross_entropy(process, logits, x0 + 9)
            return configs.Terms(ce, ce, ce)

    step, state = trained_step(Shifted(), configs.LowDiscrepancy())
    _, metrics = step(state, PROCESS, {"x": X}, jax.random.key(0))
    assert np.isnan(metrics["loss"])


def predict(params, xt, t):
    return jnp.broadcast_to(params, (*xt.shape, 4))


@pytest.mark.usefixtures("no_marks")
@pytest.mark.parametrize(
    "term", [losses.posterior_kl, functools.partial(losses.posterior_kl, belief="denoiser")]
)
def test_bounds_compute_no_marks(term):
    index = jnp.arange(2)
    exact = bound.exact_nats(predict, 3)
    for compiled in (
        bound.all_terms(predict, 0, term),
        bound.few_terms(predict, 2, 0, term),
        lambda *args: exact(*args[:-1], {"order": bound.left_to_right(index, X.shape[1:])}),
    ):
        jax.eval_shape(compiled, jnp.zeros(4), PROCESS, X, index, {})
    costs = jumps.jump_costs(
        lambda xt, t: predict(jnp.zeros(4), xt, t), PROCESS, np.asarray(X), (2, 5), jax.random.key(0), term
    )
    assert np.isfinite(costs[0, 1])


def test_an_own_term_is_marked_in_a_bound():
    def term(process, logits, x0, xt, t):
        return losses.cross_entropy(process, logits, x0 + 9)

    compiled = bound.few_terms(predict, 2, 0, term)
    assert np.isnan(compiled(jnp.zeros(4), PROCESS, X, jnp.arange(2), {})).all()
    costs = jumps.jump_costs(
        lambda xt, t: predict(jnp.zeros(4), xt, t), PROCESS, np.asarray(X), (2, 5), jax.random.key(0), term
    )
    assert np.isnan(costs[0, 1])


@pytest.mark.usefixtures("no_marks")
def test_forward_chains_compute_no_marks():
    drawn = samples.draw_forward(jax.random.key(0), PROCESS, np.asarray(X), (0, 5))
    np.testing.assert_array_equal(drawn[0], X)
