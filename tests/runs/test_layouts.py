"""One device, eight, and two processes of two: the same training and the same samples."""

import json
import socket
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest

from tests.forked import Fork
from tests.runs import layouts, sharded_memory

pytestmark = pytest.mark.slow


class Layout(NamedTuple):
    devices: int  # of a process
    fsdp: int
    dtypes: tuple[str, ...] = ("float64",)


# What float32 alone shows is rounding, which has every reason to differ where both axes of the mesh are cut.
LAYOUTS = {
    "one": Layout(1, 1, ("float32", "float64")),
    "eight": Layout(8, 1),
    "eight cut by 4": Layout(8, 4, ("float32", "float64")),
    "two by two": Layout(2, 4),
}
# How far results may be apart, by type and step.
LIMITS = {"float32": {1: 1e-6}, "float64": {1: 1e-10, layouts.STEPS: 1e-10}}


@pytest.fixture(scope="module")
def results_by_layout(tmp_path_factory):
    """The arrays that each layout gives, by name."""
    folder = tmp_path_factory.mktemp("layouts")
    with socket.create_server(("", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    for name, layout in LAYOUTS.items():
        arguments = (folder / f"{name}.npz", layout.fsdp, layout.dtypes)
        places = [()]
        if name == "two by two":
            places = [(address, 2, i) for i in range(2)]
        start = partial(Fork, folder, layouts.main, *arguments, JAX_NUM_CPU_DEVICES=layout.devices)
        processes = [start(*place) for place in places]
        for process in processes:
            _, errors = process.communicate(timeout=400)
            assert process.returncode == 0, errors
    return {path.stem: dict(np.load(path)) for path in folder.glob("*.npz")}


@pytest.mark.parametrize("layout", ["eight", "eight cut by 4", "two by two"])
def test_a_layout_changes_no_more_than_rounding(layout, results_by_layout):
    reference = results_by_layout["one"]
    result = results_by_layout[layout]
    dtypes = LAYOUTS[layout].dtypes
    for dtype in dtypes:
        for step, limit in LIMITS[dtype].items():
            for what in ("metrics", "state"):
                name = f"{what} {step}, {dtype}"
                apart = np.abs(reference[name] - result[name]).max()
                print(f"{layout}: {what} after step {step}, {dtype}: {apart:.1e} apart")
                assert apart < limit
    np.testing.assert_array_equal(reference["samples, float64"], result["samples, float64"])
    if "float32" in dtypes:
        differ = (reference["samples, float32"] != result["samples, float32"]).mean()
        print(f"{layout}: {differ:.2%} of samples differ in float32")
        assert differ <= 1e-3
    assert (reference[f"state {layouts.STEPS}, float64"] != reference["state 1, float64"]).all()


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
