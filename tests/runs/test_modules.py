"""Networks as people bring them: what is trained, what is kept, and what is refused."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from d3pm_jax import config as configs, runs
from d3pm_jax.errors import UserError
from d3pm_jax.models.variables import name_leaves, split_module, split_variables
from d3pm_jax.program.parts import build
from d3pm_jax.program.parts.completed import complete
from d3pm_jax.program.storage import checkpoint
from d3pm_jax.training import step as training_step
from d3pm_jax.training.diffusion import draw_noise
from d3pm_jax.training.step import make_loss_step
from d3pm_jax.weights import twin
from tests.runs import module_checks, modules


def by_name(variables):
    return dict(zip(name_leaves(variables), jax.tree.leaves(variables), strict=True))


@pytest.mark.slow
def test_a_network_with_everything(tmp_path):
    """Each part alone is in the table of `python -m tests.runs.module_checks`."""
    result = module_checks.check_module("Everything", tmp_path, steps=6)
    moved, parameters = result.pop("parameters that moved").split(" of ")
    assert moved == parameters
    assert result.pop("resumed") == 0
    assert result.pop("imported") == 0
    assert all(difference < 2e-6 for difference in result.values()), result


@pytest.fixture(scope="module")
def parts():
    return module_checks.make_parts("BatchNorm")


@pytest.fixture(scope="module")
def step(parts):
    return make_loss_step(**build.step_arguments(parts))


@pytest.fixture(scope="module")
def rows():
    return list(module_checks.batches(4))


def test_batch_statistics_are_those_of_a_loop_by_hand(parts, step, rows):
    """The inputs of BatchNorm are recomputed, and its statistics moved as its page says."""
    state = jax.tree.map(jnp.copy, parts.state)
    mean = np.zeros(modules.WIDTH)
    var = np.ones(modules.WIDTH)
    average = {"norm.mean": mean, "norm.var": var}
    for number, batch in enumerate(rows):
        noise = draw_noise(
            parts.config.timesteps, parts.key, number, None, batch["x"].shape, parts.recipe.process.T
        )
        xt = np.asarray(parts.config.loss.draw(parts.recipe.process, batch["x"], noise.t, noise.u))
        variables = {name: np.asarray(x, float) for name, x in by_name(state.params).items()}
        time = np.asarray(noise.t)[:, None] / parts.recipe.process.T * variables["time.kernel"][0]
        h = variables["embed.embedding"][xt] + (time + variables["time.bias"])[:, None]
        inputs = h @ variables["linear.kernel"]
        mean = 0.9 * mean + 0.1 * inputs.mean((0, 1))
        var = 0.9 * var + 0.1 * inputs.var((0, 1))
        decay = min(0.9, (1 + number) / (10 + number))
        for name, newest in (("norm.mean", mean), ("norm.var", var)):
            average[name] = decay * average[name] + (1 - decay) * newest
        state, _ = step(state, parts.recipe.process, batch, parts.key)
    for name, newest in (("norm.mean", mean), ("norm.var", var)):
        np.testing.assert_allclose(by_name(state.params)[name], newest, atol=1e-6)
        np.testing.assert_allclose(by_name(state.ema)[name], average[name], atol=1e-6)


def test_a_skipped_step_keeps_statistics(parts, step, rows):
    """The table of x_t is NaN, and so is what the statistics would become."""

    def spoil(name, x):
        if name == "embed.embedding":
            return jnp.full_like(x, jnp.nan)
        return jnp.copy(x)

    leaves = [spoil(name, x) for name, x in by_name(parts.state.params).items()]
    params = jax.tree.unflatten(jax.tree.structure(parts.state.params), leaves)
    state = dataclasses.replace(jax.tree.map(jnp.copy, parts.state), params=params)
    before = jax.device_get(by_name(split_variables(params)[1]))
    after, metrics = step(state, parts.recipe.process, rows[0], parts.key)
    assert not np.isfinite(metrics["loss"])
    for name, x in by_name(split_variables(after.params)[1]).items():
        np.testing.assert_array_equal(x, before[name])


def test_streams_are_no_part_of_the_state_and_follow_the_key(rows):
    parts = module_checks.make_parts("StreamsKept")
    assert split_variables(parts.state.params)[1] is None
    x = jnp.asarray(rows[0]["x"])
    t = jnp.full(len(x), 3)
    keys = [jax.random.key(i) for i in (1, 1, 2)]
    first, again, other = (parts.recipe.diffusion.network(parts.state.params, x, t, key=key) for key in keys)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def test_a_checkpoint_of_another_network_is_refused(parts, tmp_path):
    checkpoint.save_checkpoint(tmp_path / "checkpoints", 0, parts.state, 1)
    config = dataclasses.replace(parts.config, model=modules.Named("TiedWeights"))
    with pytest.raises(UserError, match="does not fit the network"):
        build.restore_state(tmp_path, build.build(complete(config, parts.description)))


class Changed(modules.Base):
    """With an attribute of its own."""

    def __init__(self, spec, rngs, name, make):
        super().__init__(spec, rngs)
        setattr(self, name, make(rngs))


class Top(nn.Module):
    """A network of Linen, without the keyword key."""

    @nn.compact
    def __call__(self, xt, t):
        return nn.Dense(modules.K)(jax.nn.one_hot(xt, modules.K))


def test_averages_take_constants_as_they_are():
    values = {"weight": nnx.Param(0.25), "mean": nnx.BatchStat(0.25), "shift": nnx.Variable(0.25)}
    before = nnx.State({name: variable.replace(jnp.float32(0.75)) for name, variable in values.items()})
    newest = nnx.State({name: variable.replace(jnp.float32(0.25)) for name, variable in values.items()})
    average = by_name(training_step._move_average(before, newest, jnp.float32(0.5)))
    assert {name: float(x) for name, x in average.items()} == {"mean": 0.5, "shift": 0.25, "weight": 0.5}


def test_batch_statistics_of_16_bits_are_not_averaged():
    """The mean of a constant with itself would be another number, by rounding."""
    statistics = nnx.State({"mean": nnx.BatchStat(jnp.bfloat16(0.02))})
    average = by_name(training_step._move_average(statistics, statistics, jnp.float32(0.1)))["mean"]
    assert average == jnp.bfloat16(0.02)
    assert average.dtype == jnp.bfloat16


def test_a_network_without_a_key_is_in_evaluation_mode():
    module, _ = split_module(lambda key: nnx.Dropout(0.5, rngs=nnx.Rngs(key)))
    x = jnp.ones((4, 8))
    np.testing.assert_array_equal(module.merge(nnx.State({}))(x), x)
    assert (module.merge(nnx.State({}), jax.random.key(0))(x) != x).any()


def test_a_whole_network_of_linen_has_the_keywords_of_its_call():
    config = modules.get_config(Built("linen network"))
    network = build.build(complete(config, config.data.describe()))
    assert split_variables(network.state.params)[1] is None


def test_two_arrays_of_one_name_are_not_exported():
    variables = nnx.State(
        {"a": {"kernel": nnx.Param(jnp.ones((2, 2))), "weight": nnx.Param(jnp.ones((2, 2)))}}
    )
    with pytest.raises(ValueError, match=r"two arrays of the network are a\.weight in PyTorch"):
        twin.to_torch(variables)


@dataclasses.dataclass(frozen=True)
class Built(configs.Model):
    """What a function builds."""

    name: str = ""

    def build(self, spec, rngs):
        return REFUSED[self.name](spec, rngs)


REFUSED = {
    "class": lambda spec, rngs: modules.Base,
    "linen": lambda spec, rngs: modules.Plain(),
    "function": lambda spec, rngs: lambda xt, t: xt,
    "nothing": lambda spec, rngs: None,
    "no call": lambda spec, rngs: modules.NoCall(),
    "carry": modules.CarryOfBatch,
    "linen network": lambda spec, rngs: nnx.bridge.ToNNX(Top(), rngs=rngs).lazy_init(
        jnp.zeros((1, modules.LENGTH), jnp.int32), jnp.ones(1, jnp.int32)
    ),
    "integers": lambda spec, rngs: Changed(spec, rngs, "count", lambda rngs: nnx.Param(jnp.arange(3))),
    "complex": lambda spec, rngs: Changed(
        spec, rngs, "poles", lambda rngs: nnx.Param(jnp.zeros(3, jnp.complex64))
    ),
    "16 bits": lambda spec, rngs: Changed(
        spec, rngs, "scale", lambda rngs: nnx.Param(jnp.zeros(3, jnp.bfloat16))
    ),
    "empty": lambda spec, rngs: Changed(
        spec, rngs, "registers", lambda rngs: nnx.Variable(jnp.zeros((0, 8)))
    ),
    "key": lambda spec, rngs: Changed(spec, rngs, "seed", lambda rngs: rngs.params()),
    "train": lambda spec, rngs: Changed(spec, rngs, "train", lambda rngs: True),
}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("class", "build returns the class Base: return an object of it"),
        (
            "linen",
            r"build returns Plain, a module of Flax Linen: return nnx.bridge.ToNNX\(Plain\(...\), ",
        ),
        ("function", "build returns function: expected an nnx.Module"),
        (
            "nothing",
            r".*test_modules.py, line \d+, .*: build returns None: return the network, an nnx.Module",
        ),
        ("no call", r"NoCall defines no __call__: write f\(xt, t, \*, label, key\)"),
        ("integers", "count is an nnx.Param of int32, which has no gradient: make it an nnx.Variable"),
        ("key", "seed is a random key, which stays the same in every step: store the streams, rngs, instead"),
        ("train", "Changed.train takes the place of a method of Flax: give it another name"),
        (
            "carry",
            r"a call of the network changes its variable carry from float32 \[1, 6, 8\] to .* \[2, 6, 8\]",
        ),
    ],
)
def test_what_is_no_network_is_refused_in_one_line(name, message):
    config = modules.get_config(Built(name))
    with pytest.raises(UserError, match=f"^{message}"):
        build.build(complete(config, config.data.describe()))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "complex",
            "poles is a parameter of complex64, which is not trained: make its real and imaginary part two "
            "parameters",
        ),
        (
            "16 bits",
            "scale is a parameter of bfloat16, in which rounding would lose small updates and spoil the "
            r"average: make it float32 and compute in bfloat16 "
            r"\(in Flax dtype=bfloat16, without param_dtype\)",
        ),
        (
            "empty",
            r"registers has shape \[0, 8\], and an array without entries cannot be saved: leave it out",
        ),
    ],
)
def test_what_cannot_be_trained_or_saved_is_refused_before_there_is_a_run(name, message, tmp_path):
    with pytest.raises(UserError, match=f"^{message}$"):
        runs.train(modules.get_config(Built(name)), tmp_path / "run")
    assert not list(tmp_path.iterdir())
    # Weights that are imported may have such parameters.
    config = modules.get_config(Built(name))
    build.build(complete(config, config.data.describe()))
