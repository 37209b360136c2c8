"""Defines types that a checker sees and run-time checks do not.

A pytree is rebuilt with placeholders for its arrays, which no run-time type check should reject.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flax import nnx
    from jaxtyping import Array

    Leaf = Array  # a field of a pytree
    Params = nnx.State  # the parameters of a network
else:
    Leaf = Params = Any
