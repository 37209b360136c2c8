"""Configs as JSON."""

import json
from pathlib import Path

import pytest

import tests
from d3pm_jax import config as configs
from d3pm_jax.config import io as config_io
from d3pm_jax.errors import UserError
from tests import tiny


def test_configs_survive_json():
    paths = sorted((Path(tests.__file__).parent.parent / "configs").glob("*.py"))
    assert len(paths) >= 4
    for path in paths:
        config = config_io.read_config_file(path)
        classes = config_io.own_parts(config)
        assert config_io.from_json(json.loads(config_io.dump_config(config)), classes) == config
        assert config_io.differences(config, config) == {}


def test_only_a_part_of_the_users_file_is_made(tmp_path):
    """Not whatever else it holds, a function or a class that it imports among it."""
    (tmp_path / "own.py").write_text("from d3pm_jax.data import Description\nrun = print\n")
    classes = config_io.own_parts(config_io.load_module(tmp_path / "own.py"))
    for name in ("run", "Description", "__init__"):
        tree = config_io.to_json(tiny.get_config()) | {"data": {"class": f"own.{name}", "sep": ""}}
        with pytest.raises(
            UserError, match=f"the config has a part {name} of the user's own: pass --config FILE"
        ):
            config_io.from_json(tree, classes)
        assert config_io.own_names(tree) == [name]


@pytest.mark.parametrize("name", ["__init__", "require", "io", "Spec", "__name__", "os", 3, None, ["UNet"]])
def test_only_parts_are_made_from_json(name):
    before = dict(vars(configs))
    tree = config_io.to_json(tiny.get_config()) | {"data": {"class": name, "name": "pwned"}}
    with pytest.raises(UserError, match=r"this version has no part named|which is not the name of a class"):
        config_io.from_json(tree)
    assert vars(configs) == before


def test_two_files_of_one_name_stay_apart(tmp_path):
    source = Path(tiny.__file__).read_text() + "\n\nimport dataclasses\nfrom d3pm_jax.config import Data\n\n"
    source += "@dataclasses.dataclass(frozen=True)\nclass Own(Data):\n    pass\n\n\nbase = get_config\n\n\n"
    source += "def get_config():\n    return dataclasses.replace(base(), data=Own())\n"
    files = [tmp_path / name / "config.py" for name in ("a", "b")]
    for file in files:
        file.parent.mkdir()
        file.write_text(source)
    assert [config_io.own_file(actual) for actual in map(config_io.read_config_file, files)] == files
