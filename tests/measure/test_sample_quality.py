"""Protocols of figures: a file for each, and marks on what is not comparable."""

import dataclasses

import pytest

from d3pm_jax.errors import UserError
from d3pm_jax.measure import record, sample_quality
from d3pm_jax.measure.sample_quality import Protocol

PROTOCOL = Protocol(
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


def plain(result):
    """The figures of a record without their units."""
    return {
        subject: {name: figure.value for name, figure in row.items()}
        for subject, row in result.values.items()
    }


def protocol_of(result):
    """The protocol of a record without the name of the kind."""
    return Protocol(**{name: entry for name, entry in result.protocol.items() if name != "kind"})


def other(value):
    """Another value of the same type."""
    if isinstance(value, str):
        return f"{value} other"
    if isinstance(value, float):
        return value / 2
    return value + 1


def test_every_entry_has_its_file_and_four_decide_what_is_comparable():
    changed = {
        field.name: dataclasses.replace(PROTOCOL, **{field.name: other(getattr(PROTOCOL, field.name))})
        for field in dataclasses.fields(Protocol)
    }
    protocols = (PROTOCOL, dataclasses.replace(PROTOCOL), *changed.values())
    names = {sample_quality.figures_file_name(protocol) for protocol in protocols}
    assert len(names) == 1 + len(changed)
    assert sample_quality.figures_file_name(PROTOCOL).startswith("quality_n2000_steps50_seed0_")
    compared = ("N", "split", "reference", "features")
    for name, protocol in changed.items():
        expected = [name] if name in compared else []
        assert sample_quality.list_differences(PROTOCOL, protocol) == expected


def test_figures_are_read_back_and_side_by_side(tmp_path):
    fewer = dataclasses.replace(PROTOCOL, N=300, features="Inception")
    short = dataclasses.replace(PROTOCOL, steps=9)
    folders = [tmp_path / name for name in "ab"]
    for folder, protocol in zip(folders, (PROTOCOL, short), strict=True):
        folder.mkdir()
        sample_quality.write_figures(folder, FIGURES, protocol, "image")
    sample_quality.write_figures(folders[1], {**FIGURES, "samples": {**ROW, "n": 300}}, fewer, "image")
    results = sample_quality.read_figures(folders)
    assert {protocol_of(result) for result in results} == {PROTOCOL, short, fewer}
    assert plain(results[0]) == FIGURES
    head, *lines = sample_quality.format_table(
        sorted(results, key=lambda result: protocol_of(result) != PROTOCOL)
    )
    assert head.split() == ["N", "steps", "Fréchet", "precision", "recall"]
    (marked,) = [line for line in lines if "NOT COMPARABLE with the first line: other N, features" in line]
    assert marked.split()[:4] == [f"b/{sample_quality.figures_file_name(fewer)[:-5]}", "300", "50", "1.250"]
    assert sum(line.startswith(("a/", "b/")) for line in lines) == 3
    assert lines[0].split() == [
        f"a/{sample_quality.figures_file_name(PROTOCOL)[:-5]}",
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


def test_the_file_of_a_flow_names_no_steps(tmp_path):
    flow = dataclasses.replace(PROTOCOL, steps=0, grid="-", sampler="flow", belief="-")
    path = sample_quality.write_figures(tmp_path, FIGURES, flow, "image")
    assert path.name.startswith("quality_n2000_seed0_")
    (result,) = sample_quality.read_figures([tmp_path])
    assert protocol_of(result) == flow


def test_figures_of_texts_have_columns_of_their_own(tmp_path):
    row = {"n": 2000, "known_words": 0.5, "distinct_1": 0.25, "distinct_2": None, "distinct_3": 1.0}
    row |= {"longest_copy": 1234, "copied": "é\n"}
    path = sample_quality.write_figures(tmp_path, {"samples": row}, PROTOCOL, "text")
    (result,) = sample_quality.read_figures([tmp_path])
    assert plain(result)["samples"] == row
    head, line = sample_quality.format_table([result])
    assert " ".join(head.split()) == "N steps known words distinct words 2-grams 3-grams longest copy"
    assert line.split()[1:] == ["2000", "50", "0.500", "0.250", "too", "few", "1.000", "1,234"]
    assert sample_quality.format_table([])[0].split()[2] == "Fréchet"
    mixed = sample_quality.format_table([result, dataclasses.replace(result, values=IMAGES)])
    assert mixed[2].split()[3:] == ["-"] * 5
    path.write_text(path.read_text().replace("1234", '"1234"'))
    with pytest.raises(UserError, match="a figure is no number"):
        sample_quality.read_figures([tmp_path])


def test_a_damaged_file_is_named(tmp_path):
    path = sample_quality.write_figures(tmp_path, FIGURES, PROTOCOL, "image")
    written = path.read_text()
    other_type = written.replace('"N": 2000', '"N": "x"')
    without_samples = written.replace('"samples"', '"x"')
    for text in ("", "[]", "{}", other_type, without_samples):
        path.write_text(text)
        with pytest.raises(
            UserError, match=r"quality_\S+\.json is damaged \(.*\): delete it and measure again"
        ):
            sample_quality.read_figures([tmp_path])
