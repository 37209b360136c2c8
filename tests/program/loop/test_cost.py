"""What a run costs: said before it, and measured in it."""

import dataclasses
import functools
import platform
import re
import runpy
import sys
import types
from pathlib import Path

import jax
import pytest

from d3pm_jax.cli import train as commands
from d3pm_jax.program.compiled import cost, programs
from d3pm_jax.program.loop import loop, metrics, speed
from d3pm_jax.program.machine import devices
from d3pm_jax.program.parts import build
from d3pm_jax.program.parts.completed import complete
from tests import tiny
from tests.cli.commands import CONFIG, error, status
from tests.forked import Fork

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_dry_run_compiles_and_writes_nothing(small_network, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    assert status("train", CONFIG, "--dry-run", "--data.dir", data) == 0
    printed = capsys.readouterr().out
    assert f"parameters: {17 * 17 + 17:,}, 0.0 MB\ndevices: 2 x cpu; compiled in " in printed
    assert "it fits: " in printed
    assert {path.name for path in tmp_path.iterdir()} == {"data"}  # which was prepared
    assert "batch_size" in error(capsys, "train", CONFIG, "--dry-run", "--train.batch-size", "9999")
    assert "decay_steps = 5" in error(capsys, "train", CONFIG, "--dry-run", "--optimizer.decay-steps", "5")
    assert "uses a single process" in error(capsys, "train", CONFIG, "--dry-run", "--coordinator", "auto")


def test_as_many_devices_as_divide_a_part_of_a_batch(monkeypatch):
    class Asked(Exception):
        pass

    def ask(*asked):
        raise Asked(asked)

    config = tiny.get_config()
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, accumulate=8))
    set_up = functools.partial(commands._set_up, commands.TrainCommand(), saved=None)
    monkeypatch.setattr(devices, "use_all_cores", ask)
    for begin in loop.build_run, set_up:
        with pytest.raises(Asked, match=r"\(2, 1\)"):
            begin(config)


def num_bytes(tree):
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def test_memory_is_that_of_the_arguments_and_of_what_is_added(small_network):
    parts = build.build(complete(tiny.get_config(), tiny.DIGITS))
    measured, compiled = cost.measure_step(parts)
    state = num_bytes(parts.state)
    process = num_bytes(parts.recipe.process)
    used = state + 8 * (4 + 4 + 64 * (4 + 4))  # a device's half of t, p_t, x and u; labels are not used
    assert used <= measured.arguments <= used + process + 64  # not all tables, and keys
    assert measured.flops == 0  # of a table
    assert measured.added > 0
    assert compiled.memory_analysis().alias_size_in_bytes >= state  # donated

    program = programs.count_program(compiled.as_text())
    assert program.launches > 0
    assert program.bytes > state


def test_what_does_not_fit():
    small = cost.Cost(1, 1, 6 * 10**9, 5 * 10**9, 1.0)
    device = types.SimpleNamespace(platform="gpu", process_index=0)
    device.memory_stats = lambda: {"bytes_limit": 10**10}
    assert cost._whether_it_fits(small, [device] * 8) == (
        "it does not fit: 88.00 GB needed, 80.00 GB there for all devices"
    )
    device.memory_stats = lambda: None
    assert "not known" in cost._whether_it_fits(small, [device] * 8)


def test_speed_follows_from_the_seconds_of_a_step(monkeypatch):
    now = [0.0]
    ready = [True]
    monkeypatch.setattr(speed.time, "monotonic", lambda: now[0])
    measured = speed.Speed(32, 6e9 / 1e12)

    def steps(*waits):
        for seconds in waits:
            with measured.time_wait():
                now[0] += seconds
            measured.note_dispatch({"loss": types.SimpleNamespace(is_ready=lambda: ready[0])})

    steps(7.0)
    assert measured.add_rates({"loss": 1.0}) == {"loss": 1.0}  # the first step alone is not timed
    steps(0.1, 0.3)
    row = measured.add_rates({"loss": 1.0, "seconds_per_step": 0.4})
    assert row.pop("examples_per_second") == 80
    assert row.pop("waiting") == pytest.approx(0.5)
    assert row.pop("mfu") == pytest.approx(6e9 / 0.4 / 1e12)
    assert row == {"loss": 1.0, "seconds_per_step": 0.4}
    ready[0] = False  # the step before is still computed: nothing is lost
    steps(0.1, 0.3)
    assert measured.add_rates({"seconds_per_step": 0.4})["waiting"] == 0


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [(1, 30, (6, 10)), (41, 47, (46, 47)), (1, 3, (3, 3)), (1, 1, (1, 1)), (5, 4, ())],
)
def test_which_steps_are_traced(monkeypatch, tmp_path, first, last, expected):
    trace_calls = []
    waits = []
    now = [0]
    monkeypatch.setattr(
        jax.profiler, "start_trace", lambda folder, profiler_options: trace_calls.append(now[0] + 1)
    )
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: trace_calls.append(now[0]))
    now[0] = first - 1
    for step in speed.trace_steps(range(first, last + 1), tmp_path, lambda: waits.append(now[0])):
        now[0] = step
    assert tuple(trace_calls) == expected
    assert waits == trace_calls[1:]  # the last one may still be computed
    assert list(speed.trace_steps(range(3), None, pytest.fail)) == [0, 1, 2]
    assert tuple(trace_calls) == expected


@pytest.mark.slow
def test_profile_writes_a_trace_and_goes_on(small_network, tmp_path, capsys):
    assert status("train", CONFIG, "--workdir", tmp_path / "run", "--data.dir", tmp_path, "--profile") == 0
    assert str(tmp_path / "run" / "profile") in capsys.readouterr().out
    files = [path for path in (tmp_path / "run" / "profile").rglob("*.xplane.pb") if path.stat().st_size]
    assert files
    assert metrics.read_metrics(tmp_path / "run")[-1]["step"] == 20


def run_benchmark(*words):
    sys.argv = ["memory.py", *words]
    runpy.run_path(str(ROOT / "benchmarks" / "memory.py"), run_name="__main__")


@pytest.mark.slow
@pytest.mark.skipif(platform.system() != "Linux", reason="asks the kernel of Linux")
def test_memory_told_is_what_the_first_step_adds(tmp_path):
    """Of more than 1 GB, to 10%."""
    process = Fork(tmp_path, run_benchmark, "--batch-size", "16", as_users=True, JAX_PLATFORMS="cpu")
    output, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors
    reported = float(re.search(r"told: ([\d.]+) GB", output)[1])
    ratio = float(re.search(r"([\d.]+) of what", output)[1])
    assert reported > 1
    assert abs(ratio - 1) < 0.1


@pytest.mark.slow
def test_the_step_is_compiled_once(small_network, tmp_path, caplog):
    """In a run, and in one that goes on with it in the same process."""
    folder = ["--workdir", tmp_path / "run"]
    for more in (CONFIG, *folder, "--data.dir", tmp_path), (*folder, "--resume", "--train.steps", "30"):
        caplog.clear()
        with jax.log_compiles():
            assert status("train", *more) == 0
        compiled = [r.getMessage() for r in caplog.records if "Finished XLA compilation" in r.getMessage()]
        assert len([text for text in compiled if "jit(update)" in text]) == 1, compiled
