"""What `d3pm_jax.runs` offers refuses in one line what it cannot use."""

import collections
import itertools
from collections.abc import Iterator

import jax
import pytest

from tests.checks import run_calls
from tests.checks.constructors import DEFECTS, Result

# What makes no run but one, and compiles nothing where it is refused.
QUICK = ("predict", "sample", "Draw", "Draw of known", "BestOf")
THIN = ("'abc'", "{}", "-1", "2.5", "a -1", "a K", "a T + 1", "longer", "a class too many", "texts")


def find_defects(results: Iterator[Result]) -> list[str]:
    counts = collections.Counter()
    found = []
    with jax.debug_key_reuse(False):  # the table has one key
        outcomes = list(results)
    for kind, which, how in outcomes:
        counts[kind] += 1
        # What the checks of types of these tests refuse before us is left to the table alone.
        if kind in DEFECTS and not how.startswith("TypeCheckError"):
            found.append(f"{kind} {which} {how}")
    print(dict(counts))
    return found


def test_what_no_run_can_use_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    opened = run_calls.Opened(tmp_path)
    calls = itertools.chain(run_calls.calls_of_run(opened), run_calls.draws(opened))

    def is_quick(call, name, case):
        return call.name in QUICK and case in THIN and case not in run_calls.RIGHT.get(call.roles[name], ())

    assert find_defects(run_calls.spoilt(calls, is_quick)) == []


@pytest.mark.slow
def test_every_argument_of_every_call_of_a_run_is_checked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    calls = run_calls.calls(run_calls.Opened(tmp_path))
    assert find_defects(run_calls.spoilt(calls, lambda call, name, case: True)) == []


@pytest.mark.slow
def test_what_scores_and_guidance_return_is_checked(tmp_path):
    assert find_defects(run_calls.returning(run_calls.Opened(tmp_path))) == []
