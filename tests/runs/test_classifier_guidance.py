"""Samples of a run that are guided by the classifier of another run."""

import dataclasses
import json
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from d3pm_jax import config as configs, runs, sampling
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError
from d3pm_jax.program.parts import build, network
from d3pm_jax.program.parts.completed import complete
from d3pm_jax.runs import ClassifierGuidance, run as run_module
from d3pm_jax.sampling import guidance
from d3pm_jax.sampling.noise import SAMPLING
from tests import tiny
from tests.cli.commands import error, status

SHAPE = (2, 2, 1)
DESCRIPTION = dataclasses.replace(tiny.DIGITS, shape=SHAPE)
T = 10
N = 5
KEY = jax.random.key(3)
LABELS = np.array([7, 2])
MODEL = configs.NoisyClassifier(width=8, num_layers=1, embedding=2)
CLASSIFIER = dataclasses.replace(tiny.get_config(), model=MODEL, loss=configs.LabelLoss())


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(network, "split_network", tiny.split)
        monkeypatch.setattr(run_module, "mesh_of", lambda *_, **__: tiny.one_device_mesh())
        yield


def make_run(config, description: Description = DESCRIPTION, scale=0.1):
    """A run with random weights, which is in no folder."""
    parts = build.build(complete(config, description), mesh=tiny.one_device_mesh())
    rng = np.random.default_rng(0)

    def draw(x):
        return jnp.asarray(rng.normal(size=x.shape) * scale, x.dtype)

    state = dataclasses.replace(
        parts.state, ema=jax.tree.map(draw, parts.state.ema), step=jnp.asarray(7, jnp.int32)
    )
    return runs.Run(Path("nowhere"), dataclasses.replace(parts, state=state))


@pytest.fixture(scope="module")
def run():
    return make_run(tiny.get_config())


@pytest.fixture(scope="module")
def classifier():
    """One of large weights, so that it says something."""
    return make_run(CLASSIFIER, scale=1.0)


def draw(run, asked, n=N, batch_size=N, **request):
    request = {"label": LABELS, "guidance": asked} | request
    return run.sample(KEY, n, runs.Draw(**request), batch_size=batch_size)


def sample_by_hand(run, classifier, gamma, exact):
    """The chain of `sampling.guidance` with the networks of both runs."""
    labels = jnp.asarray(LABELS[np.arange(N) % 2])

    def log_prob(one_hots, time):
        log_p = classifier.parts.recipe.classifier.log_probs(classifier.params, one_hots, time)
        rows = jnp.arange(len(one_hots)) % N
        return log_p[jnp.arange(len(one_hots)), labels[rows]]

    def network(x, time):
        return run.parts.recipe.diffusion.network(run.params, x, time)

    guided = guidance.by_classifier(network, log_prob, gamma, exact)
    denoiser = sampling.Denoiser(run.process, guided, run.config.loss.belief)
    return sampling.sample(jax.random.fold_in(KEY, SAMPLING), denoiser, (N, *SHAPE))


