"""Runs whose head makes logits where they are read: samples and figures of logits in memory, or a refusal."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import projection, runs, sampling
from d3pm_jax.config import (
    Absorbing,
    Adam,
    Arrays,
    Blocks,
    Config,
    Head,
    HybridLoss,
    Mesh,
    RealTimes,
    Reciprocal,
    Train,
    Transformer,
)
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError
from d3pm_jax.program.loop.metrics import read_metrics
from d3pm_jax.program.machine import devices
from d3pm_jax.runs import BestOf, ClassifierFreeGuidance, Draw, Orders, Particles
from tests import tiny

L, CATEGORIES = 5, 6
DATA = Description((L,), CATEGORIES)
X = np.random.default_rng(0).integers(0, CATEGORIES, (12, L)).astype(np.int32)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two runs of the same weights: one with logits in memory, and one that projects."""
    folder = tmp_path_factory.mktemp("projected")
    for name, head in (("plain", Head()), ("projected", Head(projected=True))):
        config = Config(
            data=Arrays("train.npy", "test.npy", CATEGORIES),
            process=Absorbing(CATEGORIES + 1, 6, Reciprocal(), CATEGORIES),
            model=Transformer(width=8, num_layers=1, num_heads=2, see_time=False),
            head=head,
            loss=HybridLoss(),
            train=Train(steps=10, batch_size=8),
        )
        tiny.write_run(folder / name, config, description=DATA)
    opened = [runs.open(folder / name, batch_size=12) for name in ("plain", "projected")]
    assert jax.tree.structure(opened[0].params) == jax.tree.structure(opened[1].params)
    return opened


@pytest.fixture(autouse=True)
def few_places(monkeypatch):
    """More rounds than one."""
    monkeypatch.setattr(projection, "PLACES_ON_CPU", 7)


def score(x):
    return jnp.sum(x == 1, axis=1) * 1.0


@pytest.mark.slow
@pytest.mark.parametrize(
    "draw",
    [
        Draw(),
        Draw(sampler=sampling.Sampler(sampling.places.Reveal(), sampling.Shaping(top_k=3))),
        Draw(sampler="remdm_cap", start=(X[:1], 0.5), record=(2,)),
        Draw(sampler="maskgit", known=sampling.Known(X[0], np.arange(L) < 2), select=BestOf(score, 2)),
    ],
)
def test_samples_are_those_of_logits_in_memory(pair, draw):
    plain, projected = (run.sample(jax.random.key(0), 12, draw, batch_size=12) for run in pair)
    assert len(np.unique(plain.x0)) > 2
    np.testing.assert_array_equal(projected.x0, plain.x0)


@pytest.mark.slow
def test_figures_are_those_of_logits_in_memory(pair):
    xt = np.where(np.arange(L) % 2, CATEGORIES, X)
    figures = []
    for run in pair:
        bound = run.evaluate_on(X, batch_size=12)
        few = run.evaluate_on(X, batch_size=12, calls=2)
        logits = run.predict(xt, np.full(len(X), 3))
        assert isinstance(logits, jax.Array)
        figures.append(
            {
                "bound": bound["steps"],
                "calls": few["nats"],
                "left to right": run.log_prob(X),
                "orders": run.log_prob(X, orders=Orders(2)),
                "all orders": run.log_prob(X, orders="all"),
                "predict": np.exp(logits),
            }
        )
    plain, projected = figures
    for name, x in plain.items():
        assert np.abs(x).max() > 0
        np.testing.assert_allclose(projected[name], x, rtol=1e-5, atol=1e-6, err_msg=name)


@dataclasses.dataclass(frozen=True)
class Own(sampling.LawStep):
    def law(self, view, answer):
        return d3pm.p_logits(view.process, answer.logits, view.x, view.t, answer.belief)


