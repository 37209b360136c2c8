"""Fills in the numbers of a config that depend on its data, where the config says "data".

| field | "data" stands for |
|---|---|
| `K` | the categories of the data, and one more where the same part has `mask_id="data"` |
| `mask_id` | an extra mask: the number of categories of the data |
| `pi`, `p0` | how often the training data has each category |
| `places` | the shape *S of the data; what is inside of that part stands for the numbers of each place |

Only fields of these names count, in parts of the user's own too.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar, cast

import numpy as np

from d3pm_jax.config.checks import Probability, field_values, iterate_parts
from d3pm_jax.errors import UserError

__all__ = ["fill", "filled_field"]

T = TypeVar("T")
FromData = Literal["data"]
# The probability of each category; they sum to 1.
Shares = tuple[Probability, ...]
# A function that returns how often each category occurs, [categories], or at each place [*S, categories].
Counts = Callable[[], np.ndarray]

FIELDS = ("K", "mask_id", "pi", "p0", "places")


class PlaceCounts(NamedTuple):
    """Says what a part with `places="data"` needs to know of the places of the data."""

    sizes: np.ndarray  # int [*S], categories of each
    counts: Counts  # at each place


class _Numbers(NamedTuple):
    """Holds what "data" stands for."""

    categories: int
    shares: Callable[[], Shares]
    places: PlaceCounts | None


def needs_data(part: Any) -> bool:
    """Says whether a config, or a part of it, has "data" in place of a number."""
    parts = [inner for _, inner in iterate_parts(part)]
    return any(_is_data(name, value) for inner in parts for name, value in field_values(inner).items())


def fill(part: T, categories: int, counts: Counts, places: PlaceCounts | None = None) -> T:
    """Returns a config, or a part of it, with numbers in place of every "data".

    Args:
        part: frozen dataclasses, nested.
        categories: how many the data has.
        counts: gives how often each occurs in the training data; called once, and only for `pi` or `p0`.
        places: of the data; only parts with `places` ask for them.

    Raises:
        ValueError: the counts are not those of so many categories.
        UserError: K is that of the data, and a mask is none of its categories.
    """

    @functools.cache
    def shares() -> Shares:
        histogram = np.asarray(counts(), np.float64)  # [categories]
        total = histogram.sum()
        if histogram.shape != (categories,) or not np.all(histogram >= 0) or not 0 < total < np.inf:
            raise ValueError(
                f"counts have shape {histogram.shape}, sum {total:g}: expected how often each of the "
                f"{categories} categories occurs in the training data"
            )
        return tuple((histogram / total).tolist())

    return _fill(part, _Numbers(categories, shares, places))


def fill_from_saved(saved: Any, config: T) -> T:
    """Returns a config with the numbers of a saved config in place of every "data".

    Parts that are of another class in the saved config stay as they are.
    """
    if isinstance(saved, tuple) and isinstance(config, tuple) and len(saved) == len(config):
        return cast(T, tuple(map(fill_from_saved, saved, config)))
    if isinstance(saved, tuple) and dataclasses.is_dataclass(config):
        # One part for all places was filled in for each.
        return cast(T, tuple(fill_from_saved(item, config) for item in saved))
    if type(saved).__name__ != type(config).__name__:
        return config

    def resolve(name: str, value: Any) -> Any:
        saved_value = getattr(saved, name, None)
        if not _is_data(name, value):
            return fill_from_saved(saved_value, value)
        return value if saved_value is None else saved_value

    return _map_fields(config, resolve)


def filled_field(part: Any, name: str) -> Any:
    """Returns the value of a field of a part, or raises ValueError where it is still "data"."""
    value = getattr(part, name)
    if _is_data(name, value):
        raise ValueError(
            f'{type(part).__name__}.{name} = "data" is not filled in yet: call '
            "config.from_data.fill(config, categories, counts), as training does, or write the number"
        )
    return value


def _fill(part: T, numbers: _Numbers) -> T:
    """Fills in a part, or a tuple of parts, as `fill` does."""
    if isinstance(part, tuple):
        return cast(T, tuple(_fill(item, numbers) for item in part))
    # What such a part says of its places is always of each.
    if hasattr(part, "fill_places") and needs_data(part):
        return _fill_places(part, numbers.places)
    categories = numbers.categories
    has_extra_mask = _is_data("mask_id", getattr(part, "mask_id", None))
    by_name = {"K": categories + has_extra_mask, "mask_id": categories}
    mask_id = getattr(part, "mask_id", None)
    if _is_data("K", getattr(part, "K", None)) and isinstance(mask_id, int) and mask_id >= categories:
        raise UserError(
            f'{type(part).__name__}.mask_id = {mask_id}, outside 0..{categories - 1}: K = "data" counts the '
            f'{categories} categories of the data; for a mask as one more write "data" for both, or '
            f"K = {categories + 1} and mask_id = {categories}"
        )

    def resolve(name: str, value: Any) -> Any:
        if not _is_data(name, value):
            return _fill(value, numbers)
        if name in by_name:
            return by_name[name]
        return numbers.shares()

    return _map_fields(part, resolve)


def _fill_places(part: Any, places: PlaceCounts | None) -> Any:
    """Fills in a part that has parts for each place, by its method `fill_places`.

    Raises:
        ValueError: it is not known which places the data has.
    """
    if places is None:
        raise ValueError(f"{type(part).__name__} is for the places of the data: pass places to fill")
    counts = functools.cache(places.counts)

    def fill_one(place: tuple[int, ...], spec: Any) -> Any:
        size = int(places.sizes[place])

        def shares() -> Shares:
            # No category that the training data happens to lack is impossible.
            smoothed = counts()[place][:size] + 0.5
            return tuple((smoothed / smoothed.sum()).tolist())

        return _fill(spec, _Numbers(size, shares, None))

    shape = places.sizes.shape
    return part.fill_places(shape, [functools.partial(fill_one, place) for place in np.ndindex(shape)])


def _map_fields(part: T, resolve: Callable[[str, Any], Any]) -> T:
    """Returns a copy with resolve(name, value) for each field that is "data" or a part; others stay."""
    if not dataclasses.is_dataclass(part):
        return part
    values = {field.name: getattr(part, field.name) for field in dataclasses.fields(part) if field.init}
    changed = {
        name: resolve(name, value)
        for name, value in values.items()
        if _is_data(name, value) or isinstance(value, tuple) or dataclasses.is_dataclass(value)
    }
    return cast(T, dataclasses.replace(cast(Any, part), **changed))


def _is_data(name: str, value: Any) -> bool:
    return name in FIELDS and isinstance(value, str) and value == "data"
