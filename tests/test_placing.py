"""Arrays on devices and back."""

import numpy as np

from d3pm_jax.program.machine import devices


def test_arrays_come_back_as_they_were():
    from d3pm_jax.placing import fetch, place, place_part

    tree = {"x": np.arange(8), "y": None}
    for put in (place, place_part):
        assert put(tree, devices.batch_sharding(devices.make_mesh()))["x"].sharding.num_devices == 2
        np.testing.assert_array_equal(
            fetch(put(tree, devices.batch_sharding(devices.make_mesh())))["x"], tree["x"]
        )
    assert fetch({"a": 1, "b": np.ones(2)})["a"] == 1
