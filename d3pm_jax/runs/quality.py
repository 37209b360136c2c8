"""Measures the quality of samples of a run, see `measure.sample_quality`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from d3pm_jax.kinds import Reference
from d3pm_jax.measure import sample_quality
from d3pm_jax.measure.sample_quality import SampleQuality
from d3pm_jax.runs.run import Run
from d3pm_jax.sampling import Sampler


def prepare(run: Run, num: int, batch_size: int = 128, inception: Path | None = None) -> Reference:
    """Prepares the comparison of samples with the training split, and measures what they compete with."""
    return sample_quality.prepare_reference(run.parts, run.workdir, num, batch_size, inception)


def measure(
    run: Run,
    reference: Reference,
    num: int,
    seed: int = 0,
    batch_size: int = 128,
    progress: Callable[[int], Any] = lambda done: None,
    sampler: Sampler | str | None = None,
) -> SampleQuality:
    """Draws samples of a run, by a sampler as in `Run.sample`, and compares them with its training split."""
    inputs = run.read_sample_inputs(num)
    return sample_quality.measure_quality(
        run.parts, reference, num, seed, batch_size, progress, inputs, sampler
    )
