"""Samples of a run that are guided by its own network, without the label and the condition."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from d3pm_jax import config as configs, runs, sampling
from d3pm_jax.errors import UserError
from d3pm_jax.program.parts import network
from d3pm_jax.program.parts.build import build, initialize_state
from d3pm_jax.program.parts.completed import complete
from d3pm_jax.program.parts.guidance import read_guidance
from d3pm_jax.runs import ClassifierFreeGuidance, run as run_module
from d3pm_jax.sampling import guidance, named
from d3pm_jax.sampling.noise import SAMPLING
from tests import tiny
from tests.cli.commands import status
from tests.runs import conditioned
from tests.runs.conditioned import CATEGORIES, patterns

N = 5
T = 4
KEY = jax.random.key(3)
CONDITIONS = patterns(2, 1)
ROWS = np.arange(N) % 2  # sample i has row i modulo their number
LABELS = ROWS + 1


def get_config(rate, masks=False):
    """A config of patterns with labels and conditions; the extra mask is the last category."""
    process = configs.Uniform(CATEGORIES, T, configs.Cosine())
    head = configs.Head(residual=False)
    if masks:
        process = configs.Absorbing(CATEGORIES + 1, T, configs.Reciprocal(), CATEGORIES)
    train = configs.Train(steps=4, batch_size=8, drop_condition=rate)
    return configs.Config(conditioned.Patterns(), process, conditioned.Table(), train, head=head)


def make_run(tmp_path, rate, masks=False):
    config = get_config(rate, masks)
    parts = build(complete(config, config.data.describe()), mesh=tiny.one_device_mesh())
    parts = initialize_state(parts)
    # The first weights would make nearly certain of one category whatever is guided.
    state = dataclasses.replace(parts.state, ema=jax.tree.map(lambda x: 0.3 * x, parts.state.ema))
    return runs.Run(tmp_path, dataclasses.replace(parts, state=state))


@pytest.fixture(scope="module")
def uniform(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("uniform"), 0.1)


@pytest.fixture(scope="module")
def absorbing(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("absorbing"), 0.1, masks=True)


def draw(run, batch_size=N, **request):
    draw = runs.Draw(label=LABELS[:2], condition=CONDITIONS, **request)
    return run.sample(KEY, N, draw, batch_size=batch_size)


def sample_guided(run, gamma, on, late=None):
    """The chain of `sampling.guidance` with the network and the inputs of a run, by hand."""
    inputs = (jnp.asarray(LABELS), jnp.pad(jnp.asarray(CONDITIONS[ROWS]), ((0, 0), (0, 0), (0, 1))))
    null = (jnp.full(N, CATEGORIES), jnp.zeros((N, 2, 4), jnp.int32).at[..., 3].set(1))

    def network(x, time, inputs):
        label, condition = inputs
        return run.parts.recipe.diffusion.network(run.params, x, time, label=label, condition=condition)

    guided = guidance.classifier_free(network, inputs, null, gamma, on, late)
    denoiser = sampling.Denoiser(run.process, guided, run.config.loss.belief)
    return sampling.sample(jax.random.fold_in(KEY, SAMPLING), denoiser, (N, 6))


def test_samples_of_a_run_are_those_of_its_guided_network(uniform, absorbing):
    """By default of the law of x_s, and with an extra mask of that of x_0; two calls a step, in one."""
    for run, asked, expected in (
        (uniform, ClassifierFreeGuidance(3.0, late=2), sample_guided(uniform, 3.0, "x_s", late=2)),
        (absorbing, ClassifierFreeGuidance(3.0), sample_guided(absorbing, 3.0, "x_0")),
    ):
        programs = len(run.parts._compiled)
        drawn = draw(run, batch_size=2, guidance=asked)
        np.testing.assert_array_equal(drawn.x0, expected.x0)
        assert (drawn.calls.tolist(), drawn.program_calls) == ([2 * T] * N, 3 * T)
        assert len(run.parts._compiled) == programs + 1  # whatever the number of batches


def test_gamma_1_and_0_are_the_network_with_and_without_the_inputs(uniform):
    unguided = draw(uniform)
    for gamma, expected in ((1.0, unguided.x0), (0.0, sample_guided(uniform, 0.0, "x_s").x0)):
        drawn = draw(uniform, guidance=gamma)
        np.testing.assert_array_equal(drawn.x0, expected)
        assert (drawn.calls.tolist(), drawn.program_calls) == ([T] * N, T)
    assert np.any(draw(uniform, guidance=0.0).x0 != unguided.x0)


def test_what_cannot_be_guided_is_one_line(uniform, absorbing, tmp_path):
    def refuse(run, message, asked=2.0, **options):
        with pytest.raises(UserError, match=message):
            draw(run, guidance=asked, **options)

    undropped = make_run(tmp_path, 0.0)
    cure = "--train.drop-condition 0.1, and --model.classes N too if it took no label$"
    refuse(undropped, f"never dropped them: train one .* by d3pm train CONFIG {cure}")
    refuse(undropped, r"never dropped them", 1.0)
    on_x_s = ClassifierFreeGuidance(2.0, "x_s")
    refuse(absorbing, "revealed places take x_0: guide x_0, or leave it out", on_x_s, sampler="random_order")
    hit = named.first_hitting()
    assert draw(absorbing, guidance=2.0, sampler=hit).calls.tolist() == [2 * 6] * N
    with pytest.raises(UserError, match=r"guidance is .*much.*: pass gamma, as 2.0, or runs.ClassifierFree"):
        read_guidance("much")
    assert read_guidance(np.float32(2)) == ClassifierFreeGuidance(2.0)
    for number in (np.float32("inf"), np.float32("nan"), 10**400):
        with pytest.raises(UserError, match=r"gamma is .*(inf|nan|000).*: it must be a finite number"):
            read_guidance(number)
    with pytest.raises(
        UserError, match=r"record = \[7\]: its entries must be in 0\.\.3, each a number of rows"
    ):
        draw(absorbing, sampler=named.maskgit(rows=3), record=[7])
    for fields, message in (
        ({"gamma": float("nan")}, r"gamma is .*nan.*: it must be a finite number"),
        ({"gamma": float("inf")}, r"gamma is .*inf.*: it must be a finite number"),
        ({"gamma": 2.0, "late": -1}, r"late = -1: it must be a whole number in 0\.\."),
    ):
        with pytest.raises(UserError, match=message):
            ClassifierFreeGuidance(**fields)


def test_the_command_guides_and_says_what_it_costs(monkeypatch, tmp_path, capsys):
    description = dataclasses.replace(tiny.DIGITS, shape=(2, 2, 1))
    base = tiny.get_config()
    model = dataclasses.replace(base.model, classes=10)
    train = dataclasses.replace(base.train, drop_condition=0.1)
    config = dataclasses.replace(base, model=model, train=train)
    folder = tmp_path / "run"
    monkeypatch.setattr(network, "split_network", tiny.split)
    tiny.write_run(folder, config, description=description)
    monkeypatch.setattr(run_module, "mesh_of", lambda *_, **__: tiny.one_device_mesh())

    options = ("--num", "3", "--batch-size", "3", "--label", "7")
    assert status("sample", folder, *options, "--guidance", "2.5", "--guidance-late", "4") == 0
    path = folder / "samples_label7_guidance2.5_x_s_late4.npy"
    printed = capsys.readouterr().out
    assert f"3 samples of step 7, all of class 7, int32 (3, 2, 2, 1): {path}" in printed
    assert "\nguided, gamma = 2.5 on x_s at steps up to 4: 20 calls of the network for each" in printed
    content = json.loads(path.with_suffix(".json").read_text())
    fields = {"class": "ClassifierFreeGuidance", "gamma": 2.5, "on": "x_s", "late": 4}
    assert (content["guidance"], content["calls"], content["program_calls"]) == (fields, 20, 10)

    for words, message in (
        (("--guidance-on", "x_0"), "argument --guidance-on: say how far to guide, as --guidance 2"),
        (("--guidance-late", "4"), "argument --guidance-late: say how far to guide"),
        (("--guidance", "nan"), "argument --guidance: expected a finite number, got 'nan'"),
        (("--guidance", "2", "--guidance-on", "x_t"), "--guidance-on: expected 'x_s' or 'x_0'"),
    ):
        assert status("sample", folder, *words) == 2
        assert message in capsys.readouterr().err
