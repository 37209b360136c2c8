"""Weights to a file and back: to the bit, as commands, and what is said of files that do not fit."""

import dataclasses
import json
import os
import shlex
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from d3pm_jax import config as configs, runs
from d3pm_jax.config import UNet, io as config_io
from d3pm_jax.errors import UserError
from d3pm_jax.program.loop import metrics
from d3pm_jax.program.parts import build, network
from d3pm_jax.program.parts.completed import complete
from d3pm_jax.program.storage import checkpoint
from d3pm_jax.program.storage.names import CONFIG as SAVED_CONFIG
from d3pm_jax.program.storage.run_folder import read_run
from d3pm_jax.weights import twin
from tests import tiny
from tests.cli.commands import CONFIG, error, status

SMALL = ["--model.ch", "4", "--model.ch-mult", "1", "--model.groups", "1", "--model.num-res-blocks", "0"]


@pytest.fixture(scope="module")
def old(tmp_path_factory, data_dir):
    """(workdir, state) of a run at step 7, whose weights are random, and their average too."""
    workdir = tmp_path_factory.mktemp("runs") / "old"
    base = tiny.get_config()
    model = UNet(ch=4, ch_mult=(1,), num_res_blocks=0, attn_resolutions=(), groups=1)
    config = dataclasses.replace(base, model=model, data=dataclasses.replace(base.data, dir=data_dir))
    return workdir, tiny.write_run(workdir, config)


def bits(tree):
    return [np.asarray(x).view(np.uint32) for x in jax.tree.leaves(tree)]


def same(a, b):
    for x, y in zip(bits(a), bits(b), strict=True):
        np.testing.assert_array_equal(x, y)


def first_state(workdir):
    parts = build.build(complete(read_run(workdir).config, tiny.DIGITS))
    return build.restore_state(workdir, parts, 0).state


def test_a_run_goes_through_a_file_to_a_new_run(old, tmp_path, capsys):
    workdir, state = old
    assert status("export", workdir, "--to", "torch") == 0
    file = workdir / "weights.safetensors"
    assert f"ema weights of step 7, {len(bits(state.ema))} tensors" in capsys.readouterr().out
    written = safetensors.numpy.load_file(file)
    np.testing.assert_array_equal(
        written["conv_in.weight"], np.transpose(state.ema["conv_in"]["kernel"][...], (3, 2, 0, 1))
    )
    metadata = twin.read_metadata(file)
    assert (metadata["step"], metadata["weights"]) == ("7", "ema")
    assert config_io.from_json(json.loads(metadata["config"])) == read_run(workdir).config
    assert file.stat().st_mode & 0o777 == (workdir / "config.json").stat().st_mode & 0o777
    assert not list(workdir.glob("*.partial"))

    new = tmp_path / "new"
    assert status("import", file, "--workdir", new, "--train.steps", "2") == 0
    imported = first_state(new)
    same(imported.params, state.ema)
    same(imported.ema, state.ema)
    assert imported.step == 0
    assert runs.open(new).caption.endswith("; the weights that it began from")
    assert all(not np.any(x) for x in jax.tree.leaves(imported.opt_state))
    assert "holds a run already: pass another --workdir" in error(capsys, "import", file, "--workdir", new)


def test_an_import_is_a_run_to_go_on_with(tmp_path, data_dir, monkeypatch, capsys):
    monkeypatch.setattr(network, "split_network", tiny.split)  # any network whose parameters have known names
    init = tiny.split(tiny.get_config(), tiny.DIGITS, tiny.get_config().process.build()).init
    file = tmp_path / "w.safetensors"
    new = tmp_path / "new"
    twin.save(file, init(jax.random.key(3)))
    empty = tmp_path / "empty"
    empty.mkdir()
    options = ["--data.dir", empty, "--train.steps", "2", "--process.steps", "2"]
    options += ["--process.beta.start", "0.5", "--process.beta.stop", "1"]
    assert status("import", file, CONFIG, "--workdir", new, *options) == 0
    # Nothing is written where only the run says so.
    assert f"digits is not prepared in {empty}" in error(capsys, "eval", new, "--limit", "10")
    assert status("eval", new, "--limit", "10", "--data.dir", data_dir) == 0
    assert "checkpoint of step 0, 10 examples" in capsys.readouterr().out
    assert status("train", "--workdir", new, "--resume", "--data.dir", data_dir) == 0
    assert checkpoint.list_steps(new / "checkpoints") == [0, 2]


