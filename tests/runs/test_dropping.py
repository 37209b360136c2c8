"""Runs that train some examples without label and condition, for guidance."""

import dataclasses
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from d3pm_jax import config as configs, runs
from d3pm_jax.config import io as config_io
from d3pm_jax.errors import UserError
from d3pm_jax.program.parts.build import build, initialize_state, step_arguments
from d3pm_jax.program.parts.completed import complete
from d3pm_jax.program.storage.run_folder import check_resume
from d3pm_jax.training.step import make_loss_step
from tests import tiny
from tests.runs.conditioned import CATEGORIES, Patterns, Table, patterns


def get_config(rate, **changes):
    """A config of patterns with labels and conditions."""
    train = configs.Train(steps=4, batch_size=8, log_every=1, checkpoint_every=2)
    return configs.Config(
        data=Patterns(),
        process=configs.Uniform(K=CATEGORIES, steps=5, beta=configs.Cosine()),
        model=Table(),
        head=configs.Head(residual=False),
        loss=configs.HybridLoss(ce_weight=0.01),
        optimizer=configs.Adam(lr=1e-2),
        train=dataclasses.replace(train, drop_condition=rate, **changes),
    )


def labelled_digits(rate):
    """A config of a U-Net of digits with labels."""
    base = tiny.get_config()
    model = dataclasses.replace(base.model, ch=4, num_res_blocks=0, groups=1, classes=10)
    train = dataclasses.replace(base.train, drop_condition=rate)
    return dataclasses.replace(base, model=model, train=train)


def bits(tree):
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(tree)]


@pytest.mark.slow
def test_a_run_that_goes_on_from_a_file_of_noise_drops_the_same_examples(tmp_path):
    config = get_config(0.5)
    run = runs.train(config, tmp_path / "run")
    expected = bits(run.parts.state)
    assert run.params["table"][...].shape == (CATEGORIES + 1, CATEGORIES)
    runs.presample(config, tmp_path / "noise")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")
    resumed = runs.train(get_config(0.5, noise=str(tmp_path / "noise")), tmp_path / "run", resume=True)
    assert bits(resumed.parts.state) == expected


def test_who_passes_inputs_of_the_data_need_not_know_of_null_ones():
    config = get_config(0.5)
    parts = initialize_state(build(complete(config, config.data.describe()), mesh=tiny.one_device_mesh()))
    run = runs.Run(Path("run"), parts)
    conditions = patterns(3, 2)
    labels = conditions[:, 0, 0]
    x0 = conditions.reshape(-1, 6)
    t = np.ones(3, np.int32)
    assert np.isfinite(run.evaluate_on(x0, labels, 3, condition=conditions)["bits_per_dim"])
    logits = run.predict(x0, t, labels, conditions)
    null = run.predict(x0, t, **run.parts.null_inputs(3))
    network = {name: np.asarray(x[...]) for name, x in run.params["linear"].items()}
    table = np.asarray(run.params["table"][...])
    rows = (
        table[labels] + conditions.reshape(3, 6) @ np.delete(network["kernel"], [3, 7], 0) + network["bias"]
    )
    np.testing.assert_allclose(logits[:, 0], rows, rtol=1e-5)
    row = table[-1] + network["kernel"][[3, 7]].sum(0) + network["bias"]
    np.testing.assert_allclose(null, np.broadcast_to(row, null.shape), rtol=1e-5)
    with pytest.raises(UserError, match=r"label = 4: it must be in 0\.\.3"):
        run.sample(jax.random.key(0), 1, runs.Draw(label=CATEGORIES, condition=conditions))


@pytest.mark.parametrize("make_config", [get_config, pytest.param(labelled_digits, marks=pytest.mark.slow)])
def test_rate_1_is_training_with_every_input_null_to_the_bit(make_config):
    config = make_config(1.0)
    parts = build(complete(config, config.data.describe()), mesh=tiny.one_device_mesh())
    B = config.train.batch_size
    rng = np.random.default_rng(0)
    batch = {
        "x": jnp.asarray(rng.integers(0, parts.recipe.categories, (B, *parts.description.shape)), jnp.int32),
        "label": jnp.asarray(rng.integers(0, parts.recipe.classes, B), jnp.int32),
    }
    if parts.description.condition is not None:
        batch["condition"] = jnp.asarray(patterns(B, 1))
    arguments = step_arguments(parts)
    dropping = arguments.pop("dropping")
    first = initialize_state(parts).state
    drop_all = make_loss_step(**arguments, dropping=dropping)
    drop_none = make_loss_step(**arguments)

    def train(step, batch):
        state = jax.tree.map(jnp.copy, first)
        rows = []
        for _ in range(3):
            state, row = step(state, parts.recipe.process, batch, parts.key)
            rows.append(row)
        return bits((state, rows))

    dropped = train(drop_all, batch)
    assert dropped == train(drop_none, batch | parts.null_inputs(B))
    if make_config is get_config:
        # Inputs of the data make another training of the same network.
        extended = dropping.extend_condition(batch["condition"])
        assert dropped != train(drop_none, batch | {"condition": extended})


def test_rate_0_is_the_training_of_before():
    """The step, its batch and the network are those of a config that does not know the field."""
    for config in (get_config(0.0), labelled_digits(0.0)):
        parts = build(complete(config, config.data.describe()), mesh=tiny.one_device_mesh())
        assert step_arguments(parts)["dropping"] is None
        tree = config_io.to_json(config)
        assert tree["train"].pop("drop_condition") == 0.0
        assert config_io.from_json(tree, config_io.own_parts(config)) == config
        with pytest.raises(UserError, match=r"was not trained without .* --train.drop-condition 0.1$"):
            parts.null_inputs(2)
    with pytest.raises(UserError, match=r"train.drop_condition was 0.0, is 0.25"):
        check_resume(get_config(0.0), get_config(0.25))
    class_rows = parts.state.params["class_emb"]["kernel"].shape[0]
    assert class_rows == 10


def test_a_rate_that_nothing_can_be_dropped_at_is_one_line():
    base = labelled_digits(0.1)
    description = tiny.DIGITS

    def refuse(message, config, description=description):
        with pytest.raises(UserError, match=message):
            tiny.build_checked(config, description)

    unlabelled = dataclasses.replace(base, model=dataclasses.replace(base.model, classes=None))
    cure = "set model.classes = 10, or leave it out$"
    refuse(f"drop_condition = 0.1 drops .*, but the network takes neither: {cure}", unlabelled)
    refuse("takes neither: leave it out$", unlabelled, dataclasses.replace(description, classes=None))
    scalars = dataclasses.replace(description, condition=())
    refuse(r"theirs are single numbers: give them an axis, as condition=\(1,\)$", base, scalars)
    flow = dataclasses.replace(
        base,
        process=configs.Argmax(17),
        model=configs.ArgmaxAR(),
        head=configs.Head(),
        loss=configs.HybridLoss(),
    )
    refuse("drop_condition = 0.1 drops labels and conditions, and a flow takes neither: leave it out", flow)
    for rate in (-0.1, 1.5, float("nan")):
        refuse("train.drop_condition = .*: it must be", labelled_digits(rate))
