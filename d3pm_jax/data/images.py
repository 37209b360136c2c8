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
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from d3pm_jax.checks import NOT_EMPTY, AnyPath, NonEmptyStr, Size, declared, shorten_value
from d3pm_jax.data.description import Description
from d3pm_jax.data.source import DatasetError, FunctionSource, Source, check_source
from d3pm_jax.errors import one_line
from d3pm_jax.files import read_json

# Decoded images are kept in memory up to this size: decoding an image costs ten times as much as batching it.
CACHE_BYTES = 2**30
FORMAT = "array_record"
# Grey levels of the digits.
DIGITS_LEVELS = 17


def is_name(text: str) -> bool:
    """Says whether a text is NAME, NAME/CONFIG, NAME:VERSION or NAME/CONFIG:VERSION of a TFDS data set.

    Others that TFDS takes would have it import packages, such as "huggingface:NAME".
    """
    return re.fullmatch(r"[a-z][a-z0-9_]*(/\w[\w+.-]*)?(:\d+\.\d+\.\d+)?", text, re.ASCII) is not None


class ImageSource(FunctionSource):
    """Reads examples of a split: "x" (uint8 [H, W, C]) and, where there is one, "label" (int).

    Args:
        records: a TFDS data source.
        keys: the name of the feature that becomes "x", and of that which becomes "label".
        shape: (H, W, C), from which the number of records kept in memory follows.
        name: of the data set and where it lies, in messages.

    Raises:
        DatasetError: (while reading) a record is damaged.
    """

    @declared()
    def __init__(
        self,
        records: Source,
        keys: dict[str, str],
        shape: Annotated[tuple[Size, ...], NOT_EMPTY],
        name: NonEmptyStr = "the data set",
    ) -> None:
        check_source("records", records)
        if not isinstance(keys, dict) or "x" not in keys:
            raise ValueError(
                f'keys = {shorten_value(keys)}: it must be a dict with the name of the feature of "x"'
            )

        @functools.lru_cache(CACHE_BYTES // (math.prod(shape) + 512))
        def read(index: int) -> dict[str, Any]:
            try:
                record = records[index]
                return {key: record[feature] for key, feature in keys.items()}
            except Exception as error:
                # It may be one of ArrayRecord, of protocol buffers, or of a library of images.
                raise DatasetError(
                    f"cannot read {name}, record {index} ({one_line(error)}): remove its directory and "
                    f"prepare the data set again"
                ) from error

        super().__init__(len(records), lambda index: dict(read(index)))


@declared()
def open_split(name: str, split: str, data_dir: AnyPath | None = None) -> ImageSource:
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
            # Another process may have prepared it meanwhile: a new builder reads what is there now.
            builder = _open_builder(name, data_dir)
        location = f"{builder.name} in {builder.data_dir}"
        shape = builder.info.features["image"].shape  # (H, W, C)
        source = ImageSource(_open_records(builder, split), keys, shape, location)
        # A bad file, or advice on image libraries, should come out here and not in a thread of Grain.
        _ = source[0]
    return source


@declared()
def describe_data_set(name: str, data_dir: AnyPath | None = None) -> Description:
    """Describes a data set by its TFDS builder, without opening it.

    Args:
        name, data_dir: as for `open_split`.

    Raises:
        DatasetError: there is no such data set, or it is not one of uint8 images of one size.
    """
    with _quiet():
        features = _open_builder(name, data_dir).info.features
        has_labels = "label" in _keys(name, features)
    is_digits = name.partition("/")[0] == "digits"
    categories = DIGITS_LEVELS if is_digits else 256
    classes = features["label"].num_classes if has_labels else None
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
            class_names = _list_classes(read_json(path))
        except (OSError, ValueError) as error:
            raise DatasetError(
                f"{path} cannot be read ({one_line(error)}): prepare the data set again"
            ) from error
        foreign = [cls for cls in class_names if not cls.startswith("tensorflow_datasets.")]
        if foreign:
            raise DatasetError(
                f"{path} would import {one_line(foreign[0])}: pass the folder yourself (--data.dir DIR) "
                "if you trust it"
            )
    with _quiet():
        prepared = _open_builder(name, data_dir).is_prepared()
    if not prepared:
        raise DatasetError(
            f"{name} is not prepared in {data_dir}, the folder that the run names: to prepare it there, "
            "pass that folder yourself by --data.dir"
        )


def _list_classes(tree: Any) -> list[str]:
    """Lists the classes that TFDS would import for a features.json."""
    names: list[str] = []
    children: list[Any] = []
    if isinstance(tree, list):
        children = tree
    elif isinstance(tree, dict):
        for key in ("pythonClassName", "type"):
            value = tree.get(key)
            if isinstance(value, str) and "." in value:
                names.append(value)
        children = list(tree.values())
    for child in children:
        names += _list_classes(child)
    return names


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

    # TFDS knows the data sets whose builders have been imported, and the name of this one is "digits".
    importlib.import_module("d3pm_jax.data.digits.digits_dataset_builder")
    if not is_name(name):
        raise DatasetError(f"data set {name!r}: a name is like mnist, emnist/letters or emnist/letters:3.1.0")
    if data_dir is not None:
        root = tfds.core.as_path(data_dir).expanduser()
        if not root.exists():
            raise DatasetError(
                f"data directory {root} does not exist: create it (mkdir -p {shlex.quote(str(root))}) or "
                "name another"
            )
        data_dir = str(root)
    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        all_names = tfds.list_builders(with_community_datasets=False)
        similar_names = ", ".join(difflib.get_close_matches(name, all_names, cutoff=0.5))
        raise DatasetError(
            f"unknown data set {name!r}: did you mean one of {similar_names or 'digits, mnist, cifar10'}?"
        ) from None
    except Exception as error:
        raise DatasetError(f"cannot open data set {name!r}: {one_line(error)}") from error


def _keys(name: str, features: Any) -> dict[str, str]:
    """Returns the names of features by "x" and, where the data set has class labels, "label"."""
    import tensorflow_datasets as tfds

    if "image" not in features:
        raise DatasetError(
            f'{name} has no "image" feature (it has {", ".join(features)}): choose an image data set'
        )
    image = features["image"]
    if image.np_dtype != np.uint8 or None in image.shape:
        raise DatasetError(
            f"the images of {name} have shape {image.shape} and type {np.dtype(image.np_dtype)}: "
            "choose a data set of uint8 images of one size"
        )
    keys = {"x": "image"}
    if "label" in features and isinstance(features["label"], tfds.features.ClassLabel):
        keys["label"] = "label"
    return keys


def _prepare(builder: Any) -> None:
    """Writes the data set to its directory in a format with random access."""
    # Without TensorFlow or network TFDS would retry for minutes, and end in a traceback: this fails at once.
    if builder.name != "digits":
        missing = (
            f"{builder.name} is not prepared (looked in {builder.data_dir}; --data.dir is the folder that "
            f"holds {builder.name}/)"
        )
        elsewhere = f"or, on a machine with network and TensorFlow, {_rebuild_advice(builder)}"
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
    reason = "the directory exists but is incomplete"
    try:
        builder.download_and_prepare(file_format=FORMAT)
    except Exception as error:
        cause = error
        reason = one_line(error)
    # Where it is prepared in spite of an error, another process was faster.
    if not builder.is_prepared():
        raise DatasetError(
            f"{builder.name} could not be prepared in {builder.data_dir} ({reason}): remove that "
            "directory if it exists, correct the cause, and run again"
        ) from cause


def _can_connect(url: str) -> bool:
    """Says whether the server of a URL answers within seconds, when it is asked as TFDS asks it."""
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
        choices = ", ".join(f"{key} ({info.num_examples} images)" for key, info in splits.items())
        raise DatasetError(
            f"{builder.name} has no split {split!r}: use {choices}, or a slice such as train[:1000]"
        )
    try:
        return builder.as_data_source(split)
    except NotImplementedError:
        raise DatasetError(
            f"{builder.name} in {builder.data_dir} is stored as {builder.info.file_format.value}, which has "
            f"no random access: {_rebuild_advice(builder)}, where DIR is a new directory"
        ) from None


def _rebuild_advice(builder: Any) -> str:
    """Says how to prepare a data set with the command of TFDS."""
    return f"run `tfds build {builder.name} --file_format={FORMAT} --data_dir=DIR` and pass --data.dir DIR"
