"""Data, network, process and objective of one's own: train, resume, open, and what is refused."""

import dataclasses
import functools
import json
import shlex
import shutil
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from d3pm_jax import config as configs, runs
from d3pm_jax.config import io as config_io
from d3pm_jax.data import ArraySource, Description
from d3pm_jax.errors import UserError
from d3pm_jax.program.loop import metrics
from d3pm_jax.program.storage import run_folder
from d3pm_jax.program.storage.run_folder import read_run
from tests.cli.commands import error, status
from tests.runs import own_parts

FILE = Path(own_parts.__file__)
SHORT = ["--train.steps", "4", "--train.checkpoint-every", "2", "--model.width", "4"]
SHORT += ["--train.batch-size", "8"]


def same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("own") / "run"
    assert status("train", FILE, "--workdir", workdir, *SHORT) == 0
    return workdir


def test_commands_take_the_file_and_never_run_its_copy(trained, capsys, tmp_path):
    assert (trained / "config.py").read_bytes() == FILE.read_bytes()
    for command in (["eval", trained], ["sample", trained], ["train", "--workdir", trained, "--resume"]):
        message = error(capsys, *command)
        assert "parts of its own, Letters, Convolution: pass the file that defines them" in message
        assert f"--config FILE or runs.open(DIR, FILE); a copy is in {trained / 'config.py'}" in message
    assert status("sample", trained, "--num", "3", "--config", FILE) == 0
    lines = (trained / "samples.txt").read_text().splitlines()
    symbols = np.array(list("abc"))
    assert lines == ["".join(symbols[row]) for row in np.load(trained / "samples.npy")]
    changed = tmp_path / "changed.py"
    changed.write_text(FILE.read_text() + "\n# changed\n")
    message = error(capsys, "eval", trained, "--config", changed)
    assert f"{changed} is not what this run was made with: it differs from {trained / 'config.py'}" in message
    assert "pass --config with the file that defines Letters, Convolution itself, as it was" in message
    both = error(capsys, "train", FILE, "--config", FILE, "--workdir", trained, "--resume")
    assert "is for resuming a run without CONFIG" in both
    assert status("eval", trained, "--limit", "4", "--config", trained / "config.py") == 0
    assert "unigram" in capsys.readouterr().out
    assert json.loads((trained / "eval_limit4.json").read_text())["examples"] == 4


def test_a_config_is_checked_before_the_parts_in_it_are_taken(trained):
    config = own_parts.get_config()
    object.__setattr__(config, "model", own_parts.Convolution)  # unchecked, as in a program of the user's
    with pytest.raises(UserError, match=r"^model = .*, not its class: write Convolution\(\.\.\.\)$"):
        runs.open(trained, config)


def test_it_resumes_to_the_same_bits_and_opens_from_python(trained, tmp_path):
    config = config_io.read_config_file(FILE)
    small = dataclasses.replace(config.train, steps=2, batch_size=8, checkpoint_every=2)
    config = dataclasses.replace(config, model=own_parts.Convolution(4), train=small)
    runs.train(config, tmp_path / "run")
    longer = dataclasses.replace(config, train=dataclasses.replace(small, steps=4))
    again = runs.train(longer, tmp_path / "run", resume=True)
    run = runs.open(trained, FILE)
    assert run.step == again.step == 4
    same(run.parts.state, again.parts.state)
    xt = jnp.full((2, own_parts.LENGTH), 3)
    assert run.predict(xt, jnp.array([1, 24])).shape == (2, own_parts.LENGTH, 4)
    draw = functools.partial(run.sample, jax.random.key(0), 3, runs.Draw(record=(24, 5)), batch_size=2)
    drawn = draw()
    x0, states = drawn.x0, drawn.states
    assert x0.shape == (3, own_parts.LENGTH)
    assert (states[0] == 3).all()
    of_first = draw(chains=1)
    np.testing.assert_array_equal(of_first.x0, x0)
    np.testing.assert_array_equal(of_first.states, states[:, :1])
    bound = run.evaluate(limit=4)
    np.testing.assert_allclose(bound["bits_per_dim"], sum(bound["steps"]) + bound["prior"], rtol=1e-6)
    with pytest.raises(UserError, match=r"model.width was 4, is 5"):
        runs.open(tmp_path / "run", dataclasses.replace(longer, model=own_parts.Convolution(5)))