def test_an_import_is_a_checkpoint_to_go_back_to():
    window = metrics.Window(lambda means: 10 * means["kl"], (), 1)
    window.add(1, {"loss": jnp.asarray(np.nan)}, saved=0)
    with pytest.raises(UserError, match="loss is nan at step 1; the checkpoint of step 0 is kept"):
        window.close(saved=0)


def test_the_last_weights_and_a_file_without_a_config(old, tmp_path, data_dir, capsys):
    workdir, state = old
    out = tmp_path / "raw.safetensors"
    assert status("export", workdir, "--to", "torch", "--raw", "--step", "7", "--out", out) == 0
    safetensors.numpy.save_file(safetensors.numpy.load_file(out), out)  # as PyTorch saves
    message = error(capsys, "import", out, "--workdir", tmp_path / "new")
    assert f"{out} holds no config: pass one, as in d3pm import {shlex.quote(str(out))} CONFIG" in message
    options = ["--workdir", tmp_path / "new", "--data.dir", data_dir, *SMALL]
    assert status("import", out, CONFIG, *options) == 0
    same(first_state(tmp_path / "new").params, state.params)


def test_what_keeps_weights_from_being_exported(old, tmp_path, capsys):
    workdir, _ = old
    assert "name it FILE.safetensors" in error(
        capsys, "export", workdir, "--to", "torch", "--out", tmp_path / "w.pt"
    )
    assert "no checkpoint of step 3" in error(capsys, "export", workdir, "--to", "torch", "--step", "3")
    assert "holds no run" in error(capsys, "export", tmp_path, "--to", "torch")
    nowhere = tmp_path / "none" / "w.safetensors"
    assert "No such file" in error(capsys, "export", workdir, "--to", "torch", "--out", nowhere)
    assert status("export", workdir) == 2


def changed(tensors, **changes):
    return {k: x for k, x in (tensors | changes).items() if x is not None}


CASES = {
    "missing": ({"conv_in.weight": None}, "missing ['conv_in.weight'], left over []"),
    "extra": ({"other": np.zeros(3, np.float32)}, "missing [], left over ['other']"),
    "shape": ({"conv_in.bias": np.zeros(5, np.float32)}, "conv_in.bias has shape (5,), expected (4,)"),
    "axes": (
        {"conv_in.weight": np.zeros((3, 3, 1, 4), np.float32)},
        "conv_in.weight has shape (3, 3, 1, 4), expected (4, 1, 3, 3)",
    ),
    "float64": ({"conv_in.bias": np.zeros(4)}, "conv_in.bias is F64, expected float32: convert it before"),
    "float16": ({"conv_in.bias": np.zeros(4, np.float16)}, "conv_in.bias is F16"),
    "bfloat16": ({"conv_in.bias": np.asarray(jnp.zeros(4, jnp.bfloat16))}, "conv_in.bias is BF16"),
    "integers": ({"conv_in.bias": np.zeros(4, np.int32)}, "conv_in.bias is I32"),
    "nan": ({"conv_in.bias": np.array([0, 1, np.nan, 0], np.float32)}, "conv_in.bias has entries that are"),
    "inf": ({"conv_in.bias": np.array([0, 1, np.inf, 0], np.float32)}, "conv_in.bias has entries that are"),
}


@pytest.mark.parametrize("case", CASES)
def test_tensors_that_do_not_fit_are_named(case, old, tmp_path):
    _, state = old
    file = tmp_path / "w.safetensors"
    changes, message = CASES[case]
    safetensors.numpy.save_file(changed(twin.to_torch(state.ema), **changes), file)
    with pytest.raises(ValueError, match=r"w\.safetensors: ") as raised:
        twin.load(file, state.params)
    assert message in str(raised.value)


def test_another_architecture_is_one_short_line(old, tmp_path, data_dir, capsys):
    _, state = old
    file = tmp_path / "w.safetensors"
    workdir = tmp_path / "new"
    twin.save(file, state.ema)
    deeper = ["--model.ch-mult", "1", "2", "--model.num-res-blocks", "1"]
    message = error(capsys, "import", file, CONFIG, "--workdir", workdir, "--data.dir", data_dir, *deeper)
    missing = "'down.0.blocks.0.conv1.bias', 'down.0.blocks.0.conv1.weight', 'down.0.blocks.0.conv2.bias'"
    assert f"missing [{missing}] and 59 more" in message
    assert len(message) < 400
    assert not workdir.exists()


