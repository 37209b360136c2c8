"""Runs of argmax flows: trained, resumed, evaluated, sampled and reported as runs of diffusions are."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from d3pm_jax import config, models, report, runs
from d3pm_jax.config import Adam, Argmax, ArgmaxAR, ArgmaxCoupling, Arrays, Config, Spec, Train
from d3pm_jax.data import plane
from d3pm_jax.errors import UserError
from d3pm_jax.evaluation.bound import draw_each
from d3pm_jax.program.loop import metrics
from d3pm_jax.program.measure import samples
from d3pm_jax.sampling.noise import EVALUATION, fold_in_each
from d3pm_jax.training import flow
from tests import tiny
from tests.cli.commands import error, status

K = 5
L = 4
D = 3


class Cumulative(models.SequenceFeatures):
    """Features of a user's own: running sums of what comes before, through a linear map."""

    def __init__(self, length, n_in, causal, *, rngs):
        self.length = length
        self.n_in = n_in
        self.out_features = 8
        self.causal = causal
        self.linear = nnx.Linear(n_in, 8, rngs=rngs)

    def __call__(self, v, *, key=None):
        sums = jnp.cumsum(v, axis=1) - v if self.causal else jnp.cumsum(v, axis=1)
        return jnp.tanh(self.linear(sums))


@dataclasses.dataclass(frozen=True)
class OwnFeatures(config.Features):
    def build(self, length, n_in, causal, rngs):
        return Cumulative(length, n_in, causal, rngs=rngs)


def make_config(folder, model=None, **train):
    x = np.random.default_rng(0).integers(0, K, (40, L)).astype(np.int32)
    np.save(folder / "x.npy", x)
    file = str(folder / "x.npy")
    model = model or ArgmaxCoupling(num_steps=1, num_mixtures=1, features=OwnFeatures(), context_width=4)
    options = {"steps": 6, "batch_size": 4, "ema_decay": 0.5, "log_every": 2, "checkpoint_every": 3} | train
    return Config(
        data=Arrays(file, file, K, valid=file),
        process=Argmax(),
        model=model,
        optimizer=Adam(lr=1e-2),
        train=Train(**options),
    )


class OfOtherData(runs.ClassifierFreeGuidance):
    """Guidance of a user's own that is for no run."""

    def check_run(self, description, config, shape):
        raise UserError("the classifier was trained on other data")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("flows")


@pytest.fixture(scope="module")
def run(folder):
    return runs.train(make_config(folder, eval_every=4, sample_every=4), folder / "run")


def leaves(state):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def test_a_flow_trains(run):
    rows = metrics.read_metrics(run.workdir)
    assert [row["step"] for row in rows] == [2, 3, 4, 6]
    for row in rows:
        assert {"loss", "grad_norm", "bound_bits_per_dim"} <= set(row)
        assert not {"kl", "ce"} & set(row)
        assert row["bound_bits_per_dim"] == pytest.approx(row["loss"] / np.log(2))
    assert rows[2]["valid_bits_per_dim"] == pytest.approx(rows[2]["bound_bits_per_dim"], abs=1)
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert list((run.workdir / "samples").iterdir())


@pytest.mark.slow
def test_a_flow_goes_on_where_it_was_and_takes_batches_in_parts(folder):
    alone = runs.train(make_config(folder, ArgmaxAR(2, OwnFeatures(), context_width=4)), folder / "alone")
    options = {"model": alone.config.model, "folder": folder}
    runs.train(make_config(**options, steps=3), folder / "resumed")
    resumed = runs.train(make_config(**options), folder / "resumed", resume=True)
    for a, b in zip(leaves(alone.parts.state), leaves(resumed.parts.state), strict=True):
        np.testing.assert_array_equal(a, b)

    runs.train(make_config(**options, accumulate=2), folder / "parts")
    rows = [metrics.read_metrics(folder / name) for name in ("alone", "parts")]
    for at_once, in_parts in zip(*rows, strict=True):
        assert in_parts["loss"] == pytest.approx(at_once["loss"], rel=1e-5)
        assert in_parts["grad_norm"] == pytest.approx(at_once["grad_norm"], rel=1e-4)
    in_twos = alone.evaluate(limit=6, batch_size=2, calls=3)
    assert in_twos["nats"] == pytest.approx(alone.evaluate(limit=6, calls=3)["nats"], rel=1e-6)


