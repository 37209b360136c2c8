"""The rows of the networks as tests: float64 here, float32 in `make parity`."""

import jax
import pytest
import torch

from parity_tests import networks
from torch_ref import models

# tests/models has padding, and beside the official code classes and two outputs; test_files has conditions of
# both shapes; `make parity` has all.
ELSEWHERE = (
    *("padded, with classes", "binary, with classes", "image as condition, with classes"),
    "vector as condition",
    "sequences, without time",
    "a layout of blocks, with padding",
)


@pytest.mark.parametrize("case", [case for case in networks.CASES if case not in ELSEWHERE])
def test_networks(case: str) -> None:
    rows = list(networks.rows("float64", case))
    failed = [row for row in rows if not row.ok]
    least = 60 if networks.CASES[case].network in ("UNet", "ScoreNet") else 18
    assert len(rows) > least
    assert not failed, f"{len(failed)} of {len(rows)}, the worst {max(failed, key=lambda row: row.used)}"


@pytest.mark.parametrize("num_heads", [0, 3])
def test_the_twin_refuses_heads_that_do_not_divide_its_channels(num_heads: int) -> None:
    with pytest.raises(ValueError, match=f"8 channels do not divide into {num_heads} heads: change ch"):
        models.UNet(K=2, channels=1, size=4, max_time=10, ch=8, ch_mult=(1,), num_heads=num_heads, groups=4)


def test_the_twin_refuses_conditions_that_do_not_fit() -> None:
    def build(condition: tuple[int, ...] | None) -> models.UNet:
        return models.UNet(2, 1, 4, 10, ch=4, ch_mult=(1,), num_res_blocks=0, groups=1, condition=condition)

    with pytest.raises(ValueError, match=r"condition = \(4, 4\): it must be a vector \(D,\) or an image"):
        build((4, 4))
    with pytest.raises(ValueError, match="a condition of 2 x 3 cannot be enlarged to an image of 4 x 4"):
        build((2, 3, 1))
    xt = torch.zeros(2, 4, 4, 1, dtype=torch.int64)
    t = torch.ones(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"the network needs a condition of shape \(2, 3\)"):
        build((3,))(xt, t)
    with pytest.raises(ValueError, match=r"the condition has shape \(2, 4\): expected \(2, 3\)"):
        build((3,))(xt, t, condition=torch.zeros(2, 4))
    with pytest.raises(
        ValueError, match="a condition was passed to a network with condition = None: leave it out"
    ):
        build(None)(xt, t, condition=torch.zeros(2, 3))


@pytest.mark.parametrize("case", networks.CASES)
def test_the_twin_computes_where_its_weights_are(case: str) -> None:
    """On torch's device of shapes alone, which like a GPU mixes with no tensor of the CPU."""
    twin, inputs = networks.twin_and_inputs(case)
    output = twin.to("meta")(**jax.tree.map(lambda x: x.to("meta"), inputs))
    assert output.device.type == "meta"


@pytest.mark.slow
@pytest.mark.parametrize("case", ["two levels", "binary, with classes"])
def test_bfloat16_is_as_good_as_that_of_pytorch(case: str) -> None:
    in_jax, in_torch = networks.bfloat16_errors(case)
    assert 0.0 < in_jax <= 2.0 * in_torch
