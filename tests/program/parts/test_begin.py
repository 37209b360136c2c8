"""Folders that a run begins in: after a kill, beside another training, and with what is somebody else's."""

import shutil

import jax
import numpy as np
import pytest

from d3pm_jax.errors import UserError
from d3pm_jax.program.parts import begin, build
from d3pm_jax.program.parts.completed import complete
from d3pm_jax.program.storage import checkpoint, lock, run_folder
from tests import tiny

EXAMPLES = {"x": np.zeros((3, 8, 8, 1), np.int32)}


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def parts(small_network):
    return build.build(complete(tiny.get_config(), tiny.DIGITS))


@pytest.fixture(scope="module")
def params(parts):
    return jax.tree.map(lambda x: np.ones(x.shape, x.dtype), parts.state.params)


def test_a_run_that_was_killed_while_it_began_is_begun_again(parts, params, tmp_path, monkeypatch):
    killed = tmp_path / "killed"
    plain = tmp_path / "plain"
    steps = checkpoint.list_steps

    def kill(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "write_run", kill)
        with pytest.raises(Killed):
            begin.begin_run(parts, killed, params)
    assert steps(killed / "checkpoints") == [0]
    shutil.copytree(killed, plain)
    with pytest.raises(UserError, match="holds no run to resume: check --workdir, or leave out --resume"):
        run_folder.read_run_to_resume(killed, parts.config)
    run_folder.check_empty(killed)  # of `d3pm import`
    begin.begin_run(parts, killed, params)
    assert steps(killed / "checkpoints") == [0]
    assert run_folder.read_run(killed).config == parts.config
    run_folder.claim_folder(parts.config, plain, False, tiny.DIGITS, EXAMPLES)
    assert steps(plain / "checkpoints") == []
    assert run_folder.read_run(plain).config == parts.config
    with pytest.raises(UserError, match="holds a run already: pass --resume alone to go on"):
        begin.begin_run(parts, killed, params)


def test_a_run_does_not_begin_where_another_is_written(parts, params, tmp_path):
    folder = tmp_path / "new"
    with (
        lock.hold_folder(folder),
        pytest.raises(UserError, match=r"another `d3pm train` is writing to .*new: wait for it or pass"),
    ):
        begin.begin_run(parts, folder, params)
    assert [path.name for path in folder.iterdir()] == ["lock"]
    with lock.hold_folder(folder):
        pass


def test_the_config_of_another_program_is_kept(parts, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"config.json is not the config of a run: pass another --workdir"):
        run_folder.claim_folder(parts.config, tmp_path, False, tiny.DIGITS, EXAMPLES)
    assert (tmp_path / "config.json").read_text() == "{}"


@pytest.mark.parametrize(
    "name", ["examples.npy", "description.json", "metrics.jsonl", "checkpoints/500/x.bin"]
)
def test_a_run_does_not_begin_over_the_files_of_others(parts, tmp_path, name):
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("mine")
    said = rf"{name.removesuffix('/x.bin')} would be replaced, and is not of a run: pass another --workdir"
    with pytest.raises(UserError, match=said):
        run_folder.claim_folder(parts.config, tmp_path, False, tiny.DIGITS, EXAMPLES)
    assert file.read_text() == "mine"


def test_a_run_begins_beside_files_that_it_does_not_write(parts, tmp_path):
    for name in ("config.py", "labels.npy", "eval_settings.json", "samples.json"):
        (tmp_path / name).write_text("mine")
    run_folder.claim_folder(parts.config, tmp_path, False, tiny.DIGITS, EXAMPLES)
    assert (tmp_path / "labels.npy").read_text() == "mine"


def test_results_of_deleted_checkpoints_are_not_those_of_a_new_run(parts, params, tmp_path):
    begin.begin_run(parts, tmp_path, params)
    shutil.rmtree(tmp_path / "checkpoints")
    run_folder.check_empty(tmp_path)
    for name in ("samples.json", "exact_chain_rule5.json", "quality_n5_steps3_seed0_ab.json"):
        (tmp_path / name).write_text("{}")
        with pytest.raises(UserError, match=rf"{name} is a result of .*: move its results away"):
            run_folder.check_empty(tmp_path)
        (tmp_path / name).unlink()
