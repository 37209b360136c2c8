"""The second start with huge pages."""

import os
import subprocess
import sys

import pytest

from d3pm_jax.cli import main, pages

PROGRAM = """
import resource, sys
if sys.argv[1:] == ["asking"]:
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
print(max(faults() for _ in range(3)), sys.argv[1:])
"""


def output(*args, **env):
    """Page faults of a call, and the arguments of the program that was run at last."""
    clean = {k: v for k, v in os.environ.items() if k != pages.TUNABLES} | {"JAX_PLATFORMS": "cpu"} | env
    command = [sys.executable, "-c", PROGRAM, *args]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=clean)
    faults, args_seen = done.stdout.split(maxsplit=1)
    assert args_seen.strip() == str(list(args))
    return int(faults)


def test_pages_of_a_step_are_large():
    if not (pages._MODE.exists() and "[madvise]" in pages._MODE.read_text()):
        pytest.skip("huge pages are not given to those who ask")
    if (before := output()) < 5_000:
        pytest.skip(f"{before} page faults without: not those of glibc and 4 KiB")
    assert output("asking") < before / 10
    assert output("asking", GLIBC_TUNABLES="") > before / 2  # the user's choice


@pytest.mark.parametrize(
    ("mode", "env", "starts"),
    [("madvise", None, 1), ("madvise", "", 0), ("always", None, 0), (None, None, 0)],
)
def test_only_programs_that_can_ask_are_started_anew(mode, env, starts, tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr(pages, "_MODE", tmp_path / "enabled")
    monkeypatch.setattr(pages.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(os, "execv", lambda *args: found.append(args))
    if mode is not None:
        words = [f"[{x}]" if x == mode else x for x in ("always", "madvise", "never")]
        (tmp_path / "enabled").write_text(" ".join(words))
    if env is None:
        monkeypatch.setenv(pages.TUNABLES, "")  # so that it is taken back at the end
        monkeypatch.delenv(pages.TUNABLES)
    else:
        monkeypatch.setenv(pages.TUNABLES, env)
    pages.use_huge_pages()
    assert found == [(sys.executable, [sys.executable, *sys.orig_argv[1:]])] * starts


@pytest.mark.parametrize(("command", "starts"), [("train", 1), ("eval", 1), ("sample", 1), ("schedule", 0)])
def test_commands_that_run_networks_ask(command, starts, monkeypatch):
    found = []
    monkeypatch.setattr(sys, "argv", ["d3pm", command, *(["DIR"] if command in ("eval", "sample") else [])])
    monkeypatch.setattr(main, "use_huge_pages", lambda: found.append(command))
    with pytest.raises(SystemExit):
        main.main()
    assert len(found) == starts
