"""The sampler of a config: what is saved, what opens, and what is refused before a training starts."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest

from d3pm_jax import sampling
from d3pm_jax.cli import reading
from d3pm_jax.config import Absorbing, Head, Linear, Reciprocal, Uniform, io as config_io, samplers
from d3pm_jax.errors import UserError
from d3pm_jax.program.loop import loop
from d3pm_jax.program.parts import network
from d3pm_jax.program.storage.run_folder import check_resume
from d3pm_jax.sampling import named
from d3pm_jax.sampling.transitions import OwnReverse
from tests import tiny

ABSORBING = dataclasses.replace(
    tiny.get_config(), process=Absorbing(K=18, steps=3, beta=Reciprocal(), mask_id=17)
)
BY_NAME = [make() for make in named.SAMPLERS.values()]


@dataclasses.dataclass(frozen=True)
class Stays(sampling.LawStep):
    """A step of the user's own."""

    share: float = 0.5

    def law(self, view, answer):
        return jnp.log(self.share * jax.nn.one_hot(view.x, view.process.K) + (1 - self.share) / 3)


def with_sampler(sampler, config=ABSORBING):
    return dataclasses.replace(config, sampler=sampler)


def test_a_sampler_is_saved_by_the_names_of_its_slots_and_read_back_equal():
    assert "sampler" not in json.loads(config_io.dump_config(ABSORBING))  # the default one
    for sampler in [*BY_NAME, samplers.choose_sampler("maskgit", {"rows": 3, "top_k": 2}).sampler]:
        config = with_sampler(sampler)
        assert config_io.from_json(json.loads(config_io.dump_config(config))) == config
    count = config_io.to_json(with_sampler(named.maskgit(rows=16)))["sampler"]["step"]["count"]
    assert count == {"class": "sampling.Cosine", "rows": 16}  # a schedule is called Cosine too

    own = with_sampler(sampling.Sampler(Stays(0.25)))
    tree = json.loads(config_io.dump_config(own))
    assert tree["sampler"]["step"] == {"class": "own.Stays", "share": 0.25}
    assert config_io.from_json(tree, {"Stays": Stays}) == own
    with pytest.raises(UserError, match="has a part Stays of the user's own: pass --config FILE"):
        config_io.from_json(tree)


def test_a_sampler_may_change_when_a_run_goes_on_and_is_named_on_the_command_line():
    words = ["--sampler", "maskgit", "--train.steps=9", "--sampler.rows=16", "--sampler.top-k", "2"]
    config = reading.apply_overrides(ABSORBING, words, "d3pm train")
    assert config.sampler == samplers.choose_sampler("maskgit", {"rows": 16, "top_k": 2}).sampler
    assert config.train.steps == 9
    assert reading.apply_overrides(config, [], "d3pm train") == config
    check_resume(with_sampler(named.psi()), ABSORBING)
    check_resume(ABSORBING, config)
    with pytest.raises(UserError, match=r"cannot resume .*head\.residual"):
        check_resume(ABSORBING, dataclasses.replace(config, head=Head(residual=False)))
    for words, message in {
        ("--sampler",): "expected a name, as --sampler help lists them, got nothing",
        ("--sampler=psi", "--sampler", "ddim"): "--sampler: give it once",
        ("--sampler.rows=3",): "say of which sampler",
        ("--sampler", "psy"): "did you mean psi",
    }.items():
        with pytest.raises(UserError, match=message):
            reading.apply_overrides(ABSORBING, list(words), "d3pm train")


def test_what_cannot_be_saved_or_drawn_is_refused_before_training(monkeypatch):
    monkeypatch.setattr(network, "split_network", tiny.split)
    uniform = dataclasses.replace(
        tiny.get_config(), process=Uniform(K=17, steps=3, beta=Linear(0.2, 1.0, rescale=False))
    )
    refused = [
        (
            with_sampler(sampling.Sampler(OwnReverse(jnp.add))),
            "sampler.step.reverse is a function, which",
        ),
        (
            with_sampler(named.entropy_bound(float("inf"))),
            "count.bound = inf: a config holds finite numbers",
        ),
        (with_sampler(named.maskgit(), uniform), "needs an absorbing process"),
        (with_sampler(named.blocks(5)), "block = 5 does not divide the 64 places"),
        (with_sampler(named.remdm_loop()), "rows = 100: .*take more steps"),
    ]

    def begin(config):
        config_io.check_config(config)
        loop.build_run(config)

    for config, message in refused:
        with pytest.raises(UserError, match=message) as raised:
            begin(config)
        assert "\n" not in str(raised.value)
