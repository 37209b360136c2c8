"""Trains and opens runs, and works on the files in their folders."""

import importlib
from typing import Any

from d3pm_jax.extras import require

require(__name__, "array_record", "grain", "orbax", "rich", "tensorboardX")

# Modules of this package, which are attributes of it.
_MODULES = ("exact", "exported", "grids", "quality", "run")

# What the commands do, by the names that users call, with the module and the function that does it.
_FUNCTIONS = {
    "ClassifierFreeGuidance": ("d3pm_jax.parts.guidance", "ClassifierFreeGuidance"),
    "ClassifierGuidance": ("d3pm_jax.parts.by_classifier", "ClassifierGuidance"),
    "BestOf": ("d3pm_jax.parts.draw", "BestOf"),
    "Draw": ("d3pm_jax.parts.draw", "Draw"),
    "Drawn": ("d3pm_jax.measure.samples", "Drawn"),
    "Guidance": ("d3pm_jax.parts.guidance", "Guidance"),
    "Particles": ("d3pm_jax.parts.draw", "Particles"),
    "Run": ("d3pm_jax.runs.run", "Run"),
    "export": ("d3pm_jax.runs.exported", "export"),
    "import_weights": ("d3pm_jax.parts.begin", "import_weights"),
    "open": ("d3pm_jax.runs.run", "open_run"),
    "presample": ("d3pm_jax.loop.presampled", "presample"),
    "train": ("d3pm_jax.runs.run", "train"),
}


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        module, function = _FUNCTIONS[name]
        return getattr(importlib.import_module(module), function)
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_FUNCTIONS})
