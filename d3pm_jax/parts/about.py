"""Says what a figure or a picture of the parts of a run is of."""

from pathlib import Path
from typing import Any

import numpy as np

from d3pm_jax.config import Config
from d3pm_jax.config.objective import logits_keywords
from d3pm_jax.parts.build import Parts
from d3pm_jax.processes import Process
from d3pm_jax.sampling import even_grid


def caption(workdir: Path, parts: Parts, step: int) -> str:
    """Says in a few words what a picture is of: the run, its process and the step of its weights."""
    return f"{workdir.resolve().name}: {name_process(parts.config, parts.process)}; weights of step {step:,}"


def name_process(config: Config, process: Process) -> str:
    """Names a process: "Uniform, K = 17, T = 100"."""
    T = int(process.time[-1])
    steps = f"T = {T}" if process.T == T else f"{process.T} of T = {T} steps"
    return f"{type(config.process).__name__}, K = {process.K}, {steps}"


def about(parts: Parts) -> dict[str, Any]:
    """Says what a figure of these parts depends on, besides data and noise."""
    T, times = int(parts.process.time[-1]), np.asarray(parts.process.time[1:]).tolist()
    return {
        "step": parts.step,
        "ema": parts.config.train.ema_decay,
        "steps": parts.process.T,
        "grid": f"even, of {T}" if times == even_grid(T, len(times)) else f"{times} of {T}",
        **logits_keywords(parts.config.loss),
        "dtype": getattr(parts.config.model, "compute", "float32"),
    }
