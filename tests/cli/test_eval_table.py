"""`d3pm eval` and `d3pm report` on a table: nats per row, what has to be beaten, how samples are judged."""

import dataclasses
import json
import re

import numpy as np
import pytest

from d3pm_jax.config import MLP, Absorbing, ByPlace, Reciprocal, Table, Train
from d3pm_jax.evaluation import tables
from d3pm_jax.report import page
from d3pm_jax.runs import open as open_run, train
from tests import tiny
from tests.cli.commands import status
from tests.data.made_table import NAMES, make_rows, write_table
from tests.report.reading import Page


def make_config(folder):
    path = write_table(folder / "people.csv", make_rows(400))
    return dataclasses.replace(
        tiny.get_config(),
        data=Table(path, bins=8, drop=("height", "size", "income", "score")),
        process=ByPlace(Absorbing(K="data", steps=3, beta=Reciprocal(), mask_id="data")),
        model=MLP(width=8, num_layers=1, see_time=False),
        train=Train(steps=2, batch_size=16),
    )


def test_nats_per_row_stand_beside_the_tree(tmp_path, capsys):
    config = make_config(tmp_path)
    workdir = tmp_path / "w"
    tiny.write_run(workdir, config, description=config.data.describe())
    assert status("eval", workdir, "--samples", 40, "--limit", 50) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    result = json.loads((workdir / "eval_limit50.json").read_text())
    assert lines[-2] == f"test nats per row: {result['nats']:.2f} +- {result['nats_standard_error']:.2f}"
    assert re.fullmatch(r"test bits/dim: \d\.\d{3} \+- \d\.\d{3}", lines[-1])
    volume = f"  log-volume of the bins of numbers: {result['log_volume']:.3f} nats per row, "
    assert f"{volume}not comparable across binnings" in lines

    run = open_run(workdir)
    x = run.read_batch("test", 50)["x"]
    sizes = run.parts.description.sizes
    nats = tables.tree_nats(tables.fit_tree(run.read_split("train")[0], sizes), x)
    error = nats.std(ddof=1) / np.sqrt(50)
    assert f"  Chow-Liu tree: {nats.mean():.2f} +- {error:.2f} nats" in lines
    assert result["baselines"]["Chow-Liu tree"]["nats"] == pytest.approx(nats.mean())
    assert "  test " in printed
    assert "  independent " in printed

    (quality,) = workdir.glob("quality_*.json")
    figures = json.loads(quality.read_text())["figures"]
    assert {name: row["n"] for name, row in figures.items()} == {"samples": 40, "test": 40, "independent": 40}
    # The weights are random: a sample is like no row.
    assert figures["samples"]["distance"] > figures["test"]["distance"]


@pytest.mark.slow
def test_a_report_has_columns_and_pairs_beside_the_rows_that_are_kept(tmp_path):
    run = train(make_config(tmp_path), tmp_path / "w")
    assert len(np.load(run.workdir / "examples.npy")) == 80  # of 400 rows, and not 64
    inside = Page(page([run])).inside
    captions = [text for text in inside["figcaption"] if text.startswith(("Columns.", "Pairs.", "Samples -"))]
    counts = "in 2000 samples and in the 80 examples of the test split that the run keeps."
    assert captions[0] == f"Columns. How often each column has each category, {counts}"
    assert captions[1].startswith("Samples - data. The full colour is ")
    assert captions[2] == f"Pairs. Cramér's V of each two columns, {counts}"
    assert inside["th"].count("city") == 4  # of samples, data and two chains
    assert {*NAMES[:3]} <= {*inside["text"]}
    assert any(re.fullmatch(r"Köln: \d+\.\d%", text) for text in inside["title"])
    assert any(re.fullmatch(r"age, sex: 0\.\d\d", text) for text in inside["title"])
