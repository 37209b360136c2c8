"""Keeps the classifier in whose features samples are compared in the user's cache, with its hash."""

import hashlib
import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from d3pm_jax.data import Description
from d3pm_jax.errors import UserError, one_line
from d3pm_jax.evaluation import digit_features
from d3pm_jax.types import Params
from d3pm_jax.weights import twin

DATA = "data"  # in the metadata: the hash of what it was trained on


class Kept(NamedTuple):
    """Holds a classifier and the hash of its weights and of what it was trained on."""

    params: Params
    digest: str


def cache() -> Path:
    """Returns the folder of this library in the user's cache: $XDG_CACHE_HOME, or ~/.cache."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "d3pm_jax"


def obtain(x: np.ndarray, labels: np.ndarray, description: Description) -> Kept:
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
    path = cache() / f"classifier_{data[:16]}.safetensors"
    if not path.is_file():
        print(f"training the classifier of samples, {path} (needed once)", file=sys.stderr, flush=True)
        params = digit_features.train(x, labels, classes, levels)
        path.parent.mkdir(parents=True, exist_ok=True)
        twin.save(path, params, {DATA: data})  # another process may do so too, and writes the same
    return _read(path, digit_features.shapes(x.shape[1:], classes)[1], data)


def _read(path: Path, shapes: Params, data: str) -> Kept:
    """Reads a classifier, and checks its hash and what it was trained on."""
    try:
        params, texts = twin.load(path, shapes), twin.read_metadata(path)
        if texts.get(DATA) != data or twin.HASH not in texts:
            raise ValueError("it has no hash, or is of other data")
    except ValueError as error:
        why = one_line(str(error).removeprefix(f"{path}: "))
        raise UserError(
            f"{path} is no classifier of this data ({why}): delete it, and it is trained again"
        ) from error
    return Kept(params, texts[twin.HASH])
