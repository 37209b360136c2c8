"""A run's folder that was made to do harm, opened by each command: one line, and nothing outside changes."""

import contextlib
import dataclasses
import json
import os
import shutil
import sys

import jax
import numpy as np
import pytest

from d3pm_jax import config as configs
from d3pm_jax.data import open_split
from d3pm_jax.program.parts import build
from d3pm_jax.program.parts.completed import complete
from d3pm_jax.program.storage import checkpoint, manifest
from d3pm_jax.program.storage.run_folder import write_run
from tests import tiny
from tests.cli.commands import error, status

pytestmark = pytest.mark.usefixtures("small_network")

COMMANDS = {
    "train": lambda w: ["train", "--workdir", w, "--resume", "--train.steps", "6"],
    "eval": lambda w: ["eval", w, "--limit", "3"],
    "sample": lambda w: ["sample", w, "--num", "3"],
    "export": lambda w: ["export", w, "--to", "torch"],
}


@pytest.fixture(scope="module")
def prepared(data_dir):
    open_split("digits", "train", str(data_dir))


@pytest.fixture(scope="module")
def made(tmp_path_factory, data_dir):
    """The folder of a run at step 4; no step was computed."""
    workdir = tmp_path_factory.mktemp("runs") / "run"
    base = tiny.get_config()
    config = dataclasses.replace(base, data=dataclasses.replace(base.data, dir=str(data_dir)))
    state = build.initialize_state(build.build(complete(config, tiny.DIGITS))).state
    state = dataclasses.replace(state, step=jax.numpy.asarray(4, jax.numpy.int32))
    workdir.mkdir()
    write_run(workdir, config, tiny.DIGITS, {"x": np.zeros((3, 8, 8, 1), np.int32)})
    checkpoint.save_checkpoint(workdir / "checkpoints", 4, state, keep=1)
    return workdir


@pytest.fixture
def run(made, tmp_path):
    """A copy of a run in a folder beside others', and what is in those."""
    outside = tmp_path / "outside"
    (outside / "checkpoints" / "7").mkdir(parents=True)
    for name in ("file", "checkpoints/7/kept"):
        (outside / name).write_text("of somebody else")
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def content(folder):
    """The bytes of each file below a folder, by name; None of a folder."""
    contents = {}
    for path in folder.rglob("*"):
        contents[str(path.relative_to(folder))] = path.read_bytes() if path.is_file() else None
    return contents


@contextlib.contextmanager
def unharmed(run):
    """Nothing outside of the folder of a run is written, deleted, or imported in the block."""
    outside = run.parent / "outside"
    before = content(outside)
    names = dict(vars(configs))
    modules = set(sys.modules)
    yield
    assert content(outside) == before
    assert vars(configs) == names
    assert not {"antigravity", "this"} & (set(sys.modules) - modules)


def changed(run, change):
    """Changes the saved config, and has no manifest say so."""
    tree = json.loads((run / "config.json").read_text())
    change(tree)
    (run / "config.json").write_text(json.dumps(tree))
    (run / manifest.MANIFEST).unlink()


def nested(depth):
    node = 1
    for _ in range(depth):
        node = [node]
    return node


