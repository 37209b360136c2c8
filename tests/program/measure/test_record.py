"""Records of results: written and read, what compares, and what is damaged."""

import json
import math

import pytest

from d3pm_jax.errors import UserError
from d3pm_jax.program.measure import bounds, certificate, record, sample_quality, samples
from d3pm_jax.program.measure.record import Record

SUMMARY = {"bits_per_dim": 1.5, "standard_error": 0.25, "nats": 8.0, "nats_standard_error": None}
OF_BOUND = {"N": 3, "split": "test", "examples": "sha256 ab", "step": 7, "steps": 2, "seed": 1}
ACCURACY = {"accuracy": 0.75, "accuracy_standard_error": 0.125, "cross_entropy": 1.5}
FORMATS = {  # and what the commands write, by the names of files
    "eval": (
        bounds.EVAL,
        SUMMARY
        | {"reconstruction": 0.5, "prior": math.inf, "steps": [0.5, 1.0], "perplexity": 4.0}
        | {"step": 7, "examples": 3, "seed": 1, "times": [5, 10], "limit": 3}
        | {"baselines": {"unigram": 2.5, "tree": SUMMARY}, "protocol": OF_BOUND},
    ),
    "exact": (
        bounds.EXACT,
        {"step": 7, "examples": 3, "seed": 1, "left to right": SUMMARY, "in random orders": SUMMARY}
        | {"protocol": OF_BOUND},
    ),
    "certificate": (
        certificate.CERTIFICATE,
        {"step": 7, "examples": 3, "seed": 1, "draws": 8, "reference": "mixture of 8 orders", "notes": []}
        | {
            "rows": [
                {"name": "mixture of 8 orders", "law": "a", "difference": 0.0, "difference_error": None}
                | SUMMARY
            ]
        }
        | {"protocol": OF_BOUND},
    ),
    "accuracy": (
        bounds.LABELS,
        {"step": 7, "examples": 3, "seed": 1, "times": [0, 5], "accuracy_by_step": [1.0, 0.5]}
        | ACCURACY
        | {"protocol": OF_BOUND},
    ),
    "quality": (
        sample_quality.QUALITY,
        {
            "kind": "image",
            "protocol": {"N": 9, "split": "train", "reference": "150", "features": "sums", "step": 7}
            | {"steps": 5, "grid": "even", "sampler": "ancestral", "classes": "none", "ema": 0.9}
            | {"belief": "d3pm", "dtype": "float32", "seed": 3, "conditions": "none"},
            "figures": {
                "samples": {"n": 9, "frechet": 1.0, "precision": 0.5, "recall": None, "classes": [0.5, 0.5]},
                "test": {"n": 9, "frechet": 0.5, "precision": None, "recall": 1.0}
                | {"longest_copy": 4, "copied": "a\nb"},
            },
        },
    ),
    "samples": (
        samples.SAMPLES,
        {"step": 7, "num": 4, "steps": 5, "grid": "even", "seed": 0, "label": None, "prompt": "a"},
    ),
}


def test_a_baseline_is_in_its_own_unit():
    assert record.format_baseline(2.5) == "2.500 bits/dim"
    assert record.format_baseline(SUMMARY | {"nats_standard_error": 0.25}) == "8.00 +- 0.25 nats"


@pytest.fixture(params=FORMATS)
def written(request, tmp_path):
    """A path, its format, and what was written there."""
    file_format, content = FORMATS[request.param]
    path, replaced = record.write_record(Record(file_format, content), tmp_path)
    assert path == tmp_path / f"{request.param}.json"
    assert replaced == ""
    return path, file_format, content


def test_a_file_holds_its_keys_and_its_protocol_once(written):
    path, file_format, content = written
    expected = dict(content)
    if "prior" in expected:
        expected["prior"] = None
    assert json.loads(path.read_text()) == expected
    stored = record.read_record(path, file_format)
    assert stored == expected
    assert stored.path == path
    assert stored.protocol == content.get("protocol", content)
    path.write_text(json.dumps({name: x for name, x in expected.items() if name not in ("protocol", "step")}))
    with pytest.raises(UserError, match=r"is damaged \('(protocol|step)'\): delete"):
        record.read_record(path, file_format)


