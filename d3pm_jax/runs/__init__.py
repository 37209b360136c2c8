"""Works on a run on disk: its folder, what its config builds, training, samples, metrics and checkpoints."""

from d3pm_jax.extras import require
from d3pm_jax.lazy import submodules

require(__name__, "array_record", "grain", "orbax", "rich", "tensorboardX")

_MODULES = (
    "build",
    "checkpoint",
    "devices",
    "loop",
    "memory",
    "metrics",
    "network",
    "outputs",
    "presampled",
    "samples",
    "terminal",
    "workdir",
)

__getattr__ = submodules(__name__, _MODULES)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
