"""Records of results: written and read, what compares, and what is damaged."""

import json
import math

import pytest

from d3pm_jax.errors import UserError
from d3pm_jax.measure import bounds, record, sample_quality, samples
from d3pm_jax.measure.record import Value

SUMMARY = {"bits_per_dim": 1.5, "standard_error": 0.25, "nats": 8.0, "nats_standard_error": None}
OF_BOUND = {"N": 3, "split": "test", "examples": "sha256 ab", "step": 7, "steps": 2, "seed": 1}
FORMATS = {  # and what the commands write, by the names of files
    "eval": (
        bounds.EVAL,
        SUMMARY
        | {"reconstruction": 0.5, "prior": math.inf, "steps": [0.5, 1.0], "perplexity": 4.0}
        | {"step": 7, "examples": 3, "seed": 1, "times": [5, 10], "limit": 3}
        | {"baselines": {"unigram": 2.5}, "protocol": OF_BOUND},
    ),
    "exact": (
        bounds.EXACT,
        {"step": 7, "examples": 3, "seed": 1, "left to right": SUMMARY, "in random orders": SUMMARY},
    ),
    "quality": (
        sample_quality.QUALITY,
        {
            "protocol": {"N": 9, "split": "train", "reference": "150", "features": "sums", "step": 7}
            | {"steps": 5, "grid": "even", "sampler": "ancestral", "classes": "none", "ema": 0.9}
            | {"belief": "d3pm", "dtype": "float32", "seed": 3, "kind": "image"},
            "figures": {
                "test": {"n": 9, "frechet": 0.5, "precision": None, "recall": 1.0}
                | {"longest_copy": 4, "copied": "a\nb"},
                "samples": {"n": 9, "frechet": 1.0, "precision": 0.5, "recall": None, "classes": [0.5, 0.5]},
            },
        },
    ),
    "samples": (
        samples.SAMPLES,
        {"step": 7, "num": 4, "steps": 5, "grid": "even", "seed": 0, "label": None, "prompt": "a"},
    ),
}


@pytest.fixture(params=FORMATS)
def written(request, tmp_path):
    """A path, its format, and what was written there."""
    file_format, content = FORMATS[request.param]
    path = tmp_path / f"{request.param}.json"
    assert record.write_record(path, file_format, content) == ""
    return path, file_format, content


def test_a_file_keeps_its_keys_beside_its_record(written):
    path, file_format, content = written
    tree = json.loads(path.read_text())
    record_of_file = tree.pop("record")
    assert record_of_file.keys() == {"protocol", "values", "arrays"}
    expected = dict(content)
    if "prior" in expected:
        expected["prior"] = None
    assert tree == expected
    path.write_text(json.dumps(tree))
    with pytest.raises(UserError, match=r"is damaged \('record'\): delete"):
        record.read_record(path, file_format)


def test_figures_have_their_units_and_errors(tmp_path):
    records = {}
    for name, (file_format, content) in FORMATS.items():
        record.write_record(tmp_path / name, file_format, content, {"step": 8})
        records[name] = record.read_record(tmp_path / name, file_format)
        assert records[name].protocol["step"] == 8  # what is said beside the keys
    bits = Value(1.5, "bits/dim", 0.25)
    nats = Value(8.0, "nats", None)
    assert records["eval"].values == {
        "bound": {
            "bits_per_dim": bits,
            "nats": nats,
            "reconstruction": Value(0.5, "bits/dim"),
            "prior": Value(None, "bits/dim"),
            "perplexity": Value(4.0),
        },
        "baselines": {"unigram": Value(2.5, "bits/dim")},
    }
    assert records["eval"].arrays == {"bound": {"times": [5, 10], "steps": [0.5, 1.0]}}
    for name in ("left to right", "in random orders"):
        assert records["exact"].values[name] == {"bits_per_dim": bits, "nats": nats}
    assert list(records["quality"].values) == ["samples", "test"]  # samples come first
    assert records["quality"].values["test"]["longest_copy"] == Value(4, "characters")
    assert records["quality"].values["test"]["copied"] == Value("a\nb")
    assert records["quality"].arrays["samples"] == {"classes": [0.5, 0.5]}
    assert (records["samples"].protocol["num"], records["samples"].values) == (4, {})


