"""The table of tolerances of docs/compat.md: neither exceeded nor loose."""

import re
from pathlib import Path

import jax
import pytest

from tests.compat.figures import measure

PAGE = Path(__file__).parents[2] / "docs" / "compat.md"
ROW = re.compile(r"\| `?([^|`]+)`?([^|`]*) \| [^|]+ \| (\d\.?\d*e-\d+) \| (\d\.?\d*e-\d+) \|")


@pytest.mark.slow
@pytest.mark.optimised
def test_the_page_says_how_closely():
    rows = {(call + more).strip(): figures for call, more, *figures in ROW.findall(PAGE.read_text())}
    for column, x64 in enumerate((False, True)):
        with jax.enable_x64(x64):
            actual = measure()
        assert rows.keys() == actual.keys()
        for call, error in actual.items():
            said = float(rows[call][column])
            assert said / 8 < error <= said, (call, error, said)
