"""Samples of a table from the command line: given values of columns, and files with the values of columns."""

import csv
import dataclasses
import itertools
import json
import re

import jax
import numpy as np
import pytest

from d3pm_jax import kinds, runs
from d3pm_jax.cli import reading
from d3pm_jax.cli.sample import SampleCommand
from d3pm_jax.config import MLP, Absorbing, ByPlace, Reciprocal, Table
from d3pm_jax.data import columns
from d3pm_jax.errors import UserError
from d3pm_jax.program.measure.samples import settle
from d3pm_jax.program.storage import names, run_folder
from tests import tiny
from tests.cli.commands import error, status
from tests.data.made_table import NAMES, make_rows, write_table


def make_config(folder, **changes):
    data = Table(write_table(folder / "people.csv", make_rows(300)), bins=8, **changes)
    return dataclasses.replace(
        tiny.get_config(),
        data=data,
        process=ByPlace(Absorbing(K="data", steps=4, beta=Reciprocal(), mask_id="data")),
        model=MLP(width=16, num_layers=1, see_time=False),
    )


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    config = make_config(folder)
    tiny.write_run(folder / "w", config, description=config.data.describe())
    return folder / "w"


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_samples_have_the_given_values_and_are_written_in_those_of_their_columns(workdir, capsys):
    where = ("--where", "sex=Male", "--where", "age=39", "--where", "score=missing")
    assert status("sample", workdir, "--num", 20, *where) == 0
    printed = capsys.readouterr().out
    assert f"as a table: {workdir / 'samples_where.csv'}" in printed
    assert "note: " not in printed
    assert json.loads((workdir / "samples_where.json").read_text())["where"] == list(where[1::2])

    table_columns = {column.name: column for column in runs.open(workdir).parts.description.columns}
    codes = np.load(workdir / "samples_where.npy")
    names_of_file, *rows = read_csv(workdir / "samples_where.csv")
    assert tuple(names_of_file) == NAMES
    assert len(rows) == 20
    age_bin = columns.find_code(table_columns["age"], 39)
    low, high = table_columns["age"].lows[age_bin], table_columns["age"].highs[age_bin]
    assert low <= 39 <= high
    assert low < high
    for row, codes_of_row in zip(rows, codes, strict=True):
        assert row[NAMES.index("sex")] == "Male"
        assert row[NAMES.index("score")] == ""
        assert low <= int(row[NAMES.index("age")]) <= high
        for value, code, column in zip(row, codes_of_row, table_columns.values(), strict=True):
            assert columns.encode(column, [value or None]) == [code]
    assert len({row[0] for row in rows}) > 5

    # In Python the same is known, and a row depends on the seed and its number alone.
    draw = runs.Draw(where={"sex": "Male", "age": 39, "score": None})
    run = runs.open(workdir)
    _, arguments = settle(run.parts, draw)
    known = arguments.known
    assert known.mask.tolist() == [name in draw.where for name in NAMES]
    np.testing.assert_array_equal(np.broadcast_to(known.x0, codes.shape)[:, known.mask], codes[:, known.mask])
    frame = run.make_frame(codes)
    assert [str(value) for value in frame["age"]] == [row[0] for row in rows]
    assert frame["score"].isna().all()
    assert frame[:5].equals(run.make_frame(codes[:5]))
    assert not frame.equals(run.make_frame(codes, seed=1))


def test_what_no_column_has_is_refused_in_one_line(workdir, capsys):
    message = "where: there is no column 'sx'; there is sex"
    assert message in error(capsys, "sample", workdir, "--where", "sx=Male")
    kind = kinds.make_kind(run_folder.read_run(workdir).description)
    cases = {
        ("sex", "male"): "column 'sex' has no value 'male'; it has Female, Male",
        ("age", 150): "column 'age' has no value '150': its bins are ",
        ("age", "old"): "column 'age' has no value 'old': its bins are ",
        ("sex", "missing"): "column 'sex' has no value 'missing'; it has Female, Male",
        ("sex", None): "column 'sex' has no missing values: pass a value for each",
    }
    for (name, value), message in cases.items():
        with pytest.raises(UserError, match=f"^{re.escape(message)}"):
            kind.find_known({name: value})
    usage = {
        ("sex",): "expected COLUMN=VALUE, got 'sex'",
        ("sex=b", "sex=c"): "give each column once, got 'sex=c'",
    }
    for words, message in usage.items():
        assert status("sample", workdir, *(part for word in words for part in ("--where", word))) == 2
        assert f"argument --where: {message}" in capsys.readouterr().err
    assert status("sample", workdir, "--where", "sex=Male", "--length", 3) == 2
    assert "argument --where: not allowed with argument --length" in capsys.readouterr().err