def test_the_bounds_are_those_of_the_log_weights_of_the_network(run):
    x = np.load(run.config.data.test)[:5]
    draws = 3
    network = run.config.model.build(Spec((L,), run.parts.recipe.K, None, None, 1), nnx.Rngs(0))
    nnx.update(network, run.params)
    network.eval()
    log_weights = jax.jit(network.log_weights)
    keys = fold_in_each(jax.random.fold_in(jax.random.key(7), EVALUATION), jnp.arange(len(x)))
    weights = []
    for j in range(draws):
        u, normal = draw_each(jax.vmap(jax.random.fold_in, (0, None))(keys, j), (L,), D)
        weights.append(np.asarray(log_weights(jnp.asarray(x), u, normal), np.float64))

    elbo = run.evaluate_on(x, seed=7)
    assert elbo["times"] == []
    assert elbo["nats"] == pytest.approx(-weights[0].mean(), rel=1e-5)
    assert elbo["bits_per_dim"] == pytest.approx(elbo["nats"] / (L * np.log(2)))
    importance_bound = run.evaluate_on(x, seed=7, calls=draws)
    mean_weight = np.exp(np.array(weights)).mean(axis=0)
    assert importance_bound["nats"] == pytest.approx(-np.log(mean_weight).mean(), rel=1e-5)
    mean_elbo = -np.mean(weights) / (L * np.log(2))
    assert importance_bound["elbo_bits_per_dim"] == pytest.approx(mean_elbo, rel=1e-5)
    assert importance_bound["bits_per_dim"] <= mean_elbo


def test_samples_are_categories_and_do_not_depend_on_the_batch(run):
    key = jax.random.key(0)
    drawn = run.sample(key, 9, batch_size=9)
    x = drawn.x0
    assert x.shape == (9, L)
    assert drawn.states.shape == (0, 9, L)
    assert x.dtype == np.int32
    assert 0 <= x.min() <= x.max() < K
    np.testing.assert_array_equal(run.sample(key, 5, batch_size=2).x0, x[:5])
    assert (run.sample(jax.random.key(1), 9, batch_size=9).x0 != x).any()

    broken = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), run.params)
    state = dataclasses.replace(run.parts.state, ema=broken)
    with pytest.raises(UserError, match="the flow gave no numbers: its weights are not finite"):
        samples.draw_samples(run.parts.with_state(state), key, 9, batch_size=9)


def test_candidates_of_a_flow_are_its_samples(run):
    key = jax.random.key(0)
    best = run.sample(key, 3, runs.Draw(select=runs.BestOf(lambda x: x[:, 0] * 1.0, 3)), batch_size=4)
    x = run.sample(key, 9, batch_size=9).x0.reshape(3, 3, L)
    np.testing.assert_array_equal(best.candidates, x)
    np.testing.assert_array_equal(best.x0[:, 0], x[..., 0].max(axis=1))


def test_commands_do_not_ask_what_a_run_trains(run, folder, capsys):
    own = ("--config", __file__)
    workdir = run.workdir
    assert status("eval", workdir, *own, "--calls", 3, "--limit", 5) == 0
    printed = capsys.readouterr().out
    assert "IWBO(3): " in printed
    assert " nats, beside an ELBO of " in printed
    assert "test bits/dim: " in printed
    protocol = json.loads((workdir / "eval_calls3_limit5.json").read_text())["protocol"]
    assert protocol["terms"] == "IWBO(3)"
    assert status("sample", workdir, *own, "--num", 9) == 0
    assert np.load(workdir / "samples.npy").shape == (9, L)
    page = report.page([run])
    assert "<h2>Samples</h2>" in page
    assert "<h2>Processes</h2>" not in page
    assert "Argmax, K = 5" in page
    assert status("export", workdir, *own, "--to", "torch", "--out", folder / "w.safetensors") == 0


