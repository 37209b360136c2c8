"""The rows of the networks as tests."""

import pytest

from parity_tests import networks


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_unet(dtype: str) -> None:
    found = list(networks.rows(dtype))
    failed = [row for row in found if not row.ok]
    assert len(found) > 150
    assert not failed, f"{len(failed)} of {len(found)}, the worst {max(failed, key=lambda row: row.used)}"
