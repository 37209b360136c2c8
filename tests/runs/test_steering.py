"""Samples of a run that a score prefers: whose label and condition they have, and what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from d3pm_jax.errors import UserError
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


def draw_all(run, labels=LABELS[:2]):
    """Samples of a run one by one: as many for each of N as there are particles, with its label."""
    numbers = np.repeat(np.arange(N), P)
    conditions = CONDITIONS[numbers % len(CONDITIONS)]
    return run.draw(KEY, N * P, labels[numbers % len(labels)], N * P, condition=conditions)


def test_particles_and_candidates_are_samples_with_the_label_of_theirs(run):
    options = {"label": LABELS[:2], "batch_size": N * P, "condition": CONDITIONS}
    plain = draw_all(run).x0.reshape(N, P, -1)
    best = run.best_of(KEY, N, of_first_place, P, **options)
    np.testing.assert_array_equal(best.candidates, plain)
    scores = 2.0 * plain[..., 0]
    np.testing.assert_array_equal(best.scores, scores)
    np.testing.assert_array_equal(best.x0, plain[np.arange(N), scores.argmax(1)])
    assert best.calls.tolist() == [4 * P] * N
    with pytest.raises(UserError, match=r"all 2 candidates of sample 0 have score\(x\) = -inf: take more"):
        run.best_of(KEY, N, lambda x: np.full(len(x), -np.inf), P, **options)
    with pytest.raises(UserError, match=r"score\(x\) contains nan: it must be finite, or -inf"):
        run.best_of(KEY, N, lambda x: np.full(len(x), np.nan), P, **options)
    with pytest.raises(UserError, match=r"score\(x\) has shape \(6, 1\), expected \[6\]"):
        run.best_of(KEY, N, lambda x: np.zeros((len(x), 1)), P, **options)

    steered = run.steer(KEY, N, same_of_all, P, **options)
    np.testing.assert_array_equal(steered.particles, plain)
    assert (steered.effective_size == P).all()
    assert steered.calls.tolist() == [4 * P] * N
    assert steered.program_calls == 4


@pytest.mark.slow
def test_a_steered_sample_of_a_run_does_not_depend_on_the_batch(run):
    options = {"label": LABELS[:2], "condition": CONDITIONS}
    together = run.steer(KEY, 5, of_first_place, 4, batch_size=20, **options)
    for batch_size in (1, 8):
        parts = run.steer(KEY, 5, of_first_place, 4, batch_size=batch_size, **options)
        for field in ("x0", "particles", "scores", "calls"):
            np.testing.assert_array_equal(getattr(parts, field), getattr(together, field), err_msg=field)
        np.testing.assert_allclose(parts.effective_size, together.effective_size, rtol=1e-5)
    programs = len(run.parts._compiled)
    run.steer(KEY, 5, of_first_place, 4, batch_size=20, **options)
    assert len(run.parts._compiled) == programs
    plain = run.draw(KEY, 20, LABELS[:2], condition=CONDITIONS).x0
    assert together.scores.mean() > 2 * plain[:, 0].mean() + 0.5  # it steers

    guided = run.steer(KEY, 3, of_first_place, 4, guidance=2.0, **options)
    assert guided.calls.tolist() == [2 * 4 * 4] * 3
    known = (np.zeros(6, int), np.arange(6) > 3)
    held = run.steer(KEY, 3, of_first_place, 4, known_elements=known, sampler=named.psi(), **options)
    assert (held.particles[..., 4:] == 0).all()


@pytest.mark.slow
def test_what_a_run_cannot_be_steered_by_gets_one_line(run):
    options = {"label": LABELS[:2], "condition": CONDITIONS}
    refused = {
        r"all 2 particles of sample 0 have score\(x\) = -inf: take more": lambda x: jnp.full(
            len(x), -jnp.inf
        ),
        r"score\(x\) is NaN or infinite for sample 0, with 4 rows left": lambda x: jnp.full(len(x), jnp.nan),
        r"score\(x\) has shape \(6, 1\), expected \[6\]": lambda x: jnp.zeros((len(x), 1)),
    }
    for message, score in refused.items():
        with pytest.raises(UserError, match=message) as raised:
            run.steer(KEY, N, score, P, **options)
        assert "\n" not in str(raised.value)
    for arguments, message in {
        (0, 2): "n = 0: it must be a whole number in 1",
        (2, 0): "particles = 0: it must be a whole number in 1",
    }.items():
        with pytest.raises(UserError, match=message):
            run.steer(KEY, arguments[0], same_of_all, arguments[1], **options)
