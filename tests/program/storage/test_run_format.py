"""A run says the format that it is written in; one of another format, or of none, is refused in one line."""

import json
import subprocess

import jax
import pytest

import d3pm_jax
from d3pm_jax.errors import UserError
from d3pm_jax.program.storage import manifest, run_format
from d3pm_jax.program.storage.run_folder import check_settings, read_run, read_run_to_resume, write_run
from tests import tiny

READER = f"this d3pm_jax {d3pm_jax.__version__} reads format 2"


@pytest.fixture
def run(tmp_path):
    write_run(tmp_path, tiny.get_config(), tiny.DIGITS)
    return tmp_path


def refusals(workdir):
    """What opening a run and going on with it say."""
    for read in (read_run, lambda folder: read_run_to_resume(folder, tiny.get_config())):
        with pytest.raises(UserError) as refused:
            read(workdir)
        yield str(refused.value)


def test_a_run_says_its_format_and_what_wrote_it(run):
    said = json.loads((run / "format.json").read_text())
    assert said.pop("settings") == {
        "jax_enable_x64": False,
        "jax_threefry_partitionable": True,
        "jax_random_seed_offset": 0,
    }
    assert said == {"format": 2, "version": d3pm_jax.__version__, "commit": run_format.find_commit()}
    assert "format.json" in manifest.read_manifest(run)


@pytest.mark.parametrize(
    ("written", "writer"),
    [
        ({"format": 1, "version": "0.9.1", "commit": "ab12"}, "d3pm_jax 0.9.1 (commit ab12)"),
        ({"format": 0, "version": "0.1.0", "commit": None}, "d3pm_jax 0.1.0"),
        ({"format": 3, "version": "1.0\n2"}, "d3pm_jax 1.0 2"),
    ],
)
def test_another_format_is_refused_with_what_wrote_it(written, writer, run):
    manifest.replace_files(run, {"format.json": json.dumps(written).encode()})
    number = written["format"]
    for message in refusals(run):
        assert message == (
            f"the run in {run} has format {number}, written by {writer}: {READER}; open it with what "
            "wrote it, or start again in a new workdir"
        )


def test_a_training_goes_on_under_the_settings_it_began_with(run):
    saved = read_run(run)
    check_settings(saved)
    for setting, variable in [
        (jax.enable_x64(True), "JAX_ENABLE_X64=False"),
        (jax.threefry_partitionable(False), "JAX_THREEFRY_PARTITIONABLE=True"),
    ]:
        name = variable.split("=")[0].lower()
        with setting, pytest.raises(UserError, match="noise depends on it") as refused:
            check_settings(saved)
        was = variable.split("=")[1] == "True"
        assert str(refused.value) == (
            f"the run in {run} was written under {name} = {was}, which is {not was} here, and noise "
            f"depends on it: set {variable}, or start in a new workdir"
        )


def test_a_run_of_before_goes_on_under_any_settings(run):
    said = json.loads((run / "format.json").read_text())
    del said["settings"]
    (run / "format.json").write_text(json.dumps(said))
    (run / "manifest.json").unlink()
    with jax.enable_x64(True):
        check_settings(read_run(run))


def test_a_run_without_a_format_is_refused(run):
    (run / "format.json").unlink()
    for message in refusals(run):
        assert message == f"{run / 'format.json'} is missing: restore it, or start again in a new workdir"
    (run / "manifest.json").unlink()
    for message in refusals(run):
        assert message == (
            f"the run in {run} does not say its format, nor what wrote it (no format.json): {READER}; "
            "restore it, or start again in a new workdir"
        )


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "3", "{}", '{"format": 1}', '{"format": "1", "version": "0.2"}'),
        '{"format": 2, "version": "0.2", "settings": 3}',
    ],
)
def test_a_damaged_format_is_named(content, run):
    manifest.replace_files(run, {"format.json": content.encode()})
    for message in refusals(run):
        assert message.startswith(f"{run / 'format.json'} cannot be read (")
        assert message.endswith("): restore it, or start again in a new workdir")


def test_the_commit_is_that_of_the_checkout(monkeypatch):
    commit = run_format.find_commit()
    if commit is not None:
        assert len(commit) == 40
        int(commit, 16)

    def fail(*args, **kwargs):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", fail)
    run_format.find_commit.cache_clear()
    try:
        run_format.find_commit()
    finally:
        run_format.find_commit.cache_clear()