@dataclasses.dataclass(frozen=True)
class Noted(configs.Data):
    """Ones, and whatever random_map adds; with labels and weights, and a third split."""

    other_splits = ("shifted",)

    def describe(self):
        return Description((3,), 7, classes=2)

    def open(self, split):
        class Weighted(ArraySource):
            def __getitem__(self, index):
                return super().__getitem__(index) | {"weight": np.array([1.0, 1.0, 0.0])}

        size = 5 if split == "shifted" else 8  # it takes any name
        return Weighted(np.ones((size, 3), int), np.arange(size) % 2)

    def random_map(self, example, rng):
        return example | {"x": example["x"] + rng.integers(0, 6, 3)}


class LabelTable(nnx.Module):
    def __init__(self, spec, rngs):
        self.spec = spec
        self.table = nnx.Param(jax.random.normal(rngs(), (spec.classes, spec.K)))

    def __call__(self, xt, t, *, label=None, key=None, weight=None):
        rows = jnp.broadcast_to(self.table[...][label][:, None], (*xt.shape, self.spec.K))
        if weight is None:
            return rows
        return rows * weight[..., None]


@dataclasses.dataclass(frozen=True)
class Table(configs.Model):
    def build(self, spec, rngs):
        return LabelTable(spec, rngs)


@dataclasses.dataclass(frozen=True)
class OnlyMasked(configs.Objective):
    """Cross entropy of what was drawn as 0."""

    def draw(self, process, x0, t, u):
        return jnp.where(u < 0.5, 0, x0)

    def terms(self, process, logits, x0, xt, t, p_t):
        ce = -jnp.take_along_axis(jax.nn.log_softmax(logits), x0[..., None], -1)[..., 0]
        return configs.Terms(jnp.where(xt == 0, ce, 0.0), ce, ce)


def test_labels_weights_random_maps_and_objectives_reach_the_step(tmp_path):
    spec = configs.Config(
        data=Noted(),
        process=configs.Uniform(K=7, steps=4, beta=configs.Cosine()),
        model=Table(),
        head=configs.Head(residual=False),
        loss=OnlyMasked(),
        train=configs.Train(steps=3, batch_size=8, checkpoint_every=1, log_every=1),
    )
    run = runs.train(spec, tmp_path / "run")
    losses = [row["loss"] for row in metrics.read_metrics(tmp_path / "run")]
    table = run.parts.state.params["table"][...]
    assert table.shape == (2, 7)
    x0 = run.sample(jax.random.key(0), 4, runs.Draw(label=1)).x0
    assert x0.shape == (4, 3)
    with pytest.raises(UserError, match=r"label = 2: it must be in 0\.\.1"):
        run.sample(jax.random.key(0), 1, runs.Draw(label=2))
    assert run.read_batch("shifted")["weight"].shape == (5, 3)
    assert len(run.read_last("shifted", 2)["x"]) == 2
    with pytest.raises(UserError, match=r"^there is no split 'other': take train, test or shifted$"):
        run.read_batch("other")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "3")
    runs.train(spec, tmp_path / "run", resume=True)
    assert [row["loss"] for row in metrics.read_metrics(tmp_path / "run")] == losses


@dataclasses.dataclass(frozen=True)
class RateInItsState(configs.Optimizer):
    lr: float = 1e-3


