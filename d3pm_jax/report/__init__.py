"""Writes a page about trained runs that opens from the disk and needs nothing else."""

import importlib
from typing import Any

from d3pm_jax.extras import require

require(__name__, "PIL", "matplotlib")

_FUNCTIONS = ("page", "write")  # imported when they are first used: other pages need the style alone


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(f"{__name__}.pages"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_FUNCTIONS})
