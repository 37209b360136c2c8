"""Data of a user's own, whose methods may have any names but those that the pages list."""

import dataclasses
import inspect
from pathlib import Path
from typing import Annotated

import pytest

from d3pm_jax import config as configs
from d3pm_jax.config import io as config_io
from d3pm_jax.config.checks import Free
from d3pm_jax.config.data import describe_with_digest, move_data, say_where_it_lies
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError
from tests import tiny


@dataclasses.dataclass(frozen=True)
class Shards(configs.Data):
    file: Annotated[str, Free] = "a.npy"

    def describe(self):
        return Description((6,), 3, digest="first")

    def list_paths(self):
        return [self.file]

    def hash_split(self, number, of):
        return number % of


def test_methods_named_like_functions_of_the_library_are_the_users(tmp_path):
    config = dataclasses.replace(tiny.get_config(), data=Shards())
    config_io.check_config(config)
    assert describe_with_digest(Shards()).digest == "first"
    assert say_where_it_lies(Shards(), "no file") != "no file"
    (tmp_path / "a.npy").touch()
    assert move_data(Shards(), str(tmp_path)) == Shards(str(tmp_path / "a.npy"))


def test_two_files_do_not_become_one_in_another_folder(tmp_path):
    (tmp_path / "x.npy").touch()
    arrays = configs.Arrays("data/train/x.npy", "data/test/x.npy", categories=5)
    said = r"data/train/x.npy \(train\) and data/test/x.npy \(test\) would both be .*x.npy; name the folder"
    with pytest.raises(UserError, match=said):
        move_data(arrays, str(tmp_path))
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "x.npy").touch()
    assert move_data(arrays, str(tmp_path)).test == str(tmp_path / "test" / "x.npy")


def test_the_page_lists_all_methods_of_the_bases():
    page = (Path(__file__).parents[2] / "docs" / "own-parts.md").read_text()
    bases = (configs.Data, configs.Process, configs.Schedule, configs.Model, configs.Head)
    for base in (
        *bases,
        configs.Features,
        configs.Objective,
        configs.Timesteps,
        configs.Optimizer,
        configs.Rate,
    ):
        methods = [name for name, _ in inspect.getmembers(base, inspect.isfunction) if name[0] != "_"]
        assert [name for name in methods if f"`{name}" not in page] == [], base
