"""Trains and opens runs, and works on the files in their folders."""

import importlib
from typing import Any

from d3pm_jax.extras import require

require(__name__, "array_record", "grain", "orbax", "rich", "tensorboardX")

# By the name that users call: the module that has it, imported when it is first used, and its name there.
_FUNCTIONS = {
    "ClassifierFreeGuidance": ("d3pm_jax.program.parts.guidance", "ClassifierFreeGuidance"),
    "ClassifierGuidance": ("d3pm_jax.program.parts.by_classifier", "ClassifierGuidance"),
    "BestOf": ("d3pm_jax.program.parts.draw", "BestOf"),
    "Draw": ("d3pm_jax.program.parts.draw", "Draw"),
    "Drawn": ("d3pm_jax.program.measure.samples", "Drawn"),
    "Guidance": ("d3pm_jax.program.parts.guidance", "Guidance"),
    "Orders": ("d3pm_jax.program.measure.filling", "Orders"),
    "Particles": ("d3pm_jax.program.parts.draw", "Particles"),
    "Record": ("d3pm_jax.program.measure.record", "Record"),
    "Run": ("d3pm_jax.runs.run", "Run"),
    "denoiser": ("d3pm_jax.runs.exported", "denoiser"),
    "draw_forward": ("d3pm_jax.program.measure.samples", "draw_forward"),
    "export": ("d3pm_jax.runs.exported", "export"),
    "format_quality": ("d3pm_jax.program.measure.sample_quality", "format_quality"),
    "import_weights": ("d3pm_jax.program.parts.begin", "import_weights"),
    "list_incomparable": ("d3pm_jax.program.measure.record", "list_incomparable"),
    "network": ("d3pm_jax.runs.exported", "network"),
    "open": ("d3pm_jax.runs.run", "open_run"),
    "presample": ("d3pm_jax.program.loop.presampled", "presample"),
    "read_metrics": ("d3pm_jax.program.loop.metrics", "read_metrics"),
    "read_quality": ("d3pm_jax.program.measure.sample_quality", "read_quality"),
    "train": ("d3pm_jax.runs.run", "train"),
    "write_quality": ("d3pm_jax.program.measure.sample_quality", "write_quality"),
}


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        module, function = _FUNCTIONS[name]
        return getattr(importlib.import_module(module), function)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_FUNCTIONS})
