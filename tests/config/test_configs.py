"""Every config that comes with the library fits its data; the head of a config with a range of its own."""

import jax.numpy as jnp
import numpy as np
import pytest

from d3pm_jax import config as configs, heads
from tests.config.shipped import CONFIGS, opened


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.usefixtures("text_cache")
def test_a_config_fits_its_data(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the text and the embeddings of one's own are
    config, description = opened(path)
    K = description.categories
    process = config.process.build() if isinstance(config.process, configs.FromRate) else config.process
    pairs = [(process, K)]
    if isinstance(process, configs.ByPlace):
        pairs = list(zip(process.processes, description.sizes, strict=True))
    for process_of_place, size in pairs:
        if path.stem != "gpt2_absorbing":  # which leaves categories between those of the data and the mask
            assert process_of_place.K - (getattr(process_of_place, "mask_id", 0) >= size) == size
    assert description.shape[0] in (2, 7, 8, 11, 12, 16, 28, 32, 128, 1024)
    config.optimizer.check_steps(config.train.steps)


def test_a_logistic_head_adds_x_on_the_scale_of_its_range():
    output = np.random.default_rng(0).normal(size=(3, 2)).astype("f")
    xt = np.array([0, 3, 7])
    actual = configs.LogisticHead(input_range=(0.0, 255.0)).logits(jnp.asarray(output), jnp.asarray(xt), 8)
    place = jnp.asarray(np.tanh(output[:, 0] + xt / 127.5 - 1), jnp.float32)
    np.testing.assert_allclose(actual, heads.logistic(place, jnp.asarray(output[:, 1]), 8), rtol=1e-5)
