"""Runs of networks of log scores: their bound and samples, and what they are refused for in a line."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from d3pm_jax import runs
from d3pm_jax.config import (
    MLP,
    Absorbing,
    Adam,
    Arrays,
    Config,
    Head,
    HybridLoss,
    LowDiscrepancy,
    RealTimes,
    Reciprocal,
    ScoreEntropy,
    ScoreHead,
    Train,
    Uniform,
)
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError
from d3pm_jax.program.measure import certificate, step_costs
from d3pm_jax.runs import BestOf, ClassifierFreeGuidance, Draw, Particles
from tests import tiny

SHAPE = (4,)
DATA = Description(SHAPE, 3)
NOISES = {"masks": Absorbing(4, 8, Reciprocal(), 3), "uniform": Uniform(3, 8, Reciprocal())}


def make_config(process, **fields):
    settings = {
        "model": MLP(width=8, num_layers=1, see_time=False),
        "head": ScoreHead(),
        "loss": ScoreEntropy(),
        "timesteps": RealTimes(),
        "train": Train(steps=10, batch_size=8, log_every=5),
    }
    return Config(data=Arrays("train.npy", "test.npy", 3), process=process, **{**settings, **fields})


@pytest.fixture(scope="module", params=NOISES)
def run(request, tmp_path_factory):
    """A run whose network says nothing: its output is 0, and no x_0 is likelier than another."""
    folder = tmp_path_factory.mktemp("scores") / request.param
    tiny.write_run(folder, make_config(NOISES[request.param]), description=DATA)
    opened = runs.open(folder, batch_size=64)
    state = dataclasses.replace(opened.parts.state, ema=jax.tree.map(jnp.zeros_like, opened.params))
    return dataclasses.replace(opened, parts=opened.parts.with_state(state))


@pytest.mark.slow
def test_the_bound_of_a_network_that_says_nothing_is_that_of_any_category(run):
    x0 = np.random.default_rng(0).integers(0, 3, (512, *SHAPE)).astype(np.int32)
    bound = run.evaluate_on(x0, batch_size=512, calls=64)
    assert abs(bound["nats"] - 4 * math.log(3)) < 5 * bound["nats_standard_error"] < 1
    few = run.evaluate_on(x0, batch_size=512)
    assert abs(few["nats"] - 4 * math.log(3)) < 5 * few["nats_standard_error"]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [None, "euler", "tau_leaping"])
def test_samples_of_it_have_all_categories_and_no_mask(run, sampler):
    drawn = run.sample(jax.random.key(0), 64, Draw(sampler=sampler), batch_size=64)
    assert set(np.unique(drawn.x0)) == {0, 1, 2}
    best = run.sample(
        jax.random.key(0),
        8,
        Draw(sampler=sampler, select=BestOf(lambda x: -1.0 * x.sum(-1), 4)),
        batch_size=8,
    )
    assert best.x0.mean() < drawn.x0.mean()


@pytest.mark.slow
def test_what_takes_logits_of_x_0_is_refused_in_a_line(run, tmp_path):
    x = np.zeros((2, *SHAPE), np.int32)
    file = tmp_path / "weights.safetensors"
    runs.export(run, file)
    key = jax.random.key(0)
    particles = Draw(select=Particles(lambda x: -1.0 * x.sum(-1), 4))
    for ask, words in (
        (
            lambda: run.sample(key, 2, Draw(sampler="ancestral")),
            "^Bayes needs logits of x_0, and the network",
        ),
        (lambda: run.sample(key, 2, particles), "^particles are scored by draws of x_0, .* take BestOf"),
        (
            lambda: run.sample(key, 2, Draw(guidance=ClassifierFreeGuidance(2.0, "x_0"))),
            "^guidance of x_0 takes logits of it, and the network gives log scores: guide x_s$",
        ),
        (lambda: run.term, "^loss = ScoreEntropy has a bound in continuous time, and no terms of steps"),
        (lambda: run.log_prob(x), "^the network of loss = ScoreEntropy does not fill in masks in any order"),
        (lambda: certificate.compute_certificate(run.parts, {"x": x}), "^loss = ScoreEntropy has one bound"),
        (
            lambda: step_costs.measure_costs(run.parts, run.workdir),
            "^loss = ScoreEntropy has a bound in continuous time, without steps whose costs",
        ),
        (lambda: runs.denoiser(file), "holds a network of log scores, not of logits of x_0: take network"),
    ):
        with pytest.raises((UserError, ValueError), match=words) as refused:
            ask()
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("process", "fields", "words"),
    [
        (
            NOISES["masks"],
            {"head": Head()},
            r"^head = Head gives logits, but loss = ScoreEntropy takes log scores: take head=ScoreHead\(\)",
        ),
        (
            NOISES["masks"],
            {"loss": HybridLoss(), "timesteps": LowDiscrepancy()},
            "^head = ScoreHead gives log scores, but loss = HybridLoss takes logits",
        ),
        (
            NOISES["masks"],
            {"timesteps": LowDiscrepancy()},
            "but ScoreEntropy needs real times: set timesteps",
        ),
        (
            Absorbing(3, 8, Reciprocal(), 2),
            {},
            "^loss = ScoreEntropy needs an extra mask, one more category than the data has, which has 3",
        ),
    ],
)
def test_a_config_that_cannot_be_trained_is_refused_in_a_line(process, fields, words):
    with pytest.raises((UserError, ValueError), match=words):
        tiny.build_checked(make_config(process, **fields), DATA)


@pytest.mark.slow
def test_a_training_learns_what_the_data_is(tmp_path):
    """All of it is category 1: from log 3 nats for each element the bound falls to nearly nothing."""
    for name in ("train", "test"):
        np.save(tmp_path / f"{name}.npy", np.ones((64, *SHAPE), np.int32))
    for noise, process in NOISES.items():
        # Scores of uniform noise go to 1 as alpha falls to 0, which a network without time cannot know.
        config = make_config(
            process,
            model=MLP(width=8, num_layers=1),
            optimizer=Adam(lr=0.02),
            train=Train(steps=60, batch_size=64, ema_decay=0.9),
        )
        data = Arrays(str(tmp_path / "train.npy"), str(tmp_path / "test.npy"), 3)
        trained = runs.train(dataclasses.replace(config, data=data), tmp_path / noise)
        bound = trained.evaluate_on(np.ones((64, *SHAPE), np.int32), batch_size=64, calls=64)
        assert bound["nats"] < 4 * math.log(3) / 4
        assert np.mean(trained.sample(jax.random.key(0), 64, batch_size=64).x0 == 1) > 0.8
