"""d3pm schedule as a user runs it."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d3pm_jax import show
from tests.cli.commands import CONFIG, error, status


@pytest.mark.parametrize(
    ("name", "half", "prior"),
    [
        ("digits_absorbing", "50 of 100", "0"),
        pytest.param("digits_gaussian", "19 of 200", "0.000206", marks=pytest.mark.slow),
    ],
)
def test_schedule_draws_a_config(name, half, prior, tmp_path, capsys):
    picture = tmp_path / "here.png"
    assert status("schedule", Path("configs") / f"{name}.py", "--out", picture) == 0
    printed = capsys.readouterr().out
    assert f"prior KL(q(x_T | x_0) || p(x_T)): {prior} bits/dim" in printed
    assert f"half of the information is left at t = {half}\n" in printed
    assert printed.endswith(f"what each step does: {picture}\n")
    ink = np.asarray(Image.open(picture).convert("L")) < 200
    panels = np.array_split(ink, 3)
    assert all(panel.mean() > 0.01 for panel in panels)  # none is blank


def test_schedule_draws_several_configs(tmp_path, capsys, monkeypatch):
    """Overrides are of all of them, and each has the lines that it has alone."""
    picture = tmp_path / "both.png"
    steps = ("--process.steps", "4")
    names = ("digits_absorbing", "digits_uniform")
    configs = [Path("configs") / f"{name}.py" for name in names]
    assert status("schedule", *configs, "--out", picture, *steps) == 0
    printed = capsys.readouterr().out
    monkeypatch.setattr(show, "save_schedules", lambda *args: None)
    assert status("schedule", configs[1], "--out", tmp_path / "one.png", *steps) == 0
    alone = capsys.readouterr().out.splitlines()[:-1]
    end = "".join(f"  {line}\n" for line in alone) + f"what each step does: {picture}\n"
    assert re.fullmatch(
        r"digits_absorbing:\n  process: Absorbing\(K=18, steps=4, .*\n  .*\n  .*\ndigits_uniform:\n"
        + re.escape(end),
        printed,
    )
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    for colour in ((31, 119, 180), (255, 127, 14)):
        near = np.abs(pixels - colour).max(-1) < 30
        assert all(panel.any() for panel in np.array_split(near[: len(near) * 9 // 10], 3))


def test_bad_values_among_several_configs_name_theirs(tmp_path, capsys, monkeypatch):
    other = tmp_path / "tiny.py"
    other.write_text(Path(CONFIG).read_text())
    args = ["schedule", CONFIG, other, "--out", tmp_path / "x.png"]
    assert f"{CONFIG}: no field --process.stepz" in error(capsys, *args, "--process.stepz", "2")
    assert f"{tmp_path / 'none.py'}: no config file" in error(capsys, *args[:3], tmp_path / "none.py")
    assert f"{other} is passed more than once" in error(capsys, *args[:3], other)
    assert not (tmp_path / "x.png").exists()
    drawn = []
    monkeypatch.setattr(show, "save_schedules", lambda *args: drawn.extend(args[1]))
    assert status(*args) == 0  # two files of one name are told apart by their paths
    printed = capsys.readouterr().out
    assert f"{CONFIG}:\n  process: Uniform" in printed
    assert f"{other}:\n  process: Uniform" in printed
    assert [label.split(": ")[0] for label in drawn] == [str(CONFIG), str(other)]  # a line for each


def test_overrides_and_missing_noise(tmp_path, capsys):
    args = ["schedule", CONFIG, "--out", tmp_path / "x.png"]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert status(*args, "--process.steps", "1", "--process.beta.stop", "0.25") == 0
    printed, told = capsys.readouterr()
    # Here a file of the tests calls the command, and is named as what gave the warning.
    assert re.fullmatch(
        r"warning: (.*commands.py, line \d+: )?x_T still depends .*: prior KL is up to .*\n", told
    )
    assert "half of the information is left never: raise beta" in printed
    bits = float(re.search(r"prior KL.*: (\S+) bits/dim", printed)[1])
    q = 0.25 / 17 + 0.75 * np.eye(17)[0]
    assert bits == pytest.approx((q * np.log2(17 * q)).sum(), abs=0.01)


def test_bad_values_get_one_line(tmp_path, capsys):
    args = ["schedule", CONFIG, "--out", tmp_path / "x.png"]
    assert "beta = 1.13333 at t = 4 is outside (0, 1]" in error(capsys, *args, "--process.beta.stop", "3")
    assert "no field --process.stepz" in error(capsys, *args, "--process.stepz", "2")
    by_position = tmp_path / "by_position.py"
    process = "process=Autoregressive(17, 64, 16)"
    text = Path(CONFIG).read_text().replace("import Adam", "import Adam, Autoregressive")
    by_position.write_text(re.sub(r"process=Uniform\(.*\)", process, text))
    message = "d3pm schedule shows a process of elements each on its own; Autoregressive goes by the position"
    assert message in error(capsys, "schedule", by_position)
    assert "as in d3pm schedule CONFIG" in error(capsys, "schedule")
    assert "name it FILE.png" in error(capsys, "schedule", CONFIG, "--out", "x.pdf")
    assert "No such file" in error(capsys, "schedule", CONFIG, "--out", tmp_path / "none" / "x.png")
