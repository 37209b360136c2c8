"""The second start with huge pages."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from d3pm_jax.cli import main, pages

D3PM = Path(sys.executable).parent / "d3pm"
HUGE = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
PROGRAM = """
import resource, sys
if sys.argv[1:] == ["ask"]:
    from d3pm_jax.cli.pages import use_huge_pages
    use_huge_pages()
import jax
import jax.numpy as jnp

@jax.jit
def f(x):  # 48 MB of temporaries
    y = jax.lax.optimization_barrier(jnp.broadcast_to(x, 12_000_000) + 1.0)
    return jnp.flip(y).sum()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    jax.block_until_ready(f(1.0))
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(max(faults() for _ in range(3)))
"""


def run(command, **env):
    """What a program gave in an environment without the setting, but for `env`."""
    clean = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"} | {"JAX_PLATFORMS": "cpu"} | env
    return subprocess.run(command, capture_output=True, text=True, env=clean)


def page_faults(*args, **env):
    """Of a call that allocates, once one went before."""
    return int(run([sys.executable, "-c", PROGRAM, *args], **env).stdout)


def test_pages_of_a_step_are_large():
    without = page_faults("ask", GLIBC_TUNABLES="")  # the user's choice
    if not pages._can_ask() or page_faults(**HUGE) > without / 10:
        pytest.skip("huge pages are not to be had here")
    assert page_faults("ask") < without / 5


@pytest.mark.parametrize(
    ("change", "starts"),
    [
        ({}, 1),
        ({"env": ""}, 0),
        ({"mode": "always"}, 0),
        ({"mode": None}, 0),
        ({"libc": ("", "")}, 0),
        ({"libc": ("glibc", "2.31")}, 0),
        ({"xoptions": {"d3pm_huge_pages": True}}, 0),
    ],
)
def test_only_programs_that_can_ask_are_started_anew(change, starts, tmp_path, monkeypatch):
    case = {"env": None, "mode": "madvise", "libc": ("glibc", "2.41"), "xoptions": {}} | change
    found = []
    monkeypatch.setattr(os, "execv", lambda *args: found.append(args))
    monkeypatch.setattr(pages, "_MODE", tmp_path / "enabled")
    monkeypatch.setattr(pages.platform, "libc_ver", lambda: case["libc"])
    monkeypatch.setattr(sys, "_xoptions", case["xoptions"])
    if case["mode"] is not None:
        words = [f"[{x}]" if x == case["mode"] else x for x in ("always", "madvise", "never")]
        (tmp_path / "enabled").write_text(" ".join(words))
    monkeypatch.setenv("GLIBC_TUNABLES", case["env"] or "")
    if case["env"] is None:
        monkeypatch.delenv("GLIBC_TUNABLES")
    pages.use_huge_pages()
    command = [sys.executable, "-X", "d3pm_huge_pages", *sys.orig_argv[1:]]
    assert found == [(sys.executable, command)] * starts


@pytest.mark.parametrize("executable", ["", "/nowhere/python"])
def test_a_program_that_cannot_be_started_goes_on(executable, monkeypatch):
    monkeypatch.setattr(pages, "_can_ask", lambda: True)
    monkeypatch.setattr(sys, "executable", executable)
    monkeypatch.setenv("GLIBC_TUNABLES", "")
    monkeypatch.delenv("GLIBC_TUNABLES")
    pages.use_huge_pages()
    assert "GLIBC_TUNABLES" not in os.environ


@pytest.mark.parametrize(
    ("words", "starts"), [("train", 1), ("eval DIR", 1), ("sample DIR", 1), ("schedule", 0), ("train -h", 0)]
)
def test_commands_that_run_networks_ask(words, starts, monkeypatch):
    found = []
    monkeypatch.setattr(sys, "argv", ["d3pm", *words.split()])
    monkeypatch.setattr(main, "use_huge_pages", lambda: found.append(words))
    with pytest.raises(SystemExit):
        main.script()
    assert len(found) == starts


def test_a_command_says_what_it_says_once(tmp_path):
    done = run([D3PM, "eval", str(tmp_path / "no run")])
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"d3pm eval: error: [^\n]+\n", done.stderr)
