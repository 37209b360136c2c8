"""Noise files: what they hold, training with one against training without, and what is said of bad ones."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from array_record.python import array_record_module

import d3pm_jax as d3pm
from d3pm_jax import config as configs, runs
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError
from d3pm_jax.program.loop import presampled
from d3pm_jax.program.parts import build as run_build
from d3pm_jax.program.parts.completed import complete
from d3pm_jax.program.storage import checkpoint
from d3pm_jax.program.storage.run_folder import read_run
from d3pm_jax.training import diffusion, step as step_module
from tests import tiny
from tests.cli.commands import CONFIG, error, status

pytestmark = pytest.mark.usefixtures("small_network")

SHAPE = (16, 8, 8, 1)
STEPS = 5


def build(steps=STEPS, image=SHAPE[1:], **changes):
    base = tiny.get_config()
    train = dataclasses.replace(base.train, steps=steps, **changes.pop("train", {}))
    config = dataclasses.replace(base, train=train, **changes)
    return run_build.build(complete(config, Description(image, 17, 10, "image")))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A noise file of STEPS steps."""
    path = tmp_path_factory.mktemp("banks") / "n.array_record"
    presampled.write_noise(build(), STEPS, path)
    return path


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("data"))


def state_of(workdir, step):
    parts = run_build.build(complete(read_run(workdir).config, tiny.DIGITS))
    return [np.asarray(x) for x in jax.tree.leaves(run_build.restore_state(workdir, parts, step).state)]


@pytest.mark.parametrize(
    "spec", [configs.LowDiscrepancy(), pytest.param(configs.Independent(), marks=pytest.mark.slow)]
)
def test_a_bank_holds_what_the_definition_of_a_step_says(spec, tmp_path):
    parts = build(timesteps=spec)
    path = tmp_path / "n.array_record"
    presampled.write_noise(parts, STEPS, path)
    noise_of = presampled.open_noise(parts, path)
    key = jax.random.split(jax.random.key(0))[1]
    for i in (4, 0, 3):  # in any order
        key_t, key_q, _ = jax.random.split(jax.random.fold_in(key, i), 3)
        if spec == configs.LowDiscrepancy():
            t = d3pm.low_discrepancy(jax.random.uniform(key_t), 16, 10)
        else:
            t = 1 + np.floor(10 * np.asarray(jax.random.uniform(key_t, (16,))))
        t_found, p_t, u_found = noise_of(i)
        np.testing.assert_array_equal(t_found, t)
        np.testing.assert_array_equal(u_found, jax.random.uniform(key_q, SHAPE))
        np.testing.assert_array_equal(p_t, np.full(16, 0.1, np.float32))
        assert (t_found.dtype, u_found.dtype) == (np.int32, np.float32)
    reader = array_record_module.ArrayRecordReader(str(path))
    header = json.loads(reader.read([0])[0])
    kind = type(spec).__name__
    assert header == {
        "format": "d3pm noise bank",
        "version": 1,
        "steps": 5,
        "batch_size": 16,
        "image": [8, 8, 1],
        "T": 10,
        "seed": 0,
        "timesteps": {"class": kind},
    }
    assert reader.num_records() == 6


def test_a_run_with_a_bank_ends_with_the_bits_of_one_without(tmp_path, data_dir, monkeypatch, capsys):
    parts = build()
    path = tmp_path / "n.array_record"
    config = parts.config
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, dir=data_dir))

    def trained(name, resume=False, **train):
        changed = dataclasses.replace(config, train=dataclasses.replace(config.train, **train))
        runs.train(changed, tmp_path / name, resume)
        return tmp_path / name

    alone = state_of(trained("alone"), STEPS)
    assert status("presample", CONFIG, "--steps", STEPS, "--out", path, "--data.dir", data_dir) == 0
    assert "noise of 5 steps of batch size 16" in capsys.readouterr().out
    assert [p.name for p in tmp_path.glob("n.*")] == ["n.array_record"]

    def fail(*args):
        raise AssertionError("noise was drawn")

    monkeypatch.setattr(diffusion, "draw_noise", fail)
    trained("banked", steps=2, noise=str(path))
    workdir = trained("banked", resume=True, steps=STEPS, noise=str(path))
    assert checkpoint.list_steps(workdir / "checkpoints") == [2, 4, 5]
    for a, b in zip(state_of(workdir, STEPS), alone, strict=True):
        np.testing.assert_array_equal(a.view(np.uint32), b.view(np.uint32))


def test_noise_that_is_passed_is_used():
    parts = run_build.initialize_state(build())
    step = step_module.make_step(
        parts.config.loss,
        parts.config.timesteps,
        parts.config.optimizer.build(),
        parts.recipe.diffusion.predict,
        parts.config.train.ema_decay,
    )
    x0 = jax.numpy.full(SHAPE, 3, jax.numpy.int32)
    losses = []
    for u in (0.0, 0.999):
        state = jax.tree.map(jax.numpy.copy, parts.state)
        noise = diffusion.StepNoise(
            np.full(16, 10, np.int32), np.full(16, 0.1, np.float32), np.full(SHAPE, u, np.float32)
        )
        losses.append(float(step(state, parts.recipe.process, {"x": x0}, parts.key, noise)[1]["kl"]))
    assert losses[0] != losses[1]


