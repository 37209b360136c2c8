"""Reads shapes as jaxtyping writes them, and compares the shapes of the arguments of a call.

`*S` stands for any axes, names for axes that must agree, numbers for their size. `#B` stands for an axis B
that may be of size 1 instead, and is repeated. `...` stands for a prefix of *S, the shape of a step. K and T
are those of the process, if there is one.
"""

from typing import Any, NamedTuple


class AxisSize(NamedTuple):
    """Holds the size of an axis, and the argument that it was read from."""

    value: Any  # for `*S` a tuple
    owner: str  # as messages name it: "x0", or "the process"


Sizes = dict[str, AxisSize]  # by the names of the axes

NOT_EMPTY = ("K", "T", "n")  # axes that have at least one entry


class Shape(NamedTuple):
    """Holds the words of a shape, such as "B", "*S" and "K"."""

    words: tuple[str, ...]
    star: int | None  # which of them stands for any number of axes
    is_prefix: bool  # whether it was written "..."
    repeated: frozenset[str]  # those that were written with "#"

    def sizes(self, shape: tuple[int, ...]) -> tuple[Any, ...] | None:
        """Returns the size of each word in a shape, for *S a tuple; None if the number of axes is wrong."""
        if self.star is None:
            return shape if len(shape) == len(self.words) else None
        # Every other word is one axis, and *S has the axes that are left: none if its end is its start.
        end = self.star + len(shape) - len(self.words) + 1
        if end < self.star:
            return None
        return (*shape[: self.star], shape[self.star : end], *shape[end:])

    def axes(self, ndim: int) -> tuple[str, ...]:
        """Names every axis of an array of ndim axes: those of *S are *S0, *S1, ..."""
        if self.star is None:
            return self.words
        count = ndim - len(self.words) + 1
        starred = [f"{self.words[self.star]}{i}" for i in range(count)]
        return (*self.words[: self.star], *starred, *self.words[self.star + 1 :])


def parse_shape(text: str) -> Shape:
    """Returns the shape that is written in the annotation of an array."""
    is_prefix = text == "..."
    marked_words = text.replace("...", "*S").split()
    words = tuple(word.removeprefix("#") for word in marked_words)
    repeated = frozenset(word[1:] for word in marked_words if word.startswith("#"))
    star = next((i for i, word in enumerate(words) if word.startswith("*")), None)
    return Shape(words, star, is_prefix, repeated)


def bind_shape(name: str, shape: tuple[int, ...], expected: Shape, sizes: Sizes) -> None:
    """Adds the axes of an argument to the sizes. Raises ValueError where one differs from what is there."""
    if expected.is_prefix:
        # Where no argument has *S, a prefix of it may be any shape, and another one is longer or shorter.
        longer, owner = sizes.get("*S") or sizes.setdefault("...", AxisSize(shape, name))
        if shape[: len(longer)] != longer[: len(shape)] or ("*S" in sizes and len(shape) > len(longer)):
            raise ValueError(
                f"{name} has shape {shape}: it must be a prefix of the shape of {owner}, {longer}"
            )
        return
    if not _fits(name, shape, expected, sizes):
        raise ValueError(f"{name} has shape {shape}, expected {_describe_expected(name, expected, sizes)}")


def add_sizes(name: str, shape: tuple[int, ...], expected: Shape, sizes: Sizes) -> None:
    """Adds the axes of an array whose shape is right to the sizes, those that are not there yet."""
    sizes_of_words = expected.sizes(shape)
    if sizes_of_words is None:
        return
    for word, size in zip(expected.words, sizes_of_words, strict=True):
        sizes.setdefault(word, AxisSize(size, name))


def _fits(name: str, shape: tuple[int, ...], expected: Shape, sizes: Sizes) -> bool:
    """Tells whether all axes have the sizes that they had before, and notes those that are new."""
    sizes_of_words = expected.sizes(shape)
    if sizes_of_words is None:
        return False
    for word, size in zip(expected.words, sizes_of_words, strict=True):
        if size == 1 and word in expected.repeated:
            continue
        if word.isdigit():
            expected_size = int(word)
        else:
            expected_size = sizes.setdefault(word, AxisSize(size, name)).value
        if size != expected_size or (size == 0 and word in NOT_EMPTY):
            return False
    return True


def _describe_expected(name: str, expected: Shape, sizes: Sizes) -> str:
    """Writes the shape that an argument should have, in numbers as far as other arguments fix them."""
    axes: list[Any] = []
    owners: dict[str, None] = {}  # each once, in this order
    for word in expected.words:
        size, owner = sizes.get(word, AxisSize(word, name))
        if owner == name:
            axes.append(word)
            continue
        axes.extend(size if word.startswith("*") else [size])
        owners[owner] = None
    text = f"[{', '.join(map(str, axes))}]"
    if owners:
        text += f" as in {' and '.join(owners)}"
    return text
