"""The table of breaks fits the library as it is: each names one place, and what takes its place parses."""

import ast
from pathlib import Path

import tests
from tests.mutations.breaks import BREAKS

ROOT = Path(tests.__file__).parents[1]


def test_there_are_90_of_different_names():
    assert len({b.name for b in BREAKS}) == len(BREAKS) == 90


def test_every_break_is_one_change_of_one_place_that_parses():
    for b in BREAKS:
        text = (ROOT / b.file).read_text()
        assert text.count(b.old) == 1, f"{b.name}: {b.file} holds the old text {text.count(b.old)} times"
        changed = ast.dump(ast.parse(text.replace(b.old, b.new)))
        assert changed != ast.dump(ast.parse(text)), f"{b.name} changes nothing but how it is written"


def test_every_break_names_tests_that_exist():
    missing = {path for b in BREAKS for path in b.tests if not (ROOT / path).is_file()}
    assert missing == set()
    assert all(b.tests for b in BREAKS)