@pytest.mark.slow
@pytest.mark.parametrize(("coding", "squeeze"), [("gray", 2), ("plain", 1)])
def test_points_of_the_plane_are_compared_with_their_exact_density(folder, coding, squeeze, capsys):
    model = ArgmaxCoupling(1, 1, OwnFeatures(), context_width=4, squeeze=squeeze)
    base = make_config(folder, model, steps=2, checkpoint_every=2, sample_every=2)
    run = runs.train(dataclasses.replace(base, data=config.Plane("spirals", coding, 64, 16)), folder / coding)
    result = run.evaluate(calls=2)
    x = run.read_batch("test")["x"]
    cells = plane.decode_gray(x) if coding == "gray" else x
    exact = -np.log(plane.cell_masses("spirals")[cells[:, 0], cells[:, 1]]).mean()
    assert result["nats_above_exact"] == pytest.approx(result["nats"] - exact)
    assert 0 < result["nats_above_exact"] < 20
    assert run.sample(jax.random.key(0), 3).x0.shape == (3, *x.shape[1:])
    assert list((run.workdir / "samples").glob("*.png"))
    refused = error(capsys, "sample", run.workdir, "--config", __file__, "--num", 3, "--gif")
    assert "a flow draws samples in one pass; leave it out" in refused


def test_a_flow_has_no_steps_states_or_known_elements(run):
    key = jax.random.key(0)
    x = np.load(run.config.data.test)[:2]
    known = (np.zeros(L, np.int32), np.ones(L, bool))

    def draw(**request):
        return run.sample(key, 2, runs.Draw(**request))

    refusals = {
        "process": lambda: run.process,
        "predict": lambda: run.predict(np.zeros((2, L), np.int32), np.ones(2, np.int32)),
        "certify": lambda: run.certify(2),
        "steps = 5: the run trains a flow": lambda: run.respaced(5),
        "so it has a bound and no chain rule": lambda: run.log_prob(x),
        "leave record out": lambda: draw(record=(0,)),
        "takes no sampler: leave --sampler or sampler out": lambda: draw(sampler="ancestral"),
        "leave --prompt, --infill, --given, known or start out": lambda: draw(known=known),
        "edits nothing: leave --prompt, --infill, --given, known or start": lambda: draw(
            start=(known[0], 0.5)
        ),
        r"steers no particles: take runs.BestOf\(score, n\)": lambda: draw(
            select=runs.Particles(lambda x: x[:, 0] * 1.0, 2)
        ),
        "cannot be guided: leave --guidance or guidance out": lambda: draw(guidance=2.0),
        "and cannot be guided: leave --guidance or guidance out": lambda: draw(guidance=OfOtherData(2.0)),
        rf"shape \[3\]: the flow of this run takes only \[{L}\](\n|$)": lambda: draw(shape=(3,)),
        rf"shape \[6\]: the flow of this run takes only \[{L}\](\n|$)": lambda: run.evaluate_on(
            x[:, [0] * 6]
        ),
        "a flow takes whole examples: leave weight out": lambda: run.evaluate_on(x, weight=np.ones(x.shape)),
        "label = 1: the network of this run takes no labels": lambda: draw(label=1),
        "but this needs a diffusion": lambda: runs.presample(run.config, run.workdir / "n.array_record"),
    }
    for message, call in refusals.items():
        expected = (
            message if " " in message else "the run trains a flow, ArgmaxCoupling, but this needs a diff"
        )
        with pytest.raises(UserError, match=expected):
            call()


