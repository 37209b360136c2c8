"""Where data lies now, said to every command in one way, and relative paths in a config file."""

import dataclasses
import re
import shutil
import sys

import numpy as np
import pytest

from d3pm_jax import config as configs, runs
from d3pm_jax.cli import arguments, eval, export_weights, main, reading, report, sample, train
from d3pm_jax.config import io as config_io
from d3pm_jax.config.data import move_data
from d3pm_jax.errors import UserError
from d3pm_jax.program.loop import loop
from d3pm_jax.program.storage import run_folder
from tests import tiny
from tests.cli.commands import error, status

X = np.arange(20 * 64).reshape(20, 8, 8, 1) % 17
pytestmark = pytest.mark.usefixtures("small_network")


def write_arrays(folder):
    folder.mkdir(parents=True)
    for name, x in (("train", X), ("test", X[:6])):
        np.save(folder / f"{name}.npy", x)


@pytest.fixture
def run(tmp_path):
    """A run on arrays that lie elsewhere by now, in tmp_path / "now"."""
    write_arrays(tmp_path / "before")
    paths = [str(tmp_path / "before" / name) for name in ("train.npy", "test.npy")]
    config = dataclasses.replace(tiny.get_config(), data=configs.Arrays(*paths, 17, "image"))
    tiny.write_run(tmp_path / "run", config, description=config.data.describe())
    shutil.move(tmp_path / "before", tmp_path / "now")
    return tmp_path / "run"


def test_every_command_reads_the_flag():
    flag = "--data.dir"
    commands = {
        "eval": eval.EvalCommand,
        "sample": sample.SampleCommand,
        "export": export_weights.ExportCommand,
    }
    for name, command_class in commands.items():
        for words in ([flag, "there"], [f"{flag}=there"]):
            command, unknown = reading.read_command(command_class, ["RUN", *words], name)
            assert (command.data_dir, unknown) == ("there", [])
    command, _ = reading.read_command(report.ReportCommand, ["RUN", "OTHER", flag, "there"], "report")
    assert command.data_dir == "there"
    _, words = reading.read_command(train.TrainCommand, ["CONFIG", flag, "there"], "train")
    assert words == ["CONFIG", "--data.dir", "there"]
    base = tiny.get_config()
    assert reading.apply_overrides(base, [flag, "there"], "d3pm train").data.dir == "there"


def test_the_help_of_every_command_that_reads_data_has_the_flag(capsys, tmp_path):
    config = tmp_path / "own.py"
    config.write_text("from tests.tiny import get_config\n")
    for name, command in main.COMMANDS.items():
        if name == "judge":
            continue
        words = [name, config, "--help"] if command.takes_config else [name, "--help"]
        if name == "import":
            words = [name, "--help"]
        assert status(*words) == 0
        text = capsys.readouterr().out
        assert "--data.dir" in text, name


def test_a_run_says_how_to_name_the_folder_and_takes_it(run, tmp_path, capsys):
    now = str(tmp_path / "now")
    cure = "npy: --data.dir DIR says where the data lies now\n"
    before = f"no file or folder {tmp_path}/before"
    assert f"{before}/test.{cure}" in error(capsys, "eval", run, "--limit", "4")
    assert f"{before}/train.{cure}" in error(capsys, "train", "--workdir", run, "--resume")
    assert runs.open(run, data_dir=now).read_batch("test")["x"].shape == (6, 8, 8, 1)
    command = arguments.Checkpoint(run, data_dir=now)
    assert arguments.open_named(command, 1).config.data.test == f"{now}/test.npy"
    options = train.TrainCommand(workdir=run, resume=True)
    config, saved = train.read_train_config(options, None, ["--data.dir", now, "--train.steps", "30"])
    assert (config.data.train, config.data.test) == (f"{now}/train.npy", f"{now}/test.npy")
    assert loop.build_run(config, saved)[0].config.train.steps == 30


@pytest.mark.parametrize(
    ("data", "files", "expected"),
    [
        (configs.Arrays("/old/a.npy", "b.npy", 3), ["a.npy", "b.npy"], {"train": "a.npy", "test": "b.npy"}),
        (  # of one name, in folders of their own
            configs.Arrays("/old/train/x.npy", "old/test/x.npy", 3),
            ["train/x.npy", "test/x.npy"],
            {"train": "train/x.npy", "test": "test/x.npy"},
        ),
        (configs.Arrays("/old/a.npy", "/other/b.npy", 3), ["b.npy"], {"test": "b.npy"}),
        (configs.Arrays("../../a.npy", "b.npy", 3), ["a.npy"], {"train": "a.npy"}),
        (configs.Text("/old/text.txt"), ["text.txt", "characters"], {"train": "text.txt"}),
        (configs.Text("/old/plays", tokenizer="/old/t.json"), ["plays/one.txt"], {"train": "plays"}),
        (configs.Idx("/old"), [], {"dir": ""}),
        (configs.Digits(), [], {"dir": ""}),
        (configs.StyledDigits(), [], {"dir": ""}),
    ],
)
def test_data_of_any_kind_is_moved(data, files, expected, tmp_path):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    paths = {name: str(tmp_path / path) for name, path in expected.items()}
    assert move_data(data, str(tmp_path)) == dataclasses.replace(data, **paths)


