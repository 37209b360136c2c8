"""Between its file and the first step a config is checked once, and read once from the folder of its run."""

import collections

import pytest

from d3pm_jax import runs
from d3pm_jax.config import Config
from d3pm_jax.program.storage import manifest, names
from tests.cli.commands import error, status, train_args

pytestmark = pytest.mark.usefixtures("small_network")


@pytest.fixture
def asked(monkeypatch):
    """Counts whole checks of a config, and readings of it from a folder."""
    counts = collections.Counter()
    check = Config.check
    read = manifest.read_checked_file

    def count_check(config):
        counts["checks"] += 1
        check(config)

    def count_reading(workdir, name, cure):
        counts["readings"] += name == names.CONFIG
        return read(workdir, name, cure)

    monkeypatch.setattr(Config, "check", count_check)
    monkeypatch.setattr(manifest, "read_checked_file", count_reading)
    return counts


def test_a_training_asks_once(asked, tmp_path, data_dir):
    run = tmp_path / "run"
    short = ("--train.steps", "2")
    assert status(*train_args(run, data_dir, *short)) == 0
    assert asked == {"checks": 1}
    asked.clear()
    assert status("train", "--workdir", run, "--resume") == 0
    assert asked == {"checks": 1, "readings": 1}
    asked.clear()
    # The config of the file is checked, and that of the folder, which it goes on with.
    assert status(*train_args(run, data_dir, *short, "--resume")) == 0
    assert asked == {"checks": 2, "readings": 1}
    asked.clear()
    assert status("eval", run, "--limit", "2") == 0
    assert asked == {"checks": 1, "readings": 1}
    asked.clear()
    trained = runs.train(runs.open(run).config, tmp_path / "again")
    assert asked == {"checks": 2, "readings": 1}  # of the run that was opened, and of the one that is trained
    assert trained.step == 2


def test_what_a_file_holds_is_named_before_the_words_after_it_unless_they_mend_it(tmp_path, capsys):
    file = tmp_path / "own.py"
    file.write_text(
        "import dataclasses\nfrom tests import tiny\n\n\ndef get_config():\n    config = tiny.get_config()\n"
        "    return dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=0))\n"
    )
    for words in ([], ["--help"], ["--train.step", "3"], ["--train.seed", "x"], ["--train.seed", "3"]):
        refused = error(capsys, "train", file, "--workdir", tmp_path / "run", *words)
        assert "error: train.batch_size = 0: it must be" in refused
    picture = tmp_path / "schedule.png"
    assert status("schedule", file, "--train.batch-size", "4", "--out", picture) == 0
