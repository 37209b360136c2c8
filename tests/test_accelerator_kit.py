"""The measuring kit for accelerators, in small on a CPU: what is wrong is told and has no time."""

import contextlib
import importlib
import math
import os
import re
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
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
    right = measuring.Check(True, "ours 1e-9")
    wrong = measuring.Check(False, "official |x| = 3")
    timed = measuring.judged(
        [right], {"ours": int, "official": int}, lambda s: "fast", lambda s: "1%", "1 MB"
    )
    alone = measuring.judged([right], {"ours": int}, lambda s: "fast")
    untimed = measuring.judged([right, wrong], {"ours": lambda: pytest.fail("timed")}, str)
    broken = measuring.attempted(lambda: 1 // 0)
    assert [row.ok for row in (timed, alone, untimed, broken)] == [True, True, False, False]
    assert timed[:2] + timed[3:6] == ("fast", "fast", "1%", "1 MB", "yes: ours 1e-9")
    assert re.fullmatch(r"[\d.]+ \([\d.]+ to [\d.]+\)", timed.ratio)
    assert alone[:6] == ("fast", "", "", "", "", "yes: ours 1e-9")
    assert untimed[:6] == ("", "", "", "", "", "WRONG: official |x| = 3")
    assert broken.correct == "DID NOT RUN: ZeroDivisionError: integer division or modulo by zero"
    assert measuring.line(("a", *untimed[:-1])) == r"| a |  |  |  |  |  | WRONG: official \|x\| = 3 |"


def test_what_there_is_no_time_for_is_left_out(part):
    in_time = part("measuring").in_time
    row = part("measuring").Row(ok=True)
    assert in_time(10, time.monotonic() + 20, lambda: row) is row
    late = in_time(10, time.monotonic() + 5, lambda: pytest.fail("run"))
    assert late.ok is None
    assert late.correct.startswith("NOT COMPARED: no time, some 10 s needed, 5 s left; --minutes 30")


def test_sides_take_turns(part):
    called = []
    calls = {name: lambda name=name: called.append(name) for name in "ab"}
    seconds_by_side = part("measuring").in_turn(calls, 3)
    assert "".join(called) == "aabb" + 3 * "aabb"
    assert {name: seconds.shape for name, seconds in seconds_by_side.items()} == {"a": (3,), "b": (3,)}


@pytest.mark.slow  # imports all that trains
def test_losses_of_two_steps(part):
    def ok(*losses):
        return part("accelerator_networks")._like("ours", list(losses), [3.0, 2.5], "float32").ok

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
        ("import time; time.sleep(60)", None, "NOT COMPARED: no time, not done in"),
    ],
)
def test_parity_in_a_process(part, program, ok, said):
    seconds = 0.1 if "sleep" in program else 60.0
    end = time.monotonic() + seconds
    row = part("accelerator_parity").compare([sys.executable, "-c", program], end)
    assert row.ok is ok
    assert row.correct.startswith(said)
    assert row.ours == ""


def test_the_cpu_is_never_hidden(part):
    platforms = [part("accelerator").with_cpu(x) for x in (None, "", "cuda", "tpu,cpu", "cpu")]
    assert platforms == [None, "", "cuda,cpu", "tpu,cpu", "cpu"]


def test_a_part_that_cannot_be_imported_is_a_row(part, monkeypatch, capsys):
    kit = part("accelerator")
    monkeypatch.setitem(sys.modules, "accelerator_networks", None)
    assert kit.print_rows("chain", True, math.inf) == [False]
    assert "| chain |  |  |  |  |  | DID NOT RUN: ModuleNotFoundError: " in capsys.readouterr().out


