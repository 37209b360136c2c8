"""Describes the examples of a data set."""

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Integer

from d3pm_jax.data.tokenizers import join_symbols
from d3pm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Description:
    """Describes the examples {"x": integers [*S]} of a data set, and their labels if there are any.

    Raises:
        UserError: a field cannot be used.
    """

    shape: tuple[int, ...]
    """*S: (H, W, C) for images, (L,) for text, any sizes for arrays"""
    categories: int
    """x is in 0..categories - 1"""
    classes: int | None = None
    """a label is in 0..classes - 1; None: there are none"""
    kind: str = "array"
    """what an example looks like: "image", "text", "array", or a kind of your own; see `d3pm_jax.kinds`"""
    symbols: tuple[str, ...] | None = None
    """for text: the symbol of each category; see `tokenizers` for symbols that are parts of characters"""
    padded: bool = False
    """examples have a "weight", which is 0 on padding and has to be passed to the network"""
    digest: str | None = dataclasses.field(default=None, compare=False)
    """a hash of the source of the examples, where it is known; data with another hash is other data, though
    its description may be equal"""
    condition: tuple[int, ...] | None = None
    """the shape of an array "condition" of each example, which the network is given; None: there is none"""
    condition_type: Literal["float32", "int32"] = "float32"
    """the type of its entries"""

    def __post_init__(self) -> None:
        if not self.shape or min(self.shape) < 1:
            raise UserError(f"shape = {self.shape}: it must hold sizes of at least 1")
        if self.categories < 2:
            raise UserError(f"categories = {self.categories}: it must be at least 2")
        if self.classes is not None and self.classes < 1:
            raise UserError(f"classes = {self.classes}: it must be at least 1")
        if self.condition is not None and not _is_shape(self.condition):
            raise UserError(
                f"condition = {self.condition}: it must be a tuple of sizes of at least 1, as (3,)"
            )
        if self.symbols is not None and len(self.symbols) != self.categories:
            raise UserError(
                f"{len(self.symbols)} symbols for {self.categories} categories: pass one for each"
            )

    def text(self, x: Integer[np.ndarray, " n"], masked: str = "_") -> str:
        """Returns the text of categories, with `masked` for a category that the data does not have."""
        return join_symbols(self.written(x, masked))

    def written(self, x: Integer[np.ndarray, " n"], masked: str = "_") -> list[str]:
        """Returns the symbols of categories, for `tokenizers.join_symbols`; -1, padding, is left out."""
        symbols: tuple[str, ...] = self.symbols or ()
        categories: list[int] = x.tolist()
        symbols_of_x: list[str] = []
        for category in categories:
            if 0 <= category < len(symbols):
                symbols_of_x.append(symbols[category])
            elif category >= 0:
                symbols_of_x.append(masked)
        return symbols_of_x


def _is_shape(shape: object) -> bool:
    """Says whether it is a tuple of sizes of at least 1; an empty one is the shape of a number."""
    if not isinstance(shape, tuple):
        return False
    return all(isinstance(size, int) and size >= 1 for size in shape)
