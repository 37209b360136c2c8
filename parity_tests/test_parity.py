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


# float64 once for exactness, float32 where rounding is the matter; the rest in `make slow` and `make parity`.
ROUNDED = ("kl", "kl_logits", "log_add", "log_matmul", "log_normalize", "log_prob", "log_sum", "categorical")
CASES = [(name, dtype) for name in PAIRS for dtype in PAIRS[name].dtypes] + [("hybrid", "bfloat16")]


def _is_slow(name: str, dtype: str) -> bool:
    return dtype != "float64" and name not in ROUNDED


@pytest.mark.parametrize(
    ("name", "dtype"),
    [pytest.param(*case, marks=[pytest.mark.slow] if _is_slow(*case) else []) for case in CASES],
)
def test_pair(name: str, dtype: str) -> None:
    found = list(rows(name, dtype))
    jax.clear_caches()  # the next pair has other programs
    failed = [row for row in found if not row.ok]
    assert found
    assert not failed, f"{len(failed)} of {len(found)}, the worst {max(failed, key=lambda row: row.used)}"
