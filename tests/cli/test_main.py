"""All commands: help, options, and one line for what they cannot do."""

import dataclasses
import re
import runpy
import sys
from unittest import mock

import pytest

import d3pm_jax
from d3pm_jax.cli import sample
from d3pm_jax.cli.reading import read_command
from d3pm_jax.config.checks import Interval
from d3pm_jax.errors import UsageError
from d3pm_jax.program.storage import run_format
from tests.cli.commands import CONFIG, error, status

pytestmark = pytest.mark.usefixtures("small_network")


def test_bad_paths_get_one_line(tmp_path, capsys):
    assert "no config file" in error(capsys, "train", tmp_path / "none.py", "--workdir", tmp_path)
    assert "no config: pass" in error(capsys, "train", "--workdir", tmp_path)
    assert "no workdir" in error(capsys, "train", CONFIG)
    assert "holds no run" in error(capsys, "eval", tmp_path / "none")
    assert "holds no run" in error(capsys, "sample", tmp_path)
    (tmp_path / "file").write_text("")
    assert "cannot write to" in error(capsys, "train", CONFIG, "--workdir", tmp_path / "file")
    (tmp_path / "broken.py").write_text("def get_config(): return 1 / 0")
    assert "ZeroDivisionError" in error(capsys, "train", tmp_path / "broken.py", "--workdir", tmp_path / "w")
    (tmp_path / "config.json").write_text("{")
    (tmp_path / "format.json").write_bytes(run_format.dump_format())
    assert "is not JSON" in error(capsys, "eval", tmp_path)


def test_an_option_before_the_command_is_one_line(capsys):
    assert status("--foo", "train", "x.py") == 1
    assert capsys.readouterr().err.startswith("d3pm train: error: no config")


def test_help_explains_every_command(capsys):
    for args in (["--help"], *([name, "--help"] for name in ("train", "eval", "sample", "schedule"))):
        assert status(*args) == 0
        assert "d3pm" in capsys.readouterr().out
    assert status("train", CONFIG, "--help") == 0
    assert "--process.steps" in capsys.readouterr().out
    assert status("schedule", CONFIG, "--help") == 0
    assert "--process.steps" in capsys.readouterr().out
    assert status("eval") == status("eval", "x", "--seed", 2**64) == status("sample", "x", "--seed", -1) == 2
    assert status("eval", "x", "--nonsense") == 2


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("train", ["--workdir", "--resume", "--coordinator"]),
        ("eval", ["--steps", "--grid", "--calls", "--step", "--config", "--coordinator"]),
        ("sample", ["--num", "--steps", "--grid", "--strength", "--step", "--coordinator"]),
        ("export", ["--to", "--out", "--step", "--config"]),
    ],
)
def test_help_lists_the_options_of_a_command_before_those_of_many(command, options, capsys):
    assert status(command, "--help") == 0
    listed = re.findall(r"^. (--[\w.-]+)", capsys.readouterr().out, re.MULTILINE)
    assert [option for option in listed if option in options] == options


def test_the_version_is_that_of_the_library(capsys):
    assert status("--version") == 0
    assert capsys.readouterr().out == f"d3pm_jax {d3pm_jax.__version__}\n"


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--limit", "0", "a whole number in 1..2147483647"),
        ("--batch-size", "all", "a whole number in 1..2147483647"),
        ("--step", "-1", "a whole number in 0..2147483647"),
        ("--seed", "4294967296", "a whole number in 0..4294967295"),
    ],
)
def test_an_option_says_what_it_expects(option, value, expected, capsys):
    assert status("eval", "x", option, value) == 2
    message = f"d3pm eval: error: argument {option}: expected {expected}, got '{value}'\n"
    assert capsys.readouterr().err.endswith(message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["2,x"], "expected a whole number in 1..2147483647, got 'x'"),
        (["10,0"], "expected a whole number in 1..2147483647, got '0'"),
        (["10,"], "expected a whole number in 1..2147483647, got ''"),
        ([], "expected a whole number in 1..2147483647, got nothing"),
        (["10,", "50"], "write 10,50 without spaces"),
    ],
)
def test_of_numbers_with_commas_the_wrong_one_is_named(words, message, capsys):
    assert status("eval", "x", "--steps", *words) == 2
    assert capsys.readouterr().err == f"d3pm eval: error: argument --steps: {message}\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train", CONFIG, "--workdir", "w", "--resume=3"], "--resume takes no value: write --resume"),
        (["train", "--workdir", "w", "--dry_run=yes"], "--dry_run takes no value: write --dry-run"),
        (["sample", "w", "--prompt", "--gif=1"], "--prompt: expected a text, got nothing"),
        (
            ["import", "a.pt", "--size", "3", "0"],
            "--size: expected (a whole number in 1..2147483647, a whole number in 1..2147483647), got '3 0'",
        ),
        (
            ["import", "a.pt", "--input-range", "0", "x"],
            "--input-range: expected (a finite number, a finite number), got '0 x'",
        ),
    ],
)
def test_switches_take_no_value_and_pairs_say_both(words, expected, capsys):
    assert status(*words) == 2
    assert capsys.readouterr().err == f"d3pm {words[0]}: error: argument {expected}\n"


