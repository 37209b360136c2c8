"""Says what is in the folder of a run, and whose it is."""

import dataclasses
import io
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from d3pm_jax.config import Config, from_data, io as config_io
from d3pm_jax.config.checks import check_fields, free_fields
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError, one_line
from d3pm_jax.files import parse_json
from d3pm_jax.storage import checkpoint, lock, manifest, names
from d3pm_jax.storage.names import CHECKPOINTS, CONFIG, CONFIG_COPY, DESCRIPTION, EXAMPLES

NUM_EXAMPLES = 64  # of the test split
FILES = (CONFIG, CONFIG_COPY, DESCRIPTION, EXAMPLES)
REWRITE = "restore it, or without it resume the run with its data, which writes it again"

Kept = TypeVar("Kept")


def read_config(workdir: Path, own: Path | Config | None = None) -> Config:
    """Reads the config of the run in a workdir.

    Args:
        workdir: the folder.
        own: the file that defines the parts of the user's own, or a config that has them, if there are any.
            Their copy in the folder is never run.

    Raises:
        UserError: there is no run, its config cannot be read, or it needs a file that is not given.
    """
    check_links(workdir)
    path = workdir / CONFIG
    if not path.is_file():
        raise UserError(f"{workdir} holds no run (no {CONFIG}): pass the --workdir of a `d3pm train`")
    cure = "restore it, or start again in a new workdir"
    try:
        tree = parse_json(manifest.read_checked_file(workdir, CONFIG, cure) or b"")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not JSON ({one_line(error)}): {cure}") from error
    names = config_io.own_names(tree)
    if names and own is None:
        raise UserError(
            f"the run in {workdir} has parts of its own, {one_line(', '.join(names))}: pass the file that "
            f"defines them, --config FILE; a copy is in {workdir / CONFIG_COPY}"
        )
    parts = _own_parts(workdir, own) if names and own else None
    try:
        return config_io.from_json(tree, parts)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def prepare_resume(workdir: Path, config: Config, description: Description) -> Config:
    """Returns the config to go on with: the given one, with a run's numbers in place of "data".

    Raises:
        UserError: there is no run, or it has another config or other data.
    """
    if not (workdir / CONFIG).is_file():
        raise UserError(f"{workdir} holds no run to resume: check --workdir, or leave out --resume")
    before = read_config(workdir, config)
    config = from_data.fill_from_saved(before, config)
    check_resume(before, config)
    check_description(workdir, description)
    return config


def check_links(workdir: Path) -> None:
    """Raises UserError where a run would be read from, or written to, a place outside its folder."""
    folders = (names.SAMPLES, names.TENSORBOARD, names.WANDB, CHECKPOINTS)
    files = (*FILES, names.MANIFEST, names.LOCK, names.METRICS, names.LAYOUTS, names.WANDB_ID)
    inside = (*files, *folders)
    for path in (*(workdir / name for name in inside), *checkpoint.list_folders(workdir / CHECKPOINTS)):
        if path.is_symlink():
            raise UserError(f"{path} is a link to {os.readlink(path)}: put what it leads to in its place")


def _own_parts(workdir: Path, own: Path | Config) -> Mapping[str, type]:
    """Returns the user's own parts, if their file is the one that the run was made with."""
    copy, file = workdir / CONFIG_COPY, config_io.own_file(own) if isinstance(own, Config) else own
    hashes = (manifest.read_manifest(workdir) or {}).get(CONFIG_COPY)
    if hashes is None and copy.is_file():
        hashes = [manifest.hash_of(copy.read_bytes())]
    if file and file.is_file() and hashes and manifest.hash_of(file.read_bytes()) not in hashes:
        raise UserError(
            f"{file} is not what this run was made with: it differs from {copy} as it was written; pass "
            f"--config with a file that is the same, or start in a new workdir"
        )
    return config_io.own_parts(own if isinstance(own, Config) else config_io.load_module(own))


def read_description(workdir: Path) -> Description | None:
    """Reads what the data of a run is; None in a run of before it was kept.

    Raises:
        UserError: it cannot be read.
    """
    return _read_kept(workdir, DESCRIPTION, description_from_json)


def _read_kept(workdir: Path, name: str, load: Callable[[bytes], Kept]) -> Kept | None:
    """Returns what a file holds, or None where there is none. Raises UserError where it is damaged."""
    content = manifest.read_checked_file(workdir, name, REWRITE)
    if content is None:
        return None
    try:
        return load(content)
    except Exception as error:  # also of the parser of Python, which NumPy reads a header with
        raise UserError(f"{workdir / name} cannot be read ({one_line(error)}): {REWRITE}") from error


def check_description(workdir: Path, description: Description) -> None:
    """Raises UserError where the data of a run to go on with is another than it was."""
    there = (workdir / DESCRIPTION).is_file()  # else it is written again
    before = read_description(workdir) if there else None
    check_digest(workdir, description, before)
    for field in dataclasses.fields(Description) if before else ():
        now, then = getattr(description, field.name), getattr(before, field.name)
        if now != then:
            raise UserError(
                f"the data has {field.name} = {one_line(repr(now))}, but the run in {workdir} has "
                f"{one_line(repr(then))}: use the data it had"
            )


