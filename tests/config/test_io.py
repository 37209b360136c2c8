"""Configs as JSON."""

import dataclasses
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
        assert config_io.from_json(json.loads(config_io.dump_config(config))) == config
        assert config_io.differences(config, config) == {}


def test_a_config_of_an_earlier_version_opens():
    config = config_io.read_config_file(Path(tests.__file__).parent.parent / "configs" / "digits_uniform.py")
    tree = json.loads(config_io.dump_config(config).replace("HybridLoss", "Loss"))
    assert tree["model"].pop("num_heads") == 1
    assert tree["loss"].pop("belief") == "leave_one_out"
    before = dataclasses.replace(config, loss=dataclasses.replace(config.loss, belief="d3pm"))
    assert config_io.from_json(tree) == before  # its network was trained as published


@dataclasses.dataclass(frozen=True)
class OwnLoss(configs.HybridLoss):
    """A loss of one's own that derives from ours."""


@pytest.mark.parametrize("loss", [configs.StochasticBound(), OwnLoss(ce_weight=1.0)])
def test_an_objective_that_was_saved_without_its_belief_is_as_published(loss):
    config = dataclasses.replace(tiny.get_config(), loss=loss)
    tree = config_io.to_json(config)
    classes = {"OwnLoss": OwnLoss}
    assert config_io.from_json(tree, classes) == config
    del tree["loss"]["belief"]
    assert config_io.from_json(tree, classes).loss == dataclasses.replace(loss, belief="d3pm")


@dataclasses.dataclass(frozen=True)
class OwnFirstStep(configs.HybridLoss):
    """A loss of one's own with the field that ours had."""

    first_step: str = "bayes"


@pytest.mark.parametrize(
    ("saved", "opened"),
    [
        ({"first_step": "bayes", "belief": "d3pm"}, "d3pm"),
        ({"first_step": "x0", "belief": "d3pm"}, "official"),
        ({"first_step": "x0"}, "official"),  # of before there were beliefs
        ({"first_step": "x0", "belief": "leave_one_out"}, "leave_one_out"),  # where it had no effect
        ({"first_step": "bayes", "belief": "denoiser"}, "denoiser"),
    ],
)
def test_an_objective_that_was_saved_with_its_first_step_opens(saved, opened):
    classes = {"OwnLoss": OwnLoss, "OwnFirstStep": OwnFirstStep}
    for loss in (configs.HybridLoss(), configs.StochasticBound(), OwnLoss()):
        config = dataclasses.replace(tiny.get_config(), loss=loss)
        tree = config_io.to_json(config)
        del tree["loss"]["belief"]
        tree["loss"] |= saved
        assert config_io.from_json(tree, classes).loss == dataclasses.replace(loss, belief=opened)
    config = dataclasses.replace(tiny.get_config(), loss=OwnFirstStep())
    tree = config_io.to_json(config)
    tree["loss"] |= saved | {"belief": "d3pm"}
    expected = OwnFirstStep(first_step=saved["first_step"], belief="d3pm")
    assert config_io.from_json(tree, classes).loss == expected  # the field is its own


@pytest.mark.parametrize("damaged", ["foo", None, ["x0"]])
def test_a_first_step_that_is_damaged_is_refused(damaged):
    tree = config_io.to_json(tiny.get_config())
    tree["loss"]["first_step"] = damaged
    with pytest.raises(
        UserError, match=r"does not fit this version: first_step = .*: it must be 'bayes' or 'x0'"
    ):
        config_io.from_json(tree)


def test_the_data_of_older_runs_opens():
    """Data("digits") is Digits(), and any other name a TfdsImages."""
    tree = config_io.to_json(tiny.get_config())
    for name, expected in (("digits", configs.Digits(dir="d")), ("mnist", configs.TfdsImages("mnist", "d"))):
        fields = {"name": name, "dir": "d", "train_split": "train", "test_split": "test"}
        assert config_io.from_json(tree | {"data": {"class": "Data", **fields}}).data == expected


def test_a_run_of_before_there_were_meshes_opens():
    tree = config_io.to_json(tiny.get_config())
    for name in ("accumulate", "remat", "max_nonfinite", "drop_condition"):
        del tree["train"][name]
    del tree["mesh"]
    assert config_io.from_json(tree) == tiny.get_config()


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