CONFIGS = {
    "a name of the package": (
        lambda tree: tree.update(data={"class": "__init__", "name": "pwned"}),
        "this version has no part named '__init__'",
    ),
    "a function": (lambda tree: tree.update(data={"class": "require"}), "no part named 'require'"),
    "a class of another package": (
        lambda tree: tree.update(data={"class": "subprocess.Popen", "args": "touch x"}),
        "no part named 'subprocess.Popen'",
    ),
    "an own part": (
        lambda tree: tree.update(data={"class": "own.Data"}),
        "has parts of its own, Data: pass the file that defines them",
    ),
    "deep": (lambda tree: tree.update(data=nested(900)), "is nested more than 50 deep"),
    "a huge number": (
        lambda tree: tree["process"].update(steps=10**40),
        "process.steps = 10000000000000000000000000000000000000000: it must be a whole number in 1..16777216",
    ),
    "a type": (lambda tree: tree["train"].update(seed=[1]), "config.json: "),
    "no field": (lambda tree: tree["train"].update(hook="x"), "does not fit this version"),
    "an import of TFDS": (
        lambda tree: tree["data"].update(name="huggingface:antigravity"),
        "data.name = 'huggingface:antigravity': it must be a text such as mnist",
    ),
    "a path in a name": (lambda tree: tree["data"].update(name="../outside"), "data.name = '../outside'"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_that_ask_for_harm(name, run, capsys):
    change, message = CONFIGS[name]
    changed(run, change)
    with unharmed(run):
        for command in COMMANDS.values():
            assert message in error(capsys, *command(run))


LINKS = ["config.json", "examples.npy", "description.json", "metrics.jsonl", "manifest.json", "checkpoints"]
LINKS += ["checkpoints/4", "checkpoints/9", "samples", "tensorboard", "lock"]


@pytest.mark.parametrize("name", LINKS)
def test_links_that_lead_outside(name, run, capsys):
    path = run / name
    target = run.parent / "outside" / "checkpoints"
    if "." in name:
        target = run.parent / "outside" / "file"
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.symlink_to(target)
    with unharmed(run):
        for command in COMMANDS.values():
            message = error(capsys, *command(run))
            assert f"{path} is a link to {target}: replace the link by what it points to" in message


@pytest.mark.slow
@pytest.mark.usefixtures("prepared")
def test_a_link_inside_of_a_checkpoint(run, capsys):
    file = max((run / "checkpoints" / "4").rglob("*"), key=lambda p: p.stat().st_size * p.is_file())
    copy = run.parent / "outside" / "copy"
    shutil.move(file, copy)
    file.symlink_to(copy)
    with unharmed(run):
        for command in COMMANDS.values():
            assert "is damaged" in error(capsys, *command(run))


@pytest.mark.slow
@pytest.mark.usefixtures("prepared")
def test_results_take_the_place_of_links(run):
    target = run.parent / "outside" / "file"
    names = ["samples.npy", "samples.png", "chain.png", "eval_limit3.json", "bound_terms_limit3.png"]
    names += ["loss.png", "weights.safetensors", "samples/step_0000006.png"]
    for name in names:
        (run / "samples").mkdir(exist_ok=True)
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(target)
    with unharmed(run):
        for name, command in COMMANDS.items():
            arguments = command(run)
            if name == "train":
                arguments = [*arguments, "--train.sample-every", "6"]
            assert status(*arguments) == 0
    for name in names:
        assert not (run / name).is_symlink()


@pytest.mark.slow
@pytest.mark.usefixtures("prepared")
def test_what_is_not_ours_is_never_deleted_by_a_training(run):
    copy = run / "checkpoints" / "my_best_copy"
    shutil.copytree(run / "checkpoints" / "4", copy)
    (copy / checkpoint.MANIFEST).unlink()
    assert status(*COMMANDS["train"](run)) == 0
    assert {p.name for p in (run / "checkpoints").iterdir()} == {"4", "6", "my_best_copy"}


@pytest.mark.slow
def test_data_is_not_prepared_where_only_the_run_says_so(run, capsys):
    outside = run.parent / "outside"
    changed(run, lambda tree: tree["data"].update(dir=str(outside)))
    with unharmed(run):
        for name in ("train", "eval"):
            message = error(capsys, *COMMANDS[name](run))
            assert f"digits is not prepared in {outside}, the folder that the run names" in message
        features = outside / "digits" / "1.0.0" / "features.json"
        features.parent.mkdir(parents=True)
        features.write_text(json.dumps({"pythonClassName": "antigravity.Feature", "content": {}}))
        before = content(outside)
        for name in ("train", "eval"):
            assert "would import antigravity.Feature" in error(capsys, *COMMANDS[name](run))
        assert content(outside) == before
        shutil.rmtree(outside / "digits")


@pytest.mark.slow
def test_examples_of_objects_or_of_other_data(run, capsys):
    (run / manifest.MANIFEST).unlink()
    for x in (
        np.array([{}]),
        np.zeros((3, 8, 8, 1)),
        np.zeros((3, 5), np.int32),
        np.full((3, 8, 8, 1), 99, np.int32),
    ):
        np.save(run / "examples.npy", x, allow_pickle=True)
        with unharmed(run):
            assert "examples.npy cannot be read" in error(capsys, *COMMANDS["sample"](run))


def test_a_device_is_not_read(run, capsys):
    (run / "config.json").unlink()
    os.mkfifo(run / "config.json")
    for command in COMMANDS.values():
        assert "config.json: move it away, it is no file" in error(capsys, *command(run))
