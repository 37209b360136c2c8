"""The rows of the networks as tests: float64 here, float32 in `make parity`."""

import pytest

from parity_tests import networks


def test_networks() -> None:
    found = list(networks.rows("float64"))
    failed = [row for row in found if not row.ok]
    assert len(found) > 250
    assert not failed, f"{len(failed)} of {len(found)}, the worst {max(failed, key=lambda row: row.used)}"


@pytest.mark.parametrize("case", [pytest.param("two levels", marks=pytest.mark.slow), "binary, with classes"])
def test_bfloat16_is_as_good_as_that_of_pytorch(case: str) -> None:
    ours, theirs = networks.bfloat16_errors(case)
    assert 0.0 < ours <= 2.0 * theirs
