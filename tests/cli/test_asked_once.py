"""Between its file and the first step a config is checked once, and read once from the folder of its run."""

import collections

import pytest

from d3pm_jax import runs
from d3pm_jax.config import Config
from d3pm_jax.storage import manifest, names
from tests.cli.commands import status, train_args

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
    assert asked == {"checks": 2}  # that of the file, and with the words
    asked.clear()
    assert status("train", "--workdir", run, "--resume") == 0
    assert asked == {"checks": 1, "readings": 1}
    asked.clear()
    # The config of the file is checked, and that of the folder, which it goes on with.
    assert status(*train_args(run, data_dir, *short, "--resume")) == 0
    assert asked == {"checks": 3, "readings": 1}
    asked.clear()
    assert status("eval", run, "--limit", "2") == 0
    assert asked == {"checks": 1, "readings": 1}
    asked.clear()
    trained = runs.train(runs.open(run).config, tmp_path / "again")
    assert asked == {"checks": 2, "readings": 1}  # of the run that was opened, and of the one that is trained
    assert trained.step == 2
