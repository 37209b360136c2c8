"""Chooses the features in which images of a run are compared, and refuses data that have none.

A classifier of the data, in whose features samples are compared, is stored in the user's cache with its hash.
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
from d3pm_jax.errors import UserError, as_user_error, one_line
from d3pm_jax.evaluation import digit_features, frechet, inception
from d3pm_jax.models.classifier import FEATURES
from d3pm_jax.weights import twin

DATA = "data"  # the entry in the metadata of a classifier that is the hash of its training split


class ImageFeatures(NamedTuple):
    """Holds the function that computes the features in which images are compared, and its name."""

    name: str
    """with the hash of the weights"""
    compute: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]
    """images [N, H, W, C] -> features [N, d], and the class of each image [N] or None"""


def check_measurable(description: Description, num: int, weights: Path | None) -> None:
    """Refuses images that cannot be measured in features, before anything is computed.

    Args:
        description: of images with 1 or 3 channels.
        num: how many samples.
        weights: a file of Inception weights, if they are to be used.

    Raises:
        UserError: the data have no features, there are too few samples, or there is no such file.
    """
    shape = description.shape
    classes = description.classes
    if weights is None and (shape[-1] != 1 or classes is None):
        raise UserError(
            f"there is no classifier to compare images of shape {shape} with {classes or 'no'} classes "
            f"by, since it takes grey images with labels: pass --inception FILE, {inception.WEIGHTS} of "
            "torch-fidelity"
        )
    if weights is not None and not weights.is_file():
        raise UserError(f"no file {weights}: pass {inception.WEIGHTS} of torch-fidelity, which you download")
    num_features = FEATURES if weights is None else inception.FEATURES
    with as_user_error(f"--samples {num}: "):
        frechet.check_enough(num, num_features, "samples")


def choose_features(
    description: Description,
    train: np.ndarray,
    labels: np.ndarray | None,
    weights: Path | None,
    batch_size: int,
) -> ImageFeatures:
    """Chooses the features of Inception where there are weights of it, and else those of a classifier.

    Args:
        description: of the data.
        train: images int32 [N, H, W, C], which the classifier is trained on.
        labels: int32 [N], if there are any.
        weights: a file of Inception weights.
        batch_size: images at a time.

    Raises:
        UserError: the file of weights, or the classifier in the cache, cannot be used.
    """
    if weights is not None:
        content = weights.read_bytes()
        with as_user_error(f"{weights}: "):
            network = inception.load_network(content)

        def compute_pooled(x: np.ndarray) -> tuple[np.ndarray, None]:
            return inception.compute_features(network, x, description.categories, batch_size), None

        name = f"Inception of torch-fidelity {metadata.version('torch-fidelity')}, {description.categories} "
        return ImageFeatures(f"{name}levels, sha256 {hashlib.sha256(content).hexdigest()}", compute_pooled)

    if labels is None:
        raise UserError("the examples have no labels to train a classifier with: pass --inception FILE")
    return obtain_classifier(train, labels, description)


def cache_folder() -> Path:
    """Returns the folder of this library in the user's cache: on Linux in $XDG_CACHE_HOME, or in ~/.cache."""
    return Path(platformdirs.user_cache_dir("d3pm_jax", False))


def obtain_classifier(x: np.ndarray, labels: np.ndarray, description: Description) -> ImageFeatures:
    """Loads the classifier of a training split from the user's cache; where there is none, trains it first.

    Its features are named by the hash of its weights and of what it was trained on.

    Args:
        x: images int32 [N, H, W, 1].
        labels: int32 [N].
        description: of the data.

    Raises:
        UserError: the file in the cache is damaged.
        OSError: it cannot be written.
    """
    classes = description.classes or 0
    levels = description.categories
    recipe = f"{digit_features.RECIPE} {x.shape} {levels} {classes}".encode()
    data_digest = hashlib.sha256(recipe + x.tobytes() + labels.tobytes()).hexdigest()
    path = cache_folder() / f"classifier_{data_digest[:16]}.safetensors"

    if not path.is_file():
        print(f"training the classifier of samples, {path} (needed once)", file=sys.stderr, flush=True)
        params = digit_features.train_classifier(x, labels, classes, levels)
        path.parent.mkdir(parents=True, exist_ok=True)
        # No lock is needed: another process that trains it at the same time writes the same bytes.
        twin.save(path, params, {DATA: data_digest})

    # It is read back even if it was trained just now, so that its features do not depend on who trained it.
    try:
        params = twin.load(path, digit_features.network_shapes(x.shape[1:], classes)[1])
        metadata_of_file = twin.read_metadata(path)
        if metadata_of_file.get(DATA) != data_digest or twin.HASH not in metadata_of_file:
            raise ValueError("it has no hash, or is of other data")
    except ValueError as error:
        why = one_line(str(error).removeprefix(f"{path}: "))
        raise UserError(
            f"{path} is not a classifier of this data ({why}): delete it, and it is trained again"
        ) from error
    compute = partial(digit_features.classify_images, params, classes=classes, levels=levels)
    return ImageFeatures(f"{digit_features.RECIPE}, sha256 {metadata_of_file[twin.HASH]}", compute)
