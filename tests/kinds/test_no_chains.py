"""Samples that are drawn in one pass, without chains, are written and shown by every kind."""

import numpy as np
import pytest

from d3pm_jax import kinds
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError
from d3pm_jax.kinds.base import Chains

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
    chains = Chains(
        samples=x,
        times=[],
        reverse=np.zeros((0, 2, *description.shape), np.int32),
        strip=[],
        forward=None,
        examples=x,
        levels=2,
        steps=0,
    )
    # It is refused before anything is written, so that no folder is needed.
    with pytest.raises(UserError, match=r"^--gif: .* a flow draws samples in one pass; leave it out$"):
        kind.save_samples(tmp_path / "nowhere", "", chains, "caption", gif=True)

    written = kind.save_samples(tmp_path, "", chains, "caption")
    names = [] if file is None else [file]
    assert [path.name for path in written.values()] == names
    assert [path.name for path in tmp_path.iterdir()] == names
    assert kind.show_samples(x, 2) is not None
