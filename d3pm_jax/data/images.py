"""Opens a split of a TFDS image data set as a random-access source, or says in one clear line why it cannot.

TensorFlow Datasets is imported on first use. It reads without TensorFlow, but prepares its own image data
sets only with it; "digits" is ours and needs neither TensorFlow nor network.
"""

import contextlib
import difflib
import functools
import importlib
import importlib.util
import io
import logging
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from d3pm_jax.data.description import Description
from d3pm_jax.data.source import DatasetError
from d3pm_jax.errors import one_line
from d3pm_jax.files import read_json

CACHE_BYTES = 2**30  # of decoded images kept in memory: decoding one costs ten times as much as batching it
FORMAT = "array_record"
DIGITS_LEVELS = 17  # grey levels


def is_name(text: str) -> bool:
    """Says whether a text is NAME, NAME/CONFIG, NAME:VERSION or NAME/CONFIG:VERSION of a TFDS data set.

    Others that TFDS takes would have it import packages, such as "huggingface:NAME".
    """
    return re.fullmatch(r"[a-z][a-z0-9_]*(/\w[\w+.-]*)?(:\d+\.\d+\.\d+)?", text, re.ASCII) is not None


class ImageSource:
    """Reads examples of a split: "x" (uint8 [H, W, C]) and, where there is one, "label" (int).

    Args:
        records: a TFDS data source.
        keys: which feature each entry of an example is.
        shape: (H, W, C), from which the number of records kept in memory follows.
        name: of the data set and where it lies, in messages.

    Raises:
        DatasetError: (while reading) a record is damaged.
    """

    def __init__(
        self, records: Any, keys: dict[str, str], shape: tuple[int, ...], name: str = "the data set"
    ) -> None:
        def read(index: int) -> dict[str, Any]:
            try:
                record = records[index]
            except Exception as error:  # of ArrayRecord, of protocol buffers, or of libraries of images
                raise DatasetError(
                    f"cannot read {name}, record {index} ({one_line(error)}): remove its directory and "
                    f"prepare the data set again"
                ) from error
            return {key: record[feature] for key, feature in keys.items()}

        self._size = len(records)
        self._read = functools.lru_cache(CACHE_BYTES // (math.prod(shape) + 512))(read)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(self._read(range(self._size)[index]))


def open_split(name: str, split: str, data_dir: str | None = None) -> ImageSource:
    """Opens a split of a data set; prepares the data set first, with a line to stderr, if it is not on disk.

    Args:
        name: "digits" (8x8, 17 grey levels) or a TFDS image data set such as "mnist" or "emnist/letters".
        split: "train", "test", or a TFDS slice such as "train[:1000]".
        data_dir: existing directory of prepared data sets; default $TFDS_DATA_DIR or ~/tensorflow_datasets.

    Returns:
        The records, in the order in which they are stored. They are shared: do not write into an image.

    Raises:
        DatasetError: anything that keeps the split from being read.
    """
    with _quiet():
        builder = _open_builder(name, data_dir)
        keys = _keys(name, builder.info.features)
        if not builder.is_prepared():
            _prepare(builder)
            builder = _open_builder(name, data_dir)  # reads what is there now, whoever prepared it
        place = f"{builder.name} in {builder.data_dir}"
        source = ImageSource(_open_records(builder, split), keys, builder.info.features["image"].shape, place)
        _ = source[0]  # a bad file, or advice on image libraries, comes out here, not in a thread
    return source


def describe_data_set(name: str, data_dir: str | None = None) -> Description:
    """Describes a data set by what TFDS knows of it, without opening it.

    Args:
        name, data_dir: as for `open_split`.

    Raises:
        DatasetError: there is no such data set, or it is not one of uint8 images of one size.
    """
    with _quiet():
        features = _open_builder(name, data_dir).info.features
        labelled = "label" in _keys(name, features)
    categories = DIGITS_LEVELS if name.partition("/")[0] == "digits" else 256
    classes = features["label"].num_classes if labelled else None
    return Description(tuple(features["image"].shape), categories, classes, "image")


def check_stored(name: str, data_dir: str) -> None:
    """Refuses a directory that opening a data set would write to, or whose files name packages to import.

    For a directory that the user did not name: that of a run which may come from anybody.

    Raises:
        DatasetError: it is such a directory.
    """
    root = Path(data_dir).expanduser() / re.split("[/:]", name)[0]
    for path in (*root.glob("*/features.json"), *root.glob("*/*/features.json")):
        try:
            foreign = [x for x in _classes(read_json(path)) if not x.startswith("tensorflow_datasets.")]
        except (OSError, ValueError) as error:
            raise DatasetError(
                f"{path} cannot be read ({one_line(error)}): prepare the data set again"
            ) from error
        if foreign:
            raise DatasetError(
                f"{path} would import {one_line(foreign[0])}: name the directory if you trust it"
            )
    with _quiet():
        prepared = _open_builder(name, data_dir).is_prepared()
    if not prepared:
        raise DatasetError(
            f"{name} is not prepared in {data_dir}, which the run names: name the directory yourself to have "
            f"it prepared there, --data-dir DIR, or of d3pm train --data.dir DIR"
        )


def _classes(tree: Any) -> list[str]:
    """Lists the classes that TFDS would import for a features.json."""
    if isinstance(tree, list):
        return [name for x in tree for name in _classes(x)]
    if not isinstance(tree, dict):
        return []
    here = [x for key in ("pythonClassName", "type") if isinstance(x := tree.get(key), str) and "." in x]
    return here + [name for x in tree.values() for name in _classes(x)]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the warnings, prints and progress bars of TFDS."""
    import tensorflow_datasets as tfds

    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
        tfds.enable_progress_bar()


def _open_builder(name: str, data_dir: str | None) -> Any:
    """Returns the TFDS builder of a data set, whether it is prepared or not."""
    import tensorflow_datasets as tfds

    importlib.import_module("d3pm_jax.data.digits.digits_dataset_builder")  # makes "digits" known to TFDS
    if not is_name(name):
        raise DatasetError(f"data set {name!r}: a name is like mnist, emnist/letters or emnist/letters:3.1.0")
    root = None if data_dir is None else tfds.core.as_path(data_dir).expanduser()
    if root is not None and not root.exists():
        raise DatasetError(
            f"data directory {root} does not exist: create it (mkdir -p {root}) or name another"
        )
    try:
        return tfds.builder(name, data_dir=None if root is None else str(root))
    except tfds.core.DatasetNotFoundError:
        known = tfds.list_builders(with_community_datasets=False)
        near = ", ".join(difflib.get_close_matches(name, known, cutoff=0.5)) or "digits, mnist, cifar10"
        raise DatasetError(f"unknown data set {name!r}: did you mean one of {near}?") from None
    except Exception as error:
        raise DatasetError(f"cannot open data set {name!r}: {one_line(error)}") from error


def _keys(name: str, features: Any) -> dict[str, str]:
    """Says which feature is "x", and which "label" where there is a class label."""
    import tensorflow_datasets as tfds

    if "image" not in features:
        have = ", ".join(features)
        raise DatasetError(f'{name} has no "image" feature (it has {have}): choose an image data set')
    image = features["image"]
    if image.np_dtype != np.uint8 or None in image.shape:
        raise DatasetError(
            f"the images of {name} have shape {image.shape} and type {np.dtype(image.np_dtype)}: "
            "choose a data set of uint8 images of one size"
        )
    labelled = "label" in features and isinstance(features["label"], tfds.features.ClassLabel)
    return {"x": "image", "label": "label"} if labelled else {"x": "image"}


def _prepare(builder: Any) -> None:
    """Writes the data set to its directory in a format with random access."""
    if builder.name != "digits":  # fails at once where TFDS would retry for minutes and end in a traceback
        missing = f"{builder.name} is not prepared (looked in {builder.data_dir})"
        elsewhere = f"or, on a machine with network and TensorFlow, {_rebuild(builder)}"
        if importlib.util.find_spec("tensorflow") is None:
            raise DatasetError(
                f"{missing} and preparing it needs TensorFlow: pip install tensorflow, {elsewhere}"
            )
        url = next(iter(builder.url_infos or ()), None)
        if url is not None and not _can_connect(url):
            raise DatasetError(
                f"{missing} and there is no network to {url}: connect and run again, {elsewhere}"
            )
    print(f"preparing data set {builder.name} in {builder.data_dir} (needed once)", file=sys.stderr)
    cause = None
    try:
        builder.download_and_prepare(file_format=FORMAT)
    except Exception as error:
        cause = error
    if not builder.is_prepared():
        reason = "the directory exists but is incomplete" if cause is None else one_line(cause)
        raise DatasetError(
            f"{builder.name} could not be prepared in {builder.data_dir} ({reason}): "
            "remove that directory if it exists, put the cause right, and run again"
        ) from cause


def _can_connect(url: str) -> bool:
    """Tells whether the server of `url` answers within seconds, asked as TFDS will ask it."""
    import requests

    try:
        with requests.get(url, stream=True, timeout=(3, 6)):
            return True
    except requests.RequestException:
        return False


def _open_records(builder: Any, split: str) -> Any:
    """Opens the TFDS data source of a split of a prepared data set."""
    splits = builder.info.splits
    try:
        size = splits[split].num_examples
    except (ValueError, KeyError):
        size = 0
    if size == 0:
        have = ", ".join(f"{key} ({info.num_examples} images)" for key, info in splits.items())
        raise DatasetError(
            f"{builder.name} has no split {split!r}: use {have}, or a slice such as train[:1000]"
        )
    try:
        return builder.as_data_source(split)
    except NotImplementedError:
        stored = builder.info.file_format.value
        raise DatasetError(
            f"{builder.name} in {builder.data_dir} is stored as {stored}, which has no random access: "
            f"{_rebuild(builder)}, where DIR is a new directory"
        ) from None


def _rebuild(builder: Any) -> str:
    """Says how to prepare a data set with the command of TFDS."""
    command = f"tfds build {builder.name} --file_format={FORMAT} --data_dir=DIR"
    return f"run `{command}` and pass --data.dir DIR"
