"""Trains and opens runs, and works on what is in their folders."""

import importlib
from typing import Any

from d3pm_jax.extras import require
from d3pm_jax.lazy import submodules

require(__name__, "array_record", "grain", "orbax", "rich", "tensorboardX")

_MODULES = (
    "begin",
    "build",
    "cache",
    "checkpoint",
    "classifier",
    "cluster",
    "cost",
    "devices",
    "exact",
    "exported",
    "features",
    "flops",
    "foreign",
    "grids",
    "lock",
    "logs",
    "loop",
    "manifest",
    "memory",
    "metrics",
    "network",
    "outputs",
    "presampled",
    "profile",
    "protocol",
    "quality",
    "run",
    "samples",
    "speed",
    "splits",
    "tensorboard",
    "terminal",
    "text_quality",
    "wandb_run",
    "workdir",
)
_FUNCTIONS = {  # what the commands do, and the modules that do it
    "Run": ("run", "Run"),
    "export": ("exported", "export"),
    "import_weights": ("begin", "import_weights"),
    "open": ("run", "open_run"),
    "presample": ("presampled", "presample"),
    "train": ("run", "train"),
}

_module = submodules(__name__, _MODULES)


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        module, function = _FUNCTIONS[name]
        return getattr(importlib.import_module(f"{__name__}.{module}"), function)
    return _module(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_FUNCTIONS})
