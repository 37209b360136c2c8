"""Data with conditions: each example has its own, in training, in bounds, samples, reports and files."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from d3pm_jax import config as configs, runs
from d3pm_jax.data import DatasetError, Description, read_batch
from d3pm_jax.errors import UserError
from d3pm_jax.program.loop import metrics
from d3pm_jax.program.measure import bounds
from d3pm_jax.program.parts.network import split_network
from tests import tiny
from tests.cli.commands import error, status
from tests.runs import conditioned, own_parts
from tests.runs.conditioned import patterns

FILE = Path(conditioned.__file__)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of a network that repeats its condition, which is right for every example."""
    workdir = tmp_path_factory.mktemp("conditioned") / "run"
    assert status("train", FILE, "--workdir", workdir) == 0
    return workdir


@pytest.mark.slow
def test_a_run_goes_on_with_the_same_conditions(trained, tmp_path):
    workdir = tmp_path / "run"
    assert status("train", FILE, "--workdir", workdir, "--train.steps", "2") == 0
    assert status("train", "--workdir", workdir, "--resume", "--config", FILE, "--train.steps", "4") == 0
    losses = [[row["loss"] for row in metrics.read_metrics(folder)] for folder in (trained, workdir)]
    assert losses[0] == losses[1]


def test_an_example_is_trained_and_evaluated_with_its_own_condition(trained):
    rows = metrics.read_metrics(trained)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert max(row["bound_bits_per_dim"] for row in rows) < 1e-3

    run = runs.open(trained, FILE)
    assert run.evaluate(batch_size=32)["bits_per_dim"] < 1e-3
    conditions = patterns(70, 1)
    x0 = conditions.reshape(-1, 6)
    labels = x0[:, 0]
    assert run.evaluate_on(x0, labels, 32, condition=conditions)["bits_per_dim"] < 1e-3
    assert run.evaluate_on(x0, labels, 32, condition=conditions.tolist(), calls=2)["bits_per_dim"] < 1e-3
    assert run.evaluate_on(x0, labels, 32, condition=np.roll(conditions, 1, 0))["bits_per_dim"] > 1
    logits = run.predict(x0, np.ones(70, int), labels, conditions)
    np.testing.assert_array_equal(logits.argmax(-1), x0)


def test_bounds_of_other_conditions_or_labels_do_not_compare(trained):
    parts = runs.open(trained, FILE).parts
    conditions = patterns(5, 1)
    examples = {"x": conditions.reshape(-1, 6), "label": conditions[:, 0, 0], "condition": conditions}
    protocols = [bounds.describe_protocol(parts, examples, 0, "test", "all")]
    for name in "label", "condition":
        others = examples | {name: np.roll(examples[name], 1, axis=0)}
        protocols.append(bounds.describe_protocol(parts, others, 0, "test", "all"))
    inputs = [protocol.pop("inputs") for protocol in protocols]
    assert protocols == [protocols[0]] * 3
    assert len(set(inputs)) == 3


def test_sample_i_has_condition_i_modulo_their_number(trained, tmp_path, capsys):
    run = runs.open(trained, FILE)
    conditions = patterns(3, 2)
    labels = conditions[:, 0, 0]
    draw = runs.Draw(label=labels, record=(5, 0), condition=conditions.tolist())
    drawn = run.sample(jax.random.key(0), 7, draw, batch_size=4)
    x0 = drawn.x0
    np.testing.assert_array_equal(x0, conditions.reshape(-1, 6)[np.arange(7) % 3])
    np.testing.assert_array_equal(drawn.states[1], x0)
    assert np.any(drawn.states[0] != x0)

    file = tmp_path / "conditions.npy"
    np.save(file, conditions)
    options = ("--config", FILE, "--num", "4", "--condition", file)
    assert status("sample", trained, *options) == 0
    assert f"sample i with row i of {file} modulo its rows" in capsys.readouterr().out
    index = np.array([0, 1, 2, 0])
    shift = np.arange(4) - labels[index]  # as sample i is of class i modulo 4
    expected = (conditions[index].reshape(4, 6) + shift[:, None]) % conditioned.CATEGORIES
    np.testing.assert_array_equal(np.load(trained / "samples_condition.npy"), expected)
    np.save(file, conditions + 1)
    assert status("sample", trained, *options) == 0
    assert "samples_condition.npy, replaces that of condition sha256 " in capsys.readouterr().out


def test_a_run_keeps_the_conditions_of_its_examples(trained):
    conditions = patterns(70, 1)[:64]
    np.testing.assert_array_equal(np.load(trained / "conditions.npy"), conditions)
    np.testing.assert_array_equal(np.load(trained / "examples.npy"), conditions.reshape(-1, 6))
    (samples,) = (trained / "samples").iterdir()
    np.testing.assert_array_equal(np.load(samples), conditions.reshape(-1, 6))
    inputs = runs.open(trained, FILE).read_sample_inputs(5)
    np.testing.assert_array_equal(inputs["condition"], conditions[:5])
    np.testing.assert_array_equal(inputs["label"], conditions[:5, 0, 0])
    np.testing.assert_array_equal(np.load(trained / "labels.npy"), conditions[:, 0, 0])