def test_a_name_may_hold_the_sign_that_its_value_follows(tmp_path):
    command = SampleCommand(tmp_path, where=("w=h=1", "w=2"))
    assert command.split_where(["w", "w=h"]) == {"w=h": "1", "w": "2"}


def test_known_elements_are_held_to_the_sizes_of_their_places(workdir):
    run = runs.open(workdir)
    known = np.zeros(7, bool)
    known[1] = True
    calls = {
        "the elements of known hold 2 at a place of categories 0..1": runs.Draw(known=(np.full(7, 2), known)),
        "known and where both say which elements samples have: pass one": runs.Draw(
            known=(np.full(7, 0), known), where={"sex": "Male"}
        ),
    }
    for message, draw in calls.items():
        with pytest.raises(UserError, match=message):
            run.sample(jax.random.key(0), 1, draw)


def test_data_without_columns_takes_no_values_of_them():
    message = "where sex: only columns of tables have names, but the data of this run is of kind 'image'"
    with pytest.raises(UserError, match=f"^{message}"):
        kinds.make_kind(tiny.DIGITS).find_known({"sex": "Male"})


def test_words_set_the_fields_of_a_table(tmp_path):
    words = [
        *("--data.types", "age=real", "size=small < middle < large", "--data.drop", "sex", "city"),
        *("--data.missing", "", "-", "--data.separator", ";", "--data.no-keep-examples", "--data.rare", "2"),
    ]
    config = make_config(tmp_path)
    assert reading.apply_overrides(config, words, "").data == dataclasses.replace(
        config.data,
        types=("age=real", "size=small < middle < large"),
        drop=("sex", "city"),
        missing=("", "-"),
        separator=";",
        keep_examples=False,
        rare=2,
    )
    with pytest.raises(
        UserError, match=r"data.separator: expected .* of one character, or .t for a tab, got 'ab'"
    ):
        reading.apply_overrides(config, ["--data.separator", "ab"], "")


@pytest.mark.slow
def test_a_run_keeps_no_rows_where_it_is_asked_to(tmp_path, capsys):
    for keep_examples in (False, True):
        config = make_config(tmp_path, keep_examples=keep_examples)
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=4))
        workdir = tmp_path / f"{keep_examples}"
        run = runs.train(config, workdir)
        printed = capsys.readouterr()
        assert "  sex     categorical       2  Female, Male\n" in printed.out
        assert ("note: the run keeps no rows of the table" in printed.err) is not keep_examples
        assert (workdir / names.EXAMPLES).exists() is keep_examples
        kept = run_folder.read_examples(workdir, run.parts.description)
        assert (kept is not None) is keep_examples
        assert status("report", workdir, "--out", workdir / "report.html") == 0
        html = (workdir / "report.html").read_text()
        assert ("this run keeps no examples" in html) is not keep_examples


@pytest.mark.slow
def test_rows_of_a_table_are_as_likely_in_all_orders_as_in_the_mean_of_their_probabilities(workdir):
    run = runs.open(workdir)
    x = run.read_batch("test", 3)["x"]
    D = x.shape[1]
    orders = np.array(list(itertools.permutations(range(D)))) / D
    in_orders = [run.log_prob(x, orders=order) for order in orders[:: len(orders) // 24]]
    in_all = run.log_prob(x, orders="all")
    assert np.all(np.min(in_orders, axis=0) < in_all)
    assert np.all(in_all < np.max(in_orders, axis=0))
    # The first column given all others is no question of the order.
    given = np.arange(D) > 0
    np.testing.assert_allclose(run.log_prob(x, given), run.log_prob(x, given, "all"), atol=1e-5)
    rows = run.certify(3, draws=2)["rows"]
    assert rows[2]["nats"] == pytest.approx(-run.log_prob(x).mean(), abs=1e-4)
    assert rows[-1]["nats"] == pytest.approx(-in_all.mean(), abs=1e-4)
