"""Runs of classifiers of noised examples: trained, evaluated and asked, and never taken for a diffusion."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from d3pm_jax import config, runs
from d3pm_jax.config import (
    Absorbing,
    Adam,
    Arrays,
    Config,
    LabelLoss,
    NoisyClassifier,
    Reciprocal,
    Spec,
    Train,
)
from d3pm_jax.errors import UserError
from d3pm_jax.posteriors import q_sample
from d3pm_jax.program.loop import metrics
from d3pm_jax.program.parts import build
from d3pm_jax.program.parts.completed import complete
from d3pm_jax.program.parts.recipe import require
from d3pm_jax.sampling.noise import EVALUATION, per_example
from d3pm_jax.training import classifier
from tests import tiny
from tests.cli.commands import error, status

K = 4  # the mask, 3, is one of them
L = 3
T = 5
CLASSES = 3
SMALL = NoisyClassifier(width=16, num_layers=1, embedding=2, dropout=0.1)


def make_config(folder, model=SMALL, **train):
    """The label of an example is its first element, so that there is something to learn."""
    x = np.random.default_rng(0).integers(0, CLASSES, (40, L)).astype(np.int32)
    np.save(folder / "x.npy", x)
    np.save(folder / "labels.npy", x[:, 0])
    x_file = str(folder / "x.npy")
    labels = str(folder / "labels.npy")
    options = {
        "steps": 50,
        "batch_size": 16,
        "ema_decay": 0.5,
        "log_every": 20,
        "checkpoint_every": 50,
    } | train
    return Config(
        data=Arrays(
            x_file,
            x_file,
            CLASSES,
            train_labels=labels,
            test_labels=labels,
            classes=CLASSES,
            valid=x_file,
            valid_labels=labels,
        ),
        process=Absorbing(K="data", steps=T, beta=Reciprocal(), mask_id="data"),
        model=model,
        loss=LabelLoss(),
        optimizer=Adam(lr=5e-2),
        train=Train(**options),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("classifiers")


@pytest.fixture(scope="module")
def run(folder):
    return runs.train(make_config(folder, eval_every=25), folder / "run")


def test_a_classifier_trains(run):
    rows = metrics.read_metrics(run.workdir)
    assert [row["step"] for row in rows] == [20, 25, 40, 50]
    for row in rows:
        assert {"loss", "accuracy", "grad_norm"} <= set(row)
        assert not {"kl", "ce", "bound_bits_per_dim"} & set(row)
    assert {"valid_cross_entropy", "valid_accuracy"} <= set(rows[-1])
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    # What is masked at T is the whole example, and nothing is left to tell the label by.
    x = run.read_batch("test")
    at_0 = np.asarray(run.classify(x["x"], np.zeros(40, np.int32))).argmax(1) == x["label"]
    assert at_0.mean() > 0.9
    at_T = run.classify(np.full((2, L), K - 1, np.int32), np.full(2, T, np.int32))
    assert np.exp(np.asarray(at_T)).max() < 0.7


@pytest.mark.slow
def test_it_tells_every_label_and_has_a_gradient_in_one_hots(run):
    xt = np.array([[0, 3, 2], [1, 1, 3]], np.int32)
    t = np.array([0, 4], np.int32)
    log_p = np.asarray(run.classify(xt, t))
    assert log_p.shape == (2, CLASSES)
    within = jax.jit(run.classify)(xt, t)  # as a score calls it
    np.testing.assert_allclose(within, log_p, rtol=1e-6)
    np.testing.assert_allclose(np.exp(log_p).sum(1), 1, rtol=1e-6)
    network = run.config.model.build(Spec((L,), K, None, CLASSES, T), nnx.Rngs(0))
    nnx.update(network, run.params)
    network.eval()
    one_hots = jax.nn.one_hot(xt, K)
    expected = jax.nn.log_softmax(network(one_hots, jnp.asarray(t)))
    np.testing.assert_allclose(log_p, expected, rtol=1e-5, atol=1e-6)

    @jax.jit
    def gradient(one_hots):
        return jax.grad(
            lambda x: run.parts.recipe.classifier.log_probs(run.params, x, jnp.asarray(t))[:, 0].sum()
        )(one_hots)

    assert np.abs(gradient(one_hots)).min(axis=(1, 2)).max() > 0


@pytest.mark.slow
def test_the_figures_are_those_of_the_classifier_at_one_x_t_for_each_step(run):
    batch = run.read_batch("test", 7)
    x0 = jnp.asarray(batch["x"])
    process = run.parts.recipe.process
    noise = per_example(jax.random.fold_in(jax.random.key(5), EVALUATION), jnp.arange(7), (L,))
    nats = []
    is_right = []
    for t in (0, 2, 5):
        ts = jnp.full(7, t, jnp.int32)
        log_p = np.asarray(run.classify(q_sample(process, x0, ts, noise(jnp.int32(t))), ts), np.float64)
        nats.append(-log_p[np.arange(7), batch["label"]])
        is_right.append(log_p.argmax(1) == batch["label"])
    result = run.evaluate(limit=7, batch_size=4, seed=5, calls=3)
    assert result["times"] == [0, 2, 5]
    np.testing.assert_allclose(result["cross_entropy_by_step"], np.mean(nats, axis=1), rtol=1e-5)
    np.testing.assert_allclose(result["accuracy_by_step"], np.mean(is_right, axis=1))
    assert result["cross_entropy"] == pytest.approx(np.mean(nats), rel=1e-5)
    per_example_nats = np.mean(nats, axis=0)
    assert result["cross_entropy_standard_error"] == pytest.approx(
        per_example_nats.std(ddof=1) / 7**0.5, rel=1e-4
    )
    assert "bits_per_dim" not in result


def test_the_loss_is_the_mean_cross_entropy_over_t_from_0_to_T(run):
    loss = run.parts.recipe.loss
    process = run.parts.recipe.process
    shape = (12, L)
    noise = loss.draw_noise(process, jax.random.key(0), 0, None, shape)
    assert sorted(np.asarray(noise.t).tolist()) == [t for t in range(T + 1) for _ in range(2)]
    np.testing.assert_allclose(noise.p_t, 1 / (T + 1))

    log_p = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]], np.float32))
    table = classifier.ClassifierLoss(
        LabelLoss(), config.LowDiscrepancy(), lambda params, xt, time, key: (jnp.asarray(log_p), None)
    )
    batch = {"x": jnp.zeros((2, L), jnp.int32), "label": jnp.array([1, 2], jnp.int32)}
    p_t = jnp.array([1 / 6, 1 / 12], jnp.float32)  # the second example counts twice
    drawn = noise._replace(t=noise.t[:2], p_t=p_t, u=noise.u[:2])
    value, (means, costs, _) = table.compute({}, None, process, batch, drawn, jax.random.key(0), 2 * L)
    np.testing.assert_allclose(costs, [np.log(4), -np.log(0.7)], rtol=1e-6)
    assert value == means["loss"] == pytest.approx((np.log(4) - 2 * np.log(0.7)) / 2)
    assert means["accuracy"] == pytest.approx(2 / 2)
    with pytest.raises(ValueError, match="a classifier takes whole examples"):
        table.compute(
            {}, None, process, batch | {"weight": jnp.ones((2, L))}, drawn, jax.random.key(0), 2 * L
        )


@pytest.mark.slow
def test_importance_counts_the_step_0_too():
    timesteps = config.Importance(least_count=1)
    loss = classifier.ClassifierLoss(LabelLoss(), timesteps, lambda *args: None)
    process = config.Absorbing(K=K, steps=T, beta=Reciprocal(), mask_id=3).build()
    history = loss.start_history(process)
    assert history.T == T + 1
    noise = loss.draw_noise(process, jax.random.key(0), 0, history, (4, L))
    noise = noise._replace(t=jnp.array([0, 0, 5, 5], jnp.int32))
    after = loss.update_history(history, noise, jnp.array([1.0, 1.0, 2.0, 2.0]))
    assert after.counts.tolist() == [2, 0, 0, 0, 0, 2]


@pytest.mark.slow
def test_commands_of_a_classifier(run, capsys):
    workdir = run.workdir
    assert status("eval", workdir, "--calls", 3, "--limit", 7) == 0
    printed = capsys.readouterr().out
    result = run.evaluate(limit=7, calls=3)
    assert f"test accuracy: {result['accuracy']:.3f} +- " in printed
    assert [line.split()[0] for line in printed.splitlines()[-6:-2]] == ["t", "0", "2", "5"]
    content = json.loads((workdir / "accuracy_calls3_limit7.json").read_text())
    assert content["protocol"]["terms"] == "3 steps, evenly spread"
    assert content == result

    draws_nothing = "a classifier, which draws no samples but guides those of a diffusion"
    assert draws_nothing in error(capsys, "sample", workdir)
    assert draws_nothing in error(capsys, "sample", workdir, "--sampler", "ancestral")
    assert status("report", workdir) == 0
    page = (workdir / "report.html").read_text()
    for section in ("Accuracy", "Training", "Config"):
        assert f"<h2>{section}</h2>" in page
    for section in ("Bounds", "Sample quality", "Terms of the bound", "Samples", "Processes"):
        assert f"<h2>{section}</h2>" not in page
    assert f"{result['accuracy']:.3f} ± {result['accuracy_standard_error']:.3f}" in page
    assert "--samples: the run trains a classifier" in error(capsys, "eval", workdir, "--samples", 5)
    assert "--chain-rule: the run trains a classifier" in error(capsys, "eval", workdir, "--chain-rule", 5)
    for option, value in (("--certify", [5]), ("--draws", [5]), ("--orders", ["all"]), ("--by-block", [])):
        assert f"{option}: the run trains a classifier" in error(capsys, "eval", workdir, option, *value)
    assert "--steps: the run trains a classifier" in error(capsys, "eval", workdir, "--steps", 2)
    assert "calls = 7: it must be in 1..6" in error(capsys, "eval", workdir, "--calls", 7)


@pytest.mark.slow
def test_a_respaced_classifier_is_told_the_times_of_the_process(run):
    respaced = run.respaced([2, 5])
    assert respaced.evaluate(limit=3)["times"] == [0, 2, 5]
    assert respaced.about() == {
        "step": 50,
        "ema": 0.5,
        "steps": 2,
        "grid": "[2, 5] of 5",
        "belief": "-",
        "dtype": "float32",
    }


def test_a_classifier_is_no_diffusion_and_a_diffusion_no_classifier(run, folder):
    x = np.zeros((2, L), np.int32)
    t = np.ones(2, np.int32)
    calls = {
        "the run trains a classifier, NoisyClassifier, but this needs a diffusion": lambda: run.predict(x, t),
        "which draws no samples": lambda: run.sample(jax.random.key(0), 2),
        r"t has shape \[\]: pass \[2\]": lambda: run.classify(x, 1),
        r"t holds 1..6: pass integers in 0..5": lambda: run.classify(x, [1, 6]),
        r"t is .*float.*: pass integers in 0..5": lambda: run.classify(x, [0.5, 1.0]),
        r"xt is a list: pass integers in 0..": lambda: run.classify([[1, 2, 3], [1]], t),
        r"xt holds -1..0: pass integers in 0..": lambda: run.classify(x - [[1], [0]], t),
        r"xt has shape \[2, 1\]: pass \[N, ": lambda: run.classify(x[:, :1], t),
        "needs a diffusion: take a run": lambda: run.certify(2),
        "but this needs a diffusion: take": lambda: runs.presample(run.config, folder / "n.array_record"),
    }
    for message, call in calls.items():
        with pytest.raises(UserError, match=message):
            call()
    transformer = config.Transformer(width=8, num_layers=1, num_heads=2)
    base = make_config(folder)
    diffusion = dataclasses.replace(base, model=transformer, loss=config.HybridLoss())
    description = config.data.describe_data(base.data)
    parts = build.build(complete(diffusion, description))
    with pytest.raises(
        UserError, match="the run trains a diffusion, Transformer, but this needs a classifier: take a run"
    ):
        require(parts.recipe.classifier, "a classifier", diffusion)


class Network(nnx.Module):
    """A network of a user's own, which says by its options what it does wrong."""

    def __init__(self, spec, rngs):
        self.linear = nnx.Linear(spec.K, spec.classes, rngs=rngs)

    def __call__(self, one_hots, t):
        return self.linear(one_hots).mean(1)


