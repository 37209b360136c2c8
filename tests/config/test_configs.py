"""Every config that comes with the library fits its data."""

from pathlib import Path

import pytest

import tests
from d3pm_jax.config import from_data, io

CONFIGS = sorted((Path(tests.__file__).parents[1] / "configs").glob("*.py"))


def no_counts():
    raise AssertionError("no config counts the training data")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_fits_its_data(path):
    config = io.from_file(path)
    description = config.data.describe()
    config = from_data.fill(config, description.categories, no_counts)
    process = config.process
    config.head.check(process.K, getattr(process, "mask_id", None))
    assert config.head.data_categories(process.K) == description.categories
    assert description.shape[0] in (8, 28, 32)
    config.optimizer.check_steps(config.train.steps)
