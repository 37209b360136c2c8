"""What progress looks like: in a terminal, in a narrow one, where there is none, and where nobody reads."""

import fcntl
import io
import os
import re
import signal
import struct
import sys
import termios

import pytest

from d3pm_jax.cli.main import main
from d3pm_jax.program.loop import metrics
from d3pm_jax.program.machine import terminal
from d3pm_jax.program.parts import network
from d3pm_jax.program.storage import checkpoint
from tests import tiny
from tests.cli.commands import train_args
from tests.forked import Fork

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
READY = b"ready"


def run_commands(terminal_path, commands):
    """Runs commands at a terminal, from which this process gets its signals."""
    # Where the tests run under nohup, a terminal that is closed would stop nothing.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.setsid()
    terminal_file = os.open(terminal_path, os.O_RDWR)
    fcntl.ioctl(terminal_file, termios.TIOCSCTTY, 0)
    for number in range(3):
        os.dup2(terminal_file, number)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    for name in ("COLUMNS", "NO_COLOR"):
        os.environ.pop(name, None)
    network.split_network = tiny.split
    os.write(1, READY)
    status = 0
    for words in commands:
        try:
            main([str(word) for word in words])
        except SystemExit as ended:
            status = status or ended.code
    sys.exit(status)


def in_terminal(folder, width, *commands):
    """Begins commands in a terminal; gives the process and the end that one sits at."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    process = Fork(folder, run_commands, os.ttyname(theirs), commands, TERM="xterm-256color")
    assert os.read(ours, len(READY)) == READY
    os.close(theirs)  # which the process has opened too: what it prints ends when it does
    return process, ours


def read(ours, until=None):
    """What is printed, to the end or until some text is there."""
    text = ""
    while until is None or until not in text:
        try:
            text += os.read(ours, 2**16).decode()
        except OSError:  # the other end is closed
            break
    return text


def test_as_many_as_fit_are_shown():
    assert terminal.fit_pieces(["step 1/2", "compiling"], 19) == "step 1/2  compiling"
    assert terminal.fit_pieces(["step 1/2", "compiling", "x"], 18) == "step 1/2"
    assert terminal.fit_pieces(["step 1/2"], 7) == ""


def test_plain_lines_where_there_is_no_terminal(capsys, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: clock[-1])
    with terminal.Terminal("step", 20010, 20000).show_bar() as shown:
        for now, done in ((110.0, 20000), (145.0, 20001), (150.0, 20002), (160.0, 20004)):
            clock.append(now)
            shown.advance(done)
        shown.show_metrics({"ce": 1, "loss": 0.5, "kl": 1 / 3, "bound_bits_per_dim": 2.0, "grad_norm": 9.0})
        clock.append(160.5)
        shown.advance(20010)
    assert capsys.readouterr().out.splitlines() == [
        "step 20000/20010  compiling",
        "step 20001/20010  0.0286 steps/s  05:15 left",
        "step 20004/20010  0.08 steps/s  01:15 left  loss 0.5  bits/dim 2  kl 0.3333",
        # What is shown between two lines of metrics is of the step of the last one.
        "step 20010/20010  0.198 steps/s  00:00 left  at step 20004: loss 0.5  bits/dim 2",
    ]


def test_a_notebook_has_one_line_that_ends_without_a_rate(monkeypatch, capsys):
    lines = []
    clock = [100.0]
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr(terminal, "_make_rewriter", lambda: lines.append)
    monkeypatch.setattr(terminal.time, "monotonic", lambda: clock[-1])
    with terminal.Terminal("step", 20, 10).show_bar() as shown:
        for now, done in ((110.0, 11), (110.1, 12), (111.0, 13), (111.1, 20)):
            clock.append(now)
            shown.advance(done)
        shown.show_metrics({"loss": 0.5})
    assert lines == [
        "step 10/20  compiling",
        "step 11/20",
        "step 13/20  2 steps/s  00:04 left",
        "step 20/20  8.18 steps/s  00:00 left  loss 0.5",
        "step 20/20  loss 0.5",
    ]
    assert capsys.readouterr().out == ""


def test_a_finished_run_compiles_nothing(capsys):
    with terminal.Terminal("step", 5, 5).show_bar():
        pass
    assert capsys.readouterr().out == ""


def test_nobody_who_reads_is_no_reason_to_stop(monkeypatch):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    with terminal.Terminal("step", 5).show_bar() as shown:
        shown.advance(1)
        shown.show_metrics({"loss": 1.0})
        shown.print_line("stopped")


@pytest.mark.slow
def test_no_line_of_progress_is_wider_than_the_terminal(tmp_path_factory, tmp_path):
    workdir = tmp_path / "w"
    data_dir = tmp_path_factory.mktemp("data")
    commands = (train_args(workdir, data_dir), ["eval", workdir], ["sample", workdir, "--num", "300"])
    process, ours = in_terminal(tmp_path, 80, *commands)
    text = CONTROL.sub("", read(ours))
    assert process.wait() == 0, text
    lines = re.split(r"[\r\n]+", text)
    for unit, total in (("step", 20), ("example", 297), ("sample", 300)):
        shown = [line.rstrip() for line in lines if re.match(rf"{unit} \d+/{total}\b", line)]
        assert max(map(len, shown)) < 80
        assert shown[0].endswith("compiling")
        first = next(i for i, line in enumerate(shown) if "compiling" not in line)
        assert not any("compiling" in line for line in shown[first:])
        assert re.match(rf"{unit} {total}/{total} ", shown[-1])
        assert f"{unit}s/s" in shown[-1]
    assert any(re.match(r"step 20/20 .* loss \S+  bits/dim \S+$", line.rstrip()) for line in lines)


@pytest.mark.slow
def test_a_terminal_that_is_closed_loses_nothing(tmp_path_factory, tmp_path):
    workdir = tmp_path / "w"
    many = ["--train.steps", "1000000", "--train.checkpoint-every", "1000000"]
    process, ours = in_terminal(tmp_path, 80, train_args(workdir, tmp_path_factory.mktemp("data"), *many))
    assert "steps/s" in read(ours, "steps/s")
    os.close(ours)
    process.wait(timeout=60)
    (saved,) = checkpoint.list_steps(workdir / "checkpoints")
    assert saved == metrics.read_metrics(workdir)[-1]["step"] < 1000000
