"""Says what is in the folder of a run, and whose it is."""

import contextlib
import dataclasses
import io
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from d3pm_jax.config import Config, check_fields, free_fields, from_data, io as config_io
from d3pm_jax.data import Column, Description, digests
from d3pm_jax.errors import UserError, as_user_error, one_line
from d3pm_jax.files import check_is_file, parse_json
from d3pm_jax.program.storage import checkpoint, lock, manifest, names, run_format

# The parts of the test examples that a run keeps, to sample, export and draw pictures without its data. Their
# names are those of a batch. Labels are kept beside conditions alone.
FILES_OF_EXAMPLES = {"x": names.EXAMPLES, "condition": names.CONDITIONS, "label": names.LABELS}
# The files of results, of which a report shows those of its step.
RESULT = re.compile(rf"({'|'.join(names.RESULTS)})(_.*)?\.json")
FILES = (
    names.CONFIG,
    names.CONFIG_COPY,
    names.FORMAT,
    names.FILES,
    names.DESCRIPTION,
    names.EXAMPLES,
    names.CONDITIONS,
    names.LABELS,
)
REWRITE = "restore it, or without it resume the run with its data, which writes it again"

Content = TypeVar("Content")


class Files(NamedTuple):
    """Says where the files lie that a config names, and what they held when the run was written."""

    directory: Path
    """the working directory, which relative paths start from"""
    hashes: dict[str, str]
    """of files but for data, by the dotted name of their field"""


class SavedRun(NamedTuple):
    """Holds what the folder of a run says of it. It is read once by a command, and passed on."""

    workdir: Path
    config: Config
    files: Files
    description: Description | None  # of its data; None where it was deleted
    settings: Mapping[str, Any]  # of JAX that noise depends on


def read_run(workdir: Path | str, user_config: Path | Config | None = None) -> SavedRun:
    """Reads what the run in a workdir is.

    Args:
        workdir: the folder.
        user_config: the file that defines the parts of the user's own, or a config that has them, if there
            are any. Their copy in the folder is never run.

    Raises:
        UserError: there is no run, what it is cannot be read, or it needs a file that is not given.
    """
    workdir = Path(workdir)
    if workdir.is_file():
        raise UserError(_describe_file(workdir))
    if isinstance(user_config, Path) and not user_config.is_file():
        raise UserError(
            f"no config file {user_config}: pass the Python file that defines the parts of the run"
        )
    check_links(workdir)
    path = workdir / names.CONFIG
    if not path.is_file():
        raise UserError(f"{workdir} holds no run (no {names.CONFIG}): pass the --workdir of a `d3pm train`")
    settings = run_format.read_settings(workdir)
    cure = run_format.CURE
    try:
        tree = parse_json(manifest.read_checked_file(workdir, names.CONFIG, cure) or b"")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not JSON ({one_line(error)}): {cure}") from error
    own_names = config_io.own_names(tree)
    own_parts = None
    if own_names:
        if user_config is None:
            copy = workdir / names.CONFIG_COPY
            if copy.is_file():
                hint = f"a copy is in {copy}"
            else:
                hint = "there is no copy: write its classes to FILE, or pass the config itself to runs.open"
            raise UserError(
                f"the run in {workdir} has parts of its own, {one_line(', '.join(own_names))}: pass the "
                f"file that defines them, --config FILE or runs.open(DIR, FILE); {hint}"
            )
        own_parts = _load_own_parts(workdir, user_config, own_names)
    try:
        config = config_io.from_json(tree, own_parts)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error

    # A project that was moved has its files at the same relative paths. From another folder they are where
    # they were.
    files = _read_files(workdir)
    config = config_io.find_paths(config, (Path.cwd(), files.directory))
    # A description that was deleted is no damage to a run that is resumed: its data gives it again.
    description = None
    if (workdir / names.DESCRIPTION).is_file():
        description = _read_and_load(workdir, names.DESCRIPTION, description_from_json)
    return SavedRun(workdir, config, files, description, settings)


def read_run_to_resume(workdir: Path, user_config: Config) -> SavedRun:
    """Reads what the run in a workdir is that a training goes on with; see `read_run`."""
    if not workdir.is_file() and not (workdir / names.CONFIG).is_file():
        raise UserError(f"{workdir} holds no run to resume: check --workdir, or leave out --resume")
    return read_run(workdir, user_config)


