"""Measures how good samples of a run are: how far they are from its training split, in features of images."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from d3pm_jax.data import Description
from d3pm_jax.errors import UserError
from d3pm_jax.evaluation import baselines, frechet, nearest
from d3pm_jax.evaluation.precision_recall import K as NEIGHBOURS
from d3pm_jax.evaluation.precision_recall import precision_recall
from d3pm_jax.kinds import features
from d3pm_jax.measure.protocol import Protocol

SEED = 0  # of what samples are to be compared with


class Quality(NamedTuple):
    """Holds what was measured, and the samples with the training example nearest to each."""

    figures: dict[str, dict[str, Any]]  # of "samples", and for comparison of "train", "test" and "per-pixel"
    protocol: Protocol
    samples: np.ndarray  # int32 [N, H, W, C]
    nearest: np.ndarray  # the same


class Reference(NamedTuple):
    """Holds what samples of any run on the same data are compared with."""

    images: np.ndarray  # all of the training split
    features: features.Features
    statistics: frechet.Statistics  # of all of them
    some: np.ndarray  # features of as many of them as there are samples, evenly spaced
    figures: dict[str, dict[str, Any]]  # of "train", "test" and "per-pixel", measured as samples are


def prepare(run: Any, num: int, batch_size: int = 128, inception: Path | None = None) -> Reference:
    """Measures what samples are to be compared with, and learns the training split.

    These are as many examples of the training split itself, at most as many of the test split, and as many
    samples of the per-pixel histogram.

    Args:
        run: of images.
        num: how many samples.
        batch_size: images at a time.
        inception: a file of its weights; without, the features are those of a classifier of the data.

    Raises:
        UserError: there are too few samples or examples for a distance, or no features for such data.
    """
    description = run.parts.description
    features.check(description, num, inception)
    train, labels = run.read_split("train")
    chosen = features.choose(description, train, labels, inception, batch_size)
    found, _ = chosen.of(train)
    statistics = _statistics(found, "the training split")
    spaced = np.linspace(0, len(train) - 1, min(len(train), num)).astype(int)
    reference = Reference(train, chosen, statistics, found[spaced], {})
    rows = {
        "train": train[np.random.default_rng(SEED).choice(len(train), num, replace=num > len(train))],
        "test": run.read_split("test", num)[0],
        "per-pixel": baselines.histogram_samples(train, num, SEED),
    }
    figures = {name: _figures(x, reference, description)[0] for name, x in rows.items()}
    return reference._replace(figures=figures)


def measure(
    run: Any,
    reference: Reference,
    num: int,
    seed: int = 0,
    batch_size: int = 128,
    progress: Callable[[int], Any] = lambda done: None,
) -> Quality:
    """Draws samples and compares them with all of the training split.

    Args:
        run: of images.
        reference: of `prepare`, for the same data and number.
        num: how many samples.
        seed: of their noise.
        batch_size: samples at a time.
        progress: is called with the number of samples that are done.

    Raises:
        UserError: samples have categories that the data has not, or features that are not finite.
    """
    samples, train = draw(run, num, seed, batch_size, progress), reference.images
    row, index = _figures(samples, reference, run.parts.description)
    compared = f"{len(train)} examples, sha256 {hashlib.sha256(train.tobytes()).hexdigest()}"
    told = protocol_of(run, num, seed, compared, reference.features.name)
    return Quality({"samples": row, **reference.figures}, told, samples, train[index])


def draw(
    run: Any, num: int, seed: int, batch_size: int, progress: Callable[[int], Any] = lambda done: None
) -> np.ndarray:
    """Draws samples to be measured; see `measure`."""
    samples, _ = run.sample(jax.random.key(seed), num, None, batch_size, (), progress)
    categories = run.parts.description.categories
    if samples.max() >= categories:
        raise UserError(
            f"a sample holds {samples.max()}, but the data has {categories} categories: forbid the mask, "
            f"head.forbid"
        )
    return samples


def _figures(
    x: np.ndarray, reference: Reference, description: Description
) -> tuple[dict[str, Any], np.ndarray]:
    """Returns what is measured of images, None where they are too few, and the nearest training examples."""
    found, called = reference.features.of(x)
    compared = min(len(found), len(reference.some)) > NEIGHBOURS
    precision, recall = precision_recall(reference.some, found, NEIGHBOURS) if compared else (None, None)
    enough = len(x) > found.shape[1]
    index, squared = nearest.find(x, reference.images)
    row = {
        "n": len(x),
        "frechet": frechet.distance(_statistics(found, "images"), reference.statistics) if enough else None,
        "precision": precision,
        "recall": recall,
        "nearest": float(np.sqrt(squared).mean()) / (description.categories - 1),
        "copies": float(np.mean(squared == 0)),
    }
    if called is not None:
        row["classes"] = (np.bincount(called, minlength=description.classes or 0) / len(x)).tolist()
    return row, index


def _statistics(found: np.ndarray, what: str) -> frechet.Statistics:
    try:
        return frechet.statistics(found)
    except ValueError as error:
        raise UserError(f"{what} cannot be compared: {error}") from error


def protocol_of(run: Any, num: int, seed: int, reference: str, features: str) -> Protocol:
    """Says what figures of samples depend on."""
    classes = run.parts.classes
    return Protocol(
        N=num,
        split=getattr(run.config.data, "train_split", "train"),
        reference=reference,
        features=features,
        sampler="ancestral",
        classes="none" if classes is None else f"sample i is of class i modulo {classes}",
        seed=seed,
        **run.about(),
    )
