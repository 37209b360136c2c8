"""What a config builds: every network and head trains, and parts that do not go together are refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from d3pm_jax import config as configs
from d3pm_jax.config.objective import HybridOfParameters
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError
from d3pm_jax.program.parts import diffusion
from d3pm_jax.program.parts.build import build, initialize_state, step_arguments
from d3pm_jax.program.parts.completed import complete
from d3pm_jax.training.step import make_loss_step
from tests import tiny
from tests.processes.own import cyclic_shift
from tests.tiny import DIGITS

NETWORKS = [
    (configs.UNet(attn_resolutions=(), compute="bfloat16"), configs.LogisticHead()),
    (configs.ScoreNet(attn=(), compute="bfloat16"), configs.Head()),
]
X0 = jnp.full((4, 4, 4, 1), 3, jnp.int32)


def made(model, head):
    """The parts of a run, and its step."""
    model = dataclasses.replace(model, ch=4, ch_mult=(1,), num_res_blocks=0, groups=1)
    config = dataclasses.replace(tiny.get_config(), model=model, head=head)
    parts = build(complete(config, Description((4, 4, 1), 17, 10, "image")), mesh=tiny.one_device_mesh())
    return parts, make_loss_step(**step_arguments(parts))


@pytest.mark.parametrize(("model", "head"), [NETWORKS[0], pytest.param(*NETWORKS[1], marks=pytest.mark.slow)])
def test_every_network_and_head_stays_float32_outside_the_network(model, head):
    parts, step = made(model, head)
    state, metrics = jax.eval_shape(step, parts.state, parts.recipe.process, {"x": X0}, parts.key)
    floats = [x for x in jax.tree.leaves((state, metrics)) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert {x.dtype for x in floats} == {np.dtype("float32")}
    assert len(floats) > 20
    assert state.params["conv_out"]["kernel"].shape == (3, 3, 4, head.outputs or parts.config.process.K)


def test_off_cpus_a_logistic_head_is_trained_without_logits(monkeypatch):
    def has_parameters(head, loss):
        config = dataclasses.replace(tiny.get_config(), model=model, head=head, loss=loss)
        parts = build(complete(config, Description((4, 4, 1), 17, 10, "image")), mesh=tiny.one_device_mesh())
        return isinstance(parts.recipe.loss.objective, HybridOfParameters)

    class OwnLoss(configs.HybridLoss):
        def terms(self, *args):
            return super().terms(*args)

    class OwnHead(configs.LogisticHead):
        def logits(self, *args):
            return super().logits(*args)

    model = configs.UNet(ch=4, ch_mult=(1,), num_res_blocks=0, groups=1, attn_resolutions=())
    assert not has_parameters(configs.LogisticHead(), configs.HybridLoss())
    monkeypatch.setattr(diffusion, "_is_of_cpus", lambda mesh: False)
    assert has_parameters(configs.LogisticHead(), configs.HybridLoss())
    assert not has_parameters(configs.Head(), configs.HybridLoss())
    assert not has_parameters(OwnHead(), configs.HybridLoss())
    assert not has_parameters(configs.LogisticHead(), OwnLoss())


@pytest.mark.slow
@pytest.mark.parametrize(("model", "head"), NETWORKS)
def test_every_network_and_head_trains(model, head):
    parts, step = made(model, head)
    parts = initialize_state(parts)
    before = jax.tree.map(np.array, parts.state.params)
    state = parts.state
    for _ in range(2):
        state, metrics = step(state, parts.recipe.process, {"x": X0}, parts.key)
        assert np.isfinite(metrics["loss"])
    assert np.any(np.asarray(state.params["conv_out"]["kernel"][...]) != before["conv_out"]["kernel"][...])
    if "frequencies" in before:  # of the embedding of time: never trained
        for params in (state.params, state.ema):
            np.testing.assert_array_equal(params["frequencies"][...], before["frequencies"][...])


def test_data_whose_shape_the_process_cannot_take_is_refused_before_training():
    config = dataclasses.replace(tiny.get_config(), process=configs.Autoregressive(17, 6, 16))
    with pytest.raises(UserError, match=r"^x has shape \(8, 8, 1\), .* L = 6: .* with that L"):
        build(complete(config, DIGITS))


def test_a_score_net_gives_logits_only():
    config = dataclasses.replace(tiny.get_config(), model=configs.ScoreNet(), head=configs.LogisticHead())
    with pytest.raises(UserError, match=r"the head needs 2 outputs, ScoreNet gives K = 17 logits: use Head"):
        build(complete(config, DIGITS))


@dataclasses.dataclass(frozen=True)
class Ring(configs.Process):
    """Builds a process of a user's own, which makes its times when it is asked for them."""

    def build(self):
        return cyclic_shift(np.linspace(0.5, 0.7, 6), 17)


def test_a_process_of_ones_own_needs_no_times():
    config = dataclasses.replace(tiny.get_config(), process=Ring(), timesteps=configs.Importance())
    parts = build(complete(config, DIGITS), mesh=tiny.one_device_mesh())
    assert parts.state.history.counts.shape == (6,)
