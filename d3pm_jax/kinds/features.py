"""Chooses the features in which images of a run are compared, and refuses data that have none."""

import hashlib
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np

from d3pm_jax.data import Description
from d3pm_jax.errors import UserError
from d3pm_jax.evaluation import digit_features, frechet, inception
from d3pm_jax.kinds import classifier
from d3pm_jax.models.classifier import FEATURES


class Features(NamedTuple):
    """Says in which features images are compared."""

    name: str  # with the hash of the weights
    of: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]  # [N, d], and the class of each or None


def check(description: Description, num: int, weights: Path | None) -> None:
    """Refuses what cannot be measured, before anything is computed.

    Args:
        description: of images with 1 or 3 channels.
        num: how many samples.
        weights: a file of Inception weights, if they are to be used.

    Raises:
        UserError: the data have no features, there are too few samples, or there is no such file.
    """
    shape, classes = description.shape, description.classes
    if weights is None and (shape[-1] != 1 or classes is None):
        raise UserError(
            f"images of shape {shape} with {classes or 'no'} classes have no classifier to compare them by, "
            f"as grey images with labels have: pass --inception FILE, {inception.WEIGHTS} of torch-fidelity"
        )
    if weights is not None and not weights.is_file():
        raise UserError(f"no file {weights}: pass {inception.WEIGHTS} of torch-fidelity, which you download")
    try:
        frechet.check_enough(num, FEATURES if weights is None else inception.FEATURES, "samples")
    except ValueError as error:
        raise UserError(f"--samples {num}: {error}") from error


def choose(
    description: Description,
    train: np.ndarray,
    labels: np.ndarray | None,
    weights: Path | None,
    batch_size: int,
) -> Features:
    """Returns features of Inception where there are weights of it, else of a classifier of the data.

    Args:
        description: of the data.
        train: images int32 [N, H, W, C], which the classifier is trained on.
        labels: int32 [N], if there are any.
        weights: a file of Inception weights.
        batch_size: images at a time.

    Raises:
        UserError: the file of weights, or the classifier that was kept, cannot be used.
    """
    if weights is not None:
        return _inception(weights, description.categories, batch_size)
    if labels is None:
        raise UserError("the examples have no labels to train a classifier with: pass --inception FILE")
    kept = classifier.obtain(train, labels, description)
    levels, classes = description.categories, description.classes or 0
    called = partial(digit_features.classify, kept.params, classes=classes, levels=levels)
    return Features(f"{digit_features.RECIPE}, sha256 {kept.digest}", called)


def _inception(path: Path, levels: int, batch_size: int) -> Features:
    content = path.read_bytes()
    try:
        network = inception.load(content)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error

    def pooled(x: np.ndarray) -> tuple[np.ndarray, None]:
        return inception.features(network, x, levels, batch_size), None

    name = f"Inception of torch-fidelity {metadata.version('torch-fidelity')}, {levels} levels, sha256"
    return Features(f"{name} {hashlib.sha256(content).hexdigest()}", pooled)
