"""Every part that samplers are made of is checked: functions, fields, what parts of one's own return."""

import collections
import subprocess
import sys

import jax
import pytest

from tests.checks import constructors, parts


def count(results):
    with jax.debug_key_reuse(False):  # the table has one key
        outcomes = list(results)
    # What the checks of types of these tests refuse before us is left to the whole table.
    defects = [x for x in outcomes if x[0] in constructors.DEFECTS and not x[2].startswith("TypeCheckError")]
    assert not defects, "\n".join(map(str, defects))
    return collections.Counter(kind for kind, _, _ in outcomes)


def needs_no_program(which, bad):
    """Leaves out what is legal in another shape, and what is computed."""
    of_shape = "axis" in bad.case or "rank" in bad.case or bad.case == "an example more"
    return not of_shape and "dtype" not in bad.case and "log" not in which.partition("(")[2]


def test_every_argument_of_what_samplers_are_made_of_is_checked():
    assert count(parts.results_of_functions(jit=False, wanted=needs_no_program))["clear"] > 500
    assert count(parts.results_of_orders(jit=False)) == {"clear": 30}


QUICK = ("next_hitting(", "count_above(", "take_first(", "most_remasked(")


def test_what_only_a_run_can_see_of_them_is_marked():
    def wanted(which, bad):
        return which.startswith(QUICK) and bad.element is not None

    assert count(parts.results_of_functions(jit=True, wanted=wanted))["marked"] > 10


def test_every_field_of_every_part_is_checked():
    assert {make.__name__: set(fields) for make, fields in parts.FIELDS.items()}.items() >= (
        parts.all_fields().items()
    )
    few = ("None", "True", "nan", "'abc'", "another part")
    counts = count(parts.results_of_fields(wanted=lambda name, case: case in few))
    assert counts["clear"] > 50


# What `test_own_parts` has not.
OF_ROWS = (
    "LawStep.leap",
    "LawStep.start",
    "LawStep.remember",
    "Step.count_calls",
    "Step.plan",
    "Corrector.moves",
)


def test_what_parts_of_ones_own_remember_count_and_plan_is_checked():
    def wanted(name, case):
        return name in OF_ROWS and case == "'abc'"

    assert count(parts.results_of_returns(jit=False, wanted=wanted))["clear"] > 5


def test_what_a_chain_is_run_with_is_checked():
    def wanted(which, arguments):
        is_right = "too long, Keep" in which or "not from T" in which
        return which.startswith("run(plan)") and which.endswith("Bayes, known") and not is_right

    assert count(parts.results_of_draws(jit=False, wanted=wanted))["clear"] > 10


@pytest.mark.slow
def test_the_whole_table_of_parts_without_the_checks_of_these_tests():
    """As users have it: in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.checks.parts"], capture_output=True, text=True, check=True
    )
    lines = run.stdout.strip().splitlines()
    assert [line.split(":")[0] for line in lines] == list(parts.tables()), run.stdout
    assert all(line.endswith(", 0 unclear, 0 silent, 0 NaN") for line in lines), run.stdout
