"""Trains and opens runs, and works on the files in their folders."""

import importlib
from typing import Any

from d3pm_jax.extras import require

require(__name__, "array_record", "grain", "orbax", "rich", "tensorboardX")

# By the name that users call: the module that has it, imported when it is first used, and its name there.
_FUNCTIONS = {
    "ClassifierFreeGuidance": ("d3pm_jax.parts.guidance", "ClassifierFreeGuidance"),
    "ClassifierGuidance": ("d3pm_jax.parts.by_classifier", "ClassifierGuidance"),
    "BestOf": ("d3pm_jax.parts.draw", "BestOf"),
    "Draw": ("d3pm_jax.parts.draw", "Draw"),
    "Drawn": ("d3pm_jax.measure.samples", "Drawn"),
    "Guidance": ("d3pm_jax.parts.guidance", "Guidance"),
    "Particles": ("d3pm_jax.parts.draw", "Particles"),
    "Run": ("d3pm_jax.runs.run", "Run"),
    "denoiser": ("d3pm_jax.runs.exported", "denoiser"),
    "draw_forward": ("d3pm_jax.measure.samples", "draw_forward"),
    "export": ("d3pm_jax.runs.exported", "export"),
    "import_weights": ("d3pm_jax.parts.begin", "import_weights"),
    "network": ("d3pm_jax.runs.exported", "network"),
    "open": ("d3pm_jax.runs.run", "open_run"),
    "presample": ("d3pm_jax.loop.presampled", "presample"),
    "read_metrics": ("d3pm_jax.loop.metrics", "read_metrics"),
    "train": ("d3pm_jax.runs.run", "train"),
}


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        module, function = _FUNCTIONS[name]
        return getattr(importlib.import_module(module), function)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_FUNCTIONS})