@pytest.mark.slow  # imports all that trains
def test_a_full_run_that_has_no_time(part, monkeypatch, capsys):
    """On a GPU, of which only the name is needed for it: nothing is compiled, bfloat16 comes first."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    kit = part("accelerator")
    end = time.monotonic()
    rows = kit.print_rows("training", False, end) + kit.print_rows("parity", False, end)
    assert rows == [None] * (2 * 3 + 3)
    lines = capsys.readouterr().out.splitlines()
    assert all("| NOT COMPARED: no time, some " in line for line in lines)
    assert [line[: len("| transformer")] for line in lines[:2]] == ["| U-Net train", "| transformer"]
    assert ["bfloat16" in line.split(" | ")[0] for line in lines[:5]] == [True, True, True, True, False]


def run_kit(part):
    """Runs the kit as if in a process of its own, and returns its status."""
    # What is compiled has right kernels or wrong ones in it, under the same name.
    jax.clear_caches()
    with contextlib.ExitStack() as settings:
        settings.enter_context(jax.numpy_rank_promotion("allow"))
        settings.enter_context(jax.debug_key_reuse(False))
        settings.callback(jax.clear_caches)
        return part("accelerator").main()


@pytest.mark.slow
def test_wrong_kernels_are_told(part, monkeypatch, capsys):
    """A loss whose cross entropy weighs twice as much, draws whose noise is 1% too small."""
    kernels = part("kernels")
    right_hybrid = d3pm_jax.hybrid
    right_categorical = d3pm_jax.categorical

    def hybrid(process, logits, x0, xt, t, weight, **more):
        return right_hybrid(process, logits, x0, xt, t, 2 * weight, **more)

    monkeypatch.setattr(d3pm_jax, "hybrid", hybrid)
    monkeypatch.setattr(d3pm_jax, "categorical", lambda logits, u: right_categorical(logits, 0.99 * u))
    monkeypatch.setattr(kernels, "FAMILIES", {"uniform": kernels.FAMILIES["uniform"]})
    monkeypatch.setattr(sys, "argv", ["accelerator.py", "kernels"])
    assert run_kit(part) == 1
    rows = cells(capsys.readouterr().out)
    assert len(rows) == 6
    for what in (
        "hybrid loss and gradient, uniform",
        "categorical from logits",
        "loss by kernels, then by XLA, uniform",
        "draws by a kernel, then by XLA",
    ):
        row = rows.pop(what)
        assert row[:5] == [""] * 5
        assert row[5].startswith("WRONG: ours ")
    assert all(row[0] and row[5].startswith("yes: ") for row in rows.values())


@pytest.fixture
def small_networks(part, monkeypatch):
    """Networks of few layers, wide enough for bfloat16, each made once; and one thread for PyTorch."""
    networks = part("networks")
    jax_training = networks.jax_training
    made = {}

    def make_once(net, bfloat16):
        name = (net.name, bfloat16)
        if name not in made:
            made[name] = jax_training(net, bfloat16)
        graphdef, state, *functions = made[name]
        return graphdef, jax.tree.map(jnp.copy, state), *functions  # a step takes the memory of its state

    monkeypatch.setattr(networks, "jax_training", make_once)
    small = part("accelerator_networks").SMALL
    fewer_layers = {
        "U-Net": {"ch": 64, "ch_mult": (1,), "num_res_blocks": 0, "attn_resolutions": ()},
        "transformer": {"num_layers": 1},
    }
    for name, options in fewer_layers.items():
        monkeypatch.setitem(small, name, small[name]._replace(options=small[name].options | options))
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.usefixtures("small_networks")
def test_the_whole_kit_in_small(part, monkeypatch, capsys):
    """With one round, since how long something takes is not looked at here."""
    monkeypatch.setattr(part("measuring"), "ROUNDS", 1)
    monkeypatch.setattr(part("measuring"), "LEAST", 0.0)
    monkeypatch.setattr(sys, "argv", ["accelerator.py"])
    status = run_kit(part)
    printed = capsys.readouterr().out
    assert status == 0, printed
    rows = cells(printed)
    parity = {what for what, line in rows.items() if line[5].startswith("NOT COMPARED: needs a GPU")}
    assert parity == {f"parity_tests --device gpu --dtype {x}" for x in ("bfloat16", "float32", "float64")}
    timed = [line for what, line in rows.items() if what not in parity]
    assert all(line[0] and line[5].startswith("yes: ") for line in timed)
    kinds = (
        "copy",
        "hybrid",
        "q_sample",
        "categorical",
        "loss by kernels",
        "draws by a kernel",
        "reverse chain",
    )
    assert [sum(what.startswith(kind) for what in rows) for kind in kinds] == [1, 3, 3, 1, 3, 1, 1]
    assert [sum(what.startswith(kind) for what in rows) for kind in ("U-Net", "transformer")] == [3, 3]
    versions, counts = printed.splitlines()[-2:]
    assert re.match(r"device cpu, .*jax [\d.]+, jaxlib [\d.]+, .*python 3.*; small sizes$", versions)
    assert counts == "19 rows right, 0 wrong or not run, 3 left out"