def _describe_file(path: Path) -> str:
    """Says that a file stands where the folder of a run is asked for, and what to pass in its place."""
    if path.name == names.CONFIG:
        return f"{path} is a file of a run, which is a folder: pass {path.parent}"
    if path.suffix == ".safetensors":
        command = f"d3pm import {shlex.quote(str(path))} --workdir DIR"
        return f"{path} is a file of weights, not a run: begin a run by {command}"
    return f"{path} is a file, and a run is a folder: pass the --workdir of a `d3pm train`"


def adopt_numbers(run: SavedRun, config: Config) -> Config:
    """Returns a config with the numbers that a run has in place of "data".

    Raises:
        UserError: the run has another config, or a file of it has changed.
    """
    config = from_data.fill_from_saved(run.config, config)
    check_resume(run.config, config, run.files)
    return config


def check_settings(run: SavedRun) -> None:
    """Raises UserError where settings of JAX would give a run another noise than it has had so far."""
    other_settings = run_format.describe_other_settings(run.settings)
    if other_settings:
        raise UserError(f"the run in {run.workdir} {other_settings}, or start in a new workdir")


def check_links(workdir: Path) -> None:
    """Raises UserError where a run would be read from, or written to, a link, a pipe or a device."""
    files = (*FILES, names.MANIFEST, names.LOCK, names.METRICS, names.LAYOUTS, names.WANDB_ID)
    folders = (names.SAMPLES, names.TENSORBOARD, names.WANDB, names.CHECKPOINTS)
    paths = [workdir / name for name in (*files, *folders)]
    for path in [*paths, *checkpoint.list_folders(workdir / names.CHECKPOINTS)]:
        if path.is_symlink():
            raise UserError(f"{path} is a link to {os.readlink(path)}: replace the link by what it points to")
    for path in paths[: len(files)]:
        with as_user_error(f"{path}: move it away, "):
            check_is_file(path)


def _load_own_parts(
    workdir: Path, user_config: Path | Config, own_names: Sequence[str]
) -> Mapping[str, type]:
    """Returns the user's own parts, if their file is the one that the run was made with.

    Args:
        workdir: of the run.
        user_config: the file that defines the parts, or a config that has them.
        own_names: of the classes of those parts, as the run names them.

    Raises:
        UserError: it is another file.
    """
    file = config_io.own_file(user_config) if isinstance(user_config, Config) else user_config
    copy = workdir / names.CONFIG_COPY

    # Without a manifest the file is held to the copy itself. Where there is neither, nothing says what it
    # was.
    hashes = (manifest.read_manifest(workdir) or {}).get(names.CONFIG_COPY)
    if hashes is None and copy.is_file():
        hashes = [manifest.hash_of(copy.read_bytes())]
    if file and file.is_file() and hashes and manifest.hash_of(file.read_bytes()) not in hashes:
        if copy.is_file():
            original = f"{copy} as it was written"
        else:
            original = f"the file that was copied to {workdir}, where the copy is missing"
        raise UserError(
            f"{file} is not what this run was made with: it differs from {original}; pass --config with the "
            f"file that defines {one_line(', '.join(own_names))} itself, as it was, or start in a new workdir"
        )

    # Only now may it run: the classes come from the user's file, and never from the copy in the folder.
    if isinstance(user_config, Config):
        return config_io.own_parts(user_config)
    return config_io.own_parts(config_io.load_module(user_config))


def describe_saved(run: SavedRun) -> Description:
    """Returns the description of a run's data. Raises UserError where it was deleted."""
    if run.description is None:
        raise UserError(f"{run.workdir / names.DESCRIPTION} is missing: {REWRITE}")
    return run.description


def _read_files(workdir: Path) -> Files:
    """Reads where the files of a run's config lie, and their hashes."""

    def load(content: bytes) -> Files:
        table = parse_json(content)
        directory = table["directory"]
        hashes = table["hashes"]
        if not all(isinstance(text, str) for text in (directory, *hashes.values())):
            raise ValueError("it names no folder, or holds no hashes")
        return Files(Path(directory), hashes)

    files = _read_and_load(workdir, names.FILES, load, run_format.CURE)
    if files is None:
        raise UserError(f"{workdir / names.FILES} is missing: {run_format.CURE}")
    return files


def _read_and_load(
    workdir: Path, name: str, load: Callable[[bytes], Content], cure: str = REWRITE
) -> Content | None:
    """Reads a file of a run and returns what `load` makes of it; None where there is none.

    Raises:
        UserError: it is damaged.
    """
    content = manifest.read_checked_file(workdir, name, cure)
    if content is None:
        return None
    try:
        return load(content)
    except Exception as error:
        # NumPy reads the header of an array with the parser of Python, which raises errors of many classes.
        raise UserError(f"{workdir / name} cannot be read ({one_line(error)}): {cure}") from error


