"""The rows of the coupling flow as tests: float64 here, float32 in `make parity`."""

import numpy as np
import pytest

from parity_tests import coupling_flow, frameworks


@pytest.mark.slow
def test_coupling_flow() -> None:
    outcome = coupling_flow.outcome("float64")
    failed = [row for row in outcome.rows if not row.ok]
    assert not failed, f"{len(failed)} of {len(outcome.rows)}, {max(failed, key=lambda row: row.used)}"
    assert len(outcome.rows) == 23
    assert all(0 < drift.max() < 1e-13 for drift in outcome.drift.values())


def test_training_moves_the_parameters() -> None:
    """Otherwise the rows compare nothing: the twin alone, which learns too."""
    with frameworks.precision("float64"):
        trained = coupling_flow.train_torch()
    start = coupling_flow.start()
    assert min(np.abs(x - start[name]).max() for name, x in trained.parameters[-1].items()) > 0.05
    assert all(np.abs(x).max() > 1e-3 for x in trained.gradients.values())
    assert trained.losses[-10:].mean() < 0.6 * trained.losses[:10].mean()
