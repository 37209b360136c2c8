"""Samples of a run that a score prefers: whose label and condition they have, and what is refused."""

import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from d3pm_jax.errors import UserError
from d3pm_jax.program.measure import samples
from d3pm_jax.runs import BestOf, Draw, Particles
from d3pm_jax.sampling import named
from tests.runs.test_guidance import CONDITIONS, KEY, LABELS, make_run

N = 3
P = 2


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("uniform"), 0.1)


def of_first_place(x):
    """Twice the category of the first place."""
    return 2.0 * x[:, 0].astype(float)


def same_of_all(x):
    return jnp.full(len(x), 0.7)


def draw(run, n, batch_size=128, **request):
    """Samples with the conditions of `tests.runs.test_guidance` and its first two labels."""
    request = {"label": LABELS[:2], "condition": CONDITIONS} | request
    return run.sample(KEY, n, Draw(**request), batch_size=batch_size)


def draw_all(run, labels=LABELS[:2]):
    """Samples of a run one by one: as many for each of N as there are particles, with its label."""
    numbers = np.repeat(np.arange(N), P)
    conditions = CONDITIONS[numbers % len(CONDITIONS)]
    return draw(run, N * P, N * P, label=labels[numbers % len(labels)], condition=conditions)


def test_more_than_fits_is_refused_and_much_is_said(run, monkeypatch, capsys):
    with pytest.raises(UserError, match=r"^1,000,000,000 chains are drawn at once, and their logits take"):
        draw(run, 1, select=BestOf(of_first_place, 10**9), shape=(1000,))
    with pytest.raises(UserError, match="chains are drawn at once"):
        draw(run, 10**9, 10**9, shape=(1000,))
    monkeypatch.setattr(samples, "MANY_BYTES", 0)
    draw(run, N, N * P, select=BestOf(of_first_place, P))
    assert "note: 6 chains are drawn at once, and their logits take" in capsys.readouterr().err
    draw(run, N, N * P)
    assert capsys.readouterr().err == ""


def test_particles_and_candidates_are_samples_with_the_label_of_theirs(run):
    plain = draw_all(run).x0.reshape(N, P, -1)
    best = draw(run, N, N * P, select=BestOf(of_first_place, P))
    np.testing.assert_array_equal(best.candidates, plain)
    scores = 2.0 * plain[..., 0]
    np.testing.assert_array_equal(best.scores, scores)
    np.testing.assert_array_equal(best.x0, plain[np.arange(N), scores.argmax(1)])
    assert best.calls.tolist() == [4 * P] * N
    assert best.program_calls == 4
    assert best.effective_size is None
    refused = {
        r"all 2 candidates of sample 0 have score\(x\) = -inf: take more": lambda x: np.full(len(x), -np.inf),
        r"score\(x\) contains nan: it must be finite, or -inf": lambda x: np.full(len(x), np.nan),
        r"score\(x\) has shape \(6, 1\), expected \[6\]": lambda x: np.zeros((len(x), 1)),
    }
    for message, score in refused.items():
        with pytest.raises(UserError, match=message):
            draw(run, N, N * P, select=BestOf(score, P))

    steered = draw(run, N, N * P, select=Particles(same_of_all, P))
    np.testing.assert_array_equal(steered.candidates, plain)
    assert (steered.effective_size == P).all()
    assert steered.calls.tolist() == [4 * P] * N
    assert steered.program_calls == 4


