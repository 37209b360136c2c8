"""The page and the command from a few rows."""

import operator
import os
import sys
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import jax
import numpy as np
import pytest

from parity_tests import __main__ as command, compare, page, report, workers
from parity_tests.compare import Row, without_tolerance
from parity_tests.procedures import Outcome
from parity_tests.report import Report

GOOD = Row("kl", "moderate", "float64", "torch = jit value", 1e-16, 1e-15, 2.0, 1e-16, 1e-14)
BAD = Row("<i>&", 'a "quoted" <case>', "float32", "torch = jit draw", 1.0, 1.0, 1.0, 0.5, 1e-5, "2 and 3")
DRIFT = Outcome([], "uniform, float32", {"torch = jit": np.geomspace(1e-8, 1e-6, 50)})
VOID = {"meta", "link", "img"}


def make_report(*rows: Row, costs: tuple[Row, ...] = ()) -> Report:
    matmul = "default" if costs else None
    return Report({"jax": "1"}, list(rows), [DRIFT], list(costs), matmul)


class Reader(HTMLParser):
    """Every tag, every address, the text, and whether all that is opened is closed."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_page_is_whole_and_needs_nothing_else() -> None:
    cost = without_tolerance(GOOD._replace(comparison="default = highest forward"))
    text = page.make_page(make_report(GOOD, BAD, costs=(cost,)))
    reader = Reader(text)
    assert reader.open == []
    assert all(address.startswith(("data:", "#")) for address in reader.addresses)
    assert not {"script", "i", "case"} & set(reader.tags)
    assert "url(" not in text
    assert "@import" not in text
    assert "@media (prefers-color-scheme: dark)" in text
    assert "default-src &#x27;none&#x27;" in text
    assert reader.tags.count("table") == 4  # what failed, two float types, the matmul precision
    assert reader.tags.count("img") == 2
    assert {"<i>&", 'a "quoted" <case>: 2 and 3', "1 of 2 comparisons failed", "FAIL"} <= set(reader.words)


def test_a_difference_names_both_numbers() -> None:
    a = np.array([[1.0, 2.0], [3.0, 5.0]])
    b = np.array([[1.0, 2.0], [3.0, 4.0]])
    difference = compare.compare_arrays(a, b, np.ones(()), "float64")
    assert (difference.sizes[0], difference.numbers, difference.note) == (1.0, "5.0 and 4.0 at [1, 1]", "")
    assert compare.compare_arrays(a, a, np.ones(()), "float64").numbers == ""
    assert (
        compare.compare_draws(np.array([2, 3]), np.array([2, 1]), np.ones(2), "float64").numbers
        == "3 and 1 at [1]"
    )
    assert (
        compare.compare_arrays(a, b * np.nan, np.ones(()), "float64").note
        == "0 and 4 NaN, 1.0 and nan at [0, 0]"
    )
    difference = compare.compare_arrays(np.array([1.0, np.inf]), np.array([1.0, 3.0]), np.ones(()), "float64")
    assert difference.note == "1 infinite values differ, inf and 3.0 at [1]"


def test_page_of_what_passed() -> None:
    words = Reader(page.make_page(make_report(GOOD))).words
    assert "all 1 comparisons passed" in words
    assert "Failed" not in words


def test_price_says_when_a_precision_changes_nothing() -> None:
    same = without_tolerance(GOOD._replace(absolute=0.0, scaled=0.0))
    other = without_tolerance(GOOD._replace(absolute=1e-3, scaled=1e-3))
    assert "the same bits" in report.describe_cost(make_report(GOOD, costs=(same,)))
    assert "up to 0.001" in report.describe_cost(make_report(GOOD, costs=(same, other)))


@pytest.mark.parametrize(("rows", "status"), [((GOOD,), 0), ((GOOD, BAD), 1)])
def test_command(rows: tuple[Row, ...], status: int, monkeypatch, capsys, tmp_path: Path) -> None:
    monkeypatch.setattr(report, "collect", lambda *args: make_report(*rows))
    monkeypatch.setattr(sys, "argv", ["parity_tests", "--html", str(tmp_path / "page.html"), "--markdown"])
    assert command.main() == status
    assert f"{len(rows)} comparisons, {status} failed" in capsys.readouterr().out
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")


def test_a_device_that_is_not_there(monkeypatch, capsys) -> None:
    def none(name: str) -> list:
        raise RuntimeError(f"Unknown backend: '{name}' requested")

    monkeypatch.setattr("jax.devices", none)
    monkeypatch.setattr(sys, "argv", ["parity_tests", "--device", "gpu"])
    assert command.main() == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_parts_are_computed_by_other_processes(monkeypatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    device = jax.devices("cpu")[0]
    results = workers.compute({"sum": partial(operator.add, 1, 2), "process": os.getpid}, device)
    assert results["sum"] == 3
    assert results["process"] != os.getpid()
    with pytest.raises(ZeroDivisionError):
        workers.compute({"quotient": partial(operator.truediv, 1, 0)}, device)


def test_a_single_processor_has_no_other_process(monkeypatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    assert workers.compute({"process": os.getpid}, jax.devices("cpu")[0]) == {"process": os.getpid()}
