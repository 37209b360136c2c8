"""The report as tests, and the check that it leaves no public name out."""

import inspect

import jax
import pytest

from parity_tests.cases import situations
from parity_tests.pairs import PAIRS, REASONS, public_names, twin
from parity_tests.run import rows


def test_every_public_name_has_a_pair_or_a_reason() -> None:
    covered = set(PAIRS) | set(REASONS)
    assert set(public_names()) - covered == set(), "add a twin and a Pair, or a reason"
    assert covered - set(public_names()) == set(), "these no longer exist"
    assert set(PAIRS) & set(REASONS) == set()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_one_situation_runs_without_jit_too(dtype: str) -> None:
    assert sum(case.eager for case in situations(dtype)) == 1


@pytest.mark.parametrize("name", PAIRS)
def test_twins_take_the_same_parameters(name: str) -> None:
    ours, theirs = (inspect.signature(f).parameters.values() for f in (public_names()[name], twin(name)))
    named = [
        [(p.name, getattr(p.default, "__name__", p.default)) for p in params] for params in (ours, theirs)
    ]
    assert named[0] == named[1]


@pytest.mark.parametrize("name", PAIRS)
def test_pair(name: str) -> None:
    dtypes = (*PAIRS[name].dtypes, *(["bfloat16"] if name == "hybrid" else []))
    found = [row for dtype in dtypes for row in rows(name, dtype)]
    jax.clear_caches()  # the next pair has other programs
    failed = [row for row in found if not row.ok]
    assert found
    assert not failed, f"{len(failed)} of {len(found)}, the worst {max(failed, key=lambda row: row.used)}"
