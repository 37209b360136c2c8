"""Lines of metrics that are damaged, and what is said of a metric that is not finite."""

import jax.numpy as jnp
import numpy as np
import pytest

from d3pm_jax.errors import UserError
from d3pm_jax.program.loop import metrics

GOOD = b'{"step": 1, "loss": 0.5}\n'


def test_only_a_last_line_that_was_cut_off_is_left_out(tmp_path):
    path = tmp_path / metrics.METRICS
    assert metrics.read_metrics(tmp_path) == []
    path.write_bytes(GOOD + b'{"step": 2, "lo')
    assert metrics.read_metrics(tmp_path) == [{"step": 1, "loss": 0.5}]
    for line in (
        b"",
        b"{",
        b"[1]",
        b'{"step": 2}',
        b'{"step": "2", "loss": 1}',
        b'{"step": 2, "loss": NaN}',
        b"\xff",
    ):
        path.write_bytes(GOOD + line + b"\n" + GOOD)
        with pytest.raises(UserError, match=r"metrics.jsonl, line 2 is damaged \(.*\): delete that line, or"):
            metrics.read_metrics(tmp_path)


def bound_nats_per_element(means):
    return means["kl"] * 10  # T


def row(**changes):
    """Metrics of a finite step, but for the changes."""
    values = {"loss": 1.0, "kl": 1.0, "ce": 1.0, "grad_norm": 1.0, "first_nonfinite": -1} | changes
    return {name: jnp.asarray(value) for name, value in values.items()}


BAD = row(loss=np.nan, kl=np.nan, ce=3.0, grad_norm=np.nan, first_nonfinite=1)


@pytest.mark.parametrize(
    ("values", "step", "message"),
    [
        ({"loss": np.inf, "kl": np.inf, "ce": np.inf}, 1, "ce is inf at step 1; .* look at head"),
        ({"loss": np.inf, "kl": np.inf, "ce": 1.0}, 9, "kl is inf at step 9; .* look at head"),
        ({"loss": np.inf, "kl": 1.0, "ce": 1.0}, 9, "loss is inf at step 9; .* the end of process.beta"),
        ({"loss": np.nan, "kl": np.nan, "ce": np.nan}, 1, "ce is nan at step 1; .* first weights"),
        ({"loss": np.nan, "kl": np.nan, "ce": np.nan}, 9, "ce is nan at step 9; .* lower optimizer.lr"),
        ({"grad_norm": np.inf}, 1, "grad_norm is inf .* optimizer.lr"),
    ],
)
def test_the_first_metric_that_is_not_finite_has_its_own_cure(values, step, message):
    window = metrics.Window(bound_nats_per_element, ("w", "b"), 1)
    window.add(step, row(**values), saved=None)
    with pytest.raises(UserError, match=message):
        window.close(saved=None)


def test_steps_that_are_not_finite_are_counted_and_left_out():
    window = metrics.Window(bound_nats_per_element, ("w", "b"), max_nonfinite=3)
    for step, taken in enumerate((BAD, row(loss=2.0), BAD, BAD, row(loss=4.0)), 1):
        window.add(step, taken, saved=None)
    means = window.close(saved=None)
    assert (means["loss"], means["skipped"]) == (3.0, 3)
    assert np.isfinite(list(means.values())).all()
    for step in (6, 7):
        window.add(step, BAD, saved=None)
    assert window.close(saved=None) == {}
    window.add(8, row(), saved=None)
    assert window.close(saved=None)["skipped"] == 2  # told with the next line
    window.add(9, row(), saved=None)
    assert "skipped" not in window.close(saved=None)
    window.check_any(saved=None)  # there were others


def test_a_training_without_a_finite_step_is_an_error_at_its_end():
    window = metrics.Window(bound_nats_per_element, ("w", "b"), max_nonfinite=30)
    window.check_any(saved=18)  # of no step
    for step in (19, 20):
        window.add(step, BAD, saved=18)
    window.close(saved=18)
    assert window.count_skipped_in_a_row() == 2
    with pytest.raises(UserError, match="kl is nan at step 19; the checkpoint of step 18 is kept"):
        window.check_any(saved=18)


def test_so_many_in_a_row_stop_the_run_a_step_later_whatever_was_reported_between():
    window = metrics.Window(bound_nats_per_element, ("w", "b"), max_nonfinite=3)
    window.add(7, BAD, saved=5)
    window.close(saved=5)
    window.add(8, BAD, saved=5)
    window.add(9, BAD, saved=5)
    message = (
        r"kl is nan at step 7; the checkpoint of step 5 is kept: start anew with a lower optimizer.lr "
        r"\(loss nan, kl nan, ce 3, grad_norm nan, b has the first gradient that is not finite, "
        r"3 steps in a row\)"
    )
    with pytest.raises(UserError, match=message):
        window.add(10, row(), saved=5)