def check_description(run: SavedRun, description: Description) -> None:
    """Raises UserError where the data to go on with has another description than that of the run."""
    # One that was deleted is written again.
    saved = run.description
    if saved is None:
        return
    check_digest(run.workdir, description, saved)
    for field in dataclasses.fields(Description):
        # A run without a digest gets that of its data when it goes on.
        if field.name == "digest":
            continue
        value = getattr(description, field.name)
        saved_value = getattr(saved, field.name)
        if value != saved_value:
            raise UserError(
                f"the data has {field.name} = {one_line(repr(value))}, but the run in {run.workdir} has "
                f"{one_line(repr(saved_value))}: use the data it had"
            )


def check_digest(workdir: Path, description: Description, saved: Description) -> None:
    """Raises UserError where the content of a run's data has changed.

    Args:
        workdir: of the run.
        description: of the data now.
        saved: of the data when the run began.
    """
    if saved.digest is None or saved.digest == description.digest:
        return
    if saved.symbols is not None:
        raise UserError(
            f"the text or its tokenizer has changed since the run in {workdir}: use those it had, or start "
            f"in a new workdir"
        )
    saved_hashes = digests.split_digest(saved.digest)
    hashes = digests.split_digest(description.digest)
    # A valid split may be added or left out when a run goes on.
    common_splits = [split for split in saved_hashes if split in hashes]
    changed_splits = [split for split in common_splits if saved_hashes[split] != hashes[split]]
    if common_splits and not changed_splits:
        return
    subject = "the data"
    if any(changed_splits):
        subject = f"the {' and '.join(changed_splits)} data"
    raise UserError(
        f"{subject} has changed since the run in {workdir}: use the data it had, or start in a new workdir"
    )


def description_from_json(content: bytes) -> Description:
    """Returns the description that `dataclasses.asdict` made JSON of.

    Raises:
        ValueError, TypeError, UserError: it is damaged.
    """
    tree = parse_json(content)
    if not isinstance(tree, dict):
        raise ValueError("it is not a table of fields")
    # JSON has lists where a description has tuples.
    fields = _as_tuples(tree)
    if fields.get("columns") is not None:
        fields["columns"] = tuple(Column(**column) for column in fields["columns"])
    description = Description(**fields)
    check_fields("", description)
    return description


def _as_tuples(node: Any) -> Any:
    """Returns what JSON holds with tuples in place of lists, at every depth."""
    if isinstance(node, dict):
        return {name: _as_tuples(value) for name, value in node.items()}
    if isinstance(node, list):
        return tuple(map(_as_tuples, node))
    return node


def read_examples(workdir: Path, description: Description) -> dict[str, np.ndarray] | None:
    """Reads the test examples that the run keeps.

    Returns:
        "x" int32 [N, *S], where -1 is padding; where the data has conditions also "condition" [N, *C], and
        "label" int32 [N] if it has classes. None in a run that began from weights alone, or
        keeps none.

    Raises:
        UserError: a file is damaged.
    """
    expected = {"x": (description.shape, "int32")}
    if description.condition is not None:
        expected["condition"] = (description.condition, description.condition_type)
        if description.classes is not None:
            expected["label"] = ((), "int32")

    examples: dict[str, np.ndarray] = {}
    for name, (shape, dtype) in expected.items():

        def load(content: bytes, name: str = name, shape: tuple = shape, dtype: str = dtype) -> np.ndarray:
            array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
            if array.dtype != dtype or array.ndim == 0 or array.shape[1:] != shape or len(array) == 0:
                raise ValueError(f"it holds {array.dtype} {list(array.shape)}")
            if name == "x":
                _check_categories(array, description)
            return array

        array = _read_and_load(workdir, FILES_OF_EXAMPLES[name], load)
        if array is None:
            return None
        examples[name] = array
    return examples


def _check_categories(x: np.ndarray, description: Description) -> None:
    """Raises ValueError unless examples are of the categories of the data, or padding, which is -1."""
    least = -1 if description.padded else 0
    if x.min() < least or x.max() >= description.categories:
        raise ValueError(f"it holds {x.min()}..{x.max()}, of {description.categories} categories")
    if description.sizes is not None and np.any(x >= description.place_sizes):
        raise ValueError("it holds categories that their places do not have")


