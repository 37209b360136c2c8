"""The page of all fields of a config has each one, with its default and whether a resume may change it."""

import dataclasses
import re
from pathlib import Path

import pytest

from d3pm_jax import config as configs
from d3pm_jax.config.checks import free_fields

PAGE = (Path(__file__).parents[2] / "docs" / "config-reference.md").read_text()
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))
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


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.__name__)
def test_each_field_has_its_row(base):
    parts = [part for part in PARTS if issubclass(part, base)]
    section = SECTIONS[BASES[base]]
    missing = []
    for part in parts:
        for field in dataclasses.fields(part):
            mark = "yes" if field.name in free_fields(part) else ""
            row = f"| `{field.name}` | {describe_default(field)} | {mark} |"
            if row not in section:
                missing.append(f"{part.__name__}: {row}")
    assert missing == []


def test_each_class_is_on_the_page():
    of_users = {"Config", "RatedOptimizer", *(base.__name__ for base in BASES)} - {"Head", "Train", "Mesh"}
    assert [
        part.__name__ for part in PARTS if part.__name__ not in of_users and part.__name__ not in PAGE
    ] == []