@pytest.mark.parametrize(
    ("name", "changes", "differ"),
    [
        ("eval", {"examples": "sha256 cd", "seed": 2, "steps": 1}, ["examples"]),
        ("eval", {"N": 4}, ["N"]),
        ("eval", {"inputs": "sha256 cd"}, ["inputs"]),
        ("exact", {"inputs": "sha256 cd"}, ["inputs"]),
        ("exact", {"N": 4, "seed": 2}, ["N"]),
        ("quality", {"N": 5, "features": "pixels", "step": 6}, ["N", "features"]),
        ("samples", {"num": 9}, []),
        ("samples", {"seed": 1, "prompt": None}, ["seed", "prompt"]),
    ],
)
def test_what_differs_is_listed(name, changes, differ, tmp_path):
    file_format, content = FORMATS[name]
    first = record.make_record(file_format, tmp_path, content)
    record.write_record(tmp_path / "other", file_format, content, changes)
    other = record.read_record(tmp_path / "other", file_format)
    assert record.list_incomparable(first, other) == record.list_incomparable(other, first) == differ


MESSAGES = {
    "eval": r"eval\.json is damaged \(.+\): delete it, `d3pm eval` writes it again",
    "exact": r"exact\.json is damaged \(.+\): delete it, `d3pm eval --chain-rule` writes it again",
    "quality": r"quality\.json is damaged \(.+\): delete it and measure again",
    "samples": r"samples\.npy or samples\.json is damaged \(.+\): delete both, `d3pm sample` writes them",
}


def test_damage_is_told_with_its_cure(written):
    path, file_format, _ = written
    whole = path.read_text()
    numbers = ('"value": 1.5', '"value": "1.5"'), ('"value": 0.5', '"value": "0.5"')
    texts = ["{", "[]", '"x"', "{}", whole[:-9], whole.replace('"protocol"', '"protocols"')]
    for before, after in numbers:
        if before in whole:
            texts.append(whole.replace(before, after))
    for text in texts:
        path.write_text(text)
        with pytest.raises(UserError, match=MESSAGES[path.stem]):
            record.read_record(path, file_format)


@pytest.mark.parametrize(
    "row", [{"n": 3, "frechet": 1.0}, {"n": 3, "known_words": 0.5, "mmd": 2.0}, {"n": 3, "x": "said"}]
)
def test_figures_of_an_own_kind_are_not_taken_for_those_of_a_shipped_one(row, tmp_path):
    entries = FORMATS["quality"][1]["protocol"]
    protocol = sample_quality.Protocol(**{name: x for name, x in entries.items() if name != "kind"})
    path = sample_quality.write_figures(tmp_path, {"samples": row, "test": row}, protocol, "plane")
    (result,) = sample_quality.read_figures([tmp_path])
    assert result.figures == {"samples": row, "test": row}
    user_table = sample_quality.QualityTable({"mmd": "distance"}, (), ("mmd", "distance"), "")
    assert sample_quality.find_table(result, user_table) is user_table
    assert path.name in [file.name for file in tmp_path.iterdir()]
    assert len(sample_quality.format_table([result], user_table)) == 3


def test_results_of_other_options_stay_and_what_is_replaced_is_said(tmp_path):
    assert record.file_suffix() == record.file_suffix(step=None, seed=0, label=None) == ""
    assert record.file_suffix(step=0, seed=3, label=0) == "_step0_seed3_label0"
    assert record.file_suffix(num=256) == "_num256"

    path = tmp_path / "r.json"
    _, content = FORMATS["eval"]
    first = content | {"step": 16, "bits": 1.5}
    assert record.write_record(path, bounds.EVAL, first) == ""
    assert record.write_record(path, bounds.EVAL, first | {"bits": 2.0}) == ""
    assert json.loads(path.read_text())["bits"] == 2.0
    assert record.write_record(path, bounds.EVAL, first | {"step": 20}) == ", replaces that of step 16"
    path.write_text("{")
    assert record.write_record(path, bounds.EVAL, first) == ""
