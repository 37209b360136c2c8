"""The rows of the networks as tests: float64 here, float32 in `make parity`."""

import pytest

from parity_tests import networks
from torch_ref import models

SLOW = ("padded, with classes", "sequences, without time")


# tests/models has padding, and beside the official code classes and two outputs.
@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=pytest.mark.slow if case in SLOW else ()) for case in networks.CASES],
)
def test_networks(case: str) -> None:
    found = list(networks.rows("float64", case))
    failed = [row for row in found if not row.ok]
    assert len(found) > (20 if "sequences" in case else 60)
    assert not failed, f"{len(failed)} of {len(found)}, the worst {max(failed, key=lambda row: row.used)}"


@pytest.mark.parametrize("num_heads", [0, 3])
def test_the_twin_refuses_heads_that_do_not_divide_its_channels(num_heads: int) -> None:
    with pytest.raises(ValueError, match=f"8 channels do not divide into {num_heads} heads: change ch"):
        models.UNet(K=2, channels=1, size=4, max_time=10, ch=8, ch_mult=(1,), num_heads=num_heads, groups=4)


@pytest.mark.parametrize("case", networks.CASES)
def test_the_twin_computes_where_its_weights_are(case: str) -> None:
    """On torch's device of shapes alone, which like a GPU mixes with no tensor of the CPU."""
    twin, inputs = networks.twin_and_inputs(case)
    found = twin.to("meta")(**{name: x.to("meta") for name, x in inputs.items()})
    assert found.device.type == "meta"


@pytest.mark.slow
@pytest.mark.parametrize("case", ["two levels", "binary, with classes"])
def test_bfloat16_is_as_good_as_that_of_pytorch(case: str) -> None:
    ours, theirs = networks.bfloat16_errors(case)
    assert 0.0 < ours <= 2.0 * theirs
