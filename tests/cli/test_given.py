"""`d3pm sample --given`: completed and edited examples, their files, and what does not go together."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from d3pm_jax.cli.sample import FLAGS, SampleCommand, _name_files
from d3pm_jax.config import Absorbing, Adam, Linear, Reciprocal, Transformer, Uniform
from d3pm_jax.config.samplers import choose_sampler
from d3pm_jax.data import Description
from d3pm_jax.errors import UsageError
from d3pm_jax.program.parts.guidance import ClassifierFreeGuidance
from tests import tiny
from tests.cli.commands import error, status

K = 5
SHAPE = (4, 4, 1)
X0 = np.random.default_rng(0).integers(0, K, (3, *SHAPE))


@pytest.fixture
def workdir(tmp_path, small_network):
    config = dataclasses.replace(
        tiny.get_config(),
        process=Uniform(K=K, steps=4, beta=Linear(0.3, 1.0, rescale=False)),
        optimizer=Adam(lr=1e-3),
    )
    tiny.write_run(tmp_path / "w", config, description=Description(SHAPE, K, None, "image"))
    np.save(tmp_path / "x.npy", X0)
    return tmp_path / "w"


def test_known_parts_stay_and_are_shown(workdir, capsys):
    given = workdir.parent / "x.npy"
    assert status("sample", workdir, "--num", 4, "--given", given, "--known", "left") == 0
    printed = capsys.readouterr().out
    x = np.load(workdir / "samples_given_knownleft.npy")
    np.testing.assert_array_equal(x[:, :, :2], X0[[0, 1, 2, 0]][:, :, :2])
    content = json.loads((workdir / "samples_given_knownleft.json").read_text())
    assert content["known"] == "left"
    assert content["given"].startswith("sha256 ")
    assert "strength" not in content
    # A category that the data lacks is drawn as a mask.
    made_from = np.load(workdir / "made_from_given_knownleft.npy")
    np.testing.assert_array_equal(made_from[:, :, :2], x[:, :, :2])
    assert np.all(made_from[:, :, 2:] == K)
    picture = workdir / "samples_given_knownleft.png"
    assert f"samples beside what they were made from: {picture}\n" in printed
    assert picture.exists()
    assert "the network was not trained with known elements among the noise" in printed
    assert "only roughly: --sampler repaint fits them more closely" in printed

    words = ("--known", "left", "--sampler", "repaint", "--sampler.passes", 2)
    assert status("sample", workdir, "--num", 4, "--given", given, *words) == 0
    assert "only roughly: more than 2 passes (--sampler.passes) fit them more" in capsys.readouterr().out


def test_what_is_filled_stays(workdir):
    partly = np.where(np.random.default_rng(1).random(X0.shape) < 0.5, X0, np.tile([[K], [-1]], (2, 1)))
    np.save(workdir.parent / "partly.npy", partly)
    words = ("--given", workdir.parent / "partly.npy", "--known", "filled")
    assert status("sample", workdir, "--num", 4, *words) == 0
    x = np.load(workdir / "samples_given_knownfilled.npy")
    is_filled = (partly >= 0) & (partly < K)
    np.testing.assert_array_equal(x[:3][is_filled], X0[is_filled])
    assert ((x >= 0) & (x < K)).all()


@pytest.mark.parametrize("model", [tiny.get_config().model, Transformer()])
def test_masks_are_said_to_be_nearly_exact(model, tmp_path, small_network, capsys):
    config = dataclasses.replace(
        tiny.get_config(),
        process=Absorbing(K=K + 1, steps=4, beta=Reciprocal(), mask_id=K),
        model=model,
    )
    tiny.write_run(tmp_path / "w", config, description=Description(SHAPE, K, None, "image"))
    np.save(tmp_path / "x.npy", X0)
    assert status("sample", tmp_path / "w", "--num", 1, "--given", tmp_path / "x.npy", "--known", "left") == 0
    printed = capsys.readouterr().out
    assert "fit the known ones nearly exactly in one pass, by ancestral sampling: only the time" in printed
    assert "repaint" not in printed
    assert ("see_time" in printed) == hasattr(model, "see_time")


@pytest.mark.slow
def test_edits_go_a_part_of_the_way_and_come_with_a_film(workdir, capsys):
    given, mask = workdir.parent / "x.npy", workdir.parent / "mask.npy"
    known = np.zeros(SHAPE, bool)
    known[0] = True
    np.save(mask, known)
    words = ("--given", given, "--strength", 0.5, "--known", mask)
    assert status("sample", workdir, "--num", 3, *words, "--gif") == 0
    printed = capsys.readouterr().out
    assert f"edits of {given}, from step 2 of 4 on" in printed
    suffix = "_strength0.5_given_known"
    x = np.load(workdir / f"samples{suffix}.npy")
    np.testing.assert_array_equal(x[:, 0], X0[:, 0])
    content = json.loads((workdir / f"samples{suffix}.json").read_text())
    assert content["strength"] == 0.5
    assert content["known"].startswith("sha256 ")
    np.testing.assert_array_equal(np.load(workdir / f"made_from{suffix}.npy"), X0)
    assert (workdir / f"chain{suffix}.gif").exists()

    passes = ("--sampler", "repaint", "--sampler.passes", 3)
    assert status("sample", workdir, "--num", 3, *words[:4], *passes) == 0
    assert "by repaint: 6 calls of the network for each sample" in capsys.readouterr().out
    assert (workdir / "samples_strength0.5_samplerrepaint_passes3_given.npy").exists()


def test_the_table_of_options_has_them_all():
    assert FLAGS.keys() == {field.name for field in dataclasses.fields(SampleCommand)}
    assert {other for flag in FLAGS.values() for other in (*flag.needs, *flag.excludes)} <= FLAGS.keys()


def test_a_name_tells_the_options_in_the_order_of_the_table():
    fields = {"known": "left", "given": Path("x.npy"), "condition": Path("c.npy"), "strength": 0.5}
    fields |= {"seed": 3, "steps": 4, "label": 0, "grid": "dp", "num": 9, "guidance_late": 0, "guidance": 0.0}
    choice = choose_sampler("maskgit", {"top-k": "2", "rows": "3"})
    command = SampleCommand(Path("w"), sampler=choice, **fields)
    guidance = ClassifierFreeGuidance(0.0, "x_0", 0)
    assert _name_files(command, guidance) == (
        "_steps4_griddp_seed3_label0_strength0.5_samplermaskgit_rows3_top_k2_guidance0_x_0_late0_condition"
        "_given_knownleft"
    )
    with pytest.raises(UsageError, match="argument --guidance-late: say how far to guide"):
        SampleCommand(Path("w"), guidance_late=0)


def test_what_cannot_be_used_gets_one_line(workdir, capsys):
    np.save(workdir.parent / "large.npy", X0 + 4)
    np.save(workdir.parent / "flat.npy", X0[..., 0])

    def message(name, *words):
        return error(capsys, "sample", workdir, "--num", 2, "--given", workdir.parent / name, *words)

    assert "the elements of known hold 4..8: categories are 0..4" in message("large.npy", "--known", "left")
    assert "flat.npy has shape [3, 4, 4]: pass [4, 4, 1]" in message("flat.npy", "--known", "left")
    assert "--known lefft: pass an .npy file" in message("x.npy", "--known", "lefft")
    assert "no file" in message("gone.npy", "--strength", 0.5)
    bad_usage = {
        "argument --given: pass --known MASK too": {"given": Path("x.npy")},
        "argument --known: pass the examples too, as --given FILE": {"known": "left"},
        "argument --strength: pass the examples too": {"strength": 0.5},
        "argument --given: not allowed with argument --prompt": {"given": Path("x.npy"), "prompt": "a"},
    }
    for text, fields in bad_usage.items():
        with pytest.raises(UsageError, match=text):
            SampleCommand(Path("w"), **fields)
    for strength in ("0", "1.5", "nan"):
        assert status("sample", workdir, "--given", "x.npy", "--strength", strength) == 2
        expected = f"--strength: expected a finite number above 0, at most 1, got '{strength}'\n"
        assert capsys.readouterr().err.endswith(expected)