def check_digest(workdir: Path, now: Description, before: Description | None) -> None:
    """Raises UserError where it is known that the data of a run is made of something else than it was."""
    if before is not None and before.digest is not None and before.digest != now.digest:
        raise UserError(
            f"the text or its tokenizer has changed since the run in {workdir}: use those it had, or start "
            f"in a new workdir"
        )


def description_from_json(content: bytes) -> Description:
    """Returns the description that `dataclasses.asdict` made JSON of.

    Raises:
        ValueError, TypeError, UserError: it is damaged.
    """
    tree = parse_json(content)
    if not isinstance(tree, dict):
        raise ValueError("it is no table of fields")
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in tree.items()}
    description = Description(**fields)
    check_fields("", description)
    return description


def read_examples(workdir: Path, description: Description) -> np.ndarray | None:
    """Reads the test examples that the run keeps, int32 [N, *S], where -1 is padding.

    Returns:
        The examples; None in a run that began from weights alone.

    Raises:
        UserError: the file is damaged.
    """

    def load(content: bytes) -> np.ndarray:
        x = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
        if x.dtype != np.int32 or x.shape != (len(x), *description.shape) or not len(x):
            raise ValueError(f"it holds {x.dtype} {list(x.shape)}")
        if x.min() < -description.padded or x.max() >= description.categories:
            raise ValueError(f"it holds {x.min()}..{x.max()}, of {description.categories} categories")
        return x

    return _read_kept(workdir, EXAMPLES, load)


def write_run(
    workdir: Path, config: Config, description: Description, examples: np.ndarray | None = None
) -> None:
    """Writes what a run is: its config, a copy of the file of the user's own parts, what its data is.

    Args:
        workdir: the folder.
        config: for `read_config`.
        description: for `read_description`.
        examples: int32 [N, *S], for `read_examples`.

    Raises:
        OSError: it cannot be written.
    """
    own, contents = config_io.own_file(config), {}
    if own is not None:
        contents[CONFIG_COPY] = own.read_bytes()
    contents[DESCRIPTION] = json.dumps(dataclasses.asdict(description), indent=2).encode()
    if examples is not None:
        np.save(array := io.BytesIO(), examples)
        contents[EXAMPLES] = array.getvalue()
    contents[CONFIG] = config_io.dump_config(config).encode()  # last: nothing goes on with a part of a run
    manifest.replace_files(workdir, contents)


def may_change(config: Config) -> set[str]:
    """Lists the fields that may change when a run is resumed, by dotted name; a part is all that is in it."""
    parts = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    free = {name: free_fields(type(part)) for name, part in parts.items()}
    free["data"] = config.data.places
    free["optimizer"] = config.optimizer.may_change
    return {f"{part}.{field}" for part, fields in free.items() for field in fields}


def check_resume(old: Config, new: Config) -> None:
    """Refuses to go on with another config than the run was started with.

    Raises:
        UserError: naming the fields that differ.
    """
    free = tuple(f"{name}." for name in may_change(new))
    differ = config_io.differences(old, new).items()
    changed = {k: v for k, v in differ if not f"{k}.".startswith(free)}
    if changed:
        listed = ", ".join(f"{k} was {a}, is {b}" for k, (a, b) in changed.items())
        cure = "pass --resume without a config or these, or start in a new workdir"
        raise UserError(f"cannot resume with another config ({listed}): {cure}")


def check_empty(workdir: Path, cure: str = "pass another --workdir") -> None:
    """Raises UserError where a folder holds a run, or links that a run would be written through.

    A config alone is of a run that was stopped before its first checkpoint, and a step 0 alone of one that
    was killed while it began from weights: neither is a run yet. Other checkpoints are somebody's work.
    """
    check_links(workdir)
    begun, config = checkpoint.list_steps(workdir / CHECKPOINTS), (workdir / CONFIG).exists()
    if begun and config:
        raise UserError(f"{workdir} holds a run already: {cure}")
    if begun and begun != [0]:
        raise UserError(f"{workdir} holds checkpoints but no {CONFIG}: restore it, or pass another --workdir")
    if config and CONFIG not in (manifest.read_manifest(workdir) or {}):
        raise UserError(f"{workdir / CONFIG} is of no run: pass another --workdir")


def clear_unfinished_start(workdir: Path) -> None:
    """Does what `check_empty` does, and deletes the step 0 of a process that was killed before the config."""
    check_empty(workdir, "pass --resume alone to go on, or another --workdir")
    checkpoint.delete_checkpoint(workdir / CHECKPOINTS / "0")


def claim_folder(
    config: Config, workdir: Path, resume: bool, description: Description, examples: np.ndarray
) -> None:
    """Makes workdir this run's, without touching another's, and writes what the run is.

    Raises:
        UserError: it holds a run, one that is further than this goes, or cannot be written to.
    """
    if not resume:
        clear_unfinished_start(workdir)
    begun = checkpoint.list_steps(workdir / CHECKPOINTS)
    if begun and begun[-1] > config.train.steps:
        raise UserError(f"the run is at step {begun[-1]} already: set train.steps to that or more")
    try:
        (workdir / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        write_run(workdir, config, description, examples)
    except OSError as error:
        raise lock.cannot_write_error(workdir, error) from error
