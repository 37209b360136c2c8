"""Samples that were made from examples, on the page about a run."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from d3pm_jax.data import Description
from d3pm_jax.errors import UserError
from d3pm_jax.kinds import make_kind
from d3pm_jax.report import folder, samples
from d3pm_jax.show.images import MASK_COLOUR
from tests.report.reading import Page, pixels
from tests.report.records import Known, KnownParts, record, write_result

SHAPE = (8, 8, 1)


@pytest.fixture
def run(tmp_path):
    description = Description(SHAPE, 17, None, "image")
    parts = KnownParts(
        recipe=SimpleNamespace(K=17, categories=17), description=description, kind=make_kind(description)
    )
    return Known(step=7, workdir=tmp_path, parts=parts)


def write(run, suffix, step=7, **more):
    x = np.random.default_rng(0).integers(0, 17, (3, *SHAPE)).astype(np.int32)
    content = {"step": step, "num": 3, "steps": 10, "grid": "even", "seed": 0, "label": None, **more}
    write_result(run.workdir / f"samples{suffix}.json", content)
    np.save(run.workdir / f"samples{suffix}.npy", x)
    np.save(run.workdir / f"made_from{suffix}.npy", np.where(np.arange(8)[:, None] < 4, x, np.int32(17)))


def test_samples_stand_beside_what_they_were_made_from(run):
    write(run, "_given_knownleft", given="sha256 a", known="left")
    write(run, "_strength0.5_given", given="sha256 a", strength=0.5)
    write(run, "_step3_given_knownleft", step=3, known="left")
    made = folder.read_made(run)
    assert [x.record.path.stem for x in made] == ["samples_given_knownleft", "samples_strength0.5_given"]
    page = Page(str(samples.show_made(dataclasses.replace(record(run=run), made=made))))
    first, second = (text for text in page.inside["figcaption"] if "of d3pm sample" in text)
    assert "samples_given_knownleft.npy of d3pm sample: 10 steps, seed 0, known: left." in first
    assert "edits of strength 0.5." in second
    pictures = [pixels(attributes["src"]) for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 4
    is_blue = [np.any(np.all(picture == MASK_COLOUR, axis=-1)) for picture in pictures]
    assert is_blue == [True, False, True, False]
    assert samples.show_made(record(run=run)) == ""


def test_what_is_damaged_is_named(run):
    write(run, "_given_knownleft")
    np.save(run.workdir / "made_from_given_knownleft.npy", np.zeros((3, 2), np.int32))
    with pytest.raises(UserError, match=r"samples_given_knownleft\.npy or .* is damaged") as raised:
        folder.read_made(run)
    assert "\n" not in str(raised.value)