class WithoutTime(Network):
    def __call__(self, one_hots):
        return self.linear(one_hots).mean(1)


class OfElements(Network):
    def __call__(self, one_hots, t):
        return self.linear(one_hots)


@dataclasses.dataclass(frozen=True)
class Own(config.Model):
    name: str = "Network"

    def build(self, spec, rngs):
        return globals()[self.name](spec, rngs)


def test_what_a_classifier_cannot_be_trained_with_is_refused(folder):
    base = make_config(folder)
    train = base.train
    uniform = config.Uniform(K=2, steps=T, beta=Reciprocal())
    changes = {
        "model = UNet builds no classifier, as loss = LabelLoss.. needs: take NoisyClassifier": {
            "model": config.UNet()
        },
        "model = NoisyClassifier builds a classifier: set loss = LabelLoss": {"loss": config.HybridLoss()},
        "head = .* is for a diffusion, .* leave head out": {"head": config.Head(residual=False)},
        "timesteps = .* draws real times, but LabelLoss needs whole steps": {"timesteps": config.RealTimes()},
        "process.K = 2, but the data has 3 categories": {"process": uniform},
        "train.remat = True does nothing in NoisyClassifier": {
            "train": dataclasses.replace(train, remat=True)
        },
        "train.noise = 'n' is only for a diffusion": {"train": dataclasses.replace(train, noise="n")},
        "train.sample_every = 5: a classifier draws no samples": {
            "train": dataclasses.replace(train, sample_every=5)
        },
        "train.drop_condition = 0.5 drops labels, but a classifier is trained to predict them": {
            "train": dataclasses.replace(train, drop_condition=0.5)
        },
        "width = 3: the embedding of time needs a width of at least 4": {"model": NoisyClassifier(width=3)},
        r"the network of Own is called as f\(one_hots, t\): too many positional": {
            "model": Own("WithoutTime")
        },
        r"__call__ returns float32 \[2, 3, 3\] for one_hots \[2, 3, 4\]: return logits of the label": {
            "model": Own("OfElements")
        },
    }
    description = config.data.describe_data(base.data)
    for message, change in changes.items():
        changed = dataclasses.replace(base, **change)
        with pytest.raises(UserError, match=message):
            tiny.build_checked(changed, description)

    data_changes = {
        "the data has no labels, which loss = LabelLoss.. trains to predict": {"classes": None},
        "the data is padded, but a classifier takes whole examples": {"padded": True},
        "the data has a condition, but a classifier takes none": {"condition": (2,)},
    }
    for message, change in data_changes.items():
        changed = dataclasses.replace(description, **change)
        with pytest.raises(UserError, match=message):
            tiny.build_checked(base, changed)


@pytest.mark.slow
def test_a_classifier_goes_on_where_it_was_and_takes_batches_in_parts(folder):
    options = {"model": dataclasses.replace(SMALL, dropout=0.0), "folder": folder, "checkpoint_every": 3}
    alone = runs.train(make_config(**options, steps=6), folder / "alone")
    runs.train(make_config(**options, steps=3), folder / "resumed")
    resumed = runs.train(make_config(**options, steps=6), folder / "resumed", resume=True)
    for a, b in zip(*map(jax.tree.leaves, (alone.params, resumed.params)), strict=True):
        np.testing.assert_array_equal(a, b)
    in_parts = runs.train(make_config(**options, steps=6, accumulate=2), folder / "parts")
    for a, b in zip(*map(jax.tree.leaves, (alone.params, in_parts.params)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_a_classifier_of_your_own_is_trained(folder):
    run = runs.train(make_config(folder, Own(), steps=4), folder / "own")
    opened = runs.open(folder / "own", run.config)
    assert opened.classify(np.zeros((2, L), np.int32), np.ones(2, np.int32)).shape == (2, CLASSES)
