"""The bugs of the catalogue are named, and the programs without them are found right."""

import re
from pathlib import Path

import pytest

from parity_tests.against import command
from parity_tests.catalogue import BUGS, MASKED, UNIFORM

ROOT = Path(__file__).parents[1]
FAST = ("no_weight", "masks_left", "noised_to_t")


def compare(path: Path, capsys) -> tuple[int, list[str]]:
    """The status of the command, and the lines that it prints."""
    status = command.against(path, ("float64",), markdown=False, every=False)
    return status, capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("program", [MASKED, UNIFORM])
def test_nothing_is_found_in_a_right_program(program: str, capsys) -> None:
    status, lines = compare(ROOT / program, capsys)
    assert status == 0
    assert not any(" is that of JAX " in line for line in lines)
    assert lines[-1].endswith(" functions agree")


@pytest.mark.parametrize(
    "bug", [pytest.param(b, id=b.name, marks=() if b.name in FAST else pytest.mark.slow) for b in BUGS]
)
def test_a_bug_is_named(bug, tmp_path: Path, capsys) -> None:
    path = tmp_path / "own.py"
    path.write_text(bug.plant((ROOT / bug.program).read_text()))
    status, lines = compare(path, capsys)
    assert status == 1
    assert bug.sentence in lines
    # Nothing else is said to be wrong, but the sampler that shares a line with the loss.
    others = [line for line in lines if " is that of JAX " in line and line != bug.sentence]
    assert len(others) <= (bug.name == "noised_to_t")


def test_the_catalogue_has_sources() -> None:
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 25
    assert sum(bug.is_thread for bug in BUGS) >= 18
    for bug in BUGS:
        assert bug.is_thread or re.search(r"/(blob|commit)/[0-9a-f]{40}", bug.source), bug.name
