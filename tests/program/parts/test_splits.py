"""What is held back from a training: never seen in it, and what the bound is estimated on meanwhile."""

import dataclasses

import jax
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import config as configs, runs
from d3pm_jax.errors import UserError
from d3pm_jax.program.loop import loop, metrics
from d3pm_jax.program.parts import splits
from tests import tiny


def config_of(folder, **train):
    """Eight examples to train on, each with a category of its own."""
    for name, x in (("x", np.arange(8)), ("valid", np.arange(3))):
        np.save(folder / f"{name}.npy", np.tile(x[:, None, None, None], (1, 2, 2, 1)))
    data = configs.Arrays(str(folder / "x.npy"), str(folder / "x.npy"), 8, "image")
    few = dataclasses.replace(tiny.get_config().train, steps=6, batch_size=2, log_every=4, **train)
    return dataclasses.replace(
        tiny.get_config(),
        data=data,
        train=few,
        process=configs.Marginal(pi="data", steps=5, beta=configs.Linear(0.3, 1.0, rescale=False)),
    )


@pytest.mark.usefixtures("small_network")
def test_held_out_examples_are_evaluated_on_and_not_trained_on(tmp_path, monkeypatch):
    config = config_of(tmp_path, eval_every=3, held_out=3)
    seen = []
    batches = loop.data.train_batches

    def noted(source, *args, **more):
        seen.extend(int(source[i]["x"].max()) for i in range(len(source)))
        return batches(source, *args, **more)

    monkeypatch.setattr(loop.data, "train_batches", noted)
    run = runs.train(config, tmp_path / "run")
    assert seen == [0, 1, 2, 3, 4]
    assert run.config.process.pi == (0.2,) * 5 + (0.0,) * 3
    rows = {row["step"]: row for row in metrics.read_metrics(tmp_path / "run")}
    assert [step for step, row in rows.items() if "valid_bits_per_dim" in row] == [3, 6]
    assert set(rows) == {3, 4, 6}


@pytest.mark.slow
@pytest.mark.usefixtures("small_network")
def test_the_estimate_is_that_of_the_stratified_bound_with_the_average_of_the_weights(tmp_path):
    config = config_of(tmp_path, eval_every=6)
    data = dataclasses.replace(config.data, valid=str(tmp_path / "valid.npy"))
    process = dataclasses.replace(config.process, steps=20)
    changes = {"data": data, "process": process, "loss": configs.HybridLoss(belief="denoiser")}
    run = runs.train(dataclasses.replace(config, **changes), tmp_path / "run")
    x0 = np.tile(np.arange(3, dtype=np.int32)[:, None, None, None], (1, 2, 2, 1))
    key = jax.random.fold_in(jax.random.key(0), d3pm.sampling.noise.EVALUATION)
    nats = d3pm.stratified_bound(
        key,
        lambda xt, t: run.predict(xt, t),
        run.process,
        x0,
        np.arange(3, dtype=np.int32),
        10,
        belief="denoiser",
    )
    (row,) = [row for row in metrics.read_metrics(tmp_path / "run") if row["step"] == 6]
    assert row["valid_bits_per_dim"] == pytest.approx(float(d3pm.bits_per_dim(nats.mean(), 4)), rel=1e-5)


def test_what_cannot_be_held_back_is_one_line(tmp_path):
    config = config_of(tmp_path, held_out=7)
    source = config.data.open("train")
    with pytest.raises(UserError, match=r"held_out = 7 leaves 1 of 8 examples, less than a batch of 2"):
        splits.take_training_examples(config, source)
    with pytest.raises(UserError, match=r"eval_every = 5, but the data has no valid split: name one, or"):
        splits.open_validation(config_of(tmp_path, eval_every=5))
    data = configs.Arrays("a", "b", 8, valid_labels="c")
    with pytest.raises(ValueError, match=r"data.valid_labels = 'c' without data.valid"):
        data.check()


@pytest.mark.usefixtures("small_network")
@pytest.mark.filterwarnings("ignore:x_T still depends on x_0")
def test_an_infinite_bound_is_told_and_left_out(tmp_path, capsys):
    config = config_of(tmp_path, eval_every=3, held_out=3)
    process = configs.Absorbing(K=9, steps=5, beta=configs.Reciprocal(1.5), mask_id=8)
    runs.train(dataclasses.replace(config, process=process), tmp_path / "run")
    assert "the bound of the held-out examples is infinite" in capsys.readouterr().out
    assert all("valid_bits_per_dim" not in row for row in metrics.read_metrics(tmp_path / "run"))