def test_figures_are_shown_with_their_units_and_errors():
    result = Record(*FORMATS["eval"])
    with pytest.raises(ValueError, match="not read from a file: write it, and read it back"):
        result.file  # noqa: B018
    assert result.path is None
    assert result["bits_per_dim"] == 1.5
    assert record.format_figure(result, "bits_per_dim") == "1.500 +- 0.250"
    assert record.format_with_unit(result, "bits_per_dim") == "1.500 +- 0.250 bits/dim"
    assert record.format_with_unit(result, "nats") == "8.00 +- unknown nats"
    assert record.format_figure(ACCURACY, "accuracy", "±") == "0.750 ± 0.125"
    assert record.format_figure(ACCURACY, "nats") == "-"
    assert record.format_figure({"nats": None}, "nats") == "infinite"
    plain = "1.500 +- 0.250 bits/dim, 8.00 +- unknown nats"
    drawn = f"{plain} (over examples; the choice of orders adds +- 0.12 nats)"
    assert record.format_drawn(SUMMARY) == plain
    assert record.format_drawn(SUMMARY | {"nats_draws_error": 0.125}) == drawn
    assert (
        record.format_figure({"difference": 0.0625, "difference_error": 0.5}, "difference")
        == "0.062 +- 0.500"
    )
    for infinite in (None, float("inf"), float("nan")):
        assert record.format_with_unit({"nats": infinite}, "nats") == "infinite nats"


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
def test_what_differs_is_listed(name, changes, differ):
    file_format, content = FORMATS[name]
    first = Record(file_format, content)
    other = Record(file_format, content | changes)
    if "protocol" in content:
        other = Record(file_format, content | {"protocol": content["protocol"] | changes})
    assert record.list_incomparable(first, other) == record.list_incomparable(other, first) == differ


def test_an_exact_likelihood_and_a_bound_are_of_different_models():
    bound, exact = Record(*FORMATS["eval"]), Record(*FORMATS["exact"])
    assert record.list_incomparable(bound, exact) == record.list_incomparable(exact, bound) == ["format"]


MESSAGES = {
    "eval": r"eval\.json is damaged \(.+\): delete it, `d3pm eval` writes it again",
    "exact": r"exact\.json is damaged \(.+\): delete it, `d3pm eval --chain-rule` writes it again",
    "certificate": r"certificate\.json is damaged \(.+\): delete it, `d3pm eval --certify` writes it again",
    "accuracy": r"accuracy\.json is damaged \(.+\): delete it, `d3pm eval` writes it again",
    "quality": r"quality\.json is damaged \(.+\): delete it and measure again",
    "samples": r"samples\.npy or samples\.json is damaged \(.+\): delete both, `d3pm sample` writes them",
}


def test_damage_is_told_with_its_cure(written):
    path, file_format, _ = written
    whole = path.read_text()
    texts = ["{", "[]", '"x"', "{}", whole[:-9], whole.replace('"step"', '"steq"')]
    for before, after in ((": 1.5", ': "1.5"'), (": 0.5", ': "0.5"'), (": 0.125", ": 1e200")):
        if before in whole:
            texts.append(whole.replace(before, after))
    for text in texts:
        path.write_text(text)
        with pytest.raises(UserError, match=MESSAGES[path.stem]):
            record.read_record(path, file_format)


@pytest.mark.parametrize("name", ["eval", "exact", "accuracy"])
@pytest.mark.parametrize("change", [{"times": None}, {"times": 3}, {"calls": "x"}])
def test_times_are_a_list_and_calls_a_number(name, change, tmp_path):
    file_format, content = FORMATS[name]
    path, _ = record.write_record(Record(file_format, content | change), tmp_path)
    with pytest.raises(UserError, match=MESSAGES[name]):
        record.read_record(path, file_format)


@pytest.mark.parametrize(
    "row", [{"n": 3, "frechet": 1.0}, {"n": 3, "known_words": 0.5, "mmd": 2.0}, {"n": 3, "x": "said"}]
)
def test_figures_of_an_own_kind_are_not_taken_for_those_of_a_shipped_one(row, tmp_path):
    protocol = sample_quality.Protocol(**FORMATS["quality"][1]["protocol"])
    rows = {"samples": row, "test": row}
    path = sample_quality.write_quality(sample_quality.make_record(rows, protocol, "plane"), tmp_path)
    (result,) = sample_quality.read_quality([tmp_path])
    assert result["figures"] == rows
    user_table = sample_quality.QualityTable({"mmd": "distance"}, (), ("mmd", "distance"), "")
    assert sample_quality.find_table(result, user_table) is user_table
    assert path.name in [file.name for file in tmp_path.iterdir()]
    assert len(sample_quality.format_quality([result], user_table)) == 3


def test_results_of_other_options_stay_and_what_is_replaced_is_said(tmp_path):
    assert record.file_suffix() == record.file_suffix(step=None, seed=0, label=None) == ""
    assert record.file_suffix(step=0, seed=3, label=0) == "_step0_seed3_label0"
    assert record.file_suffix(num=256) == "_num256"

    _, content = FORMATS["eval"]

    def write(**changes):
        return record.write_record(Record(bounds.EVAL, content | changes), tmp_path, "_limit3")

    path = tmp_path / "eval_limit3.json"
    assert write(step=16, bits=1.5) == (path, "")
    assert write(step=16, bits=2.0) == (path, "")
    assert json.loads(path.read_text())["bits"] == 2.0
    assert write(step=20) == (path, ", replaces that of step 16")
    path.write_text("{")
    assert write(step=16) == (path, "")
