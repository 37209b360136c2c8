"""Commands in messages, which a user copies: their paths are quoted as a shell wants them."""

import dataclasses
import re
import shlex
from pathlib import Path

import pytest

from d3pm_jax.errors import UserError
from d3pm_jax.program.loop import presampled
from d3pm_jax.program.storage import run_folder
from d3pm_jax.runs import exported
from tests import tiny
from tests.config.test_own_data import Shards


def test_paths_of_commands_are_quoted(tmp_path, monkeypatch, capsys):
    file = tmp_path / "my weights.safetensors"
    file.write_text("no weights")
    command = re.escape(f"d3pm import {shlex.quote(str(file))}")
    with pytest.raises(UserError, match=f"begin a run by {command} --workdir DIR$"):
        run_folder.read_run(file)

    monkeypatch.setattr(exported.twin, "read_metadata", lambda file: {})
    with pytest.raises(UserError, match=f"as in {command} CONFIG --workdir DIR"):
        exported.read_config(file)
    monkeypatch.setattr(exported.twin, "read_metadata", lambda file: {"data": "junk"})
    with pytest.raises(UserError, match=f"as in {command} CONFIG --workdir DIR"):
        exported.read_description(file)

    monkeypatch.setattr(presampled, "describe_noise", lambda parts: {})
    monkeypatch.chdir(tmp_path)
    noise = Path("my noise")
    with pytest.raises(UserError, match=r"write it with d3pm presample CONFIG --out 'my noise', or train"):
        presampled.open_noise(object.__new__(presampled.Parts), noise)

    monkeypatch.setattr(run_folder.config_io, "own_file", lambda config: None)
    monkeypatch.setattr(run_folder.config_io, "own_classes_without_file", lambda config: ["Shards"])
    config = dataclasses.replace(tiny.get_config(), data=Shards())
    workdir = tmp_path / "my run"
    workdir.mkdir()
    run_folder.write_run(workdir, config, tiny.DIGITS)
    assert f"or d3pm eval {shlex.quote(str(workdir))} --config own.py" in capsys.readouterr().err
