"""Chooses the features in which images of a run are compared, and refuses data that have none.

A classifier of the data, in whose features samples are compared, is kept in the user's cache with its hash.
"""

import hashlib
import sys
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
import platformdirs

from d3pm_jax.data import Description
from d3pm_jax.errors import UserError, one_line
from d3pm_jax.evaluation import digit_features, frechet, inception
from d3pm_jax.models.classifier import FEATURES
from d3pm_jax.types import Params
from d3pm_jax.weights import twin

DATA = "data"  # in the metadata of a classifier: the hash of what it was trained on


class Features(NamedTuple):
    """Says in which features images are compared."""

    name: str  # with the hash of the weights
    compute: Callable[
        [np.ndarray], tuple[np.ndarray, np.ndarray | None]
    ]  # [N, d], and the class of each or None


def check_measurable(description: Description, num: int, weights: Path | None) -> None:
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


def choose_features(
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
        content = weights.read_bytes()
        try:
            network = inception.load_network(content)
        except ValueError as error:
            raise UserError(f"{weights}: {error}") from error

        def pooled(x: np.ndarray) -> tuple[np.ndarray, None]:
            return inception.compute_features(network, x, description.categories, batch_size), None

        name = f"Inception of torch-fidelity {metadata.version('torch-fidelity')}, {description.categories} "
        return Features(f"{name}levels, sha256 {hashlib.sha256(content).hexdigest()}", pooled)
    if labels is None:
        raise UserError("the examples have no labels to train a classifier with: pass --inception FILE")
    kept = obtain_classifier(train, labels, description)
    levels, classes = description.categories, description.classes or 0
    called = partial(digit_features.classify_images, kept.params, classes=classes, levels=levels)
    return Features(f"{digit_features.RECIPE}, sha256 {kept.digest}", called)


class TrainedClassifier(NamedTuple):
    """Holds a classifier and the hash of its weights and of what it was trained on."""

    params: Params
    digest: str


def cache_folder() -> Path:
    """Returns the folder of this library in the user's cache: on Linux in $XDG_CACHE_HOME, or in ~/.cache."""
    return Path(platformdirs.user_cache_dir("d3pm_jax", False))


def obtain_classifier(x: np.ndarray, labels: np.ndarray, description: Description) -> TrainedClassifier:
    """Returns the classifier of a training split: the kept one, or one that is trained now and kept.

    Args:
        x: images int32 [N, H, W, 1].
        labels: int32 [N].
        description: of the data.

    Raises:
        UserError: the file that is kept is damaged.
        OSError: it cannot be written.
    """
    classes, levels = description.classes or 0, description.categories
    about = f"{digit_features.RECIPE} {x.shape} {levels} {classes}".encode()
    data = hashlib.sha256(about + x.tobytes() + labels.tobytes()).hexdigest()
    path = cache_folder() / f"classifier_{data[:16]}.safetensors"
    if not path.is_file():
        print(f"training the classifier of samples, {path} (needed once)", file=sys.stderr, flush=True)
        params = digit_features.train_classifier(x, labels, classes, levels)
        path.parent.mkdir(parents=True, exist_ok=True)
        twin.save(path, params, {DATA: data})  # another process may do so too, and writes the same
    try:
        params = twin.load(path, digit_features.network_shapes(x.shape[1:], classes)[1])
        texts = twin.read_metadata(path)
        if texts.get(DATA) != data or twin.HASH not in texts:
            raise ValueError("it has no hash, or is of other data")
    except ValueError as error:
        why = one_line(str(error).removeprefix(f"{path}: "))
        raise UserError(
            f"{path} is no classifier of this data ({why}): delete it, and it is trained again"
        ) from error
    return TrainedClassifier(params, texts[twin.HASH])
