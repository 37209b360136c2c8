"""Certificates and mixtures of orders from the command line, and their places in a report."""

import dataclasses
import json

import numpy as np
import pytest

from d3pm_jax import runs
from d3pm_jax.config import (
    MLP,
    Absorbing,
    Arrays,
    Config,
    ContinuousUniform,
    LogLinear,
    RealTimes,
    Reciprocal,
    Train,
    Uniform,
)
from d3pm_jax.data import Description
from tests import tiny
from tests.cli.commands import error, status
from tests.report.reading import Page

SHAPE = (3, 2)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A run of random weights on 6 bits, which fills in masks and sees no time."""
    home = tmp_path_factory.mktemp("bits")
    x = np.random.default_rng(0).integers(0, 2, (12, *SHAPE)).astype(np.int32)
    np.save(home / "x.npy", x)
    path = str(home / "x.npy")
    config = Config(
        data=Arrays(path, path, 2),
        process=Absorbing(3, 4, Reciprocal(), 2),
        model=MLP(width=8, num_layers=1, see_time=False),
        train=Train(steps=10),
    )
    tiny.write_run(home / "masks", config, description=Description(SHAPE, 2))
    return home


def test_what_cannot_be_certified_is_said_in_a_line(home, capsys):
    for words, said in (
        (("--certify", 5, "--limit", 5), "--limit: --certify 5 is of N examples with all steps"),
        (("--certify", 5, "--orders", "all"), "--orders: --certify 5 is of N examples"),
        (("--chain-rule", 5, "--draws", 2), "--draws: it says how many orders, or paths, of --certify N"),
        (("--orders", 5), "--orders 5 is of exact likelihoods: say of how many examples"),
        (("--chain-rule", 5, "--by-block"), "say how many, as --orders 16"),
    ):
        assert said in error(capsys, "eval", home / "masks", *words)

    for words in (("--certify", 0), ("--certify", 5, "--draws", 0), ("--chain-rule", 5, "--orders", 0)):
        assert status("eval", home / "masks", *words) == 2
        assert f"{words[-2]}" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:x_T still depends on x_0")
def test_a_certificate_is_printed_drawn_and_reported(home, capsys):
    masks = runs.open(home / "masks").config
    timed = dataclasses.replace(masks, model=MLP(width=8, num_layers=1))
    of_real_times = {"loss": ContinuousUniform(Reciprocal()), "timesteps": RealTimes()}
    uniform = dataclasses.replace(timed, process=Uniform(2, 4, Reciprocal()), **of_real_times)
    no_form = dataclasses.replace(timed, process=Uniform(2, 101, LogLinear()))
    # Elements that are no masks at the end are impossible in T steps.
    never = dataclasses.replace(masks, process=Absorbing(3, 4, LogLinear(0.3), 2))
    for name, config, reference, others, notes in (
        ("masks", masks, "mixture of 2 orders", ["bound, continuous time", "all orders", "all paths"], []),
        ("timed", timed, "bound of 2 paths", ["all paths"], ["a chain rule needs", "no bound in cont"]),
        ("uniform", uniform, "bound of 2 paths", ["bound, continuous time", "all paths"], []),
        ("no_form", no_form, "bound of 2 paths", [], ["no bound in cont", "the truth is", "no lower bound"]),
        ("never", never, "mixture of 2 orders", ["bound, continuous time", "all orders", "all paths"], []),
    ):
        folder = home / name
        if name != "masks":
            tiny.write_run(folder, config, description=Description(SHAPE, 2))
        assert status("eval", folder, "--certify", 5, "--draws", 2) == 0
        printed = capsys.readouterr().out
        path = folder / "certificate_n5_draws2.json"
        result = json.loads(path.read_text())
        assert path.with_suffix(".png").stat().st_size > 5000
        assert f"written to {path}\n" in printed
        assert result["reference"] == reference
        rows = {row["name"]: row for row in result["rows"]}
        assert all(row["law"] in printed for row in result["rows"])
        assert ("bound, 4 steps: infinite bits/dim, infinite nats; paired infinite" in printed) == (
            name == "never"
        )
        assert "inf " not in printed
        assert "nan" not in printed
        assert rows[reference]["difference"] == 0
        assert {*others} <= {*rows}
        assert {"bound, continuous time", "all orders", "all paths"} & {*rows} == {*others}
        assert [note[: len(start)] for note, start in zip(result["notes"], notes, strict=True)] == notes
    folder = home / "masks"
    result = json.loads((folder / "certificate_n5_draws2.json").read_text())
    in_python = runs.open(folder).certify(5, draws=2)
    assert dict(in_python) == {**result, "protocol": in_python.protocol}
    assert status("report", folder) == 0
    page = Page((folder / "report.html").read_text())
    assert "Certificate" in page.inside["h2"]
    assert {row["law"] for row in result["rows"]} <= {*page.inside["td"]}


@pytest.mark.slow
def test_mixtures_of_orders_have_files_of_their_own(home, capsys):
    folder = home / "masks"
    for options, suffix, law in (
        ((), "", None),
        (("--orders", 2), "_orders2", "-log p of the mixture of these 2 orders, exact"),
        (
            ("--orders", 2, "--by-block"),
            "_orders2_byblock",
            "-log p of the mixture of these 2 orders of blocks, exact",
        ),
        (("--orders", "all"), "_ordersall", "-log p of the mixture of all orders, exact"),
    ):
        assert status("eval", folder, "--limit", 5, "--chain-rule", 5, *options) == 0
        printed = capsys.readouterr().out
        path = folder / f"exact_chain_rule5{suffix}.json"
        assert f"written to {path}\n" in printed
        result = json.loads(path.read_text())
        assert result["examples"] == 5
        assert result.get("orders", {}).get("law") == law
        assert law is None or f"the mixture is {law}" in printed
    assert status("report", folder) == 0
    cells = Page((folder / "report.html").read_text()).inside["td"]
    for name in ("mean over 2 orders", "mixture of 2 orders", "mixture of all orders"):
        assert name in cells
