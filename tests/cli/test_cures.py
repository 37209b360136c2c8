"""Mistakes at the shell: each message names what was passed, and a cure that the command can do."""

import dataclasses
import shlex
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from d3pm_jax.cli import sample
from d3pm_jax.config import Arrays
from d3pm_jax.data import Description
from tests import recorded_configs, tiny
from tests.cli.commands import CONFIG, error, status

ARRAYS = Path(recorded_configs.__file__).with_name("arrays.py")

OF_ARRAYS = "".join(f" --data.{name} FILE" for name in ("train", "test", "train-labels", "test-labels"))

pytestmark = pytest.mark.usefixtures("small_network")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a file in it, and with what looks like a run to who reads no further."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "file").touch()
    (folder / "w.safetensors").touch()
    np.save(folder / "flat.npy", np.zeros(30, int))
    np.save(folder / "empty.npy", np.zeros((0, 12), int))
    np.savez(folder / "several.npz", train=np.zeros((3, 2), int))
    np.save(folder / "objects.npy", np.array([[1, 2], [3]], dtype=object))
    (folder / "run").mkdir()
    (folder / "run" / "config.json").write_text("{}")
    (folder / "run" / "checkpoints").mkdir()
    (folder / "snapshot").mkdir()
    (folder / "snapshot" / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train --resume", "--resume continues the run in a folder: pass it, as --workdir DIR --resume"),
        (
            "train {config} --resume",
            "--resume continues the run in a folder: pass it, as --workdir DIR --resume",
        ),
        (
            "train {run} --resume --workdir {run}",
            "/run is a folder, but CONFIG is a Python file: pass one, or",
        ),
        ("train --workdir {run}", "/run holds a run already: pass --resume to go on with it"),
        ("train {config} --workdir {file}", "{file} is a file, not a folder; pass another --workdir"),
        ("train {config} --workdir {file}/w", "to {file}/w: {file} is a file, not a folder; pass another"),
        ("train --workdir {file} --resume", "{file} is a file, and a run is a folder: pass the --workdir of"),
        (
            "train {config} --workdir {file} --resume",
            "{file} is a file, and a run is a folder: pass the --workdir of a `d3pm train`",
        ),
        ("eval {file}", "{file} is a file, and a run is a folder: pass the --workdir of a `d3pm train`"),
        ("sample {run}/config.json", "{run}/config.json is a file of a run, which is a folder: pass {run}\n"),
        (
            "eval {weights}",
            "is a file of weights, not a run: begin a run by d3pm import {quoted_weights} --workdir DIR",
        ),
        (
            "train --config {config} --workdir w",
            "pass it first and without --config, as in d3pm train {quoted_config}",
        ),
        (
            "train {run}/config.json --workdir w",
            "/config.json is a file of a run: pass the .py file that defines get_config() to begin a new run",
        ),
        (
            "train {config} --workdir w --model transformer",
            "--model is a part, whose class is chosen in the file CONFIG: edit it there, or set its fields",
        ),
        ("report {run} --out page.pdf", "--out page.pdf: an HTML page is written, so name it FILE.html"),
        (
            "import {run} --workdir w",
            "/run is a folder: pass the file that d3pm export {quoted_run} --to torch writes",
        ),
        ("import {snapshot} --workdir w", "/snapshot is a folder: pass the file of weights\n"),
        (
            "import {config} {weights} --workdir w",
            "is a Python file: the file of weights comes first, as in "
            "d3pm import {quoted_weights} {quoted_config}",
        ),
        (
            "train {arrays} --workdir w" + OF_ARRAYS.replace("FILE", "{several}"),
            "{several} is an .npz, which holds arrays by name: write each by numpy.save",
        ),
        (
            "train {arrays} --workdir w" + OF_ARRAYS.replace("FILE", "{objects}"),
            "{objects} holds objects of Python: make its rows equally long, and write integers by numpy.save",
        ),
        ("presample {config}", "no file to write to: pass --out, and name it FILE.array_record"),
        (
            "train {arrays} --workdir w" + OF_ARRAYS.replace("FILE", "{flat}"),
            "{flat} has shape (30,): examples are its rows, so",
        ),
        (
            "train {arrays} --workdir w" + OF_ARRAYS.replace("FILE", "{empty}"),
            "{empty} has shape (0, 12), so it holds no examples: pass an array with",
        ),
        (
            "train {config} --workdir w --train.lr 1",
            "no field --train.lr in this config: did you mean --optim",
        ),
        ("train {config} --workdir w --lr=1", "no field --lr in this config: did you mean --optimizer.lr?"),
        (
            "train {config} --workdir w --steps 1",
            "no field --steps in this config: did you mean --train.steps or --process.steps?",
        ),
        (
            "train {config} --workdir w --process.beta 1",
            "or set its fields here, as --process.beta.start or --process.beta.s",
        ),
        ("train {config} --workdir w --data.batch_size 1", "did you mean --train.batch-size?"),
        (
            "train {config} --workdir w --train.qqqq 1",
            "no field --train.qqqq in this config: --help after CON",
        ),
    ],
)
def test_a_mistake_is_told_with_its_cure(words, message, folder, capsys):
    paths = {"config": CONFIG, "file": folder / "file", "run": folder / "run"}
    paths["snapshot"] = folder / "snapshot"
    paths["weights"] = folder / "w.safetensors"
    paths |= {"several": folder / "several.npz", "objects": folder / "objects.npy"}
    paths |= {"flat": folder / "flat.npy", "empty": folder / "empty.npy", "arrays": ARRAYS}
    quoted_paths = {f"quoted_{name}": shlex.quote(str(path)) for name, path in paths.items()}
    printed = error(capsys, *(word.format(**paths) for word in words.split()))
    assert message.format(**paths, **quoted_paths) in printed
    assert (folder / "file").read_bytes() == b""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("eval --workdir w", "unknown argument --workdir: pass the folder alone, as in d3pm eval DIR"),
        ("sample w --nums 3", "unknown argument --nums: did you mean --num?"),
        ("sample w --batchsize=3", "unknown argument --batchsize: did you mean --batch-size?"),
        ("train x.py --work-dir w", "unknown argument --work-dir: did you mean --workdir?"),
        ("presample x.py --step 3 --out x", "unknown argument --step: did you mean --steps?"),
        ("eval w v", "unexpected argument v: d3pm eval takes one DIR, followed by options"),
        ("eval w --steps 2, 3", "argument --steps: write 2,3 without spaces"),
        ("eval w -step 2", "unknown argument -step: did you mean --step?"),
        ("train x.py -workdir w", "unknown argument -workdir: did you mean --workdir?"),
        ("eval w --qqqq", "unknown argument --qqqq: see d3pm eval --help"),
    ],
)
def test_an_option_that_is_nearly_one_is_told_which(words, message, capsys):
    assert status(*words.split()) == 2
    assert capsys.readouterr().err == f"d3pm {words.split()[0]}: error: {message}\n"


