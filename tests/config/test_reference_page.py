"""The page of all fields of a config has each one, with its default and whether a resume may change it."""

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from d3pm_jax import config as configs
from d3pm_jax.config.checks import free_fields

PAGE = (Path(__file__).parents[2] / "docs" / "config-reference.md").read_text()
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))
# Those of classes; a heading may name two.
SUBSECTIONS = {
    name: text
    for names, text in re.findall(r"^### (.*?)\n(.*?)(?=^##|\Z)", PAGE, re.M | re.S)
    for name in names.split(", ")
}
BASES = {
    configs.Data: "data",
    configs.Process: "process",
    configs.Schedule: "Schedules of noise",
    configs.Model: "model",
    configs.Features: "model",
    configs.Head: "head",
    configs.Objective: "loss",
    configs.Timesteps: "timesteps",
    configs.Optimizer: "optimizer",
    configs.Rate: "Learning rates",
    configs.Train: "train",
    configs.Mesh: "mesh",
}
PARTS = [part for part in map(configs.__dict__.get, configs.__all__) if dataclasses.is_dataclass(part)]


def describe_default(field):
    if field.default is dataclasses.MISSING:
        return "required"
    if dataclasses.is_dataclass(field.default):
        return f"`{type(field.default).__name__}()`"
    return f"`{field.default!r}`"


def format_row(part, field):
    mark = "yes" if field.name in free_fields(part) else ""
    return f"| `{field.name}` | {describe_default(field)} | {mark} |"


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.__name__)
def test_each_field_has_its_row(base):
    """The fields that a class defines itself stand below its heading, where it has one."""
    section = SECTIONS[BASES[base]]
    missing = []
    for part in PARTS:
        if issubclass(part, base):
            subsection = SUBSECTIONS.get(part.__name__, section)
            for field in dataclasses.fields(part):
                row = format_row(part, field)
                is_defined_here = field.name in inspect.get_annotations(part)
                if row not in (subsection if is_defined_here else section):
                    missing.append(f"{part.__name__}: {row}")
    assert missing == []


@pytest.mark.parametrize("title", dict.fromkeys(BASES.values()))
def test_each_row_is_of_a_field(title):
    bases = tuple(base for base in BASES if BASES[base] == title)
    parts = [part for part in PARTS if issubclass(part, bases)]
    expected = {format_row(part, field) for part in parts for field in dataclasses.fields(part)}
    rows = re.findall(r"^\| `\w+` \| .*? \| (?:yes)? \|", SECTIONS[title], re.M)
    assert rows != []
    assert set(rows) - expected == set()


def test_each_class_is_on_the_page():
    of_users = {"Config", "RatedOptimizer", *(base.__name__ for base in BASES)} - {"Head", "Train", "Mesh"}
    words = set(re.findall(r"\w+", PAGE))
    assert {part.__name__ for part in PARTS} - of_users - words == set()
