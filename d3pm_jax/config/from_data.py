"""Fills in what a config leaves to its data: "data" in place of numbers, which a run saves in its place.

| field | "data" stands for |
|---|---|
| `K` | the categories of the data, and one more where the same part has `mask_id="data"` |
| `mask_id`, `forbid` | the extra symbol: the number of categories of the data |
| `pi`, `p0` | how often the training data has each category |

Only fields of these names count, in parts of the user's own too.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, TypeVar, cast

import numpy as np

from d3pm_jax.config.checks import Probability

T = TypeVar("T")
FromData = Literal["data"]
Shares = tuple[Probability, ...]  # of each category, summing to 1
Counts = Callable[[], np.ndarray]  # [categories]

FIELDS = ("K", "mask_id", "forbid", "pi", "p0")


def needs_data(part: Any) -> bool:
    """Says whether a config, or a part of it, has "data" in place of a number."""
    values = [(f.name, getattr(part, f.name)) for f in dataclasses.fields(part)]
    return any(_is_data(name, x) or (dataclasses.is_dataclass(x) and needs_data(x)) for name, x in values)


def fill(part: T, categories: int, counts: Counts) -> T:
    """Returns a config, or a part of it, with numbers in place of every "data".

    Args:
        part: frozen dataclasses, nested.
        categories: how many the data has.
        counts: gives how often each occurs in the training data; called once, and only for `pi` or `p0`.

    Raises:
        ValueError: the counts are not those of so many categories.
    """

    @functools.cache
    def shares() -> Shares:
        found = np.asarray(counts(), np.float64)
        if found.shape != (categories,) or not np.all(found >= 0) or not 0 < found.sum() < np.inf:
            raise ValueError(
                f"counts have shape {found.shape}, sum {found.sum():g}: expected how often each of the "
                f"{categories} categories occurs in the training data"
            )
        return tuple((found / found.sum()).tolist())

    return _fill(part, categories, shares)


def fill_from_saved(saved: Any, given: T) -> T:
    """Returns the given config with a saved one's numbers in place of "data", which equals any numbers."""
    if type(saved).__name__ != type(given).__name__:
        return given

    def resolve(name: str, value: Any) -> Any:
        before = getattr(saved, name, None)
        if _is_data(name, value):
            return value if before is None else before
        return fill_from_saved(before, value)

    return _map(given, resolve)


def filled_field(part: Any, name: str) -> Any:
    """Returns a field of a part. Raises ValueError where it is still "data"."""
    value = getattr(part, name)
    if _is_data(name, value):
        raise ValueError(
            f'{type(part).__name__}.{name} = "data" is not filled in yet: training does it, as '
            f"config.from_data.fill(config, categories, counts) does; or write the number"
        )
    return value


def _fill(part: T, categories: int, shares: Callable[[], Shares]) -> T:
    extra = _is_data("mask_id", getattr(part, "mask_id", None))
    numbers = {"K": categories + extra, "mask_id": categories, "forbid": categories}

    def resolve(name: str, value: Any) -> Any:
        if _is_data(name, value):
            return numbers[name] if name in numbers else shares()
        return _fill(value, categories, shares)

    return _map(part, resolve)


def _map(part: T, resolve: Callable[[str, Any], Any]) -> T:
    """Returns a copy with resolve(name, value) for each field that is "data" or a part; others stay."""
    if not dataclasses.is_dataclass(part):
        return part
    values = {f.name: getattr(part, f.name) for f in dataclasses.fields(part) if f.init}
    changed = {
        name: resolve(name, x)
        for name, x in values.items()
        if _is_data(name, x) or dataclasses.is_dataclass(x)
    }
    return cast(T, dataclasses.replace(cast(Any, part), **changed))


def _is_data(name: str, value: Any) -> bool:
    return name in FIELDS and isinstance(value, str) and value == "data"
