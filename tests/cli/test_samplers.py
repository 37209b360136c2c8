"""`d3pm sample --sampler`: what is drawn and written, what it costs, and what is refused in one line."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from d3pm_jax import runs, sampling
from d3pm_jax.cli.sample import _describe_request
from d3pm_jax.config import Absorbing, Linear, Reciprocal, Uniform
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError
from d3pm_jax.kinds import files
from d3pm_jax.program.machine import devices
from d3pm_jax.program.parts import build, network
from d3pm_jax.program.parts.completed import complete
from d3pm_jax.program.parts.diffusion import call_at_whole_steps
from d3pm_jax.program.parts.draw import Settled
from d3pm_jax.runs import ClassifierFreeGuidance, Draw, run
from d3pm_jax.runs.run import open_run
from d3pm_jax.sampling import named
from tests import tiny
from tests.cli.commands import error, status

K = 4  # the last category is the mask
SHAPE = (4,)
DATA = Description(SHAPE, K - 1, None, "array")
ABSORBING = Absorbing(K=K, steps=3, beta=Reciprocal(), mask_id=K - 1)


def split(config, description, process, extra_mask=None):
    """A network from a table of x_t, and of the step that it is told; it never predicts the mask."""

    def predict(params, xt, t, key=None, label=None, weight=None, condition=None):
        logits = params["table"][xt]
        before = (1,) * (logits.ndim - 1)
        late = t.reshape(-1, *before) / process.T * params["late"].reshape(*before, -1)
        is_forbidden = jnp.arange(process.K).reshape(*before, -1) == extra_mask
        return jnp.where(is_forbidden, -jnp.inf, logits + late)

    def init(key):
        return {"table": jnp.zeros((process.K, process.K)), "late": jnp.zeros(process.K)}

    return network.Network(predict, init, predict, extra_mask=extra_mask)


@pytest.fixture(autouse=True)
def _small_network(monkeypatch):
    monkeypatch.setattr(network, "split_network", split)
    for module in (devices, run):
        monkeypatch.setattr(module, "mesh_of", lambda *_, **__: tiny.one_device_mesh())


@pytest.fixture
def workdir(tmp_path):
    return write(tmp_path)


def write(tmp_path, shape=None, **fields):
    description = DATA
    if shape is not None:
        description = Description(shape, K - 1, None, "image")
    fields = {"process": ABSORBING, **fields}
    config = dataclasses.replace(tiny.get_config(), **fields)
    tiny.write_run(tmp_path / "w", config, description=description)
    return tmp_path / "w"


def test_samples_of_samplers_lie_beside_each_other_with_their_slots(workdir, capsys):
    options = ("--num", "4", "--batch-size", "4")
    assert status("sample", workdir, *options) == 0
    plain = json.loads((workdir / "samples.json").read_text())
    assert {"sampler", "calls", "program_calls"}.isdisjoint(plain)

    fields = ("--sampler.rows=2", "--sampler.choice-temperature", "4.5", "--sampler.top-k", "2")
    assert status("sample", *fields, workdir, "--sampler", "maskgit", *options) == 0
    printed = capsys.readouterr().out
    path = workdir / "samples_samplermaskgit_rows2_top_k2.npy"
    assert f"int32 (4, 4): {path}\n" in printed
    assert "\nby maskgit: 2 calls of the network for each sample\n" in printed
    assert set(np.unique(np.load(path))) <= {0, 1, 2}

    content = json.loads(path.with_suffix(".json").read_text())
    slots = content.pop("sampler")
    assert slots["shaping"]["top_k"] == 2
    assert slots["step"]["class"] == "Reveal"
    assert slots["step"]["order"] == {"class": "DrawnProbability", "temperature": 4.5}
    assert slots["step"]["count"] == {"class": "Cosine", "rows": 2}
    assert (content.pop("calls"), content.pop("program_calls")) == (2, 2)
    assert content == plain
    assert len(list(workdir.glob("samples*.npy"))) == 2


def test_inputs_that_share_a_call_are_said_to_be_inputs(workdir, capsys):
    """A row has a call that drafts, and one that checks the other drafts, of several inputs."""
    options = ("--num", "4", "--batch-size", "4", "--sampler", "speculative", "--sampler.drafts", "3")
    assert status("sample", workdir, *options) == 0
    content = json.loads(next(workdir.glob("samples_sampler*.json")).read_text())
    line = (
        f"{content['calls']:.4g} inputs of the network for each sample, {content['program_calls']} calls of"
    )
    assert f"by speculative: {line} batches" in capsys.readouterr().out


def test_a_picture_is_titled_by_what_was_asked_for(tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(files, "write_chains", lambda *args: titles.append(args[4]) or {})
    folder = write(tmp_path, shape=(2, 2, 1))
    assert status("sample", folder, "--num", "2", "--batch-size", "2") == 0
    assert status("sample", folder, "--num", "2", "--batch-size", "2", "--sampler", "maskgit") == 0
    caption = runs.open(folder).caption
    assert titles == [caption, f"{caption}; by maskgit"]
    settled = Settled((1, 2), guidance=ClassifierFreeGuidance(2.0, "x_s", late=3))
    assert _describe_request("", settled) == ["guided, gamma = 2 on x_s at steps up to 3"]


@pytest.mark.slow
def test_chains_are_shown_of_samplers_that_take_the_steps(tmp_path, capsys):
    folder = write(tmp_path, shape=(2, 2, 1))
    options = ("--num", "4", "--batch-size", "4")
    assert status("sample", folder, "--sampler", "gibbs", *options, "--gif") == 0
    assert "by gibbs: 5 calls of the network for each sample" in capsys.readouterr().out
    with Image.open(folder / "chain_samplergibbs.gif") as gif:
        assert gif.n_frames == 4  # t = 3..0

    assert status("sample", folder, "--sampler", "first_hitting", *options) == 0
    assert (folder / "samples_samplerfirst_hitting.png").exists()
    assert len(list(folder.glob("chain*"))) == 1
    message = (
        "--gif: a GIF shows x_t at each step of the process, and the rows of the sampler first_hitting are "
        "not such steps"
    )
    assert message in error(capsys, "sample", folder, "--sampler", "first_hitting", *options, "--gif")


def test_a_network_that_sees_time_is_told_its_steps_when_places_are_hit():
    times = jnp.array([0.0, 0.2, 1.0, 1.04, 4.0])
    steps = call_at_whole_steps(lambda x, t: t, jnp.asarray(4, jnp.int32))(times, times)
    assert steps.tolist() == [1, 1, 1, 2, 4]
    assert steps.dtype == jnp.int32


def test_the_table_needs_no_run(workdir, capsys):
    assert status("sample", "--sampler", "help") == 0
    table = capsys.readouterr().out
    assert status("eval", workdir, "--sampler=help") == 0
    assert capsys.readouterr().out == table
    for name, make in named.SAMPLERS.items():
        assert table.count(f"\n{name} ") + table.startswith(f"{name} ") == 1, make
    assert "MaskGIT, 2202.04200" in table
    assert "rows = 12, choice_temperature = 4.5" in table


def test_words_that_cannot_be_used_get_one_line(workdir, capsys):
    def message(*words):
        return error(capsys, "sample", workdir, *words)

    assert "'maskgti': there is none of this name; did you mean maskgit or margin? `d3pm" in message(
        "--sampler", "maskgti"
    )
    named_sampler = ("--sampler", "maskgit")
    assert "maskgit has no such field; it has rows, choice_temperature, temperature, top_k" in message(
        *named_sampler, "--sampler.row", "3"
    )
    assert "sampler.rows = '2.5': it must be a whole number" in message(
        *named_sampler, "--sampler.rows", "2.5"
    )
    assert "top_p = 1.5: it must be a finite number above 0, at most 1" in message(
        *named_sampler, "--sampler.top-p", "1.5"
    )
    assert "schedule: it is not a number, so set it in Python" in message(
        "--sampler", "first_hitting", "--sampler.schedule", "linear"
    )
    bad_usage = {
        ("--sampler.rows", "3"): "argument --sampler.rows: say of which sampler, as --sampler ancestral",
        (*named_sampler, "--sampler.rows"): "argument --sampler.rows: expected a value, got nothing",
        (*named_sampler, "--sampler.rows=1", "--sampler.rows=2"): "argument --sampler.rows: give it once",
    }
    for words, expected in bad_usage.items():
        assert status("sample", workdir, *words) == 2
        assert capsys.readouterr().err == f"d3pm sample: error: {expected}\n"
    assert "--sampler maskgit draws samples: say how many" in error(capsys, "eval", workdir, *named_sampler)


def draw_four(run, sampler=None):
    return run.sample(jax.random.key(0), 4, Draw(sampler=sampler), batch_size=4).x0


def test_samples_are_drawn_by_the_sampler_of_the_config(tmp_path, workdir, capsys):
    maskgit = write(tmp_path / "maskgit", sampler=named.maskgit(rows=2))
    options = ("--num", "4", "--batch-size", "4")
    assert status("sample", maskgit, *options) == 0
    assert "\nby step = Reveal(order=DrawnProbability(temperature=4.5), count=Cosine(rows=2)): 2 calls" in (
        capsys.readouterr().out
    )
    saved = json.loads((maskgit / "samples.json").read_text())
    assert saved["sampler"]["step"]["count"] == {"class": "Cosine", "rows": 2}
    assert saved["calls"] == 2
    opened = open_run(workdir)
    x0 = draw_four(opened, named.maskgit(rows=2))
    np.testing.assert_array_equal(np.load(maskgit / "samples.npy"), x0)

    # What is named comes before what the config says, also where it is the default of other runs.
    plain = draw_four(opened)
    again = draw_four(open_run(maskgit), "ancestral")
    np.testing.assert_array_equal(again, plain)
    assert not np.array_equal(plain, x0)


def test_runs_refuse_samplers_that_are_not_for_them():
    """Before anything is compiled, so that all of it takes no time."""

    def make_run(process=ABSORBING):
        config = dataclasses.replace(tiny.get_config(), process=process)
        parts = build.initialize_state(build.build(complete(config, DATA), mesh=tiny.one_device_mesh()))
        return run.Run(Path("run"), parts)

    key = jax.random.key(0)
    linear = Linear(0.2, 1.0, rescale=False)
    absorbing = make_run()
    free_mask = make_run(dataclasses.replace(ABSORBING, K=3, mask_id=2))
    of_uniform = make_run(Uniform(K=3, steps=3, beta=linear))
    sees_time = make_run(dataclasses.replace(ABSORBING, beta=linear))
    refused = [
        (absorbing, named.blocks(3), "block = 3 does not divide the 4 places"),
        (absorbing, "psy", "none of this name; did you mean psi"),
        (absorbing, sampling.Sampler(shaping=sampling.Shaping(forbid=(7,))), r"forbid = \(7,\)"),
        (free_mask, "random_order", "may predict the mask, category 2: .*`ancestral`, `psi` and `ddim` work"),
        (free_mask, "remdm_cap", "may predict the mask"),
        (free_mask, "blocks", "may predict the mask"),
        (of_uniform, "maskgit", "needs an absorbing process .* for this one"),
        (of_uniform, "remdm_loop", "needs an absorbing process"),
        (
            sees_time,
            "first_hitting",
            "Linear.* has no form in continuous time.*; `random_order` works",
        ),
    ]
    for opened, sampler, message in refused:
        with pytest.raises(UserError, match=message):
            opened.sample(key, 2, Draw(sampler=sampler))


def test_ancestral_is_what_there_was_and_a_program_is_compiled_once(workdir, monkeypatch):
    opened = open_run(workdir)
    key = jax.random.key(1)
    plain = opened.sample(key, 6, Draw(record=(2,)), batch_size=4)
    drawn = opened.sample(key, 6, Draw(record=(2,), sampler="ancestral"), batch_size=4)
    np.testing.assert_array_equal(drawn.x0, plain.x0)
    np.testing.assert_array_equal(drawn.states, plain.states)
    assert drawn.calls.tolist() == [3] * 6
    assert drawn.program_calls == 6  # of two batches

    programs = len(opened.parts._compiled)
    again = opened.sample(key, 6, Draw(record=(2,), sampler=sampling.Sampler()), batch_size=4)
    assert len(opened.parts._compiled) == programs == 1
    np.testing.assert_array_equal(again.x0, plain.x0)
    known = (np.full(SHAPE, 1), np.array([True, True, True, False]))
    drawn = opened.sample(key, 6, Draw(sampler="random_order", known=known), batch_size=4)
    assert (drawn.x0[:, :3] == 1).all()
    assert drawn.calls.tolist() == [1] * 6
