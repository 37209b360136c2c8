"""Samples that are drawn in one pass, without chains, are written and shown by every kind."""

import numpy as np
import pytest

from d3pm_jax import kinds
from d3pm_jax.data import Description
from d3pm_jax.kinds import Chains, Samples, States
from d3pm_jax.kinds.files import write_chains

KINDS = {  # a description by the name of its kind, and the file of samples if there is one
    "image": (Description((4, 4, 1), 2, kind="image"), "samples.png"),
    "text": (Description((5,), 2, kind="text", symbols=("a", "b")), "samples.txt"),
    "array": (Description((3,), 2), None),
    "maze": (Description((5, 5, 1), 2, kind="maze"), "samples.png"),
    "spirals": (Description((12,), 2, kind="spirals"), "samples.png"),
}


@pytest.mark.parametrize("name", KINDS)
def test_samples_without_chains_are_written_and_no_chain_is(name, tmp_path):
    description, file = KINDS[name]
    kind = kinds.make_kind(description)
    x = np.arange(4 * np.prod(description.shape)).reshape(4, *description.shape) % 2
    samples = Samples(x, 2)
    no_states = States(np.zeros((0, 2, *description.shape), np.int32), [], 0, 2)
    chains = Chains(samples, no_states, [], None, samples)
    written = write_chains(kind, tmp_path, "", chains, "caption")
    names = [] if file is None else [file]
    assert [path.name for path in written.values()] == names
    assert [path.name for path in tmp_path.iterdir()] == names
    assert kind.show_samples(samples) is not None