def test_a_word_is_a_flag_or_a_value():
    def read(*words):
        return read_command(sample.SampleCommand, ["--num", "3", "w", *words], "sample")[0]

    assert read("--prompt", "-- or so").prompt == "-- or so"
    assert read("--prompt=--num").prompt == "--num"
    assert read("--prompt", "None").prompt == "None"
    assert read("--num=4", "--label", "2", "--gif").num == 4  # the last one counts
    assert read("--sampler", "psi", "--sampler.kappa=0.5").sampler.fields == {"kappa": 0.5}
    for words, message in {
        ("--label", "-1"): r"--label: expected a whole number in 0..*, got '-1'",
        ("--label", "None"): "got 'None'",
        ("--given", "-gif"): "argument --given: expected a path, got nothing",
        ("--gif", "False"): "--gif takes no value",
        ("--no-gif",): "unknown argument --no-gif: did you mean --gif",
    }.items():
        with pytest.raises(UsageError, match=message):
            read(*words)


@dataclasses.dataclass(frozen=True)
class IntervalCommand:
    interval: Interval = (0.0, 1.0)


def test_a_restricted_pair_is_quoted_whole():
    with pytest.raises(UsageError, match=r"--interval: expected a tuple whose second .*, got '2 1'"):
        read_command(IntervalCommand, ["--interval", "2", "1"], "interval")


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (OSError("5120 requested and 0 written"), "error: 5120 requested and 0 written\n"),
        (
            OSError(28, "No space left on device"),
            "No space left on device; make room and run the command again",
        ),
        (OSError(13, "Permission denied", "x"), "error: Permission denied: x\n"),
        (MemoryError("Unable to allocate 64 TiB"), "Unable to allocate 64 TiB; take smaller batches"),
        (
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory\nmore"),
            "RESOURCE_EXHAUSTED: Out of memory more",
        ),
    ],
)
def test_what_the_system_says_is_one_line(raised, message, capsys, monkeypatch):
    monkeypatch.setattr(sample, "execute", mock.Mock(side_effect=raised))
    assert message in error(capsys, "sample", "x")


@pytest.mark.parametrize(
    ("raised", "cure"),
    [
        (
            "OSError(28, 'No space left on device')",
            "; make room and run the command again, a training with --resume",
        ),
        ("MemoryError('Unable to allocate 64 TiB')", "; take smaller batches, or a smaller network"),
        ("RuntimeError('RESOURCE_EXHAUSTED: Out of memory')", "; take smaller batches, or a smaller"),
    ],
)
def test_the_cure_is_said_behind_a_statement_of_the_users(raised, cure, tmp_path, capsys, monkeypatch):
    own = tmp_path / "own.py"
    own.write_text(f"def f(*args):\n    raise {raised}\n")
    monkeypatch.setattr(sample, "execute", runpy.run_path(str(own))["f"])
    message = error(capsys, "sample", "x")
    assert message.startswith(f"d3pm sample: error: {own}, line 2, `raise ")
    assert cure in message
    assert message.endswith("; --traceback shows all of it\n")


def test_modules_run_as_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["d3pm", "--version"])
    with pytest.raises(SystemExit):
        runpy.run_module("d3pm_jax", run_name="__main__")
    assert capsys.readouterr().out == f"d3pm_jax {d3pm_jax.__version__}\n"