@pytest.mark.slow
def test_a_selected_sample_of_a_run_does_not_depend_on_the_batch(run):
    together = draw(run, 5, 20, select=Particles(of_first_place, 4))
    best = draw(run, 5, 20, select=BestOf(of_first_place, 4))
    for batch_size in (1, 8):
        parts = draw(run, 5, batch_size, select=Particles(of_first_place, 4))
        for field in ("x0", "candidates", "scores", "calls"):
            np.testing.assert_array_equal(getattr(parts, field), getattr(together, field), err_msg=field)
        np.testing.assert_allclose(parts.effective_size, together.effective_size, rtol=1e-5)
        parts = draw(run, 5, batch_size, select=BestOf(of_first_place, 4))
        for field in ("x0", "candidates", "scores", "calls"):
            np.testing.assert_array_equal(getattr(parts, field), getattr(best, field), err_msg=field)
    programs = len(run.parts._compiled)
    draw(run, 5, 20, select=Particles(of_first_place, 4))
    assert len(run.parts._compiled) == programs
    plain = draw(run, 20).x0
    assert together.scores.mean() > 2 * plain[:, 0].mean() + 0.5  # it steers

    guided = draw(run, 3, select=Particles(of_first_place, 4), guidance=2.0)
    assert guided.calls.tolist() == [2 * 4 * 4] * 3
    known = (np.zeros(6, int), np.arange(6) > 3)
    for select in (Particles(of_first_place, 4), BestOf(of_first_place, 4)):
        held = draw(run, 3, select=select, known=known, sampler=named.psi())
        assert (held.candidates[..., 4:] == 0).all()


def test_known_elements_of_candidates_are_those_of_their_sample(run):
    x0 = np.array([[0] * 6, [1] * 6])
    known = (x0, np.arange(6) > 3)
    for select in (Particles(same_of_all, P), BestOf(of_first_place, P)):
        held = draw(run, N, N * P, select=select, known=known).candidates
        for i in range(N):
            assert (held[i, :, 4:] == i % 2).all()


def test_the_best_of_edits_is_one_of_them(run):
    x0 = np.array([[0] * 6, [1] * 6, [2] * 6])
    numbers = np.repeat(np.arange(N), P)
    request = {"label": LABELS[:2][numbers % 2], "condition": CONDITIONS[numbers % len(CONDITIONS)]}
    edits = draw(run, N * P, N * P, start=(x0[numbers], 0.5), **request).x0.reshape(N, P, -1)
    best = draw(run, N, N * P, start=(x0, 0.5), select=BestOf(of_first_place, P))
    np.testing.assert_array_equal(best.candidates, edits)
    np.testing.assert_array_equal(best.x0, edits[np.arange(N), edits[..., 0].argmax(1)])


@pytest.mark.slow
def test_what_a_run_cannot_be_steered_by_gets_one_line(run, monkeypatch):
    # As users ask, without the checks of types that tests have.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    refused = {
        r"all 2 particles of sample 0 have score\(x\) = -inf: take more": lambda x: jnp.full(
            len(x), -jnp.inf
        ),
        r"score\(x\) is NaN or infinite for sample 0, with 4 rows left": lambda x: jnp.full(len(x), jnp.nan),
        r"score\(x\) has shape \(6, 1\), expected \[6\]": lambda x: jnp.zeros((len(x), 1)),
    }
    for message, score in refused.items():
        with pytest.raises(UserError, match=message) as raised:
            draw(run, N, select=Particles(score, P))
        assert "\n" not in str(raised.value)
    calls = {
        "n = 0: it must be a whole number in 1": lambda: draw(run, 0, select=Particles(same_of_all, 2)),
        "particles = 0: it must be a whole number in 1": lambda: draw(
            run, 2, select=Particles(same_of_all, 0)
        ),
        "candidates = 0.5: it must be a whole number in 1": lambda: draw(
            run, 2, select=BestOf(same_of_all, 0.5)
        ),
        "select is a function: pass runs.BestOf or runs.Particles": lambda: draw(run, 2, select=same_of_all),
        "record: samples that a score selects have no states on the way; leave it out": lambda: draw(
            run, 2, select=BestOf(same_of_all, 2), record=(1,)
        ),
        "start: particles begin from noise; leave it out, or take": lambda: draw(
            run, 2, select=Particles(same_of_all, 2), start=(np.zeros(6, int), 0.5)
        ),
    }
    for message, call in calls.items():
        with pytest.raises(UserError, match=message) as raised:
            call()
        assert "\n" not in str(raised.value)