def test_data_that_has_no_folder_or_is_not_in_it_is_one_line(tmp_path):
    with pytest.raises(
        UserError,
        match=r"^--data.dir X: the data of this run has no folder; leave it out \(in Python data_dir\)$",
    ):
        move_data(configs.Shakespeare(), "X")
    message = f"--data.dir {tmp_path}: it holds no a.npy, b.npy; name the folder where they lie (in Python"
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        move_data(configs.Arrays("old/a.npy", "old/b.npy", 3), str(tmp_path))
    base = dataclasses.replace(tiny.get_config(), data=configs.Arrays("a.npy", "b.npy", 3))
    for words in (["--data.dir"], ["--data.dir", "--train.steps", "3"], ["--data.dir="]):
        with pytest.raises(UserError, match=r"^--data.dir: expected a folder, got (nothing|'')$"):
            reading.apply_overrides(base, words, "d3pm train")


CONFIG = """
import dataclasses
from d3pm_jax.config import Arrays, Dense, Digits, Masked, Reciprocal, Text
from tests import tiny

def get_config():
    base = tiny.get_config()
    process = Masked(Dense("Q.npy", "prior.npy"), Reciprocal())
    config = dataclasses.replace(base, data={data}, process=process)
    return dataclasses.replace(config, train=dataclasses.replace(config.train, noise="noise"))
"""


def read(folder, data):
    (folder / "own.py").write_text(CONFIG.format(data=data))
    return config_io.read_config_file(folder / "own.py")


def test_a_path_in_a_config_is_tried_from_its_folder_first(tmp_path, monkeypatch):
    # Two of the files have one size, and a file is read as it is, also within the second of the one before.
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    project = tmp_path / "project"
    configs_folder = project / "configs"
    configs_folder.mkdir(parents=True)
    for name in ("both.npy", "here.npy", "Q.npy", "noise", "test"):
        (configs_folder / name).touch()
    for name in ("both.npy", "elsewhere.npy", "prior.npy"):
        (project / name).touch()
    monkeypatch.chdir(project)
    folder = configs_folder.relative_to(project)

    config = read(folder, 'Arrays("both.npy", "elsewhere.npy", 3)')
    assert (config.data.train, config.data.test) == ("configs/both.npy", "elsewhere.npy")
    assert (config.process.inner.file, config.process.inner.prior) == ("configs/Q.npy", "prior.npy")
    assert config.train.noise == "configs/noise"
    # On a command line a path is one from the working directory.
    words = ["--data.train", "here.npy"]
    assert reading.apply_overrides(config, words, "d3pm train").data.train == "here.npy"
    config = read(folder, 'Digits(dir="test", valid_split="test")')  # which is the name of a split
    assert (config.data.dir, config.data.valid_split) == ("configs/test", "test")
    (configs_folder / "bytes").touch()
    config = read(folder, 'Text("here.npy", tokenizer="bytes")')
    assert (config.data.train, config.data.tokenizer) == ("configs/here.npy", "bytes")

    absolute = str(project / "both.npy")
    assert read(folder, f'Arrays({absolute!r}, "gone.npy", 3)').data == configs.Arrays(
        absolute, "gone.npy", 3
    )
    monkeypatch.chdir(configs_folder)
    config = read(configs_folder, 'Arrays("both.npy", "./here.npy", 3)')
    assert (config.data.train, config.data.test) == ("both.npy", "./here.npy")
    monkeypatch.chdir(tmp_path)
    config = read(configs_folder, 'Arrays("both.npy", "elsewhere.npy", 3)')
    assert (config.data.train, config.data.test) == (f"{configs_folder}/both.npy", "elsewhere.npy")


def test_a_run_is_gone_on_with_from_another_folder(tmp_path, monkeypatch, capsys):
    write_arrays(tmp_path / "t3")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "own.py").write_text(CONFIG.format(data="Arrays('t3/train.npy', 't3/test.npy', 17)"))
    data = configs.Arrays("t3/train.npy", "t3/test.npy", 17, "image")
    config = dataclasses.replace(tiny.get_config(), data=data)
    monkeypatch.chdir(tmp_path)
    tiny.write_run(tmp_path / "run", config, description=data.describe())
    options = train.TrainCommand(workdir=tmp_path / "run", resume=True)
    moved, _ = train.read_train_config(options, None, ["--data.dir", "t3"])
    tiny.write_run(tmp_path / "moved", moved, description=data.describe())

    monkeypatch.chdir(elsewhere)
    for name in ("run", "moved"):
        saved_data = run_folder.read_run(tmp_path / name).config.data
        assert (saved_data.train, saved_data.valid) == (f"{tmp_path}/t3/train.npy", None)
        assert runs.open(tmp_path / name).read_batch("test")["x"].shape == (6, 8, 8, 1)
    # What is not there, or is no path, stays as it is written.
    for data in (configs.Arrays("gone.npy", "~/gone.npy", 3), configs.Digits(dir="gs://bucket" + "x" * 999)):
        assert config_io.find_paths(data, (elsewhere, tmp_path)) == data
    # A project that is moved as a whole has its data where it was seen from its folder.
    project = tmp_path / "project"
    project.mkdir()
    for name in ("t3", "run"):
        shutil.copytree(tmp_path / name, project / name)
    with monkeypatch.context() as in_project:
        in_project.chdir(project)
        assert run_folder.read_run("run").config.data.train == "t3/train.npy"

    words = ["own.py", "--out", "noise.array_record"]
    said = error(capsys, "presample", *words).replace("presample", "train")
    assert said == error(capsys, "train", "own.py", "--workdir", "w")
    assert said == (
        f"d3pm train: error: no file t3/train.npy (from {elsewhere}, nor from the folder of a config file "
        f"that names it): write it, or say by --data.dir DIR where it lies\n"
    )
