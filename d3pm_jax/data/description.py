"""Describes the examples of a data set, and converts their conditions to what is described."""

import dataclasses
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Integer

from d3pm_jax.checks import NOT_EMPTY, Categories, Count, NonEmptyStr, Size, check_value
from d3pm_jax.data.columns import Column
from d3pm_jax.data.tokenizers import join_symbols
from d3pm_jax.errors import UserError, as_user_error


@dataclasses.dataclass(frozen=True)
class Description:
    """Describes the examples {"x": integers [*S]} of a data set, and their labels if there are any.

    Raises:
        UserError: a field cannot be used.
    """

    shape: Annotated[tuple[Size, ...], NOT_EMPTY]
    """*S: (H, W, C) for images, (L,) for text, any sizes for arrays"""
    categories: Categories
    """x is in 0..categories - 1"""
    classes: Count | None = None
    """a label is in 0..classes - 1; None: there are none"""
    kind: NonEmptyStr = "array"
    """what an example looks like: "image", "text", "array", or a kind of your own; see `d3pm_jax.kinds`"""
    symbols: tuple[str, ...] | None = None
    """for text: the symbol of each category; see `tokenizers` for symbols that are parts of characters"""
    padded: bool = False
    """examples have a "weight", which is 0 on padding and has to be passed to the network"""
    digest: NonEmptyStr | None = dataclasses.field(default=None, compare=False)
    """a hash of the source of the examples, where it is known; data with another hash is other data, though
    its description may be equal"""
    condition: tuple[Size, ...] | None = None
    """the shape of an array "condition" of each example, which the network is given, () for a number; None:
    there is none"""
    condition_type: Literal["float32", "int32"] = "float32"
    """the type of its entries"""
    sizes: tuple | None = None
    """where places have categories of their own, how many each has, nested as *S: x at place i is in
    0..sizes[i] - 1, and the largest of them is `categories`; None: every place has `categories`"""
    columns: tuple[Column, ...] | None = None
    """of a table (D,): its columns, whose sizes are `sizes`"""

    def __post_init__(self) -> None:
        with as_user_error():
            for field in dataclasses.fields(self):
                # There may be as many symbols as there are words, which are checked below.
                if field.name != "symbols":
                    plain = check_value(field.name, getattr(self, field.name), field.type)
                    object.__setattr__(self, field.name, plain)

        self._check_sizes()
        if self.symbols is None:
            return
        if not isinstance(self.symbols, tuple) or not all(isinstance(text, str) for text in self.symbols):
            raise UserError(
                f"symbols are a {type(self.symbols).__name__}: they must be a tuple of texts, one for each "
                f"category"
            )
        if len(self.symbols) != self.categories:
            raise UserError(
                f"{len(self.symbols)} symbols for {self.categories} categories: pass one for each"
            )

    def _check_sizes(self) -> None:
        """Raises UserError where the sizes of places fit neither the other fields nor the columns."""
        if self.columns is not None and self.sizes != tuple(column.size for column in self.columns):
            raise UserError("columns have other sizes: pass sizes=tuple(column.size for column in columns)")
        if self.sizes is None:
            return
        try:
            sizes = np.array(self.sizes)
        except ValueError as error:
            raise UserError(f"sizes are not nested as shape = {self.shape}: {error}") from error
        if sizes.shape != self.shape or sizes.dtype.kind != "i" or sizes.min() < 2:
            raise UserError(
                f"sizes are {sizes.dtype} {list(sizes.shape)}: pass a whole number of at least 2 for each "
                f"place, nested as shape = {self.shape}"
            )
        if sizes.max() != self.categories:
            raise UserError(
                f"categories = {self.categories}: it must be the largest of sizes, which is {sizes.max()}"
            )

    @property
    def place_sizes(self) -> np.ndarray:
        """Returns how many categories each place has, int [*S], also where all have the same."""
        if self.sizes is None:
            return np.full(self.shape, self.categories)
        return np.array(self.sizes)

    @property
    def has_lengths(self) -> bool:
        """Tells whether examples [L] may have fewer elements: texts, and whatever is padded."""
        return len(self.shape) == 1 and (self.padded or self.symbols is not None)

    def text(self, x: Integer[np.ndarray, " n"], masked: str = "_") -> str:
        """Returns the text of categories, with `masked` for a category that the data does not have.

        Raises:
            ValueError: x is not one example.
        """
        return join_symbols(self.written(x, masked))

    def written(self, x: Integer[np.ndarray, " n"], masked: str = "_") -> list[str]:
        """Returns the symbols of categories, for `tokenizers.join_symbols`; -1, padding, is left out.

        Raises:
            ValueError: x is not one example.
        """
        if x.ndim != 1:
            raise ValueError(f"x has shape {list(x.shape)}, expected [n]: pass one example at a time")
        symbols: tuple[str, ...] = self.symbols or ()
        categories: list[int] = x.tolist()
        symbols_of_x: list[str] = []
        for category in categories:
            if 0 <= category < len(symbols):
                symbols_of_x.append(symbols[category])
            elif category >= 0:
                symbols_of_x.append(masked)
        return symbols_of_x


def convert_conditions(conditions: np.ndarray, dtype: str) -> np.ndarray:
    """Returns conditions in the type of a description, "float32" or "int32".

    Raises:
        ValueError: they are no numbers of that kind, too large for the type, or not finite.
    """
    if conditions.dtype == bool or not np.can_cast(conditions.dtype, dtype, "same_kind"):
        raise ValueError(f"has dtype {conditions.dtype}, expected {dtype}: convert it")
    # A number that is too large for float32 becomes infinite here, which is an error below and no warning.
    with np.errstate(over="ignore"):
        converted = conditions.astype(dtype)
    if np.issubdtype(converted.dtype, np.integer):
        if not np.array_equal(converted, conditions):
            raise ValueError(
                f"has integers of {conditions.dtype} that {dtype} cannot hold: make them smaller"
            )
    elif not np.isfinite(converted).all():
        raise ValueError(f"has entries that are not finite in {dtype}: pass other numbers")
    return converted
