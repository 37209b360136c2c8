"""Commands where spaces, quotes and letters outside of ASCII are in every name of a folder or file."""

import re
import shlex
import tempfile
from pathlib import Path

import pytest

from d3pm_jax.program.storage import checkpoint
from d3pm_jax.program.storage.run_folder import read_run
from tests.cli.commands import CONFIG, error, status

pytestmark = pytest.mark.usefixtures("small_network")

ODD = """ä "b" 'c' d"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An odd folder, in which temporary files are as well, the home, the data and a config in UTF-8."""
    folder = tmp_path / ODD
    for name, variable in (("tmp", "TMPDIR"), ("home", "HOME")):
        (folder / f"{name} {ODD}").mkdir(parents=True)
        monkeypatch.setenv(variable, str(folder / f"{name} {ODD}"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (folder / f"data {ODD}").mkdir()
    source = Path(CONFIG).read_text(encoding="utf-8")
    (folder / f"config {ODD}.py").write_text(f"# {ODD}\n{source}", encoding="utf-8")
    return folder


def test_every_command_takes_odd_names(folder, capsys):
    config = folder / f"config {ODD}.py"
    data = folder / f"data {ODD}"
    run = folder / f"run {ODD}"
    weights = folder / f"weights {ODD}.safetensors"
    noise = folder / f"noise {ODD}.array_record"
    page = folder / f"page {ODD}.html"

    assert status("train", config, "--workdir", run, "--data.dir", data, "--train.steps", "4") == 0
    assert read_run(run).config.data.dir == str(data)
    assert status("train", "--workdir", run, "--resume", "--train.steps", "8") == 0
    assert checkpoint.list_steps(run / "checkpoints") == [4, 8]
    assert status("eval", run, "--limit", "4") == 0
    assert status("sample", run, "--num", "2") == 0
    assert status("export", run, "--to", "torch", "--out", weights) == 0
    assert status("report", run, "--out", page) == 0
    assert ODD.replace('"', "&quot;").replace("'", "&#x27;") in page.read_text(encoding="utf-8")
    assert status("import", weights, "--workdir", folder / f"imported {ODD}") == 0

    capsys.readouterr()
    steps = ["--steps", "1", "--data.dir", data]
    assert status("presample", config, *steps, "--out", noise) == 0
    printed = capsys.readouterr().out
    command = shlex.split(re.search(r"^train with it: d3pm (.*)$", printed, re.M)[1])
    assert command[command.index("--train.noise") + 1] == str(noise)


def test_a_command_in_a_message_is_that_of_the_odd_names(folder, capsys):
    run = folder / f"run {ODD}"
    run.mkdir()
    (run / "config.json").touch()
    message = error(capsys, "train", run / "config.json")
    command = re.search(r"resume this one by d3pm (train .*)\n", message)[1]
    assert shlex.split(command) == ["train", "--workdir", str(run), "--resume"]

    nowhere = folder / f"none {ODD}"
    options = ["--workdir", folder / "w", "--data.dir", nowhere]
    message = error(capsys, "train", folder / f"config {ODD}.py", *options)
    command = re.search(r"create it \((.*)\) or name another", message)[1]
    assert shlex.split(command) == ["mkdir", "-p", str(nowhere)]
