"""Descriptions of data that cannot be are refused."""

import jaxtyping
import numpy as np
import pytest

from d3pm_jax import kinds
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shape": ()}, r"shape = \(\): it must be a tuple of at least one, each a whole number in 1\.\."),
        ({"kind": "image"}, r"shape = \(2,\): image examples have 3 axes"),
        ({"categories": 1}, r"categories = 1: it must be a whole number in 2\.\."),
        ({"classes": 0}, r"classes = 0: it must be a whole number in 1\.\."),
        ({"kind": "text"}, "symbols belong to kind='text'"),
        ({"symbols": ("a", "b", "c")}, "symbols belong to kind='text'"),
        (
            {"kind": "plane"},
            "kind = 'plane': it must be one of image, text, array, table, maze, spirals, eight_gaussians, "
            "checkerboard; own_kind",
        ),
        ({"kind": "spirals"}, r"shape = \(2,\), categories = 3: points of kind 'spirals' are the 12 bits"),
        ({"kind": "text", "symbols": ("a",)}, "1 symbols for 3 categories"),
    ],
)
def test_a_description_that_cannot_be_is_refused(fields, message):
    with pytest.raises(UserError, match=message):
        kinds.make_kind(Description(**({"shape": (2,), "categories": 3} | fields)))


@pytest.mark.parametrize("method", [Description.text, Description.written])
def test_a_batch_of_texts_is_refused(method, monkeypatch):
    # As users call it: without the checks of types that tests have.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    description = Description((3,), 2, kind="text", symbols=("a", "b"))
    message = r"^x has shape \[2, 3\], expected \[n\]: pass one example at a time$"
    with pytest.raises(ValueError, match=message):
        method(description, np.zeros((2, 3), int))
