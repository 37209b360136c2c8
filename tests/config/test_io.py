"""Configs as JSON."""

import json
from pathlib import Path

import tests
from d3pm_jax.config import io as config_io


def test_configs_survive_json():
    paths = sorted((Path(tests.__file__).parent.parent / "configs").glob("*.py"))
    assert len(paths) >= 4
    for path in paths:
        config = config_io.from_file(path)
        assert config_io.from_json(json.loads(config_io.dump(config))) == config
        assert config_io.differences(config, config) == {}


def test_a_config_of_an_earlier_version_opens():
    config = config_io.from_file(Path(tests.__file__).parent.parent / "configs" / "digits_uniform.py")
    text = config_io.dump(config).replace("HybridLoss", "Loss")
    assert config_io.from_json(json.loads(text)) == config