def test_what_the_state_of_an_optimizer_may_keep_stays_on_resume():
    configured = configs.Config(
        data=Noted(),
        process=configs.Uniform(K=7, steps=4, beta=configs.Cosine()),
        model=Table(),
        optimizer=RateInItsState(),
        train=configs.Train(steps=3, batch_size=8),
    )
    new = dataclasses.replace(configured, optimizer=RateInItsState(lr=2e-3))
    with pytest.raises(UserError, match=r"optimizer.lr was 0.001, is 0.002"):
        run_folder.check_resume(configured, new)
    adam = [dataclasses.replace(configured, optimizer=configs.Adam(lr, decay_steps=9)) for lr in (1e-3, 2e-3)]
    run_folder.check_resume(*adam)


def test_a_part_without_a_method_says_which(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Nothing(configs.Data):
        pass

    config = dataclasses.replace(config_io.read_config_file(FILE), data=Nothing())
    with pytest.raises(UserError, match=r"Nothing defines no open: "):
        runs.train(config, tmp_path / "run")


@pytest.mark.slow  # what is filled in has tests in tests/config
def test_data_in_place_of_numbers_is_filled_in_once(tmp_path):
    config = config_io.read_config_file(FILE)
    small = dataclasses.replace(config.train, steps=1, batch_size=8)
    process = configs.Marginal(steps=3, beta=configs.Cosine(), pi="data")
    config = dataclasses.replace(
        config, process=process, head=configs.Head(), model=own_parts.Convolution(4), train=small
    )
    runs.train(config, tmp_path / "run")
    saved = read_run(tmp_path / "run", config).config
    expected = np.bincount(own_parts.sequences(4000, 0).ravel()) / (4000 * own_parts.LENGTH)
    np.testing.assert_allclose(saved.process.pi, expected, rtol=1e-12)
    again = runs.train(config, tmp_path / "run", resume=True)
    assert again.config.process.pi == saved.process.pi


@pytest.fixture
def cell(monkeypatch):
    """The classes of the file as if they had been defined in a cell of a notebook or on stdin."""
    module = types.ModuleType("cell_of_a_notebook")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(FILE.read_text(), vars(module))
    return module


def test_a_run_of_a_notebook_says_that_opening_it_needs_a_file(cell, tmp_path, capsys):
    config = cell.get_config()
    workdir = tmp_path / "run"
    workdir.mkdir()
    run_folder.write_run(workdir, config, config.data.describe())
    note = capsys.readouterr().err
    assert note.startswith(
        "note: Letters, Convolution are defined in no file, and opening this run later needs one: "
    )
    command = f"d3pm eval {shlex.quote(str(workdir))} --config own.py"
    assert f"runs.open({str(workdir)!r}, 'own.py') or {command}" in note
    assert note.count("\n") == 1
    with pytest.raises(UserError) as refused:
        runs.open(workdir)
    assert "--config FILE or runs.open(DIR, FILE); there is no copy: write its classes to FILE" in str(
        refused.value
    )
    assert str(workdir / "config.py") not in str(refused.value)
    assert read_run(workdir, config).config == config
    assert read_run(workdir, FILE).config.model.width == config.model.width


def test_a_run_of_a_notebook_and_a_file_has_no_copy_of_a_part_of_it(cell, tmp_path):
    """A copy of the file alone would refuse the file that has all of them."""
    config = dataclasses.replace(cell.get_config(), model=own_parts.Convolution(4))
    run_folder.write_run(tmp_path, config, config.data.describe())
    assert not (tmp_path / "config.py").exists()
    assert read_run(tmp_path, FILE).config.model.width == 4


def test_a_copy_that_is_gone_is_not_named(tmp_path, capsys):
    config = own_parts.get_config()
    run_folder.write_run(tmp_path, config, config.data.describe())
    assert capsys.readouterr().err == ""
    (tmp_path / "config.py").unlink()
    changed = tmp_path / "changed.py"
    changed.write_text(FILE.read_text() + "\n# changed\n")
    for user_config, expected in (
        (None, "there is no copy"),
        (changed, "is not what this run was made with"),
    ):
        with pytest.raises(UserError, match=expected) as refused:
            read_run(tmp_path, user_config)
        assert f"{tmp_path / 'config.py'}" not in str(refused.value)
