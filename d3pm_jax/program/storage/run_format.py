"""Says in which format the folder of a run is written, by what, and under which settings of JAX."""

import contextlib
import functools
import importlib.metadata
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from d3pm_jax import __version__
from d3pm_jax.errors import UserError, one_line
from d3pm_jax.files import parse_json
from d3pm_jax.program.storage import manifest, names

# A change of what the files of a run hold, after which other versions misread them, takes the next number.
NUMBER = 2
CURE = "restore it, or start again in a new workdir"
# Settings of JAX that decide what a key draws, besides its kind, which is that of `keys`.
SETTINGS = ("jax_enable_x64", "jax_threefry_partitionable", "jax_random_seed_offset")
READER = f"this d3pm_jax {__version__} reads format {NUMBER}"


def dump_format() -> bytes:
    """Returns the file that says the format of a run, what writes it, and under which settings of JAX."""
    content = {
        "format": NUMBER,
        "version": __version__,
        "commit": find_commit(),
        "settings": {name: getattr(jax.config, name) for name in SETTINGS},
    }
    return json.dumps(content, indent=1).encode()


def read_settings(workdir: Path) -> dict[str, Any]:
    """Reads the settings of JAX that a run was written under, {} of an earlier version.

    Raises:
        UserError: the run does not have the format that this version reads, or does not say it.
    """
    path = workdir / names.FORMAT
    content = manifest.read_checked_file(workdir, names.FORMAT, CURE)
    if content is None:
        raise UserError(
            f"the run in {workdir} does not say its format, nor what wrote it (no {names.FORMAT}): {READER}; "
            f"{CURE}"
        )
    try:
        table = parse_json(content)
        number = table["format"]
        if type(number) is not int:
            raise ValueError("its format is no number")
        writer = f"d3pm_jax {one_line(table['version'], 40)}"
        if table.get("commit") is not None:
            writer += f" (commit {one_line(table['commit'], 40)})"
        settings = dict(table.get("settings", {}))
    except (ValueError, TypeError, LookupError) as error:
        raise UserError(f"{path} cannot be read ({one_line(error)}): {CURE}") from error
    if number != NUMBER:
        raise UserError(
            f"the run in {workdir} has format {number}, written by {writer}: {READER}; open it with what "
            "wrote it, or start again in a new workdir"
        )
    return settings


def describe_other_settings(settings: Mapping[str, Any]) -> str:
    """Says under which settings of JAX a run was written that are others now, and the cure; "" for none."""
    others = [name for name in SETTINGS if settings.get(name) not in (None, getattr(jax.config, name))]
    if not others:
        return ""
    was = ", ".join(f"{name} = {settings[name]}" for name in others)
    now = ", ".join(str(getattr(jax.config, name)) for name in others)
    cure = " ".join(f"{name.upper()}={settings[name]}" for name in others)
    return f"was written under {was}, which is {now} here, and noise depends on it: set {cure}"


@functools.cache
def find_commit() -> str | None:
    """Returns the commit of this library, where its checkout or its installation says it; else None."""
    home = Path(__file__).parents[3]
    if (home / ".git").exists():
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = ["git", "-C", str(home), "rev-parse", "HEAD"]
            return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
    # pip writes what it installed from: https://packaging.python.org/en/latest/specifications/direct-url/
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        source = importlib.metadata.distribution("d3pm-jax").read_text("direct_url.json")
        if source is not None:
            return json.loads(source).get("vcs_info", {}).get("commit_id")
    return None
