"""Runs and the content of their data: moved, changed, and without digests."""

import dataclasses
import os
import re
import shutil

import numpy as np
import pytest

from d3pm_jax import config as configs, runs
from d3pm_jax.config.data import describe_with_digest
from d3pm_jax.errors import UserError
from d3pm_jax.program.loop import loop
from d3pm_jax.program.storage import run_folder
from tests import tiny

X = np.arange(20 * 64).reshape(20, 8, 8, 1) % 17
pytestmark = pytest.mark.usefixtures("small_network")


def config_of(folder, **more):
    data = configs.Arrays(str(folder / "train.npy"), str(folder / "test.npy"), 17, "image", **more)
    return dataclasses.replace(tiny.get_config(), data=data)


@pytest.fixture
def data(tmp_path):
    """A folder of arrays."""
    folder = tmp_path / "data"
    folder.mkdir()
    np.save(folder / "train.npy", X)
    np.save(folder / "test.npy", X[:6])
    return folder


@pytest.fixture
def run(data, tmp_path):
    """A run on these arrays."""
    config = config_of(data)
    tiny.write_run(tmp_path / "run", config, description=describe_with_digest(config.data))
    return tmp_path / "run"


def resumed(run, config):
    return loop.build_run(config, run_folder.read_run_to_resume(run, config))[0]


def test_data_in_another_folder_is_the_same_data(run, data, tmp_path, capsys):
    shutil.move(data, tmp_path / "moved")
    config = config_of(tmp_path / "moved")
    assert resumed(run, config).description.digest == run_folder.read_run(run).description.digest
    runs.open(run, config).read_batch("test")
    assert capsys.readouterr().err == ""


def test_another_config_is_refused_before_the_data_is_read(run, data):
    shutil.rmtree(data)
    config = dataclasses.replace(config_of(data), head=configs.LogisticHead())
    with pytest.raises(UserError, match="cannot resume with another config"):
        resumed(run, config)


def change_element(x):
    x[7, 3, 3, 0] = (x[7, 3, 3, 0] + 1) % 17
    return x


@pytest.mark.parametrize(
    ("split", "change"), [("train", change_element), ("test", lambda x: np.roll(x, 1, axis=0))]
)
def test_other_content_is_refused_on_resume_and_said_in_evaluation(split, change, run, data, capsys):
    np.save(data / f"{split}.npy", change(np.load(data / f"{split}.npy")))
    message = f"the {split} data has changed since the run in {run}: "
    with pytest.raises(UserError) as refused:
        resumed(run, config_of(data))
    assert str(refused.value) == f"{message}use the data it had, or start in a new workdir"

    opened = runs.open(run)
    for name in ("train", "test"):
        opened.read_batch(name)
        said = capsys.readouterr().err
        assert said.startswith(f"warning: {message}figures are of the data as it is now") == (name == split)
        assert said.count("\n") == (name == split)


def test_a_valid_split_may_be_added_and_left_out(run, data, tmp_path):
    np.save(data / "valid.npy", X[:3])
    more = config_of(data, valid=str(data / "valid.npy"))
    assert "valid:" in resumed(run, more).description.digest
    tiny.write_run(tmp_path / "other", more, description=describe_with_digest(more.data))
    resumed(tmp_path / "other", config_of(data))


def test_a_run_without_a_digest_is_opened_and_gets_it_when_it_goes_on(data, tmp_path, capsys):
    config = config_of(data)
    run = tmp_path / "run"
    without = config.data.describe()
    tiny.write_run(run, config, description=without)
    runs.open(run).read_batch("test")
    description = resumed(run, config).description
    assert description.digest is not None
    run_folder.claim_folder(config, run, True, description, {"x": X[:6].astype(np.int32)})
    assert run_folder.read_run(run).description.digest == description.digest
    np.save(data / "train.npy", X[::-1])
    with pytest.raises(UserError, match="the train data has changed since"):
        resumed(run, config)
    assert capsys.readouterr().err == ""


def test_only_the_split_that_is_read_has_to_be_there(run, data, capsys):
    (data / "train.npy").unlink()
    assert len(runs.open(run).read_batch("test")["x"]) == 6
    assert capsys.readouterr().err == ""


def test_a_file_of_a_process_is_what_it_holds_wherever_it_lies(tmp_path):
    def config_with(path):
        process = configs.Masked(configs.Dense(str(path)), configs.Reciprocal())
        return dataclasses.replace(tiny.get_config(), process=process)

    def resume(path):
        config = config_with(path)
        run_folder.adopt_numbers(run_folder.read_run_to_resume(run, config), config)

    run = tmp_path / "run"
    before = tmp_path / "before.npy"
    np.save(before, np.ones((1, 17, 17)) / 17)
    run.mkdir()
    run_folder.write_run(run, config_with(before), tiny.DIGITS)
    now = shutil.copy(before, tmp_path / "now.npy")
    other = tmp_path / "other.npy"
    np.save(other, np.eye(17)[None])
    resume(now)
    changed_path = re.escape(f"process.inner.file was {before}, is {other}")
    with pytest.raises(UserError, match=changed_path):
        resume(other)

    # The file that it had need not be there, and one of its name that holds something else is refused.
    before.unlink()
    resume(now)
    shutil.copy(other, before)
    changed_file = f"^{re.escape(str(before))}, the file of process.inner.file, has changed since"
    with pytest.raises(UserError, match=changed_file):
        resume(before)
    with pytest.raises(UserError, match=changed_file):
        runs.open(run)

    # Where it is gone the table stays: the manifest knows no file that is not written with it.
    before.unlink()
    run_folder.write_run(run, config_with(before), tiny.DIGITS)
    assert run_folder.read_run(run).files.hashes == {}
    os.mkfifo(before)  # which nobody would ever write to
    run_folder.check_resume(config_with(before), config_with(before))


@dataclasses.dataclass(frozen=True)
class Summed(configs.Data):
    """Data of a user's own, with a digest of its own."""

    digest: str = "first"

    def describe(self):
        return dataclasses.replace(tiny.DIGITS, digest=self.digest)


def test_data_of_a_users_own_with_another_digest_is_refused(tmp_path):
    run_folder.write_run(tmp_path, tiny.get_config(), Summed().describe())
    run = run_folder.read_run(tmp_path)
    run_folder.check_description(run, Summed().describe())
    for other in ("second", None):
        with pytest.raises(
            UserError, match=r"^the data has changed since the run in .*: use the data it had"
        ):
            run_folder.check_description(run, Summed(other).describe())
