"""Trains and opens runs, and works on the files in their folders.

Modules that other packages have now are attributes here too, by the names that pages and notebooks use.
"""

import importlib
from typing import Any

from d3pm_jax.extras import require

require(__name__, "array_record", "grain", "orbax", "rich", "tensorboardX")

_MODULES = {name: f"{__name__}.{name}" for name in ("exact", "exported", "grids", "quality", "run")}

# Modules of other packages, by package.
_ELSEWHERE = {
    "parts": ("begin", "build", "network", "splits"),
    "storage": ("checkpoint", "lock", "manifest", "run_folder"),
    "machine": ("cache", "cluster", "devices", "flops", "terminal"),
    "measure": ("samples",),
    "loop": ("cost", "loop", "metrics", "presampled"),
}
_MODULES |= {name: f"d3pm_jax.{room}.{name}" for room, names in _ELSEWHERE.items() for name in names}
_MODULES |= {"protocol": "d3pm_jax.measure.sample_quality", "text_quality": f"{__name__}.quality"}
# The name that it had first, which programs and notebooks of users may use.
_MODULES["workdir"] = "d3pm_jax.storage.run_folder"

# What the commands do, by the names that users call, with the module and the function that does it.
_FUNCTIONS = {
    "ClassifierFreeGuidance": ("d3pm_jax.parts.guidance", "ClassifierFreeGuidance"),
    "ClassifierGuidance": ("d3pm_jax.parts.by_classifier", "ClassifierGuidance"),
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
        return importlib.import_module(_MODULES[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_FUNCTIONS})
