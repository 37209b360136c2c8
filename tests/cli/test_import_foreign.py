"""Checkpoints of other programs as commands import them: notes, files, runs, one line for what is wrong."""

import jax
import numpy as np
import pytest
from flax import serialization

from d3pm_jax import runs
from d3pm_jax.config import Head, LogisticHead
from d3pm_jax.contrib import checkpoints, foreign
from d3pm_jax.contrib.layout import ImportOptions
from d3pm_jax.runs import exported
from d3pm_jax.weights import twin
from tests.cli.commands import CONFIG, error, status
from tests.contrib.test_checkpoints import official_tree

torch = pytest.importorskip("torch")
originals = pytest.importorskip("tests.contrib.originals")


CLASSIFIER = """
import dataclasses

from d3pm_jax.config import LabelLoss, NoisyClassifier
from tests import tiny


def get_config():
    return dataclasses.replace(tiny.get_config(), model=NoisyClassifier(width=8), loss=LabelLoss())
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """(checkpoint, check) of a U-Net for digits, of which the average differs from the last weights."""
    folder = tmp_path_factory.mktemp("files")
    module = originals.randomise(originals.SeedUNet(17, 1, 8, (1,), 1, ()))
    state = {f"net.{k}": x for k, x in module.state_dict().items()}
    last = {k: x + 0.1 for k, x in state.items()}
    torch.save({"model": last | {"ema_shadow_params": list(state.values())}}, folder / "model.pt")
    x = np.random.default_rng(0).integers(0, 17, (2, 1, 8, 8))
    t = np.array([0, 9])
    with torch.no_grad():
        logits = module(torch.tensor(x), torch.tensor(t)).numpy()
    np.savez(folder / "check.npz", x=x, t=t, logits=logits)
    return folder / "model.pt", folder / "check.npz"


@pytest.mark.slow
def test_a_checkpoint_is_a_file_of_weights_and_a_run(files, tmp_path, data_dir, capsys):
    file, check = files
    new = tmp_path / "run"
    bare = tmp_path / "bare"
    options = ["--workdir", new, "--data.dir", data_dir]
    assert status("import", file, "--config", CONFIG, *options) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "number of heads = 1, the program's default: the file does not say (--heads)" in printed.out
    assert "Head(residual=False" in printed.out
    assert "note: the process has T = 10, but the network was made for 1000 steps" in printed.out
    run = runs.open(new)
    assert run.config.head == Head(residual=False)
    assert (run.config.model.max_time, run.config.model.channels_per_group) == (1000, 4)

    assert status("import", file, "--workdir", bare, "--size", "8", "8") == 0
    weights = new / "weights.safetensors"
    jax.tree.map(np.testing.assert_array_equal, twin.load(weights, run.params), run.params)
    with np.load(check) as arrays:
        xt = np.moveaxis(arrays["x"], 1, -1).astype(np.int32)
        t = (arrays["t"] + 1).astype(np.int32)
        logits = np.moveaxis(arrays["logits"], 1, -2)
    denoise = exported.denoiser(weights)
    denoise_bare = exported.denoiser(bare / "weights.safetensors")
    for predict in (denoise, denoise_bare, run.predict):
        np.testing.assert_allclose(predict(xt, t), logits, atol=2e-6)
    assert "holds a run already" in error(capsys, "import", file, "--workdir", new)


@pytest.mark.slow
def test_a_check_is_compared_and_the_twin_builds_the_same(files, tmp_path, capsys):
    file, check = files
    assert status("import", file, "--workdir", tmp_path / "w", "--check", check) == 0
    assert "in float64" in capsys.readouterr().out
    theirs = pytest.importorskip("torch_ref.runs.exported")
    denoise = theirs.denoiser(tmp_path / "w" / "weights.safetensors")
    with np.load(check) as arrays, torch.no_grad():
        xt = torch.tensor(arrays["x"]).movedim(1, -1)
        t = torch.tensor(arrays["t"] + 1)
        logits = denoise(xt, t).movedim(-2, 1).numpy()
        np.testing.assert_allclose(logits, arrays["logits"], atol=2e-6)
    message = error(capsys, "import", file, "--raw", "--workdir", tmp_path / "v", "--check", check)
    assert "of the largest, " in message
    assert "more than 0.0001: check what the notes above assume" in message
    assert not (tmp_path / "v").exists()


def test_what_keeps_a_checkpoint_from_being_imported(files, tmp_path, data_dir, capsys):
    file, _ = files
    to = ["--workdir", tmp_path / "new"]
    config = ["--data.dir", data_dir]
    assert "unexpected argument --train.steps" in error(capsys, "import", file, *to, "--train.steps", "2")
    assert "no workdir: pass --workdir" in error(capsys, "import", file)
    assert "two configs" in error(capsys, "import", file, CONFIG, "--config", CONFIG, *to)
    other = error(capsys, "import", file, CONFIG, *to, *config, "--process.K", "18")
    assert "it gives logits of K = 17 categories, not 18" in other
    assert "the data of" in error(capsys, "import", file, CONFIG, *to, *config, "--size", "8", "8")
    assert "does not split into q, k, v of 3 heads" in error(capsys, "import", file, *to, "--heads", "3")
    assert "--max-time 2.5: it must be a whole" in error(capsys, "import", file, *to, "--max-time", "2.5")
    ours = tmp_path / "w.safetensors"
    ours.write_bytes(b"")
    assert "--raw is only for checkpoints of other programs" in error(capsys, "import", ours, "--raw", *to)
    assert "No such file" in error(capsys, "import", file, *to, "--check", tmp_path / "none.npz")
    assert not (tmp_path / "new").exists()


@pytest.fixture(scope="module")
def logistic(tmp_path_factory):
    """(checkpoint, check) of two numbers for each element; logits of the check are of no network."""
    folder = tmp_path_factory.mktemp("logistic")
    module = originals.SeedUNet(17, 1, 8, (1,), 1, (), outputs=2)
    torch.save({"model": {f"net.{k}": x for k, x in module.state_dict().items()}}, folder / "model.pt")
    logits = np.random.default_rng(0).normal(size=(1, 1, 8, 8, 17)).astype("f")
    np.savez(folder / "check.npz", x=np.zeros((1, 1, 8, 8), int), t=np.zeros(1, int), logits=logits)
    return folder / "model.pt", folder / "check.npz"


@pytest.mark.slow
def test_the_categories_of_a_logistic_head_are_those_of_the_data(logistic, tmp_path, data_dir, capsys):
    file, check = logistic
    to = ["--config", CONFIG, "--data.dir", data_dir, "--workdir", tmp_path / "run"]
    message = error(capsys, "import", file, *to, "--categories", "8")
    assert "has K = 8, but the process of" in message
    assert "has 17: change the process, or pass --categories" in message
    assert "more than 0.0001: compute it in float64" in error(capsys, "import", file, *to, "--check", check)
    assert status("import", file, *to, "--process.K", "data") == 0
    assert "the logistic head is taken as that of lib/d3pm.py" in capsys.readouterr().out
    assert runs.open(tmp_path / "run").process.K == 17


def test_a_check_or_a_config_of_another_kind_is_named(files, tmp_path, data_dir, capsys):
    file, _ = files
    check = tmp_path / "check.npz"
    to = ["--workdir", tmp_path / "new"]
    inputs = {"x": np.zeros((1, 1, 8, 8), int), "t": np.zeros(1, int)}
    np.savez(check, **inputs, logits=np.zeros((1, 1, 8, 8, 5)))
    said = error(capsys, "import", file, *to, "--check", check)
    assert f"logits of K = 17 categories, not 5 as the last axis of logits in {check} says" in said
    np.savez(check, **inputs, logits=np.full((1, 1, 8, 8, 17), np.longdouble("1e4000")))
    assert f"{check}" in error(capsys, "import", file, *to, "--check", check)
    labelled = tmp_path / "checkpoint_3"
    tree = official_tree(np.random.default_rng(0), 17, classes=3)
    labelled.write_bytes(serialization.msgpack_serialize(tree))
    said = error(capsys, "import", labelled, CONFIG, "--data.dir", data_dir, *to)
    assert "takes labels of 3 classes, but the data has 10 classes: pass a config whose data has 3" in said


def test_a_network_that_is_not_for_the_loss_of_a_config_is_refused_as_in_a_training(
    files, tmp_path, data_dir, capsys
):
    config = tmp_path / "classifier.py"
    config.write_text(CLASSIFIER)
    to = ["--workdir", tmp_path / "new", "--data.dir", data_dir]
    said = error(capsys, "import", files[0], config, *to)
    assert "model = UNet builds no classifier, as loss = LabelLoss() needs: take NoisyClassifier" in said
    assert not (tmp_path / "new").exists()


def test_a_head_of_a_config_becomes_that_of_the_program(files):
    network = checkpoints.read_network(files[0], ImportOptions())
    assert foreign.fit_head(Head(), network) == Head(residual=False)
    assert foreign.fit_head(LogisticHead(), network) == Head(residual=False)
    options = network.options | {"input_range": (0.0, 255.0)}
    logistic = network._replace(logistic=True, residual=True, options=options)
    assert foreign.fit_head(Head(), logistic) == LogisticHead(input_range=(0.0, 255.0))
