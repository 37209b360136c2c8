"""Protocols of figures: a file for each, and marks on what is not comparable."""

import dataclasses

import pytest

from d3pm_jax.errors import UserError
from d3pm_jax.program.measure import record, sample_quality
from d3pm_jax.program.measure.sample_quality import Protocol

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


def write(folder, protocol, rows=FIGURES, kind="image"):
    """Writes figures, and returns the path of their file."""
    return sample_quality.write_quality(sample_quality.make_record(rows, protocol, kind), folder)


def protocol_of(result):
    """The protocol of a record."""
    return Protocol(**result.protocol)


def other(value):
    """Another value of the same type."""
    if isinstance(value, str):
        return f"{value} other"
    if isinstance(value, float):
        return value / 2
    return value + 1


def test_every_entry_has_its_file_and_four_decide_what_is_comparable(tmp_path):
    changed = {
        field.name: dataclasses.replace(PROTOCOL, **{field.name: other(getattr(PROTOCOL, field.name))})
        for field in dataclasses.fields(Protocol)
    }
    protocols = (PROTOCOL, dataclasses.replace(PROTOCOL), *changed.values())
    assert len({write(tmp_path, protocol) for protocol in protocols}) == 1 + len(changed)
    assert write(tmp_path, PROTOCOL).name.startswith("quality_n2000_steps50_seed0_")
    first = sample_quality.make_record(FIGURES, PROTOCOL, "image")
    compared = ("N", "split", "reference", "features")
    for name, protocol in changed.items():
        expected = [name] if name in compared else []
        second = sample_quality.make_record(FIGURES, protocol, "image")
        assert record.list_incomparable(first, second) == expected


def test_figures_are_read_back_and_side_by_side(tmp_path):
    fewer = dataclasses.replace(PROTOCOL, N=300, features="Inception")
    short = dataclasses.replace(PROTOCOL, steps=9)
    folders = [tmp_path / name for name in "ab"]
    for folder, protocol in zip(folders, (PROTOCOL, short), strict=True):
        folder.mkdir()
        write(folder, protocol)
    of_fewer = write(folders[1], fewer, {**FIGURES, "samples": {**ROW, "n": 300}})
    results = sample_quality.read_quality(folders)
    assert {protocol_of(result) for result in results} == {PROTOCOL, short, fewer}
    assert results[0]["figures"] == FIGURES
    head, *lines = sample_quality.format_quality(
        sorted(results, key=lambda result: protocol_of(result) != PROTOCOL)
    )
    assert head.split() == ["N", "steps", "Fréchet", "precision", "recall"]
    (marked,) = [line for line in lines if "NOT COMPARABLE with the first line: other N, features" in line]
    assert marked.split()[:4] == [f"b/{of_fewer.stem}", "300", "50", "1.250"]
    assert sum(line.startswith(("a/", "b/")) for line in lines) == 3
    assert lines[0].split() == [
        f"a/{results[0].path.stem}",
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
    path = write(tmp_path, flow)
    assert path.name.startswith("quality_n2000_seed0_")
    (result,) = sample_quality.read_quality([tmp_path])
    assert protocol_of(result) == flow


def test_figures_of_texts_have_columns_of_their_own(tmp_path):
    row = {"n": 2000, "known_words": 0.5, "distinct_1": 0.25, "distinct_2": None, "distinct_3": 1.0}
    row |= {"longest_copy": 1234, "copied": "é\n"}
    path = write(tmp_path, PROTOCOL, {"samples": row}, "text")
    (result,) = sample_quality.read_quality([tmp_path])
    assert result["figures"] == {"samples": row}
    head, line = sample_quality.format_quality([result])
    assert " ".join(head.split()) == "N steps known words distinct words 2-grams 3-grams longest copy"
    assert line.split()[1:] == ["2000", "50", "0.500", "0.250", "too", "few", "1.000", "1,234"]
    assert sample_quality.format_quality([])[0].split()[2] == "Fréchet"
    of_images = sample_quality.make_record(FIGURES, PROTOCOL, "image")
    mixed = sample_quality.format_quality([result, of_images])
    assert mixed[2].split() == ["-", "2000", "50"] + ["-"] * 5
    path.write_text(path.read_text().replace("1234", '"1234"'))
    with pytest.raises(UserError, match="a figure is no number"):
        sample_quality.read_quality([tmp_path])


def test_a_damaged_file_is_named(tmp_path):
    path = write(tmp_path, PROTOCOL)
    written = path.read_text()
    other_type = written.replace('"N": 2000', '"N": "x"')
    without_samples = written.replace('"samples"', '"x"')
    for text in ("", "[]", "{}", other_type, without_samples):
        path.write_text(text)
        with pytest.raises(
            UserError, match=r"quality_\S+\.json is damaged \(.*\): delete it and measure again"
        ):
            sample_quality.read_quality([tmp_path])
