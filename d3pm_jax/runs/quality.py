"""Measures how good samples of a run are: how far they are from its training split, in features of images."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from d3pm_jax.config.objective import logits_keywords
from d3pm_jax.errors import UserError
from d3pm_jax.evaluation import baselines, frechet, nearest
from d3pm_jax.evaluation.precision_recall import precision_recall
from d3pm_jax.runs import features
from d3pm_jax.runs.protocol import Protocol
from d3pm_jax.runs.run import Run
from d3pm_jax.sampling import even_grid

ROWS_SEED = 0  # of what samples are to be compared with


class Quality(NamedTuple):
    """Holds what was measured, and the samples with the training example nearest to each."""

    figures: dict[str, dict[str, Any]]  # of "samples", and for comparison of "train", "test" and "per-pixel"
    protocol: Protocol
    samples: np.ndarray  # int32 [N, H, W, C]
    nearest: np.ndarray  # the same


class Reference(NamedTuple):
    """Holds what samples are compared with."""

    images: np.ndarray  # all of the training split
    statistics: frechet.Statistics  # of their features
    features: np.ndarray  # of as many of them as there are samples, evenly spaced: for precision and recall


def measure(
    run: Run,
    num: int,
    seed: int = 0,
    batch_size: int = 128,
    inception: Path | None = None,
    progress: Callable[[int], Any] = lambda done: None,
) -> Quality:
    """Draws samples and compares them with all of the training split.

    The same is measured of as many examples of the training split itself, of at most as many of the test
    split, and of as many samples of the per-pixel histogram.

    Args:
        run: of images.
        num: how many samples.
        seed: of their noise.
        batch_size: samples at a time.
        inception: a file of its weights; without, the features are those of a classifier of the data.
        progress: is called with the number of samples that are done.

    Raises:
        UserError: there are too few samples or examples for a distance, or no features for such data.
    """
    features.check(run.parts.description, num, inception)
    train, labels = run.read_split("train")
    chosen = features.choose(run.parts.description, train, labels, inception, batch_size)
    reference = _reference(train, chosen, num)
    samples, _ = run.sample(jax.random.key(seed), num, None, batch_size, (), progress)
    rows = {"samples": samples, **_rows(run, train, num)}
    classes = run.parts.description.classes
    figures = {name: _figures(x, chosen, reference, classes) for name, x in rows.items()}
    index = {}
    for name in ("samples", "test", "per-pixel"):
        index[name], squared = nearest.find(rows[name], train)
        figures[name]["nearest"] = float(np.sqrt(squared).mean()) / (run.parts.description.categories - 1)
        figures[name]["copies"] = float(np.mean(squared == 0))
    return Quality(figures, _protocol(run, num, seed, train, chosen), samples, train[index["samples"]])


def _rows(run: Run, train: np.ndarray, num: int) -> dict[str, np.ndarray]:
    """Returns images for comparison: of the data, and of what ignores how its pixels depend on each other."""
    rng = np.random.default_rng(ROWS_SEED)
    return {
        "train": train[rng.choice(len(train), num, replace=num > len(train))],
        "test": run.read_split("test", num)[0],
        "per-pixel": baselines.histogram_samples(train, num, ROWS_SEED),
    }


def _reference(train: np.ndarray, chosen: features.Features, num: int) -> Reference:
    found, _ = chosen.of(train)
    try:
        statistics = frechet.statistics(found)
    except ValueError as error:
        raise UserError(f"the training split is too small to compare with: {error}") from error
    some = np.linspace(0, len(train) - 1, min(len(train), num)).astype(int)
    return Reference(train, statistics, found[some])


def _figures(
    x: np.ndarray, chosen: features.Features, reference: Reference, classes: int | None
) -> dict[str, Any]:
    """Returns what is measured of images; the distance is None of a test split that is too small for one."""
    found, called = chosen.of(x)
    enough = len(x) > found.shape[1]
    precision, recall = precision_recall(reference.features, found)
    row = {
        "n": len(x),
        "frechet": frechet.distance(frechet.statistics(found), reference.statistics) if enough else None,
        "precision": precision,
        "recall": recall,
    }
    if called is not None:
        row["classes"] = (np.bincount(called, minlength=classes or 0) / len(x)).tolist()
    return row


def _protocol(run: Run, num: int, seed: int, train: np.ndarray, chosen: features.Features) -> Protocol:
    """Says what the figures depend on."""
    process, config = run.process, run.config
    T, times = int(process.time[-1]), np.asarray(process.time[1:]).tolist()
    classes = run.parts.classes
    return Protocol(
        N=num,
        split=getattr(config.data, "train_split", "train"),
        reference=f"{len(train)} examples, sha256 {hashlib.sha256(train.tobytes()).hexdigest()}",
        features=chosen.name,
        step=run.step,
        steps=process.T,
        grid=f"even, of {T}" if times == even_grid(T, process.T) else f"{times} of {T}",
        sampler="ancestral",
        classes="none" if classes is None else f"sample i is of class i modulo {classes}",
        ema=config.train.ema_decay,
        **logits_keywords(config.loss),
        dtype=getattr(config.model, "compute", "float32"),
        seed=seed,
    )
