"""Sample quality of a run: figures, their protocol, the classifier that is kept, and what is refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import scipy.linalg
from PIL import Image

from d3pm_jax import kinds, runs, show
from d3pm_jax.cli.eval import EvalCommand, measure_samples
from d3pm_jax.config import Arrays, Choice
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError
from d3pm_jax.evaluation import digit_features
from d3pm_jax.kinds import features, image
from d3pm_jax.program.measure import sample_quality as protocol
from d3pm_jax.runs.run import open_run
from d3pm_jax.sampling import named
from tests import tiny

pytestmark = pytest.mark.usefixtures("small_network")
N = 70


@pytest.fixture
def run(tmp_path):
    """A run with random weights, on arrays that look like digits, with half of its steps."""
    rng = np.random.default_rng(0)
    files = {}
    for split, size in (("train", 150), ("test", 66)):
        files |= {split: str(tmp_path / f"{split}.npy"), f"{split}_labels": str(tmp_path / f"{split}_of.npy")}
        labels = rng.integers(10, size=size)
        np.save(files[f"{split}_labels"], labels)
        np.save(
            files[split], np.clip(rng.integers(8, size=(size, 8, 8, 1)) + labels[:, None, None, None], 0, 16)
        )
    data = Arrays(**files, categories=17, kind="image", classes=10)
    tiny.write_run(tmp_path / "w", dataclasses.replace(tiny.get_config(), data=data))
    return open_run(tmp_path / "w", steps=5, batch_size=N)


def execute(run):
    measure_samples(EvalCommand(run.workdir, seed=3, batch_size=N), [run], N)


def test_samples_are_measured_and_written_with_their_protocol(run, capsys, monkeypatch):
    """In features that need no training: sums of rows."""
    sums = features.ImageFeatures("sums", lambda x: (x.sum((2, 3)).astype(np.float32), x[:, 0, 0, 0] % 10))
    monkeypatch.setattr(features, "choose_features", lambda *_: sums)
    shown = []
    save = show.save_grid
    monkeypatch.setattr(show, "save_grid", lambda *args: (shown.append(args[1]), save(*args)))
    execute(run)
    (path,) = run.workdir.glob("quality_*.json")
    (stored,) = protocol.read_quality([run.workdir])
    assert [stored.protocol[name] for name in ("N", "step", "seed")] == [N, 7, 3]
    assert [stored.protocol[name] for name in ("steps", "grid")] == [5, "even, of 10"]
    printed = capsys.readouterr().out
    assert f"figures and their protocol: {path}\n" in printed
    assert "\n  per-pixel  " in printed
    with Image.open(path.with_suffix(".png")) as picture:
        assert picture.height > 100

    samples = run.sample(jax.random.key(3), N, batch_size=N).x0
    train, _ = run.read_split("train")
    rows = json.loads(path.read_text())["figures"]
    assert stored["figures"] == rows
    assert {name: row["n"] for name, row in rows.items()} == {
        "samples": N,
        "train": N,
        "test": 66,
        "per-pixel": N,
    }
    x = samples.sum((2, 3)).astype(float)
    y = train.sum((2, 3)).astype(float)
    S = np.cov(x, rowvar=False)
    R = np.cov(y, rowvar=False)
    distance = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(S + R - 2 * scipy.linalg.sqrtm(S @ R).real)
    assert rows["samples"]["frechet"] == pytest.approx(distance)
    assert rows["train"]["frechet"] < rows["per-pixel"]["frechet"]
    np.testing.assert_allclose(
        rows["samples"]["classes"], np.bincount(samples[:, 0, 0, 0] % 10, minlength=10) / N
    )
    every = np.square(samples[:, None].astype(float) - train[None]).sum((2, 3, 4))
    beside = np.stack([samples, train[every.argmin(1)]], 1)[: image.PAIRS].reshape(-1, 8, 8, 1)
    np.testing.assert_array_equal(shown[0], show.to_rgb(beside, 17))
    assert rows["samples"]["nearest"] == pytest.approx(np.sqrt(every.min(1)).mean() / 16)
    assert (rows["samples"]["copies"], rows["train"]["copies"]) == (0, 1)


@pytest.mark.slow
def test_the_protocol_says_by_which_sampler_samples_are(run, monkeypatch):
    sums = features.ImageFeatures("sums", lambda x: (x.sum((2, 3)).astype(np.float32), x[:, 0, 0, 0] % 10))
    monkeypatch.setattr(features, "choose_features", lambda *_: sums)
    command = EvalCommand(run.workdir, seed=3, batch_size=N)
    measure_samples(command, [run], N)
    for sampler in (named.psi(0.5), named.gibbs(2)):
        measure_samples(dataclasses.replace(command, sampler=Choice(sampler, "", {})), [run], N)
    rows = {figures.protocol["sampler"]: figures for figures in protocol.read_quality([run.workdir])}
    of_psi = "step = Mixture(kappa=0.5)"
    of_gibbs = "step = Corrected(corrector=Gibbs(moves=2), between=Bayes())"
    assert set(rows) == {"ancestral", of_psi, of_gibbs}
    assert "calls_per_sample" not in rows["ancestral"]["figures"]["samples"]
    assert rows[of_psi]["figures"]["samples"]["calls_per_sample"] == 5
    table = "\n".join(protocol.format_quality(list(rows.values())))
    assert table.count(" calls, ") == 2
    assert f"  13 calls, {of_gibbs}\n" in f"{table}\n"
    assert rows[of_gibbs]["figures"]["samples"]["calls_per_sample"] == 5 + 4 * 2

    samples = run.sample(jax.random.key(3), N, runs.Draw(sampler=named.gibbs(2)), batch_size=N).x0
    reference = run.prepare_quality(N)
    quality = run.measure_quality(reference, N, seed=3, batch_size=N, sampler=named.gibbs(2))
    np.testing.assert_array_equal(quality.samples, samples)
    assert quality.figures["samples"]["frechet"] == rows[of_gibbs]["figures"]["samples"]["frechet"]


@pytest.mark.slow
@pytest.mark.optimised
def test_the_classifier_is_kept_and_verified(run, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digit_features, "STEPS", 200)
    train, labels = run.read_split("train")
    first = features.obtain_classifier(train, labels, run.parts.description)
    (classifier_file,) = (tmp_path / "cache" / "d3pm_jax").iterdir()
    classifier_file.rename(tmp_path / "first")
    again = features.obtain_classifier(train, labels, run.parts.description)
    assert again.name == first.name
    pooled, called = first.compute(train)
    assert pooled.shape == (150, 64)
    assert np.mean(called == labels) > 0.5  # of what few steps can tell apart

    monkeypatch.setattr(digit_features, "train_classifier", lambda *_: pytest.fail("trains again"))
    execute(run)
    assert protocol.read_quality([run.workdir])[0].protocol["features"] == first.name
    content = bytearray(classifier_file.read_bytes())
    content[-1] ^= 1
    classifier_file.write_bytes(content)
    with pytest.raises(
        UserError, match=r"is not a classifier of this data \(it is damaged.*\): delete it, and it is trained"
    ):
        features.obtain_classifier(train, labels, run.parts.description)


@pytest.mark.parametrize(
    ("description", "num", "weights", "message"),
    [
        (
            tiny.DIGITS,
            64,
            None,
            r"--samples 64: 64 samples of 64 numbers are too few: .*not have full rank.*; take 65 or more",
        ),
        (tiny.DIGITS, 2000, "there", r"--samples 2000: .*; take 2049 or more"),
        (tiny.DIGITS, 2049, "none", r"no file .*none: pass weights-inception-\S+ of torch-fidelity"),
        (Description((8, 8, 3), 17, 10, "image"), 99, None, r"shape \(8, 8, 3\) .*: pass --inception FILE"),
        (Description((8, 8, 1), 17, None, "image"), 99, None, r"with no classes .*: pass --inception FILE"),
        (Description((9,), 17, None, "array"), 99, "there", r"of kind 'array' .*: leave --samples out"),
    ],
)
def test_what_cannot_be_measured_gets_one_line(description, num, weights, message, tmp_path):
    (tmp_path / "there").touch()
    with pytest.raises(UserError, match=message):
        kinds.make_kind(description).check_quality(num, None if weights is None else tmp_path / weights)
