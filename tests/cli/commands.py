"""Commands as a user runs them, for the tests of each of them."""

import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from d3pm_jax.cli.main import main
from d3pm_jax.program.loop import metrics
from d3pm_jax.program.parts import build
from d3pm_jax.program.parts.completed import complete
from d3pm_jax.program.storage.run_folder import read_run
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


def restored(workdir, step):
    """The parts of a run at a checkpoint."""
    return build.restore_state(workdir, build.build(complete(read_run(workdir).config, tiny.DIGITS)), step)


def weights(workdir, step):
    """Every array of a checkpoint."""
    return [np.asarray(x) for x in jax.tree.leaves(restored(workdir, step).state)]


def tables(workdir, step):
    """The parameters of a checkpoint."""
    return jax.tree.leaves(restored(workdir, step).state.params)


def losses(workdir):
    return {row["step"]: row["loss"] for row in metrics.read_metrics(workdir)}


def printed_after(monkeypatch, module, *paths):
    """Makes a module print only where all of these files are there: a pipe that is closed loses none."""

    def say(text, **options):
        assert [path for path in paths if not path.exists()] == [] or options  # flushed is what comes first
        print(text, **options)

    monkeypatch.setattr(module, "print", say, raising=False)
