"""A config says its mask once, as the process; where the data has fewer categories the head forbids it."""

import dataclasses
from typing import ClassVar

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


@dataclasses.dataclass(frozen=True)
class Naming(configs.Process):
    """A process of a user's own that the library cannot look into, with a field of any value for its mask."""

    mask_id: object

    def build(self):
        return d3pm_jax.dense(np.tile(np.eye(20) / 4 + np.full((20, 20), 3 / 80), (10, 1, 1)))


@pytest.mark.parametrize(("value", "mask"), [(17, 17), ((17,), None), ("last", None), (20, None), (-1, None)])
def test_a_field_of_a_process_of_ones_own_that_names_no_category_names_no_mask(value, mask):
    process = Naming(value)
    assert find_extra_mask(process, process.build(), 17) == mask


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


CONTINUOUS = {"loss": configs.ContinuousAbsorbing(), "timesteps": configs.RealTimes()}
NO_EXTRA_MASK = (
    r"^loss = ContinuousAbsorbing needs an extra mask, .* has 17: take a process that masks, as Absorbing, "
    r"with K = 18 and mask_id = 17$"
)


def test_the_loss_in_continuous_time_takes_an_extra_mask_that_the_head_forbids():
    config = config_of(EXTRA, **CONTINUOUS, head=Levels())
    assert split_network(config, tiny.DIGITS, EXTRA.build(), 17).extra_mask == 17


def test_the_loss_in_continuous_time_refuses_a_head_that_lets_samples_hold_the_mask(capsys):
    refused = (
        r"^loss = ContinuousAbsorbing needs an extra mask that the head forbids, but Loose.logits does not: "
        r"end it with d3pm_jax.forbid\(logits, 17\)$"
    )
    with pytest.raises(ValueError, match=refused):
        split_network(config_of(EXTRA, **CONTINUOUS, head=Loose()), tiny.DIGITS, EXTRA.build(), 17)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("process", "parts", "refused"),
    [
        (OF_DATA, CONTINUOUS, NO_EXTRA_MASK),
        (dataclasses.replace(EXTRA, mask_id=0), CONTINUOUS, NO_EXTRA_MASK),
        (UNIFORM, CONTINUOUS, NO_EXTRA_MASK),
        (
            TOO_MANY,
            CONTINUOUS,
            r"does not fit this process: .*; give both the same .* = Absorbing with mask_id = 19$",
        ),
        (dataclasses.replace(OF_DATA, K=4, mask_id=3), {}, r"^process.K = 4, but the data has 17 categories"),
    ],
)
def test_a_process_that_is_not_for_the_data_or_the_loss_is_refused_before_a_network_is_made(
    process, parts, refused
):
    with pytest.raises(UserError, match=refused):
        complete(config_of(process, **parts), tiny.DIGITS)


class Watched:
    """Notes whether a head of a user's own is ever given real arrays."""

    given: ClassVar[list[bool]] = []


@dataclasses.dataclass(frozen=True)
class Watching(Levels):
    """A head of a user's own that forbids the mask, and notes what it is given."""

    def logits(self, output, xt, K):
        Watched.given.append(isinstance(output, jax.core.Tracer))
        return super().logits(output, xt, K)


def test_a_head_of_ones_own_computes_no_logits_before_a_run(monkeypatch):
    monkeypatch.setattr(Watched, "given", [])
    split_network(config_of(EXTRA, head=Watching()), tiny.DIGITS, EXTRA.build(), 17)
    assert len(Watched.given) >= 2
    assert all(Watched.given)


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
