"""Reads the data of a run, after a check that it is still the data that the run was trained on."""

from pathlib import Path

import numpy as np

from d3pm_jax import data
from d3pm_jax.errors import UserError
from d3pm_jax.kinds import Split
from d3pm_jax.parts.build import Parts
from d3pm_jax.storage import run_folder


def open_split(parts: Parts, workdir: Path, split: str) -> data.Source:
    """Opens a split of the data of the run in a folder.

    Raises:
        UserError: the data cannot be read, or its digest is not the one that the run recorded.
    """
    spec = parts.config.data
    recorded = parts.description
    try:
        if recorded.digest is not None:
            run_folder.check_digest(workdir, spec.describe(), recorded)
        return spec.open(split)
    except data.DatasetError as error:
        raise UserError(f"{error}{parts.kind.where_it_lies}") from error


def open_whole(parts: Parts, workdir: Path, split: str) -> Split:
    """Opens a split of the data, for a kind to read as often as it likes; see `open_split`."""
    return Split(open_split(parts, workdir, split), parts.categories, parts.description)


def read_batch(parts: Parts, workdir: Path, split: str, limit: int | None = None) -> dict[str, np.ndarray]:
    """Reads examples of the data: "x" [N, *S], and "label" [N], "weight" and "condition" if any.

    Raises:
        UserError: the data cannot be read.
    """
    return open_whole(parts, workdir, split).read(limit)


def read_last(parts: Parts, workdir: Path, split: str, n: int) -> dict[str, np.ndarray]:
    """Reads the last n examples of a split, or all if there are fewer; see `read_batch`."""
    source = open_split(parts, workdir, split)
    last = data.Part(source, max(0, len(source) - n), len(source))
    return data.read_batch(last, parts.categories, None, parts.description)


def read_split(
    parts: Parts, workdir: Path, split: str, limit: int | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Reads examples of the data [N, *S], and their labels if there are any.

    Raises:
        UserError: the data cannot be read, or has weights, which `read_batch` gives.
    """
    return open_whole(parts, workdir, split).read_unweighted(limit)
