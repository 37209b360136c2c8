"""Inception features, of random weights that are written here: no weights are downloaded."""

import io
import os
import pickle

import numpy as np
import pytest

from d3pm_jax.evaluation import inception


class Foreign:
    """Would write a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.slow
def test_a_file_that_holds_no_weights_is_refused_and_nothing_in_it_runs(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("torch_fidelity")
    made = tmp_path / "made"
    other = io.BytesIO()
    torch.save({"fc.weight": torch.zeros(2)}, other)
    for content in (b"", b"text", pickle.dumps(Foreign(made)), other.getvalue()):
        with pytest.raises(
            ValueError, match=r"^it holds no Inception weights \(.*\): pass weights-inc[^\n]*$"
        ):
            inception.load_network(content)
    assert not made.exists()


@pytest.mark.slow
def test_features_are_those_of_the_library(monkeypatch):
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")

    class Random(library.FeatureExtractorInceptionV3):
        def load_state_dict(self, state):
            """Keeps the weights that it was made with."""

    torch.manual_seed(0)
    with monkeypatch.context() as patch:
        patch.setattr(library, "load_state_dict_from_url", lambda *_, **__: {})
        network = Random("inception", ["2048"])
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    monkeypatch.setattr(library, "load_state_dict_from_url", lambda *_, **__: pytest.fail("downloads"))
    x = np.random.default_rng(0).integers(17, size=(3, 8, 8, 1))
    actual = inception.compute_features(inception.load_network(file.getvalue()), x, 17, 2)
    grey = np.round(x * 255 / 16).astype(np.uint8).repeat(3, axis=-1)
    expected = network(torch.from_numpy(np.moveaxis(grey, -1, 1).copy()))[0].numpy()
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    assert np.abs(expected[0] - expected[1]).max() > 1e-3 * np.abs(expected).max()
