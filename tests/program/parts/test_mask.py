"""A config says its mask once, as the process; where the data has fewer categories the head forbids it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax
from d3pm_jax import config as configs, runs
from d3pm_jax.config.process import find_extra_mask
from d3pm_jax.errors import UserError
from d3pm_jax.program.loop import loop
from d3pm_jax.program.parts import begin, build
from d3pm_jax.program.parts.completed import complete
from d3pm_jax.program.parts.network import split_network
from tests import tiny

BETA = configs.Reciprocal()
KEY = jax.random.key(0)
UNIFORM = tiny.get_config().process
EXTRA = configs.Absorbing(K=18, steps=10, beta=BETA, mask_id=17)  # the data has 17 categories
OF_DATA = dataclasses.replace(EXTRA, K=17, mask_id=16)
TOO_MANY = dataclasses.replace(EXTRA, K=20)
NOT_LAST = (
    r"^category 17 is a mask that the data, of 17 categories, .* but process.K = 20: set process.K = 18$"
)
LOOSE = (
    "warning: category 17 is a mask that the data, of 17 categories, never has, but Loose.logits does not "
    "forbid it"
)
pytestmark = pytest.mark.usefixtures("small_network")


@dataclasses.dataclass(frozen=True)
class Loose(configs.Head):
    """A head of a user's own that lets samples hold the mask."""

    def logits(self, output, xt, K):
        return output


@dataclasses.dataclass(frozen=True)
class Levels(configs.Head):
    """A head of a user's own that forbids the mask by itself."""

    def logits(self, output, xt, K):
        return d3pm_jax.forbid(output, K - 1)


def config_of(process, **parts):
    return dataclasses.replace(tiny.get_config(), process=process, **parts)


def built(process, **parts):
    completed = complete(config_of(process, **parts), tiny.DIGITS)
    return build.build(completed, mesh=tiny.one_device_mesh())


@dataclasses.dataclass(frozen=True)
class Hiding(configs.Process):
    """A process of a user's own that says no mask: what it builds does."""

    def build(self):
        return d3pm_jax.absorbing(d3pm_jax.reciprocal(10), 18, 17)


@pytest.mark.parametrize(
    ("process", "mask"),
    [
        (EXTRA, 17),
        (Hiding(), 17),
        (configs.Masked(UNIFORM, BETA), 17),
        (configs.Autoregressive(K=18, L=10, mask_id=17), 17),
        (TOO_MANY, 17),
        (OF_DATA, None),
        (dataclasses.replace(OF_DATA, mask_id=3), None),
        (dataclasses.replace(UNIFORM, K=20), None),
    ],
)
def test_a_mask_is_extra_where_the_data_has_fewer_categories(process, mask):
    assert find_extra_mask(process, process.build(), 17) == mask


def test_matrices_name_their_mask(tmp_path):
    file = tmp_path / "Q.npy"
    to_mask = np.repeat(np.eye(18)[17:], 18, axis=0)
    np.save(file, np.stack([np.eye(18) / 4 + to_mask * 3 / 4] * 10))
    process = configs.Dense(str(file), mask_id=17)
    assert find_extra_mask(process, process.build(), 17) == 17
    assert find_extra_mask(configs.Dense(str(file)), process.build(), 17) is None


@pytest.mark.parametrize("process", [EXTRA, Hiding(), configs.Masked(UNIFORM, BETA)])
def test_it_is_no_category_of_the_data(process):
    parts = built(process)
    assert parts.recipe.extra_mask == 17
    assert parts.recipe.categories == 17
    build.check_mask(parts)


@pytest.mark.parametrize("head", [configs.Head(), configs.LogisticHead(), Levels()])
def test_the_head_forbids_it(head, capsys):
    functions = split_network(config_of(EXTRA, head=head), tiny.DIGITS, EXTRA.build(), 17)
    assert functions.extra_mask == 17
    assert functions.train_parameters is None
    assert capsys.readouterr().err == ""
    xt = jnp.zeros((1, 8, 8, 1), jnp.int32)
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(functions.init, KEY))
    logits = functions.predict(params, xt, jnp.ones(1, jnp.int32))
    np.testing.assert_array_equal(np.isneginf(logits), np.broadcast_to(np.arange(18) == 17, logits.shape))


@pytest.mark.parametrize("process", [OF_DATA, dataclasses.replace(UNIFORM, K=20)])
def test_no_other_category_is_forbidden(process):
    parts = built(process)
    assert parts.recipe.extra_mask is None
    assert parts.recipe.categories == process.K
    build.check_mask(parts)


def test_no_run_begins_with_more_categories_than_the_mask_takes():
    with pytest.raises(UserError, match=NOT_LAST):
        build.check_mask(built(TOO_MANY))


def test_a_head_of_ones_own_that_lets_samples_hold_it_gets_a_line(capsys):
    functions = split_network(config_of(EXTRA, head=Loose()), tiny.DIGITS, EXTRA.build(), 17)
    assert functions.extra_mask is None
    printed = capsys.readouterr().err
    assert printed.startswith(LOOSE)
    assert printed.endswith(": end it with d3pm_jax.forbid(logits, 17) in a new run\n")
    assert printed.count("\n") == 1


def test_the_loss_in_continuous_time_needs_an_extra_mask():
    loss = configs.ContinuousAbsorbing()
    parts = {"loss": loss, "timesteps": configs.RealTimes()}
    assert built(EXTRA, **parts).recipe.extra_mask == 17
    refused = (
        r"^loss = ContinuousAbsorbing needs an extra mask, .* has 17: set process.K = 18 and process.mask_id"
    )
    with pytest.raises(UserError, match=refused):
        built(OF_DATA, **parts)


def test_training_and_its_trial_refuse_a_mask_that_is_not_the_last_and_such_weights_begin_a_run(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(16 * 64).reshape(16, 8, 8, 1) % 17)
    data = configs.Arrays(str(tmp_path / "x.npy"), str(tmp_path / "x.npy"), 17, "image")
    config = config_of(TOO_MANY, data=data)
    with pytest.raises(UserError, match=NOT_LAST):
        loop.build_run(config)
    with pytest.raises(UserError, match=NOT_LAST):
        runs.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()

    parts = built(TOO_MANY)
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), parts.state.params)
    begin.begin_run(parts, tmp_path / "run", params)
    assert (tmp_path / "run" / "config.json").is_file()