def test_bad_files_and_places_get_one_line(old, tmp_path, capsys):
    _, state = old
    file = tmp_path / "w.safetensors"
    twin.save(file, state.ema, {"config": "{"})
    message = error(capsys, "import", file, "--workdir", tmp_path / "new")
    assert f"the config in {file} cannot be read" in message
    assert "pass one, as in" in message
    own = {"class": "own.Net", "width": {"class": "own.Width"}}
    twin.save(file, state.ema, {"config": json.dumps(own)})
    message = error(capsys, "import", file, "--workdir", tmp_path / "new")
    assert "cannot be read (it has parts of its own, Net, Width): pass one, as in d3pm import" in message
    twin.save(file, state.ema, {"config": config_io.dump_config(tiny.get_config())})
    assert "no workdir" in error(capsys, "import", file)
    whole = file.read_bytes()
    for content in (whole[:-10], whole[: len(whole) // 2], whole[:5], b"", b"PK" * 100):
        file.write_bytes(content)
        message = error(capsys, "import", file, "--workdir", tmp_path / "new")
        assert "is damaged, or not a safetensors file" in message
    assert "no weights: pass a file first" in error(capsys, "import", "--workdir", tmp_path / "new")
    assert "No such file" in error(capsys, "import", tmp_path / "none", "--workdir", tmp_path / "new")
    assert not Path(tmp_path / "new").exists()


def test_help_of_export_and_import(old, capsys):
    workdir, state = old
    for name in ("export", "import"):
        assert status(name, "--help") == 0
        assert f"d3pm {name}" in capsys.readouterr().out
    file = workdir / "help.safetensors"
    twin.save(file, state.ema, {"config": config_io.dump_config(tiny.get_config())})
    assert status("import", file, "--help") == 0
    assert "--process.steps" in capsys.readouterr().out


def test_an_import_that_fails_half_way_is_not_gone_on_with(old, tmp_path, data_dir, capsys, monkeypatch):
    workdir, state = old
    file = tmp_path / "w.safetensors"
    new = tmp_path / "new"
    twin.save(file, state.ema, {"config": (workdir / SAVED_CONFIG).read_text()})

    def full(*args):
        raise OSError(28, "No space left on device", "checkpoints/0")

    monkeypatch.setattr(checkpoint, "save_checkpoint", full)
    assert "No space left" in error(capsys, "import", file, "--workdir", new)
    monkeypatch.undo()
    assert "holds no run" in error(capsys, "train", "--workdir", new, "--resume")


NETWORKS = {
    "logistic": {
        "head": configs.LogisticHead(input_range=(0.0, 255.0)),
        "model": configs.UNet(ch=4, ch_mult=(1,), groups=1, classes=10, input_range=(0.0, 255.0)),
    },
    "mask": {
        "head": configs.Head(residual=False),
        "process": configs.Masked(tiny.get_config().process, configs.Reciprocal()),
        "model": configs.ScoreNet(ch=4, ch_mult=(1, 1), groups=1, time_dependent_weights=(0.5, 1.0)),
    },
    "bounded": {"head": configs.LogisticHead(residual=False)},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_pytorch_builds_the_network_and_its_head_from_the_file(name, tmp_path):
    torch = pytest.importorskip("torch")
    exported = pytest.importorskip("torch_ref.runs.exported")
    tiny.write_run(tmp_path / "run", dataclasses.replace(tiny.get_config(), **NETWORKS[name]))
    assert status("export", tmp_path / "run", "--to", "torch") == 0
    run = runs.open(tmp_path / "run")
    xt = np.random.default_rng(1).integers(0, run.process.K, (3, 8, 8, 1))
    t = np.array([1, 4, 10])
    label = np.array([3, 0, 9]) if name == "logistic" else None
    expected = run.predict(*(None if x is None else jnp.asarray(x, jnp.int32) for x in (xt, t, label)))
    with torch.no_grad():
        denoise = exported.denoiser(tmp_path / "run" / "weights.safetensors")
        logits = denoise(*(None if x is None else torch.tensor(x) for x in (xt, t, label))).numpy()
    np.testing.assert_allclose(logits, expected, rtol=5e-6, atol=5e-6)
    keywords = exported.logits_keywords(tmp_path / "run" / "weights.safetensors")
    assert keywords == {"belief": "leave_one_out"}
    safetensors.numpy.save_file({"x": np.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="has no 'config' in its metadata: write it with d3pm export"):
        exported.denoiser(tmp_path / "other.safetensors")


def test_an_export_elsewhere_leaves_a_run_that_cannot_be_written(old, tmp_path, capsys, monkeypatch):
    workdir, _ = old
    out = tmp_path / "w.safetensors"
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != workdir and access(path, mode))
    assert status("export", workdir, "--to", "torch", "--out", out) == 0
    assert out.exists()
    message = f"cannot write the results to {workdir}: change its permissions"
    assert message in error(capsys, "export", workdir, "--to", "torch")