def test_a_loss_of_your_own_is_one_for_each_example():
    """What a function of a user's own loop returns is checked with its place, and weights are refused."""
    batch = {"x": jnp.zeros((2, L), jnp.int32)}
    noise = flow.draw_noise(jax.random.key(0), 0, (2, L), D)

    def compute(returned, batch):
        loss = flow.FlowLoss(lambda *args: returned, D)
        return loss.compute({}, None, None, batch, noise, jax.random.key(0), 2 * L)

    loss, (means, costs, _) = compute((jnp.array([-3.0, -5.0]), None), batch)
    assert loss == means["loss"] == 1.0
    assert costs.tolist() == [3.0, 5.0]
    for returned in (jnp.zeros(2), (jnp.zeros(()), None), (jnp.zeros(2, jnp.int32), None)):
        with pytest.raises(UserError, match=r"return log weights, floating \[2\], and buffers"):
            compute(returned, batch)
    with pytest.raises(ValueError, match="the batch has weights, but a flow takes whole examples"):
        compute((jnp.zeros(2), None), batch | {"weight": jnp.ones((2, L))})


def test_what_is_of_a_diffusion_is_refused(folder):
    base = make_config(folder)
    absorbing = config.Absorbing(K="data", steps=4, beta=config.Reciprocal(), mask_id="data")
    transformer = config.Transformer(width=8, num_layers=1, num_heads=2)
    changes = {
        "head = .* is for a diffusion, .* leave head out": {"head": config.Head(residual=False)},
        "loss = .* leave loss out": {"loss": config.HybridLoss(ce_weight=0.5)},
        "timesteps = .* leave timesteps out": {"timesteps": config.Independent()},
        "train.remat = True does nothing in a flow": {"train": Train(steps=1, remat=True)},
        "train.noise = 'n' is only for a diffusion: leave it out": {"train": Train(steps=1, noise="n")},
        "process.K = 4, but the data has 5": {"process": Argmax(4)},
        "model = Transformer builds no flow": {"model": transformer},
        "model = ArgmaxCoupling builds a flow: set process": {"process": absorbing},
        "squeeze = 3 does not divide the 4 places": {"model": ArgmaxCoupling(squeeze=3)},
        "width = 4: an eighth": {"model": ArgmaxAR(features=config.LSTMFeatures(width=4))},
    }
    description = config.data.describe_data(base.data)
    for message, change in changes.items():
        changed = dataclasses.replace(base, **change)
        with pytest.raises(UserError, match=message):
            tiny.build_checked(changed, description)

    data_changes = {
        "the data is padded": {"padded": True},
        "the data has a condition": {"condition": (2,)},
        r"shape = \(2, 2\): it must be \[L\] of sequences": {"shape": (2, 2)},
    }
    for message, change in data_changes.items():
        changed = dataclasses.replace(description, **change)
        with pytest.raises(UserError, match=message):
            tiny.build_checked(base, changed)


@pytest.mark.slow
def test_a_flow_of_images_is_trained_evaluated_and_sampled(tmp_path):
    x = np.random.default_rng(0).integers(0, K, (8, 4, 4, 1)).astype(np.int32)
    np.save(tmp_path / "images.npy", x)
    file = str(tmp_path / "images.npy")
    unet = config.UNetFeatures(ch=2, ch_mult=(1,), num_res_blocks=0, groups=1)
    model = ArgmaxCoupling(num_steps=1, num_mixtures=1, features=unet, context_width=4)
    base = make_config(tmp_path, model, steps=2)
    images = dataclasses.replace(base, data=Arrays(file, file, K, kind="image"))
    run = runs.train(images, tmp_path / "run")
    bound = run.evaluate(calls=2)
    assert bound["bits_per_dim"] <= bound["elbo_bits_per_dim"]
    samples = run.sample(jax.random.key(0), 3).x0
    assert samples.shape == (3, 4, 4, 1)
    assert 0 <= samples.min() <= samples.max() < K
