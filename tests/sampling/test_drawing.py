"""Draws of places by rows: the integers and the numbers of the definitions, which CPUs take."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax.sampling import Denoiser, drawing, laws, named

# A row function takes XLA long to compile for a CPU without its optimisations.
pytestmark = pytest.mark.optimised

T = 10
SHAPE = (4, 60)
QUICK = [("official", 3, False), ("denoiser", 2, True)]
SLOW = [("official", 27, False), ("d3pm", 34, True), ("denoiser", 256, False), ("leave_one_out", 257, True)]


def make_answer(belief, K, shaped):
    """One with rows of -inf, of NaN, with likelier and less likely masks, and of two that are as likely."""
    process = d3pm.absorbing(d3pm.reciprocal(T), K, mask_id=K // 2)
    rng = np.random.default_rng(K)
    logits = rng.normal(size=(*SHAPE, K)) * 3
    logits[:, :10] = -np.inf
    logits[:, 5:10, K // 2] = 2.0
    logits[:, 10:14, 0] = np.nan
    logits[:, 20:30] = 1.5
    x = rng.choice([K // 2, K // 2, 0, K - 1], SHAPE)
    x[:, 10:14] = K // 2  # what is no number elsewhere than at x_t does not matter where x_t is no mask
    x = jnp.asarray(x, jnp.int32)
    denoiser = Denoiser(process, lambda x, time: jnp.asarray(logits, jnp.float32), belief)
    t = jnp.asarray([1, 2, 5, T], jnp.int32)
    shaping = d3pm.sampling.Shaping(temperature=0.7) if shaped else d3pm.sampling.Shaping()
    sampler = d3pm.sampling.Sampler(named.p2().step, shaping)
    (answer,) = denoiser.ask_each(x, t, process.time[t])
    return answer.shaped_by(sampler.shape)


def draw_both(monkeypatch, draw):
    """Returns what is drawn by the definition, and by rows."""
    by_definition = jax.jit(draw)()
    choices = []

    def choose_rows(cpu, default):
        choices.append(default.__name__)
        return default()

    monkeypatch.setattr(drawing.lax, "platform_dependent", choose_rows)
    by_rows = jax.jit(lambda: draw())()
    assert choices == ["by_rows"]
    return by_definition, by_rows


@pytest.mark.parametrize(
    ("belief", "K", "shaped"), QUICK + [pytest.param(*case, marks=pytest.mark.slow) for case in SLOW]
)
def test_rows_reveal_what_the_definition_does(belief, K, shaped, monkeypatch):
    u = jnp.asarray(np.random.default_rng(1).integers(0, 2**23, SHAPE) * 2.0**-23, jnp.float32)

    def draw():
        answer = make_answer(belief, K, shaped)
        return drawing.draw_x0(answer, u, measures=True, with_log_kept=True), answer.x == K // 2

    (expected, is_masked), (actual, _) = draw_both(monkeypatch, draw)
    drawn, measures, log_kept = actual
    np.testing.assert_array_equal(drawn, expected[0])
    assert np.any(drawn[is_masked] < 0)
    assert np.any(drawn[is_masked] >= 0)
    has_law = drawn >= 0
    for a, b in zip(measures, expected[1], strict=True):
        np.testing.assert_allclose(a[has_law], b[has_law], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(log_kept[~is_masked], expected[2][~is_masked], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("belief", "K", "shaped"), QUICK + [pytest.param(*case, marks=pytest.mark.slow) for case in SLOW]
)
def test_rows_mask_again_as_the_definition_does(belief, K, shaped, monkeypatch):
    u = jnp.asarray(np.random.default_rng(1).integers(0, 2**23, SHAPE) * 2.0**-23, jnp.float32)

    def draw():
        answer = make_answer(belief, K, shaped)
        s = answer.t - 1
        most = laws.most_remasked(answer.process, answer.t, s)[:, None]
        sigma = jnp.broadcast_to(most, SHAPE) * jnp.linspace(0, 1, SHAPE[1])[None]

        def law():
            return laws.remask_logits(answer.process, answer.log_denoiser, answer.x, answer.t, s, sigma)

        return drawing.draw_remasked(answer, s, sigma, u, law), answer.x

    ((expected, log_expected), x), ((drawn, log_drawn), _) = draw_both(monkeypatch, draw)
    np.testing.assert_array_equal(drawn, expected)
    is_masked = np.asarray(x == K // 2)
    assert {-1, K // 2} <= set(np.unique(drawn[is_masked]))
    assert np.any(drawn[~is_masked] == K // 2)
    unmasked = is_masked & (drawn >= 0)
    np.testing.assert_allclose(log_drawn[unmasked], log_expected[unmasked], rtol=1e-5, atol=1e-5)