def test_damaged_conditions_are_named(trained, capsys):
    file = trained / "conditions.npy"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        assert "conditions.npy is not what was written: restore it" in error(
            capsys, "report", trained, "--config", FILE
        )
    finally:
        file.write_bytes(content)
    assert status("report", trained, "--config", FILE) == 0

    file.unlink()
    assert status("train", "--workdir", trained, "--resume", "--config", FILE) == 0
    assert file.read_bytes() == content


def test_what_is_no_condition_of_a_run_is_one_line(trained, tmp_path, capsys):
    sample = ("sample", trained, "--config", FILE, "--num", "2")
    cure = "pass condition (d3pm sample --condition FILE.npy), int32 [N, 2, 3]"
    assert f"the network of this run takes a condition: {cure}" in error(capsys, *sample)
    file = tmp_path / "conditions.npy"
    refused = {
        "the condition has shape [2, 6]": np.zeros((2, 6), int),
        "the condition has shape [2, 3]": np.zeros((2, 3), int),
        "the condition has shape [0, 2, 3]": np.zeros((0, 2, 3), int),
        "the condition has dtype float64, expected int32: convert it": np.zeros((1, 2, 3)),
        "the condition has integers of int64 that int32 cannot hold": np.full((1, 2, 3), 2**31),
    }
    for message, conditions in refused.items():
        np.save(file, conditions)
        assert message in error(capsys, *sample, "--condition", file)
    assert "none.npy (from" in error(capsys, *sample, "--condition", tmp_path / "none.npy")

    run = runs.open(trained, FILE)
    x0 = patterns(2, 1).reshape(-1, 6)
    with pytest.raises(UserError, match="the network of this run takes a condition"):
        run.evaluate_on(x0, x0[:, 0])
    with pytest.raises(UserError, match="takes labels: pass labels, an integer for each example"):
        run.evaluate_on(x0, condition=patterns(2, 1))
    with pytest.raises(UserError, match=r"the condition has shape \[3, 2, 3\]: .* int32 \[2, 2, 3\]"):
        run.evaluate_on(x0, x0[:, 0], condition=patterns(3, 1))


def test_examples_without_their_condition_are_one_line():
    def batch(description, *examples):
        return read_batch(examples, 4, description=description)

    described = Description((2,), 4, condition=(1,))
    x = np.zeros(2, int)
    with pytest.raises(DatasetError, match="example 1 has no condition, which the data is described with"):
        batch(described, {"x": x, "condition": np.ones(1)}, {"x": x})
    with pytest.raises(DatasetError, match=r"the condition of example 0 has shape \(2,\), expected \(1,\)"):
        batch(described, {"x": x, "condition": np.ones(2)})
    with pytest.raises(DatasetError, match="the condition of example 0 has entries that are not finite in"):
        batch(described, {"x": x, "condition": np.array([1e300])})
    with pytest.raises(DatasetError, match=r"example 0 has a condition \[1\], but the data is described wi"):
        batch(Description((2,), 4), {"x": x, "condition": np.ones(1)})


@pytest.mark.parametrize(
    ("model", "shape", "cure"),
    [
        (
            configs.ScoreNet(ch=8, groups=4, attn=()),
            (8, 8, 1),
            "take UNet, Transformer, MLP, or a network of your own whose __call__ takes the keyword "
            "condition",
        ),
        (own_parts.Convolution(4), (16,), "add the keyword condition to its __call__"),
    ],
)
def test_a_network_without_conditions_is_refused_with_a_cure_for_such_data(model, shape, cure):
    config = dataclasses.replace(tiny.get_config(), model=model)
    description = Description(shape, 17, condition=(3,))
    name = type(model).__name__
    message = rf"the data has a condition \[3\], but the network of {name} has no keyword condition: {cure}$"
    with pytest.raises(ValueError, match=message):
        split_network(config, description, config.process.build(), None)


class Deaf(nnx.Module):
    def __init__(self, spec):
        self.K = spec.K
        self.scale = nnx.Param(jax.numpy.float32(1.0))

    def __call__(self, xt, t, *, condition, label):
        return self.scale[...] * jax.nn.one_hot(xt, self.K)


@dataclasses.dataclass(frozen=True)
class DeafModel(configs.Model):
    def build(self, spec, rngs):
        return Deaf(spec)


def test_a_network_that_does_not_look_at_its_condition_is_said(capsys):
    for model, is_said in ((DeafModel(), True), (conditioned.Repeat(), False)):
        config = dataclasses.replace(conditioned.get_config(), model=model)
        split_network(config, config.data.describe(), config.process.build(), None)
        said = "the network of DeafModel does not look at the condition: use it" in capsys.readouterr().err
        assert said == is_said


@pytest.mark.slow
def test_a_run_of_weights_alone_is_reported_without_samples(tmp_path):
    config = tiny.get_config()
    description = dataclasses.replace(tiny.DIGITS, condition=(3,))
    tiny.write_run(tmp_path / "run", config, step=0, description=description)
    assert status("report", tmp_path / "run") == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Samples need conditions" in page
