"""One device, eight, and two processes of two: the same training and the same samples."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.slow


def start(out, devices, fsdp, *place):
    command = [sys.executable, "-m", "tests.runs.layouts", out, str(fsdp), *map(str, place)]
    return subprocess.Popen(command, env=os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)})


@pytest.fixture(scope="module")
def results_by_layout(tmp_path_factory):
    """The arrays that each layout gives, by name."""
    folder = tmp_path_factory.mktemp("layouts")
    with socket.create_server(("", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
    for name, devices, fsdp in (("one", 1, 1), ("eight", 8, 1), ("eight cut by 4", 8, 4)):
        assert start(folder / f"{name}.npz", devices, fsdp).wait() == 0
    two = [start(folder / "two by two.npz", 2, 4, place, 2, i) for i in range(2)]
    assert [process.wait() for process in two] == [0, 0]
    return {path.stem: dict(np.load(path)) for path in folder.glob("*.npz")}


@pytest.mark.parametrize("layout", ["eight", "eight cut by 4", "two by two"])
def test_a_layout_changes_no_more_than_rounding(layout, results_by_layout):
    reference = results_by_layout["one"]
    result = results_by_layout[layout]
    for name, limit in (("1, float32", 1e-6), ("1, float64", 1e-10), ("20, float64", 1e-10)):
        for what in ("metrics", "state"):
            apart = np.abs(reference[f"{what} {name}"] - result[f"{what} {name}"]).max()
            print(f"{layout}: {what} after step {name}: {apart:.1e} apart")
            assert apart < limit
    np.testing.assert_array_equal(reference["samples, float64"], result["samples, float64"])
    differ = (reference["samples, float32"] != result["samples, float32"]).mean()
    print(f"{layout}: {differ:.2%} of samples differ in float32")
    assert differ <= 1e-3
    assert (reference["state 20, float64"] != reference["state 1, float64"]).all()


def test_a_state_cut_over_four_devices_takes_a_quarter_of_each():
    env = os.environ | {"JAX_NUM_CPU_DEVICES": "4"}
    command = [sys.executable, "-m", "tests.runs.sharded_memory"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    (stored, whole), (_, cut) = json.loads(done.stdout)
    print(
        f"state {stored / 1e9:.2f} GB; a step on one of 4 devices: {whole / 1e9:.3f} GB, cut {cut / 1e9:.3f}"
    )
    assert stored >= 1e9
    assert cut <= 0.3 * whole
