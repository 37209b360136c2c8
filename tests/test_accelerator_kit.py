"""The measuring kit for accelerators, in small on a CPU: what is wrong is told and has no time."""

import contextlib
import importlib
import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

import d3pm_jax

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def part(monkeypatch):
    """Imports a file of that folder, as scripts there import each other."""
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    monkeypatch.setattr(os, "environ", dict(os.environ))
    return importlib.import_module


def cells(text):
    """The cells of the table, a list for each line below its head, by what the line is of."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    split = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert {len(line) for line in split} == {7}
    assert split[0][0] == "what"
    assert set(split[1]) == {"---"}
    return {line[0]: line[1:] for line in split[2:]}


def test_what_is_wrong_is_not_timed(part):
    measuring = part("measuring")
    right, wrong = measuring.Check(True, "ours 1e-9"), measuring.Check(False, "official |x| = 3")
    timed = measuring.judged("a", [right], lambda: measuring.Row("", ours="1 ms"))
    untimed = measuring.judged("b", [right, wrong], lambda: pytest.fail("timed"))
    broken = measuring.attempted("c", lambda: 1 // 0)
    assert [row.ok for row in (timed, untimed, broken)] == [True, False, False]
    assert cells(measuring.table([timed, untimed, broken])) == {
        "a": ["1 ms", "", "", "", "", "yes: ours 1e-9"],
        "b": ["", "", "", "", "", r"WRONG: official \|x\| = 3"],
        "c": ["", "", "", "", "", "DID NOT RUN: ZeroDivisionError: integer division or modulo by zero"],
    }


def test_sides_take_turns(part):
    called = []
    calls = {name: lambda name=name: called.append(name) for name in "ab"}
    found = part("measuring").in_turn(calls, 3)
    assert "".join(called) == "aabb" + 3 * "aabb"
    assert {name: seconds.shape for name, seconds in found.items()} == {"a": (3,), "b": (3,)}


@pytest.mark.slow  # imports all that trains
def test_losses_of_two_steps(part):
    def ok(*found):
        return part("accelerator_networks")._like("ours", list(found), [3.0, 2.5], "float32").ok

    assert ok(3.0, 2.5)
    assert ok(3.00001, 2.50001)
    assert not ok(3.01, 2.51)  # another loss
    assert not ok(3.0, 3.0)  # no gradient
    assert not ok(3.0, 2.51)  # another gradient
    assert not ok(math.nan, math.nan)
    assert not ok(3.0, math.nan)


@pytest.mark.parametrize(
    ("program", "ok", "said"),
    [
        ("print('1,234 comparisons, 0 failed')", True, "yes: 1,234 comparisons, 0 failed"),
        ("print('9 comparisons, 2 failed'); exit(1)", False, "WRONG: 9 comparisons, 2 failed"),
        ("exit('JAX finds no gpu')", False, "DID NOT RUN: JAX finds no gpu"),
        ("import time; time.sleep(60)", True, "left out: not done in"),
    ],
)
def test_parity_in_a_process(part, program, ok, said):
    limit = 0.1 if "sleep" in program else 60.0
    row = part("accelerator").compare("parity", [sys.executable, "-c", program], limit)
    assert row.ok == ok
    assert row.correct.startswith(said)
    assert row.ours == ""


@pytest.mark.slow  # imports all that trains
def test_what_there_is_no_time_for_is_left_out(part, monkeypatch):
    """On a GPU, of which only the name is needed for it; nothing is compiled."""
    kit, networks = part("accelerator"), part("accelerator_networks")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(networks, "torch_missing", lambda: None)
    rows = [*kit.training(False, time.monotonic()), *kit.parity(False, time.monotonic())]
    assert len(rows) == 2 * 3 * 2 + 3
    assert all(row.correct.startswith("left out: takes some ") and row.ok and not row.ours for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "line"),
    [("hybrid", "hybrid loss and gradient, uniform"), ("categorical", "categorical from logits")],
)
def test_a_wrong_kernel_is_told(part, monkeypatch, capsys, name, line):
    """A loss whose cross entropy weighs twice as much, draws whose noise is 1% too small."""
    kernels, right = part("kernels"), getattr(d3pm_jax, name)
    wrong = {
        "hybrid": lambda process, logits, x0, xt, t, weight, **more: right(
            process, logits, x0, xt, t, 2 * weight, **more
        ),
        "categorical": lambda logits, u: right(logits, 0.99 * u),
    }
    monkeypatch.setattr(d3pm_jax, name, wrong[name])
    monkeypatch.setattr(kernels, "FAMILIES", {"uniform": kernels.FAMILIES["uniform"]})
    monkeypatch.setattr(sys, "argv", ["accelerator.py", "kernels"])
    jax.clear_caches()
    with contextlib.ExitStack() as settings:
        settings.enter_context(jax.numpy_rank_promotion("allow"))
        settings.enter_context(jax.debug_key_reuse(False))
        assert part("accelerator").main() == 1
    found = cells(capsys.readouterr().out)
    assert len(found) == 5
    assert found[line][:5] == [""] * 5
    assert found[line][5].startswith("WRONG: ours ")
    others = [rest for what, rest in found.items() if what != line and "memory" not in what]
    assert all(rest[0] and rest[5].startswith("yes: ") for rest in others)


@pytest.mark.slow
def test_the_whole_kit_in_small():
    done = subprocess.run([sys.executable, FOLDER / "accelerator.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = cells(done.stdout)
    untimed = [what for what, line in found.items() if not line[0]]
    parity = [f"parity_tests --device gpu --dtype {dtype}" for dtype in ("bfloat16", "float32", "float64")]
    assert untimed == [*parity, "most memory that JAX used"]
    assert all(line[5].startswith("yes: ") for what, line in found.items() if what not in untimed)
    kinds = ("hybrid", "q_sample", "categorical", "reverse chain", "U-Net training", "transformer training")
    counts = [sum(what.startswith(kind) for what in found) for kind in kinds]
    assert counts[:4] == [3, 3, 1, 1]
    assert counts[4:] in ([6, 6], [3, 3])  # without PyTorch ours alone
    assert re.search(
        r"^device cpu, .*jax [\d.]+, jaxlib [\d.]+, torch \S+, python 3.*; small sizes$", done.stdout, re.M
    )
