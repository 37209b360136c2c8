"""Every config that comes with the library fits its data; the head of a config with a range of its own."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import tests
from d3pm_jax import config as configs
from d3pm_jax import heads
from d3pm_jax.config import from_data, io

CONFIGS = sorted((Path(tests.__file__).parents[1] / "configs").glob("*.py"))


def counts(K, path):
    """How often each category occurs; only processes along a graph ask."""
    assert path.stem.endswith("_neighbours")
    return np.arange(1, K + 1)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.usefixtures("text_cache")
def test_a_config_fits_its_data(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the text and the embeddings of one's own are
    Path("letters.txt").write_text("so said the quick brown fox " * 200)
    config = io.from_file(path)
    description = config.data.describe()
    K = description.categories
    np.save(f"{path.stem}.npy", np.random.default_rng(0).normal(size=(K, 4)))
    config = from_data.fill(config, K, lambda: counts(K, path))
    process = config.process.build() if isinstance(config.process, configs.FromRate) else config.process
    config.head.check(process.K, getattr(process, "mask_id", None))
    assert config.head.data_categories(process.K) == K
    assert description.shape[0] in (8, 28, 32, 128)
    config.optimizer.check_steps(config.train.steps)


def test_a_logistic_head_adds_x_on_the_scale_of_its_range():
    output, xt = np.random.default_rng(0).normal(size=(3, 2)).astype("f"), np.array([0, 3, 7])
    found = configs.LogisticHead(input_range=(0.0, 255.0)).logits(jnp.asarray(output), jnp.asarray(xt), 8)
    place = jnp.asarray(np.tanh(output[:, 0] + xt / 127.5 - 1), jnp.float32)
    np.testing.assert_allclose(found, heads.logistic(place, jnp.asarray(output[:, 1]), 8), rtol=1e-5)
