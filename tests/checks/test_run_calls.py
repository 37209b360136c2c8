"""What `d3pm_jax.runs` offers refuses in one line what it cannot use."""

import collections
from pathlib import Path

import pytest

from tests.checks import run_calls

# Without what trains, and what computes with values that are right.
QUICK = ("predict", "classify", "sample", "Draw", "Draw of known", "denoiser()", "BestOf", "export", "open")
THIN = ("'abc'", "{}", "-1", "2.5", "a -1", "a K", "a T + 1", "longer", "a class too many", "texts")


def defects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: run_calls.Wanted) -> list[str]:
    monkeypatch.chdir(tmp_path)
    results = list(run_calls.spoilt(run_calls.open_runs(tmp_path), wanted))
    counts = collections.Counter(kind for kind, _, _ in results)
    print(dict(counts))
    # What the checks of types of these tests refuse before us is left to the table alone.
    return [
        f"{kind} {which} {how}"
        for kind, which, how in results
        if kind in run_calls.DEFECTS and not how.startswith("TypeCheckError")
    ]


def test_what_no_run_can_use_is_refused_by_name(tmp_path, monkeypatch):
    def is_quick(call, name, case):
        return call.name in QUICK and case in THIN and case not in run_calls.RIGHT.get(call.roles[name], ())

    assert defects(tmp_path, monkeypatch, is_quick) == []


@pytest.mark.slow
def test_every_argument_of_every_call_of_a_run_is_checked(tmp_path, monkeypatch):
    assert defects(tmp_path, monkeypatch, lambda call, name, case: True) == []