@pytest.mark.parametrize("exact", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_samples_are_those_of_the_network_that_the_classifier_guides(run, classifier, exact):
    drawn = draw(run, ClassifierGuidance(classifier, 3.0, exact))
    np.testing.assert_array_equal(drawn.x0, sample_by_hand(run, classifier, 3.0, exact).x0)
    assert (drawn.calls.tolist(), drawn.program_calls) == ([T] * N, T)
    assert np.any(drawn.x0 != draw(run, None, label=None).x0)


class Noting(ClassifierGuidance):
    """Guidance of a user's own, which notes the inputs of the network and leaves it as it is."""

    noted: ClassVar[list[dict]] = []

    def guide(self, network, inputs, label, dropping):
        self.noted.append({"inputs": list(inputs), "label": label is not None})
        return lambda x, time: network(x, time, inputs)


def test_guidance_gets_no_label_among_the_inputs_of_a_network_that_takes_none(run, classifier):
    draw(run, Noting(classifier))
    assert Noting.noted == [{"inputs": [], "label": True}]


@pytest.mark.slow
def test_guided_sampling_compiles_once_and_does_not_depend_on_the_batch(run, classifier):
    drawn = draw(run, ClassifierGuidance(classifier, 3.0))
    programs = len(run.parts._compiled)
    np.testing.assert_array_equal(draw(run, ClassifierGuidance(classifier, 3.0)).x0, drawn.x0)
    assert len(run.parts._compiled) == programs
    in_twos = draw(run, ClassifierGuidance(classifier, 3.0), batch_size=2)
    np.testing.assert_array_equal(in_twos.x0, drawn.x0)
    assert ClassifierGuidance(classifier, 3.0) != ClassifierGuidance(classifier, 3.0, exact=True)


@pytest.mark.slow
def test_gamma_0_leaves_the_network_as_it_is_and_labels_are_in_turn(run, classifier):
    unguided = draw(run, None, label=None)
    np.testing.assert_array_equal(draw(run, ClassifierGuidance(classifier, 0.0)).x0, unguided.x0)
    in_turn = draw(run, ClassifierGuidance(classifier, 3.0), 12, 12, label=None)
    told = draw(run, ClassifierGuidance(classifier, 3.0), 12, 12, label=np.arange(10))
    np.testing.assert_array_equal(in_turn.x0, told.x0)


def test_a_classifier_that_does_not_fit_is_one_line(run, classifier):
    asked = ClassifierGuidance(classifier, 2.0)
    longer = dataclasses.replace(
        CLASSIFIER, process=dataclasses.replace(CLASSIFIER.process, steps=20, beta=configs.Cosine())
    )
    wider = dataclasses.replace(CLASSIFIER, process=dataclasses.replace(CLASSIFIER.process, K=18))
    fewer = dataclasses.replace(DESCRIPTION, classes=3)
    others = {
        "another process: its process.beta.class is 'Cosine', that of this run is 'Linear'; train": (longer,),
        "another process: its process.K is 18, that of this run is 17": (wider,),
        "other data: its classes is 3, that of this run is 10; train a classifier with": (CLASSIFIER, fewer),
    }
    for message, other in others.items():
        with pytest.raises(UserError, match=message):
            draw(run, ClassifierGuidance(make_run(*other), 2.0))
    with pytest.raises(
        UserError, match=r"samples of shape \[3, 2, 1\]: the classifier takes only examples of shape"
    ):
        draw(run, asked, shape=(3, 2, 1))
    with pytest.raises(UserError, match=r"label = 10: it must be in 0\.\.9"):
        draw(run, asked, label=10)
    with pytest.raises(UserError, match="a corrector moves by another: take another sampler, or leave the c"):
        draw(run, asked, sampler="gibbs")
    with pytest.raises(UserError, match="which draws no samples but guides those of a diffusion"):
        draw(classifier, asked)

    makes = {
        "the run trains a diffusion, UNet, but this needs a classifier: take a run with loss = LabelLoss": (
            run,
            2.0,
        ),
        r"classifier is .*runs/c.*: pass a run, as runs.open\(folder\) gives it": ("runs/c", 2.0),
        "gamma is .*nan.*: it must be a finite number": (classifier, float("nan")),
        "gamma is .*inf.*: it must be a finite number": (classifier, float("inf")),
    }
    for message, fields in makes.items():
        with pytest.raises(UserError, match=message):
            ClassifierGuidance(*fields)


@pytest.mark.slow
def test_the_command_guides_by_a_classifier(tmp_path, capsys):
    workdir = tmp_path / "run"
    tiny.write_run(workdir, tiny.get_config(), description=DESCRIPTION)
    tiny.write_run(tmp_path / "classifier", CLASSIFIER, description=DESCRIPTION)
    options = ("--num", "3", "--batch-size", "3")
    by_classifier = ("--classifier", tmp_path / "classifier", "--guidance", "2.5")
    assert status("sample", workdir, *options, "--label", "7", *by_classifier) == 0
    path = workdir / "samples_label7_guidance2.5_classifier.npy"
    printed = capsys.readouterr().out
    assert f"3 samples of step 7, all of class 7, int32 (3, 2, 2, 1): {path}" in printed
    assert "\nguided, gamma = 2.5 by a classifier, to first order: 10 calls of the network for" in printed
    content = json.loads(path.with_suffix(".json").read_text())
    described = content["guidance"]
    assert described.pop("classifier").startswith("sha256 ")
    assert described == {"class": "ClassifierGuidance", "gamma": 2.5, "exact": False, "step": 7}
    assert content["calls"] == 10
    assert status("sample", workdir, *options, *by_classifier, "--exact") == 0
    assert ", sample i of class i modulo 10, int32" in capsys.readouterr().out
    assert (workdir / "samples_guidance2.5_classifier_exact.npy").is_file()

    for words, message in (
        (("--classifier", "c"), "argument --classifier: say how far to guide, as --guidance 2"),
        (("--exact",), "argument --exact: say by which classifier, as --classifier RUN"),
        ((*by_classifier, "--guidance-late", "4"), "--guidance-late: not allowed with argument --classifier"),
    ):
        assert status("sample", workdir, *words) == 2
        assert message in capsys.readouterr().err
    assert "trains a diffusion, UNet, but this needs a classifier" in error(
        capsys, "sample", workdir, "--classifier", workdir, "--guidance", "2"
    )
