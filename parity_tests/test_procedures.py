"""The rows of one procedure as tests: a smaller network and fewer steps of chains than in `make parity`.

Slow, because it is what `make parity` runs longer; tests/training and tests/test_enumeration.py are quick.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parity_tests import frameworks, procedures, runs, settings
from parity_tests.runs import Evaluated, Trained
from parity_tests.settings import Arrays, B, Setting


@pytest.mark.slow
def test_procedures() -> None:
    """Of one process; `make parity` has the others."""
    outcome = procedures.outcome(Setting("uniform", T=50, levels=1), "float64")
    failed = [row for row in outcome.rows if not row.ok]
    assert not failed, f"{len(failed)} of {len(outcome.rows)}, {max(failed, key=lambda row: row.used)}"
    assert {row.pair for row in outcome.rows} == {"training", "forward", "bound", "chain"}
    assert len(outcome.rows) > 300
    assert all(0 < y.max() < 1e-4 and len(y) == 50 for y in outcome.drift.values())


@pytest.mark.parametrize(
    "setting",
    [
        Setting("gaussian", T=50, levels=1),
        pytest.param(Setting("text, padded", levels=1), marks=pytest.mark.slow),
    ],
    ids=lambda setting: setting.name,
)
def test_training_moves_the_parameters(setting: Setting) -> None:
    """Otherwise the rows compare nothing: the twin alone, some of its gradients clipped and some not."""
    with frameworks.precision("float64"):
        trained = runs.train_torch(setting, settings.noise(setting))
    start = settings.weights(setting)
    moved = {k: np.abs(x - start[k]).max() for k, x in trained.parameters[-1].items()}
    assert min(x for k, x in moved.items() if not k.endswith(".k.bias")) > 1e-4  # that has no gradient
    norms = trained.metrics["grad_norm"]
    assert norms.min() < settings.ADAM.clip < norms.max()


def test_cost_is_of_the_precision_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of networks, a number that depends on the precision; on a CPU all give the same bits."""

    def number() -> np.ndarray:
        program = jax.jit(jnp.dot).lower(jnp.ones((2, 2)), jnp.ones((2, 2))).as_text()
        value = 1.0 if "HIGHEST" in program else 1.25
        return np.full(2, value, np.float32)

    def train(setting: Setting) -> Trained:
        return Trained(
            [{"w": number()}] * setting.steps, [{"w": number()}] * setting.steps, {"loss": number()}
        )

    def evaluate(setting: Setting, arrays: Arrays) -> Evaluated:
        terms = np.ones((setting.T, B), np.float32)
        states = np.zeros((setting.T + 1, B), np.int32)
        return Evaluated(number() * arrays["w"], terms, terms[0], {"every step": states})

    monkeypatch.setattr(runs, "train_jax", train)
    monkeypatch.setattr(runs, "evaluate_jax", evaluate)
    outcome = procedures.cost(Setting("uniform", T=30, steps=2), "default")
    scaled = {row.comparison: row.scaled for row in outcome.rows}
    assert scaled["default = highest parameters, step 2"] == 0.25
    assert scaled["default = highest trained network"] == 0.25
    assert all(row.ok and row.tolerance == np.inf for row in outcome.rows)
    np.testing.assert_array_equal(outcome.drift["default = highest"], [0.25, 0.25])
