"""Commands as a user runs them, for the tests of each of them."""

import re
import sys
from pathlib import Path

import pytest

from d3pm_jax.cli.main import main
from tests import tiny

CONFIG = str(Path(tiny.__file__))
D3PM = [sys.executable, "-c", "from d3pm_jax.cli.main import main; main()"]
ONE_LINE = re.compile(r"d3pm \w+: error: [^\n]+\n")


def train_args(workdir, data_dir, *more):
    return ["train", CONFIG, "--workdir", str(workdir), "--data.dir", str(data_dir), *more]


def status(*args):
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in args])
    return stopped.value.code


def error(capsys, *args):
    """The message of a command that must fail with exactly one line."""
    code = status(*args)
    printed = capsys.readouterr()
    assert code == 1
    assert ONE_LINE.fullmatch(printed.err.replace(_note(printed.err), "")), printed.err
    return printed.err


def _note(text):
    note = re.match(r"preparing data set .*\n", text)
    return note.group(0) if note else ""
