"""Builds the forward process of a run from the file that `d3pm export RUN --to torch` writes."""

from pathlib import Path
from typing import Any

from torch import Tensor

from torch_ref import processes, schedules
from torch_ref.processes.base import Process
from torch_ref.runs.exported import metadata

SCHEDULES = {
    "Cosine": schedules.cosine,
    "CosineSquared": schedules.cosine_squared,
    "LogLinear": schedules.log_linear,
    "Polynomial": schedules.polynomial,
    "Reciprocal": schedules.reciprocal,
}


def process(file: str | Path) -> Process:
    """Returns the process with all of its steps; `processes.respace` takes fewer.

    Raises:
        ValueError: the file is not of `d3pm export`, or its process or schedule is none of those here.
    """
    return _process(metadata(file)[0]["process"])


def _process(spec: dict[str, Any]) -> Process:
    kind = spec["class"]
    if kind == "Masked":
        inner = _process(spec["inner"])
        return processes.masked(inner, _beta(spec["gamma"], inner.T))
    if kind not in ("Absorbing", "Banded", "Gaussian", "Marginal", "Uniform"):
        raise ValueError(f"{kind} is not built here: make it from the functions of torch_ref.processes")
    beta = _beta(spec["beta"], spec["steps"])
    if kind == "Uniform":
        return processes.uniform(beta, spec["K"])
    if kind == "Absorbing":
        return processes.absorbing(beta, spec["K"], spec["mask_id"])
    if kind == "Marginal":
        return processes.marginal(beta, spec["pi"])
    if kind == "Gaussian":
        return processes.gaussian(beta, spec["K"], spec["bands"])
    return processes.banded(beta, spec["K"], spec["bands"])


def _beta(spec: dict[str, Any], steps: int) -> Tensor:
    options = {name: value for name, value in spec.items() if name != "class"}
    if spec["class"] == "Linear":
        factor = 1.0
        if options["rescale"]:
            factor = 1000.0 / steps
        return schedules.linear(steps, options["start"] * factor, options["stop"] * factor)
    if spec["class"] not in SCHEDULES:
        raise ValueError(f"{spec['class']} is not built here: make the process from betas of your own")
    return SCHEDULES[spec["class"]](steps, **options)