PROCESS = configs.Uniform(K=17, steps=9, beta=configs.Linear(0.2, 1.0, rescale=False))
OTHERS = {
    "steps": ({"steps": 6}, "has 5 steps, train.steps is 6: presample more, or lower train.steps"),
    "batch": ({"train": {"batch_size": 8}}, "has batch_size 16, this run has 8: presample one"),
    "image": ({"image": (4, 4, 1)}, "has image [8, 8, 1], this run has [4, 4, 1]"),
    "T": ({"process": PROCESS}, "has T 10, this run has 9"),
    "seed": ({"train": {"seed": 1}}, "has seed 0, this run has 1"),
    "spread": (
        {"timesteps": configs.Independent()},
        "has timesteps {'class': 'LowDiscrepancy'}, this run has {'class': 'Independent'}",
    ),
    "importance": (
        {"timesteps": configs.Importance()},
        "timesteps=Importance draws t by the losses of the run, not in advance: use LowDiscrepancy()",
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_bank_of_another_run_is_refused(case, written):
    changes, message = OTHERS[case]
    with pytest.raises(UserError) as raised:
        presampled.open_noise(build(**changes), written)
    assert message in str(raised.value)


def test_a_bank_that_is_damaged_is_refused(written, tmp_path):
    parts = build()
    content = written.read_bytes()
    bad = tmp_path / "bad.array_record"
    u = presampled.open_noise(parts, written)(3).u.tobytes()
    place = content.index(u) + len(u) // 2
    bad.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    noise_of = presampled.open_noise(parts, bad)
    assert noise_of(2).t.shape == (16,)
    with pytest.raises(UserError, match=r"bad\.array_record is damaged .*: presample it again"):
        noise_of(3)
    for cut in (content[:-100], content[: len(content) // 2], b"", b"junk" * 20000):
        bad.write_bytes(cut)
        with pytest.raises(UserError, match="is damaged"):
            presampled.open_noise(parts, bad)

    def records(*texts):
        writer = array_record_module.ArrayRecordWriter(str(bad), presampled.WRITER)
        for text in texts:
            writer.write(text)
        writer.close()

    header = array_record_module.ArrayRecordReader(str(written)).read([0])[0]
    for texts, message in {
        (b"\x89PNG", b"2"): "or not a noise file",
        (b"[1]",): "or not a noise file",
        (b'{"version": 1, "steps": [5]}',): "or not a noise file",
        (b"[" * 9999,): "or not a noise file",
        (header.replace(b'"version": 1', b'"version": 2'),): "has version 2, expected 1",
        (header, b"1", b"2"): "3 records instead of 6",
    }.items():
        records(*texts)
        with pytest.raises(UserError, match=message):
            presampled.open_noise(parts, bad)
    records(header, *[b"short"] * 5)
    with pytest.raises(UserError, match="record 1 has 5 bytes"):
        presampled.open_noise(parts, bad)(0)


@pytest.mark.usefixtures("x64")
def test_float64_is_not_mistaken_for_float32(written):
    with pytest.raises(UserError, match="noise files hold float32"):
        presampled.open_noise(build(), written)


def test_commands_say_in_one_line_what_is_wrong(tmp_path, data_dir, capsys):
    there = ["--data.dir", data_dir]
    out = ["--out", tmp_path / "n.array_record"]
    message = error(
        capsys, "train", CONFIG, "--workdir", tmp_path / "w", *there, "--train.noise", tmp_path / "none"
    )
    assert f"no noise file {tmp_path / 'none'}: write it with d3pm presample CONFIG --out" in message
    assert not (tmp_path / "w").exists()
    assert "no config: pass a Python file" in error(capsys, "presample", *out)
    assert "name it FILE.array_record" in error(capsys, "presample", CONFIG)
    assert "name it FILE.array_record" in error(capsys, "presample", CONFIG, "--out", tmp_path / "n.npz")
    nowhere = ["--out", tmp_path / "none" / "n.array_record"]
    assert "No such file" in error(capsys, "presample", CONFIG, *there, *nowhere)
    source = "from tests import tiny\nfrom d3pm_jax.config import Importance\nimport dataclasses\n"
    source += "def get_config():\n    return dataclasses.replace(tiny.get_config(), timesteps=Importance())\n"
    (tmp_path / "own.py").write_text(source)
    assert "timesteps=Importance" in error(capsys, "presample", tmp_path / "own.py", *there, *out)
    assert not list(tmp_path.glob("n.*"))
    assert status("presample", "--help") == 0
    assert "--train.noise FILE" in capsys.readouterr().out
