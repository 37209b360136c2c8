"""Protocols of figures: a file for each, and marks on what is not comparable."""

import dataclasses

import pytest

from d3pm_jax.errors import UserError
from d3pm_jax.measure import record, sample_quality as protocol
from d3pm_jax.measure.sample_quality import Protocol

ONE = Protocol(
    N=2000,
    split="train",
    reference="1500 examples, sha256 aa",
    features="classifier 1, sha256 bb",
    step=7,
    steps=50,
    grid="even, of 100",
    sampler="ancestral",
    classes="none",
    ema=0.99,
    belief="denoiser",
    dtype="float32",
    seed=0,
)
ROW = {"n": 2000, "frechet": 1.25, "precision": 0.5, "recall": 0.25}
FIGURES = {"samples": ROW, "train": {**ROW, "frechet": 0.125}, "test": {**ROW, "n": 20, "frechet": None}}


IMAGES = {name: record.take_figures(row) for name, row in FIGURES.items()}


def plain(found):
    """The figures of a record without their units."""
    return {of: {name: x.value for name, x in row.items()} for of, row in found.values.items()}


def other(value):
    return (
        f"{value} other" if isinstance(value, str) else value / 2 if isinstance(value, float) else value + 1
    )


def test_every_entry_has_its_file_and_four_decide_what_is_comparable():
    changed = {
        field.name: dataclasses.replace(ONE, **{field.name: other(getattr(ONE, field.name))})
        for field in dataclasses.fields(Protocol)
    }
    names = {protocol.figures_file_name(one) for one in (ONE, dataclasses.replace(ONE), *changed.values())}
    assert len(names) == 1 + len(changed)
    assert protocol.figures_file_name(ONE).startswith("quality_n2000_steps50_seed0_")
    differ = {name: protocol.list_differences(ONE, one) for name, one in changed.items()}
    four = ("N", "split", "reference", "features")
    assert differ == {name: [name] if name in four else [] for name in changed}


def test_figures_are_read_back_and_side_by_side(tmp_path):
    fewer, short = dataclasses.replace(ONE, N=300, features="Inception"), dataclasses.replace(ONE, steps=9)
    folders = [tmp_path / name for name in "ab"]
    for folder, one in zip(folders, (ONE, short), strict=True):
        folder.mkdir()
        protocol.write_figures(folder, FIGURES, one)
    protocol.write_figures(folders[1], {**FIGURES, "samples": {**ROW, "n": 300}}, fewer)
    found = protocol.read_figures(folders)
    assert {Protocol(**one.protocol) for one in found} == {ONE, short, fewer}
    assert plain(found[0]) == FIGURES
    head, *lines = protocol.format_table(
        sorted(found, key=lambda one: one.protocol != dataclasses.asdict(ONE))
    )
    assert head.split() == ["N", "steps", "Fréchet", "precision", "recall"]
    (marked,) = (line for line in lines if "NOT COMPARABLE with the first line: other N, features" in line)
    assert marked.split()[:4] == [f"b/{protocol.figures_file_name(fewer)[:-5]}", "300", "50", "1.250"]
    assert sum(line.startswith(("a/", "b/")) for line in lines) == 3
    assert lines[0].split() == [
        f"a/{protocol.figures_file_name(ONE)[:-5]}",
        "2000",
        "50",
        "1.250",
        "0.500",
        "0.250",
    ]
    assert lines[2].endswith("  NOT COMPARABLE with the samples: other N")
    assert [line.partition("  NOT")[0].split() for line in lines[1:3]] == [
        ["train", "2000", "0.125", "0.500", "0.250"],
        ["test", "20", "too", "few", "0.500", "0.250"],
    ]
    assert sum(line.startswith("  train") for line in lines) == 2  # once for each that is not comparable


def test_figures_of_texts_have_columns_of_their_own(tmp_path):
    row = {"n": 2000, "known_words": 0.5, "distinct_1": 0.25, "distinct_2": None, "distinct_3": 1.0}
    row |= {"longest_copy": 1234, "copied": "é\n"}
    path = protocol.write_figures(tmp_path, {"samples": row}, ONE)
    (found,) = protocol.read_figures([tmp_path])
    assert plain(found)["samples"] == row
    head, line = protocol.format_table([found])
    assert " ".join(head.split()) == "N steps known words distinct words 2-grams 3-grams longest copy"
    assert line.split()[1:] == ["2000", "50", "0.500", "0.250", "too", "few", "1.000", "1,234"]
    assert protocol.format_table([])[0].split()[2] == "Fréchet"
    mixed = protocol.format_table([found, dataclasses.replace(found, values=IMAGES)])
    assert mixed[2].split()[3:] == ["-"] * 5
    path.write_text(path.read_text().replace("1234", '"1234"'))
    with pytest.raises(UserError, match="a figure is no number"):
        protocol.read_figures([tmp_path])


def test_a_damaged_file_is_named(tmp_path):
    path = protocol.write_figures(tmp_path, FIGURES, ONE)
    whole = path.read_text()
    for text in ("", "[]", "{}", whole.replace('"N": 2000', '"N": "x"'), whole.replace('"samples"', '"x"')):
        path.write_text(text)
        with pytest.raises(
            UserError, match=r"quality_\S+\.json is damaged \(.*\): delete it and measure again"
        ):
            protocol.read_figures([tmp_path])
