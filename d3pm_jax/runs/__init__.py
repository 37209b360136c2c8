"""Trains and opens runs, and works on what is in their folders."""

import importlib
from typing import Any

from d3pm_jax.extras import require
from d3pm_jax.lazy import submodules

require(__name__, "array_record", "grain", "orbax", "rich", "tensorboardX")

_MODULES = (
    "begin",
    "build",
    "checkpoint",
    "classifier",
    "devices",
    "exported",
    "features",
    "foreign",
    "grids",
    "lock",
    "loop",
    "manifest",
    "memory",
    "metrics",
    "network",
    "outputs",
    "presampled",
    "protocol",
    "quality",
    "run",
    "samples",
    "splits",
    "tensorboard",
    "terminal",
    "workdir",
)
_FUNCTIONS = {"Run": "Run", "open": "open_run", "train": "train"}  # of `run`

_module = submodules(__name__, _MODULES)


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(f"{__name__}.run"), _FUNCTIONS[name])
    return _module(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_FUNCTIONS})
