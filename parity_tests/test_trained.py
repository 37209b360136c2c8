"""A run is the same in PyTorch: its process from the exported file, its bound and its samples."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import torch

from d3pm_jax import config as configs, runs
from d3pm_jax.config import io
from parity_tests import trained
from tests import tiny
from torch_ref.runs import exported as torch_exported, processes

PROCESSES = (
    configs.Uniform(3, 6, configs.Cosine()),
    configs.Absorbing(4, 5, configs.Reciprocal(1.5), 3),
    configs.Gaussian(5, 6, configs.Linear(0.01, 0.3, rescale=False), 3),
    configs.Banded(5, 7, configs.CosineSquared(), 2),
    configs.Marginal(4, configs.LogLinear(), (0.2, 0.3, 0.5)),
    configs.Masked(configs.Uniform(3, 6, configs.Linear(0.001, 0.005)), configs.Polynomial()),
)


def exported(path, process):
    """A file with the config of a run alone."""
    config = dataclasses.replace(tiny.get_config(), process=process)
    metadata = {"config": io.dump_config(config), "data": json.dumps({}), "process": json.dumps({})}
    safetensors.numpy.save_file({"x": np.zeros(1)}, path, metadata)
    return path


@pytest.mark.filterwarnings("ignore:x_T still depends on x_0")
@pytest.mark.parametrize("spec", PROCESSES, ids=lambda spec: type(spec).__name__)
def test_the_process_of_a_file_is_that_of_its_config(spec, tmp_path):
    process = spec.build()
    twin = processes.process(exported(tmp_path / "x.safetensors", spec))
    assert (process.K, process.T) == (twin.K, twin.T)
    t = np.arange(process.T + 1)
    expected = process.Qbar(jnp.asarray(t, jnp.int32))
    np.testing.assert_allclose(twin.Qbar(torch.tensor(t)), expected, rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(twin.log_prior(), process.log_prior(), rtol=2e-6)


def test_what_is_not_built_from_a_file_is_said(tmp_path):
    spec = configs.Hierarchical((1.0, 2.0), 3, configs.Cosine())
    with pytest.raises(ValueError, match="Hierarchical is not built here: make it from the functions of"):
        processes.process(exported(tmp_path / "x.safetensors", spec))
    spec = configs.Uniform(3, 6, configs.MutualInformation((0.5, 0.5)))
    with pytest.raises(ValueError, match="MutualInformation is not built here: make the process from betas"):
        processes.process(exported(tmp_path / "x.safetensors", spec))


def test_a_classifier_of_a_file_is_the_same_in_both(tmp_path):
    model = configs.NoisyClassifier(width=8, num_layers=1, embedding=2)
    config = dataclasses.replace(tiny.get_config(), model=model, loss=configs.LabelLoss())
    tiny.write_run(tmp_path / "run", config)
    run = runs.open(tmp_path / "run")
    path = tmp_path / "weights.safetensors"
    runs.export(run, path)
    xt = np.random.default_rng(0).integers(0, 17, (3, 8, 8, 1))
    t = np.array([0, 4, 10])
    logits = torch_exported.network(path)(torch.eye(17)[xt], torch.tensor(t))
    log_p = torch.log_softmax(logits, 1).detach().numpy()
    np.testing.assert_allclose(run.classify(xt, t), log_p, rtol=2e-5, atol=2e-6)
    in_jax = runs.network(path)(jnp.asarray(np.eye(17)[xt], jnp.float32), jnp.asarray(t))
    np.testing.assert_allclose(in_jax, logits.detach().numpy(), rtol=2e-5, atol=2e-6)
    for library in (runs, torch_exported):
        with pytest.raises(ValueError, match="holds a classifier, which has no logits of x_0: take network"):
            library.denoiser(path)


@pytest.mark.slow
def test_a_run_has_the_same_bound_and_samples_in_both(tmp_path, monkeypatch, capsys):
    tiny.write_run(tmp_path / "run", tiny.get_config())
    words = ["trained", str(tmp_path / "run"), "--limit", "5", "--samples", "3"]
    monkeypatch.setattr("sys.argv", [*words, "--steps", "6"])
    compare = trained.compare
    compared = []

    def recorded_compare(*args):
        compared.append(args)
        return compare(*args)

    monkeypatch.setattr(trained, "compare", recorded_compare)
    assert trained.main() == 0
    assert "3 samples: 0 differ, in 0 of 192 elements" in capsys.readouterr().out

    # Once more with the same run of 6 steps, whose programs are compiled, and the same twin.
    ((run, twin, *_),) = compared
    sample = twin.sample
    monkeypatch.setattr(twin, "sample", lambda *args: 1 - sample(*args))
    monkeypatch.setattr(trained.arguments, "open_named", lambda *args: run)
    monkeypatch.setattr(trained, "Twin", lambda *args: twin)
    monkeypatch.setattr("sys.argv", words)
    assert trained.main() == 1
