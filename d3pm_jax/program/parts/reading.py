"""Reads the data of a run, after a check that it is still the data that the run was trained on."""

import sys
from pathlib import Path

import numpy as np

from d3pm_jax import data
from d3pm_jax.config.data import check_split_of, hash_split, open_examples, say_where_it_lies
from d3pm_jax.data.digests import split_digest
from d3pm_jax.errors import UserError
from d3pm_jax.kinds import Split
from d3pm_jax.program.machine import cluster
from d3pm_jax.program.parts.build import Parts
from d3pm_jax.program.storage import run_folder


def open_split(parts: Parts, workdir: Path, split: str) -> data.Source:
    """Opens a split of the data of the run in a folder.

    Raises:
        UserError: there is no such split, the data cannot be read, or it is a text whose digest is not the
            one that the run recorded.
    """
    spec = parts.config.data
    check_split_of(spec, split)
    try:
        _check_content(parts, workdir, split)
        return open_examples(spec, split)
    except data.DatasetError as error:
        raise UserError(say_where_it_lies(spec, str(error))) from error


def _check_content(parts: Parts, workdir: Path, split: str) -> None:
    """Checks that a split is what the run recorded, where it did: prints a line where it is not.

    Raises:
        UserError: the digest is one of all of the data, as that of a text, and has changed: categories may
            mean something else now.
    """
    spec = parts.config.data
    recorded_hashes = split_digest(parts.description.digest)
    if "" in recorded_hashes:
        run_folder.check_digest(workdir, spec.describe(), parts.description)
        return
    recorded_hash = recorded_hashes.get(split)
    if recorded_hash is None or hash_split(spec, split) == recorded_hash:
        return
    if cluster.is_first():
        print(
            f"warning: the {split} data has changed since the run in {workdir}: figures are of the data "
            "as it is now, and not comparable with earlier ones",
            file=sys.stderr,
        )


def open_whole(parts: Parts, workdir: Path, split: str) -> Split:
    """Opens a split of the data, for a kind to read as often as it likes; see `open_split`."""
    return Split(open_split(parts, workdir, split), parts.recipe.categories, parts.description)


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
    return data.read_batch(last, parts.recipe.categories, None, parts.description)