@pytest.mark.parametrize(
    ("draw", "user"),
    [
        (Draw(sampler=sampling.Sampler(Own())), "Own"),
        (Draw(select=Particles(score, 2)), "select = Particles"),
        (Draw(guidance=ClassifierFreeGuidance(2.0)), "guidance"),
    ],
)
def test_draws_that_need_all_logits_are_refused(pair, draw, user):
    _, projected = pair
    with pytest.raises(UserError, match=rf"^{user} needs all logits in memory, and head.projected = True.*$"):
        projected.sample(jax.random.key(0), 2, draw)


def test_a_training_is_that_of_logits_in_memory_and_goes_on_with_them(tmp_path, monkeypatch):
    """Blocks, two steps with a projected head and two without, beside four without; on two devices."""
    monkeypatch.chdir(tmp_path)
    for name in ("train", "test"):
        np.save(f"{name}.npy", X)
    config = Config(
        data=Arrays("train.npy", "test.npy", CATEGORIES),
        process=Absorbing(CATEGORIES + 1, 6, Reciprocal(), CATEGORIES),
        model=Transformer(width=8, num_layers=1, num_heads=2, see_time=False, tied=True),
        loss=Blocks(block=1),
        timesteps=RealTimes(),
        train=Train(steps=4, batch_size=4, log_every=1, checkpoint_every=2),
    )
    plain = runs.train(config, "plain")
    first = dataclasses.replace(
        config, head=Head(projected=True), train=dataclasses.replace(config.train, steps=2)
    )
    projected = runs.train(first, "projected")
    assert projected.sample(jax.random.key(0), 2).x0.shape == (2, L)
    assert np.isfinite(projected.evaluate(calls=2)["bits_per_dim"])
    resumed = runs.train(config, "projected", resume=True)
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("plain", "projected")
    ]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(plain.params), jax.tree.leaves(resumed.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_run_on_two_devices_is_that_of_logits_in_memory(tmp_path, monkeypatch):
    """It trains 2 updates and 2 more, and leaves projected off when it is resumed at its end."""
    monkeypatch.setattr(devices, "WORTH_CUTTING", 1)
    files = [str(tmp_path / f"{split}.npy") for split in ("train", "test")]
    for file in files:
        np.save(file, X)
    trained = {}
    for projected in (False, True):
        config = Config(
            data=Arrays(*files, CATEGORIES),
            process=Absorbing(CATEGORIES + 2, 6, Reciprocal(), CATEGORIES + 1),  # which two devices divide
            model=Transformer(width=8, num_layers=1, num_heads=2, see_time=False),
            head=Head(projected=projected),
            loss=HybridLoss(),
            train=Train(steps=2, batch_size=8, log_every=1, ema_decay=0.5),
            optimizer=Adam(lr=0.02),
            mesh=Mesh(fsdp=2),
        )
        workdir = tmp_path / f"{projected}"
        runs.train(config, workdir)
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=4))
        trained[projected] = runs.train(config, workdir, resume=True)
    losses = [[row["loss"] for row in read_metrics(tmp_path / f"{p}")] for p in (False, True)]
    assert len(losses[0]) == 4
    np.testing.assert_allclose(*losses, rtol=1e-4)

    run = trained[True]
    assert run.parts.config.head.projected
    plain = runs.train(dataclasses.replace(config, head=Head()), workdir, resume=True)
    assert not runs.open(workdir).parts.config.head.projected
    of_both = []
    for each in (run, plain):
        figures = [each.evaluate(calls=2)["nats"], each.predict(X, np.full(len(X), 3))]
        figures += [each.evaluate()["nats"], each.log_prob(X)]
        of_both.append(figures)
    for a, b in zip(*of_both, strict=True):
        np.testing.assert_allclose(np.exp(a), np.exp(b), rtol=1e-4)
    draws = [each.sample(jax.random.key(0), 12, batch_size=12).x0 for each in (run, plain)]
    np.testing.assert_array_equal(*draws)

    runs.export(run, tmp_path / "weights.safetensors")
    denoise = runs.denoiser(tmp_path / "weights.safetensors")
    logits = projection.all_logits(denoise(jnp.asarray(X), jnp.full(len(X), 3)))
    np.testing.assert_allclose(np.exp(logits), np.exp(of_both[1][1]), rtol=1e-4)