def write_run(
    workdir: Path,
    config: Config,
    description: Description,
    examples: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Writes what a run is: its config, a copy of the file of the user's own parts, what its data is.

    Args:
        workdir: the folder.
        config: for `read_run`.
        description: of its data.
        examples: of its test split, for `read_examples`.

    Raises:
        OSError: it cannot be written.
    """
    _write_contents(workdir, config, _make_contents(config, description, examples or {}))


def _write_contents(workdir: Path, config: Config, contents: Mapping[str, bytes]) -> None:
    """Writes the files of a run, and says where classes of the user's own are in none of them."""
    classes_without_file = config_io.own_classes_without_file(config)
    if classes_without_file:
        command = f"d3pm eval {shlex.quote(str(workdir))} --config own.py"
        print(
            f"note: {', '.join(classes_without_file)} are defined in no file, and opening this run "
            "later needs one: write them to own.py (in a notebook by a cell that begins with "
            f"%%writefile own.py), and pass it, as in runs.open({str(workdir)!r}, 'own.py') or "
            f"{command}",
            file=sys.stderr,
            flush=True,
        )
    manifest.replace_files(workdir, contents)


def _make_contents(
    config: Config, description: Description, examples: Mapping[str, np.ndarray]
) -> dict[str, bytes]:
    """Makes the content of each file that `write_run` writes, in this order."""
    contents: dict[str, bytes] = {}
    config_file = config_io.own_file(config)
    text = config_io.dump_config(config)
    if config_file is not None:
        contents[names.CONFIG_COPY] = config_file.read_bytes()
    files = {"directory": str(Path.cwd()), "hashes": _hash_files(config)}
    contents[names.FORMAT] = run_format.dump_format()
    contents[names.FILES] = json.dumps(files, indent=1).encode()
    contents[names.DESCRIPTION] = json.dumps(dataclasses.asdict(description), indent=2).encode()
    for name, array in examples.items():
        content = io.BytesIO()
        np.save(content, array)
        contents[FILES_OF_EXAMPLES[name]] = content.getvalue()

    # Files are written in this order, and a folder without a config is no run. So the config comes last: a
    # process that is killed in between leaves nothing that could be resumed with a part of its files.
    contents[names.CONFIG] = text.encode()
    return contents


def may_change(config: Config) -> set[str]:
    """Lists the fields that may change when a run is resumed, by dotted name; a part is all that is in it."""
    parts = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    changeable = {name: free_fields(type(part)) for name, part in parts.items()}
    changeable["data"] = config.data.places
    changeable["optimizer"] = config.optimizer.may_change
    fields_of_parts = {f"{part}.{field}" for part, fields in changeable.items() for field in fields}
    return {*fields_of_parts, *free_fields(type(config))}


def _hash_files(config: Config) -> dict[str, str]:
    """Hashes the files of fields that may not change, by dotted name; one that is not there has no hash."""
    hashes = {}
    for name, path in config_io.list_files(config).items():
        # The folder of a run may be anybody's, and a pipe that it names would never end.
        file = Path(path)
        if file.is_file() and not _is_among(name, may_change(config)):
            with contextlib.suppress(OSError):
                hashes[name] = digests.hash_content(file)
    return hashes


def _is_among(name: str, fields: set[str]) -> bool:
    """Says whether a dotted name is that of one of these fields, or of what is in one."""
    # Names end with a dot, so that no field stands for another that begins alike.
    return f"{name}.".startswith(tuple(f"{field}." for field in fields))


def check_resume(old: Config, new: Config, old_files: Files | None = None) -> None:
    """Refuses to go on with another config than the run was started with.

    Args:
        old: the config of the run.
        new: the config to go on with.
        old_files: of the run; by default its files held what they hold now, where they are there.

    Raises:
        UserError: naming the fields that differ, or a file that has changed.
    """
    # A file is what it holds, wherever it lies: a relative path is another one from another folder.
    old_hashes = _hash_files(old) if old_files is None else old_files.hashes
    changes = {
        name: f"{name} was {old_value}, is {new_value}"
        for name, (old_value, new_value) in config_io.differences(old, new).items()
        if not _is_among(name, may_change(new))
    }
    for name, content_hash in _hash_files(new).items():
        if old_hashes.get(name) == content_hash:
            changes.pop(name, None)
        elif name in old_hashes and name not in changes:
            raise UserError(
                f"{config_io.list_files(new)[name]}, the file of {name}, has changed since the run began: "
                "use the one it had, or start in a new workdir"
            )
    if changes:
        cure = (
            "pass --resume without a config or these, or start in a new workdir (--from RUN begins with the "
            "weights of this one)"
        )
        raise UserError(f"cannot resume with another config ({', '.join(changes.values())}): {cure}")


def check_is_no_file(workdir: Path) -> None:
    """Raises UserError where a file stands in the place of a folder to write, or of a folder above it."""
    for path in (workdir, *workdir.parents):
        if path.is_file():
            raise UserError(
                f"cannot write to {workdir}: {path} is a file, not a folder; pass another --workdir"
            )


def explain_folder(folder: Path) -> str:
    """Returns the message of a folder that was passed as a file of weights, with how a run gives one."""
    # Folders of other programs have a file config.json too.
    if (folder / names.CONFIG).is_file() and (folder / names.CHECKPOINTS).is_dir():
        words = shlex.join(["d3pm", "export", str(folder), "--to", "torch"])
        return f"{folder} is a folder: pass the file that {words} writes"
    return f"{folder} is a folder: pass the file of weights"


def check_empty(workdir: Path, cure: str = "pass another --workdir") -> None:
    """Raises UserError where a new run in a folder would replace what is there, or be written through links.

    A config alone is of a run that was stopped before its first checkpoint, and a step 0 alone of one that
    was killed while it began from weights: neither is a run yet. Other checkpoints, logs and results are
    somebody's work.
    """
    check_is_no_file(workdir)
    check_links(workdir)
    saved_steps = checkpoint.list_steps(workdir / names.CHECKPOINTS)
    has_config = (workdir / names.CONFIG).exists()
    if saved_steps and has_config:
        raise UserError(f"{workdir} holds a run already: {cure}")
    if saved_steps and saved_steps != [0]:
        raise UserError(
            f"{workdir} holds checkpoints but no {names.CONFIG}: restore it, or pass another --workdir"
        )
    written = manifest.read_manifest(workdir)
    if has_config and names.CONFIG not in (written or {}):
        raise UserError(f"{workdir / names.CONFIG} is not the config of a run: pass another --workdir")
    # A run writes its manifest before its checkpoints and logs, but for a step 0.
    if written is None:
        foreign = [workdir / name for name in (names.METRICS, names.LAYOUTS) if (workdir / name).exists()]
        unfinished = checkpoint.list_folders(workdir / names.CHECKPOINTS)
        foreign += [path for path in unfinished if path.name.split(".")[0] != "0"]
        if foreign:
            raise _foreign_error(foreign[0])
    else:
        _check_has_no_results(workdir)


def _foreign_error(path: Path) -> UserError:
    """Returns the error of a file or folder that no run wrote and a new one would replace."""
    return UserError(f"{path} would be replaced, and is not of a run: pass another --workdir")


def _check_has_no_results(workdir: Path) -> None:
    """Raises UserError where a run has left results, which a report would take for those of a new one."""
    for path in sorted(workdir.glob("*.json")):
        if RESULT.fullmatch(path.name):
            raise UserError(
                f"{path} is a result of the run that was here, whose checkpoints are gone: move its results "
                "away, or pass another --workdir"
            )


def _check_replaces_nothing(workdir: Path, contents: Mapping[str, bytes]) -> None:
    """Raises UserError where a new run would replace a file, by another content, that no run wrote."""
    written = manifest.read_manifest(workdir) or {}
    for name, content in contents.items():
        path = workdir / name
        is_foreign = path.exists() and name not in written
        if is_foreign and (not path.is_file() or path.read_bytes() != content):
            raise _foreign_error(path)


def clear_unfinished_start(workdir: Path) -> None:
    """Deletes the step 0 of a process that was killed before it wrote the config.

    Raises:
        UserError: the folder holds a run, or links that a run would be written through: see `check_empty`.
    """
    check_empty(workdir, "pass --resume alone to go on (in Python resume=True), or another --workdir")
    checkpoint.delete_checkpoint(workdir / names.CHECKPOINTS / "0")


def claim_folder(
    config: Config,
    workdir: Path,
    holds_run: bool,
    description: Description,
    examples: Mapping[str, np.ndarray],
) -> None:
    """Claims a folder for this run, unless another run is in it, and writes what the run is.

    Args:
        config: of the run.
        workdir: the folder, whose lock the caller holds.
        holds_run: whether the folder holds the run already.
        description: of its data.
        examples: of its test split, for `read_examples`.

    Raises:
        UserError: it holds a run, one that is further than this goes, or cannot be written to.
    """
    if not holds_run:
        clear_unfinished_start(workdir)
    saved_steps = checkpoint.list_steps(workdir / names.CHECKPOINTS)
    if saved_steps and saved_steps[-1] > config.train.steps:
        raise UserError(f"the run is at step {saved_steps[-1]} already: set train.steps to that or more")
    try:
        contents = _make_contents(config, description, examples)
        if not holds_run:
            _check_replaces_nothing(workdir, contents)
        (workdir / names.CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        _write_contents(workdir, config, contents)
    except OSError as error:
        raise lock.cannot_write_error(workdir, error) from error