def test_a_device_that_is_not_there_is_told_in_one_line(capsys, monkeypatch):
    raised = RuntimeError("Unable to initialize backend 'cuda': no GPU\nmore")
    monkeypatch.setattr(sample, "execute", mock.Mock(side_effect=raised))
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    message = error(capsys, "sample", "x")
    assert "JAX_PLATFORMS=cuda: Unable to initialize backend 'cuda': no GPU more; unset it, or" in message
    for platforms in (None, ""):
        monkeypatch.delenv("JAX_PLATFORMS", raising=False)
        if platforms is not None:
            monkeypatch.setenv("JAX_PLATFORMS", platforms)
        message = error(capsys, "sample", "x")
        assert message == (
            "d3pm sample: error: Unable to initialize backend 'cuda': no GPU more; set JAX_PLATFORMS=cpu to "
            "compute without it\n"
        )


def test_data_that_is_not_there_is_told_with_the_option_that_finds_it(tmp_path, capsys):
    files = {split: str(tmp_path / f"{split}.npy") for split in ("train", "test")}
    config = dataclasses.replace(tiny.get_config(), data=Arrays(**files, categories=17, kind="image"))
    tiny.write_run(tmp_path / "w", config, description=Description((8, 8, 1), 17, None, "image"))
    np.save(files["train"], np.zeros((20, 8, 8, 1), np.uint8))
    message = error(capsys, "eval", tmp_path / "w")
    assert message.endswith(f"file or folder {files['test']}: --data.dir DIR says where the data lies now\n")
