"""Measures how good samples of a run are, beside its training split, as the kind of its data has it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from d3pm_jax.errors import UserError
from d3pm_jax.kinds import Measured, Reference
from d3pm_jax.measure import samples
from d3pm_jax.measure.protocol import Protocol
from d3pm_jax.parts.build import Parts, about
from d3pm_jax.parts.reading import open_whole


class Quality(NamedTuple):
    """Holds what was measured."""

    figures: dict[str, dict[str, Any]]  # of "samples", and for comparison of other examples
    protocol: Protocol
    samples: np.ndarray  # int32 [N, *S]
    measured: Measured


def prepare(
    parts: Parts, workdir: Path, num: int, batch_size: int = 128, inception: Path | None = None
) -> Reference:
    """Measures what samples are to be compared with, and learns the training split.

    Args:
        parts: of the run.
        workdir: its folder.
        num: how many samples.
        batch_size: examples at a time.
        inception: a file of weights of Inception, in whose features images are compared; without, these are
            those of a classifier of the data.

    Raises:
        UserError: there are too few samples or examples, or no way to measure such data.
    """
    test, train = open_whole(parts, workdir, "test"), open_whole(parts, workdir, "train")
    return parts.kind.prepare_quality(train, test, num, batch_size, inception)


def measure(
    parts: Parts,
    reference: Reference,
    num: int,
    seed: int = 0,
    batch_size: int = 128,
    progress: Callable[[int], Any] = lambda done: None,
) -> Quality:
    """Draws samples and compares them with the training split.

    Args:
        parts: of the run.
        reference: of `prepare`, for the same data and number.
        num: how many samples.
        seed: of their noise.
        batch_size: samples at a time.
        progress: is called with the number of samples that are done.

    Raises:
        UserError: samples have categories that the data has not, or features that are not finite.
    """
    x, _ = samples.draw(parts, jax.random.key(seed), num, None, batch_size, (), progress)
    categories = parts.description.categories
    if x.max() >= categories:
        raise UserError(
            f"a sample holds {x.max()}, but the data has {categories} categories: forbid the mask, "
            f"head.forbid"
        )
    measured = reference.measure(x)
    figures = {"samples": measured.figures, **reference.figures}
    return Quality(figures, protocol_of(parts, reference, num, seed), x, measured)


def protocol_of(parts: Parts, reference: Reference, num: int, seed: int) -> Protocol:
    """Says what figures of samples depend on."""
    classes = parts.classes
    return Protocol(
        N=num,
        split=getattr(parts.config.data, "train_split", "train"),
        reference=reference.compared,
        features=reference.features,
        sampler="ancestral",
        classes="none" if classes is None else f"sample i is of class i modulo {classes}",
        seed=seed,
        **about(parts),
    )
