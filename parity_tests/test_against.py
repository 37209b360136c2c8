"""The command that holds a file beside JAX: what it prints and refuses."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from parity_tests import __main__ as command
from parity_tests.against.signatures import FUNCTIONS, PROCESSES
from parity_tests.pairs import PAIRS

EXAMPLE = Path(__file__).parents[1] / "examples/against_own_code.py"
CORRECTED = {
    "+ rows(process.Qbar(t), x0).log()": "+ rows(process.Qbar(t - 1), x0).log()",
    "rows(process.Q(t), xt)": "rows(process.Q(t).mT, xt)",
    "torch.log(p + 1e-8)": "torch.log(p)",
}


@pytest.fixture
def run(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """The status and the output of the command."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["parity_tests", *words])
        monkeypatch.setattr(sys, "path", [*sys.path])
        try:
            status = command.main()
        except SystemExit as error:
            status = int(error.code or 0)
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        (tmp_path / "own.py").write_text(text)
        return str(tmp_path / "own.py")

    return write


@pytest.mark.parametrize(
    ("dtype", "count"), [("float64", 7), pytest.param("float32", 4, marks=pytest.mark.slow)]
)
def test_the_example_has_three_slips_and_passes_without(dtype: str, count: int, run, written) -> None:
    status, out, _ = run("--against", str(EXAMPLE), "--dtype", dtype)
    assert status == 1
    assert {line.split()[0] for line in out.splitlines() if " DIFFERS " in line} == {
        *("q_posterior", "p_logits", "cross_entropy")
    }
    assert f"q_posterior is that of JAX with Qbar one step later: {', '.join(PROCESSES)}\n" in out
    assert "p_logits is that of JAX with Q transposed, a row for a column: absorbing," in out
    assert "cross_entropy is that of JAX with 1e-08 added inside the last log: any\n" in out
    assert f"3 of {count} functions differ: q_posterior, p_logits, cross_entropy" in out
    assert ("cosine, uniform, absorbing: made in float64, not compared in float32" in out) == (count == 4)

    text = EXAMPLE.read_text()
    for slip, right in CORRECTED.items():
        assert text.count(slip) == 1
        text = text.replace(slip, right)
    status, out, _ = run("--against", written(text), "--dtype", dtype)
    assert (status, "DIFFERS" in out) == (0, False)
    assert f"all of {count} functions agree" in out


def test_what_is_own(run, written) -> None:
    text = """
from __future__ import annotations
import dataclasses
from scipy.stats import logistic, uniform

@dataclasses.dataclass
class Strange:
    x: int = 0

    def __call__(self): ...

    def __getattr__(self, name):
        raise KeyError(name)

strange = Strange()

def log_prior(process):
    return process.log_prior()
"""
    status, out, _ = run("--against", written(text), "--dtype", "float64")
    assert (status, "all of 1 functions agree" in out) == (0, True)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("def q_posterior(:", "own.py:1: SyntaxError: "),
        ("x = 1\nx / 0", "does not run: ZeroDivisionError: division by zero at own.py:2"),
        ("import sys\nsys.exit(3)", "does not run: SystemExit: 3 at own.py:2"),
        ("import nothing_like_it", "does not run: ModuleNotFoundError: No module named 'nothing_like_it'"),
        ("from torch.nn.functional import linear", "has no function that --list names"),
        ("def q_posteriors(x): ...", "q_posteriors is not compared: do you mean q_posterior?"),
        ("def cosine(T, s): ...", "own.py: cosine(T, s) should take (T), by these names; else rename it"),
        ("def q_posterior(x_0, x_t, t): ...", "should take (process, x0, xt, t), by these names"),
    ],
)
def test_a_file_is_refused_in_a_line(text: str, line: str, run, written) -> None:
    status, out, err = run("--against", written(text))
    assert (status, out) == (2, "")
    assert line in err
    assert err.count("\n") <= 2


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--against"], "--against needs a file"),
        (["--against", "no.py"], "no.py is not a file"),
        (["--against", "x.py", "--html", "x.html"], "--html does not go with --against"),
        (["--against", "x.py", "--device", "gpu"], "--device does not go with --against"),
        (["--against", "x.py", "--matmul-precision", "high"], "--matmul-precision does not go with"),
        (["--against", "x.py", "--dtype", "bfloat16"], "leave --dtype bfloat16 out"),
    ],
)
def test_options_that_make_no_sense(words: list[str], line: str, run) -> None:
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    assert line in err.splitlines()[-1]


def test_an_interrupt_is_one_line(run, monkeypatch) -> None:
    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_report", interrupt)
    assert run() == (130, "", "python -m parity_tests: stopped by SIGINT\n")


def test_every_comparison_and_markdown(run, written) -> None:
    text = "def log_prior(process):\n    return process.log_prior()\n\ndef q_posteriors(): ...\n"
    status, out, _ = run("--against", written(text), "--all", "--markdown", "--dtype", "float64")
    assert status == 0
    assert out.count("log_prior | ") == len(PROCESSES)
    assert "q_posteriors is not compared: do you mean q_posterior?" in out


def test_the_list_names_what_is_compared(run) -> None:
    assert {ours.pair for ours in FUNCTIONS.values()} <= set(PAIRS)
    for words in (["--list"], ["--against", "--list"]):
        status, out, _ = run(*words)
        assert status == 0
        assert "\nq_posterior(process, x0, xt, t) -> [B, *S, K]\n    log q(x_{t-1} | x_t, x_0) = " in out
        assert all(f"\n{name}(" in out for name in FUNCTIONS)
        assert all(f"\n  {name}" in out for name in PROCESSES)
        assert max(map(len, out.splitlines())) <= 120


@pytest.mark.slow
def test_the_list_needs_no_jax() -> None:
    code = "import sys; from parity_tests.against import signatures; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
