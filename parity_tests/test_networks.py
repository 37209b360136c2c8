"""The rows of the networks as tests."""

import pytest

from parity_tests import networks


@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.slow)])
def test_networks(dtype: str) -> None:
    found = list(networks.rows(dtype))
    failed = [row for row in found if not row.ok]
    assert len(found) > 250
    assert not failed, f"{len(failed)} of {len(found)}, the worst {max(failed, key=lambda row: row.used)}"


@pytest.mark.parametrize("case", ["two levels", "binary"])
def test_bfloat16_is_as_good_as_that_of_pytorch(case: str) -> None:
    ours, theirs = networks.bfloat16_errors(case)
    assert 0.0 < ours <= 2.0 * theirs
