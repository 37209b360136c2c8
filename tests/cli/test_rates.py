"""Optimizers and rates on the command line, a run that goes on with another rate, logs that are asked for."""

import dataclasses
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from d3pm_jax import config as configs, runs
from d3pm_jax.cli import reading as overrides
from d3pm_jax.errors import UserError
from d3pm_jax.program.loop.metrics import read_metrics
from d3pm_jax.program.storage import run_folder
from tests import tiny
from tests.cli.commands import error, status, train_args

pytestmark = pytest.mark.usefixtures("small_network")


def with_rate(rate, steps=3):
    config = tiny.get_config()
    train = dataclasses.replace(config.train, steps=steps, checkpoint_every=1, keep_checkpoints=9)
    return dataclasses.replace(config, optimizer=configs.AdamW(lr=0.01, rate=rate), train=train)


def test_fields_of_a_rate_and_of_an_optimizer_are_overridden():
    base = dataclasses.replace(tiny.get_config(), optimizer=configs.Muon(rate=configs.WSDRate(20, 5)))
    words = ["--optimizer.rate.steps", "1000", "--optimizer.rate.decay", "linear", "--optimizer.beta", "0.9"]
    words += ["--optimizer.adam", "embed", "last"]
    config = overrides.apply_overrides(base, words, "")
    wanted = configs.Muon(rate=configs.WSDRate(1000, 5, "linear"), beta=0.9, adam=("embed", "last"))
    assert config.optimizer == wanted
    with pytest.raises(UserError, match=r"--optimizer.rate.steps: expected a whole number in .*, got 'x'"):
        overrides.apply_overrides(base, ["--optimizer.rate.steps", "x"], "")


def test_all_of_a_rate_may_change_on_resume_and_nothing_beside_it():
    old = with_rate(configs.WSDRate(20, 5))
    for rate in (configs.WSDRate(30, 2, "linear"), configs.ConstantRate()):
        run_folder.check_resume(old, with_rate(rate))
    for field, value in (("warmup_steps", 5), ("b1", 0.5)):
        optimizer = dataclasses.replace(old.optimizer, **{field: value})
        with pytest.raises(UserError, match=rf"optimizer.{field} was .*, is {value}"):
            run_folder.check_resume(old, dataclasses.replace(old, optimizer=optimizer))
    lion = dataclasses.replace(old, optimizer=configs.Lion(rate=old.optimizer.rate))
    with pytest.raises(UserError, match=r"optimizer.class was AdamW, is Lion"):
        run_folder.check_resume(old, lion)


def rate_of(folder, config, step):
    """The learning rate of a step, from what it did to the parameters and the moments after it."""
    before = runs.open(folder, config, step - 1).parts.state
    after = runs.open(folder, config, step).parts.state
    moved = np.asarray(after.params["late"]["bias"] - before.params["late"]["bias"])
    adam = after.opt_state[1][0]
    mean = np.asarray(adam.mu["late"]["bias"]) / (1 - 0.9**step)
    square = np.asarray(adam.nu["late"]["bias"]) / (1 - 0.999**step)
    return np.median(-moved * (np.sqrt(square) + 1e-8) / mean)


@pytest.mark.slow
def test_a_run_goes_on_with_another_rate(tmp_path):
    old = configs.WSDRate(3, 2, "linear")
    new = configs.CosineRate(9)
    runs.train(with_rate(old), tmp_path)
    with pytest.raises(UserError, match=r"optimizer.rate.steps = 3: the learning rate is 0 after that"):
        runs.train(with_rate(old, 5), tmp_path, resume=True)
    config = with_rate(new, 5)
    run = runs.train(config, tmp_path, resume=True)
    assert run.config.optimizer.rate == new
    parts = [old.build()(jnp.asarray(n)) for n in (1, 2)] + [new.build()(jnp.asarray(n)) for n in (3, 4)]
    rates = [rate_of(tmp_path, config, step) for step in (2, 3, 4, 5)]
    np.testing.assert_allclose(rates, 0.01 * np.array(parts), rtol=2e-3)


class RecordingLog:
    """A logger of the user's own."""

    def __init__(self):
        self.steps = []
        self.closed = False

    def log(self, step, values):
        assert {"loss", "kl", "ce", "grad_norm"} <= set(values)
        self.steps.append(step)

    def close(self):
        self.closed = True


@pytest.mark.slow
def test_a_logger_of_the_users_own_gets_what_the_file_has(tmp_path):
    log = RecordingLog()
    runs.train(with_rate(configs.ConstantRate()), tmp_path, logs=[log])
    assert log.steps == [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3]
    assert log.closed


def test_weights_and_biases_without_its_package_is_refused_before_anything_is_written(
    tmp_path, data_dir, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    args = train_args(tmp_path / "run", data_dir, "--wandb", "digits")
    assert "--wandb needs wandb: pip install -e '.[wandb]' in the clone" in error(capsys, *args)
    assert not (tmp_path / "run").exists()
    assert status("train", "--help") == 0
    assert "--wandb PROJECT" in capsys.readouterr().out
