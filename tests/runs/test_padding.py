"""Samples of padded data are as long as the examples that the run keeps, or as long as one asks."""

import jax
import numpy as np
import pytest

from d3pm_jax import kinds, report, runs
from d3pm_jax.cli.main import main
from d3pm_jax.config import Absorbing, Config, HybridLoss, Reciprocal, Text, Train, Transformer
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError
from d3pm_jax.program.measure import certificate
from d3pm_jax.program.storage import run_folder
from tests import tiny

L = 6
T = 4
KEPT = np.array([[0, 1, 2, -1, -1, -1], [2, 2, -1, -1, -1, -1], [0, 1, 2, 0, 1, 2]], np.int32)
DESCRIPTION = Description((L,), 3, kind="text", symbols=("a", "b", "c"), padded=True)
KEY = jax.random.key(3)
N = 4


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("padded") / "run"
    config = Config(
        data=Text("train.txt", "test.txt", packing="padded", length=L),
        process=Absorbing(K=4, steps=T, beta=Reciprocal(), mask_id=3),
        model=Transformer(width=8, num_layers=1, num_heads=1),
        loss=HybridLoss(ce_weight=1.0),
        train=Train(steps=1, batch_size=4),
    )
    tiny.write_run(workdir, config, 1, DESCRIPTION)
    run_folder.write_run(workdir, config, DESCRIPTION, {"x": KEPT})
    return workdir


def test_a_sample_is_as_long_as_its_example_and_what_a_sample_of_that_length_is(workdir):
    run = runs.open(workdir, batch_size=N)
    drawn = run.sample(KEY, N, runs.Draw(record=(0, T)), batch_size=2, chains=3)
    padding = KEPT[[0, 1, 2, 0]] < 0
    np.testing.assert_array_equal(drawn.x0 < 0, padding)
    np.testing.assert_array_equal(drawn.states < 0, [padding[:3], padding[:3]])
    alone = run.sample(KEY, N, runs.Draw(shape=(3,))).x0
    np.testing.assert_array_equal(drawn.x0[[0, 3], :3], alone[[0, 3]])


def test_a_bound_of_padded_examples_needs_their_weight(workdir):
    with pytest.raises(UserError, match="the data of this run is padded: pass weight too, 0 on padding"):
        runs.open(workdir, batch_size=N).evaluate_on(np.maximum(KEPT, 0))


@pytest.mark.slow
def test_padding_goes_with_scores_and_says_what_it_does_not_go_with(workdir):
    run = runs.open(workdir, batch_size=N)
    padding = KEPT[[0, 1, 2, 0]] < 0

    # A score sees no -1, and candidates of a sample are as long as it is.
    def score(x):
        return jax.numpy.where(jax.numpy.all(x >= 0, axis=1), 0.0, -jax.numpy.inf)

    for select in (runs.BestOf(score, 2), runs.Particles(score, 2)):
        chosen = run.sample(KEY, N, runs.Draw(select=select, sampler="ancestral"))
        np.testing.assert_array_equal(chosen.x0 < 0, padding)
        np.testing.assert_array_equal(chosen.candidates < 0, np.stack([padding, padding], axis=1))

    whole = run.sample(KEY, N, runs.Draw(padding=np.zeros(L, bool))).x0
    assert np.all(whole >= 0)
    mask = np.ones((L,), bool)
    for field in ({"shape": (L,)}, {"known": (KEPT[2], mask)}, {"start": (KEPT[2], 0.5)}):
        assert np.all(run.sample(KEY, N, runs.Draw(**field)).x0 >= 0)
        with pytest.raises(UserError, match="padding is for padded data, and goes not with"):
            run.sample(KEY, N, runs.Draw(padding=mask, **field))
    with pytest.raises(UserError, match="the elements of padding have types"):
        run.sample(KEY, N, runs.Draw(padding=KEPT))


@pytest.mark.slow
def test_the_command_and_the_report_say_how_long_samples_are(workdir, capsys, tmp_path):
    for options in ((), ("--length", "3")):
        with pytest.raises(SystemExit) as stopped:
            main(["sample", str(workdir), "--num", "64", *options])
        assert stopped.value.code == 0
        says_length = "sample i as long as test example i of examples.npy" in capsys.readouterr().out
        assert says_length == (options == ())
    x = np.load(workdir / "samples.npy")
    np.testing.assert_array_equal(x < 0, KEPT[np.arange(64) % 3] < 0)
    assert np.load(workdir / "samples_length3.npy").shape == (64, 3)
    lines = (workdir / "samples.txt").read_text().splitlines()
    assert [len(line) for line in lines[:3]] == [3, 2, 6]
    page = report.write(workdir, tmp_path / "report.html").read_text()
    assert "the first of samples.npy of d3pm sample. The first 24 are shown. Sample i is as long as" in page


def test_arrays_have_lengths_where_they_are_padded():
    kind = kinds.make_kind(Description((L,), 3, padded=True))
    assert kind.parse_given(length=L) is None
    message = r"--length 7: examples of this run have shape \[6\], and only text and padded data \[L\] have"
    with pytest.raises(UserError, match=message):
        kind.parse_given(length=L + 1)
    with pytest.raises(UserError, match="--length 3: examples of this run have shape"):
        kinds.make_kind(Description((L,), 3)).parse_given(length=3)


@pytest.mark.slow
def test_padding_costs_nothing_in_any_order(tmp_path):
    config = Config(
        data=Text("train.txt", "test.txt", packing="padded", length=L),
        process=Absorbing(K=4, steps=T, beta=Reciprocal(), mask_id=3),
        model=Transformer(width=8, num_layers=1, num_heads=1, see_time=False),
        train=Train(steps=1, batch_size=4),
    )
    tiny.write_run(tmp_path / "run", config, 1, DESCRIPTION)
    run = runs.open(tmp_path / "run", batch_size=N)
    padded = {"x": np.maximum(KEPT, 0), "weight": (KEPT >= 0).astype(np.float32)}
    short = {"x": KEPT[:1, :3], "weight": np.ones((1, 3), np.float32)}
    given = np.arange(L) == 1
    order = np.array([4, 2, 0, 5, 3, 1]) / L
    np.testing.assert_allclose(run.log_prob(padded)[0], run.log_prob(short)[0], rtol=1e-5)
    found = run.log_prob(padded, given, order)[0]
    np.testing.assert_allclose(found, run.log_prob(short, given[:3], np.array([2, 1, 0]) / 3)[0], rtol=1e-5)
    rows = certificate.compute_certificate(run.parts, padded, draws=2)["rows"]
    assert [row["name"] for row in rows[2:]] == ["left to right", "mean over 2 orders", "mixture of 2 orders"]
    assert rows[2]["nats"] == pytest.approx(-run.log_prob(padded).mean(), rel=1e-5)
    with pytest.raises(UserError, match="the examples have weights, but all orders are of whole examples"):
        run.log_prob(padded, orders="all")
