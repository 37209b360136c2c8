"""Lines of metrics that are damaged, and what is said of a metric that is not finite."""

import jax.numpy as jnp
import numpy as np
import pytest

from d3pm_jax.errors import UserError
from d3pm_jax.runs import metrics

GOOD = b'{"step": 1, "loss": 0.5}\n'


def test_only_a_last_line_that_was_cut_off_is_left_out(tmp_path):
    path = tmp_path / metrics.FILE
    assert metrics.read(tmp_path) == []
    path.write_bytes(GOOD + b'{"step": 2, "lo')
    assert metrics.read(tmp_path) == [{"step": 1, "loss": 0.5}]
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
            metrics.read(tmp_path)


@pytest.mark.parametrize(
    ("values", "step", "message"),
    [
        ({"loss": np.inf, "kl": np.inf, "ce": np.inf}, 1, "ce is inf at step 1; .* head.forbid"),
        ({"loss": np.inf, "kl": np.inf, "ce": 1.0}, 9, "kl is inf at step 9; .* look at head"),
        ({"loss": np.inf, "kl": 1.0, "ce": 1.0}, 9, "loss is inf at step 9; .* the end of process.beta"),
        ({"loss": np.nan, "kl": np.nan, "ce": np.nan}, 1, "ce is nan at step 1; .* first weights"),
        ({"loss": np.nan, "kl": np.nan, "ce": np.nan}, 9, "ce is nan at step 9; .* lower optimizer.lr"),
        (
            {"loss": 1.0, "kl": 1.0, "ce": 1.0, "grad_norm": np.inf},
            1,
            "grad_norm is inf .* optimizer.lr",
        ),
    ],
)
def test_the_first_metric_that_is_not_finite_has_its_own_cure(values, step, message):
    window = metrics.Window(10)
    window.add({name: jnp.asarray(value) for name, value in values.items()})
    with pytest.raises(UserError, match=message):
        window.close(step, saved=None)
