"""Says what a source of examples is: records by number."""

from typing import Any, Protocol, runtime_checkable

from d3pm_jax.errors import UserError


class DatasetError(UserError):
    """A data set cannot be used; the message is one line that names the cause and the cure."""


class Part:
    """Gives the examples start, .., stop - 1 of a source."""

    def __init__(self, source: "Source", start: int, stop: int) -> None:
        self._source, self._range = source, range(start, stop)

    def __len__(self) -> int:
        return len(self._range)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._source[self._range[index]]


@runtime_checkable
class Source(Protocol):
    """Gives random access to examples: {"x": integers [*S]}, and where there are any "label" and "weight"."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...
