"""The report as tests, and the check that it leaves no public name out."""

import inspect

import numpy as np
import pytest

import torch_ref
from parity_tests import families
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


def test_the_twin_has_an_alpha_bar_where_the_rows_of_qbar_are_equal_off_the_diagonal() -> None:
    every = families.FAMILIES | families.CONSTRUCTED | families.POSITIONAL
    found = {name for name, build in every.items() if hasattr(build(torch_ref, 5, 7), "alpha_bar")}
    mixing = {"uniform", "absorbing", "marginal", "masked"}
    assert found == mixing | {"absorbing_extra", "marginal_reset", "marginal_slow"}
    with pytest.raises(AttributeError, match="rows of Qbar differ off the diagonal"):
        torch_ref.gaussian(np.full(3, 0.3), 4).alpha_bar  # noqa: B018


# float64 for exactness, float32 where rounding is the matter, bfloat16 once; all of it in `make parity`.
ROUNDED = ("kl", "kl_logits", "log_add", "log_matmul", "log_normalize", "log_prob", "log_sum", "categorical")
CASES = [
    *((name, "float64") for name in PAIRS),
    *((name, "float32") for name in ROUNDED),
    ("hybrid", "bfloat16"),
]


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_pair(name: str, dtype: str) -> None:
    found = list(rows(name, dtype, quick=True))
    failed = [row for row in found if not row.ok]
    assert found
    assert not failed, f"{len(failed)} of {len(found)}, the worst {max(failed, key=lambda row: row.used)}"
