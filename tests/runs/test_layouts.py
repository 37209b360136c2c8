"""One device, eight, and two processes of two: the same training and the same samples."""

import json
import socket

import numpy as np
import pytest

from tests.forked import Fork
from tests.runs import layouts, sharded_memory

pytestmark = pytest.mark.slow

BOTH_TYPES = ("float32", "float64")
# Name -> devices of a process, fsdp, and types. What float32 alone shows is rounding, which has every reason
# to differ where both axes of the mesh are cut.
LAYOUTS = {
    "one": (1, 1, BOTH_TYPES),
    "eight": (8, 1, ("float64",)),
    "eight cut by 4": (8, 4, BOTH_TYPES),
    "two by two": (2, 4, ("float64",)),
}


@pytest.fixture(scope="module")
def results_by_layout(tmp_path_factory):
    """The arrays that each layout gives, by name."""
    folder = tmp_path_factory.mktemp("layouts")
    with socket.create_server(("", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    for name, (devices, fsdp, dtypes) in LAYOUTS.items():
        places = [()]
        if name == "two by two":
            places = [(address, 2, i) for i in range(2)]
        processes = [
            Fork(
                folder,
                layouts.main,
                folder / f"{name}.npz",
                fsdp,
                dtypes,
                *place,
                JAX_NUM_CPU_DEVICES=devices,
            )
            for place in places
        ]
        for process in processes:
            _, errors = process.communicate(timeout=400)
            assert process.returncode == 0, errors
    return {path.stem: dict(np.load(path)) for path in folder.glob("*.npz")}


@pytest.mark.parametrize("layout", ["eight", "eight cut by 4", "two by two"])
def test_a_layout_changes_no_more_than_rounding(layout, results_by_layout):
    reference = results_by_layout["one"]
    result = results_by_layout[layout]
    limits = {"1, float32": 1e-6, "1, float64": 1e-10, "20, float64": 1e-10}
    for what in ("metrics", "state"):
        for name, limit in limits.items():
            if f"{what} {name}" not in result:
                assert "float32" not in LAYOUTS[layout][2]
                continue
            apart = np.abs(reference[f"{what} {name}"] - result[f"{what} {name}"]).max()
            print(f"{layout}: {what} after step {name}: {apart:.1e} apart")
            assert apart < limit
    np.testing.assert_array_equal(reference["samples, float64"], result["samples, float64"])
    if "float32" in LAYOUTS[layout][2]:
        differ = (reference["samples, float32"] != result["samples, float32"]).mean()
        print(f"{layout}: {differ:.2%} of samples differ in float32")
        assert differ <= 1e-3
    assert (reference["state 20, float64"] != reference["state 1, float64"]).all()


def test_a_state_cut_over_four_devices_takes_a_quarter_of_each(tmp_path):
    process = Fork(tmp_path, sharded_memory.main, JAX_NUM_CPU_DEVICES=4)
    output, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors
    (stored, whole), (_, cut) = json.loads(output)
    print(
        f"state {stored / 1e9:.2f} GB; a step on one of 4 devices: {whole / 1e9:.3f} GB, cut {cut / 1e9:.3f}"
    )
    assert stored >= 1e9
    assert cut <= 0.3 * whole
