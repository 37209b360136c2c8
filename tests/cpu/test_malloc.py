"""What malloc is told."""

import os
import platform
import subprocess
import sys
import types

import pytest

from d3pm_jax.cpu import malloc as memory


@pytest.mark.parametrize(
    ("platforms", "plugins", "num_options"),
    [("", [], 3), ("cpu", ["cuda"], 3), ("", ["cuda"], 0), ("cuda", [], 0), ("cuda,cpu", [], 0)],
)
def test_malloc_is_told_only_where_there_is_no_accelerator(platforms, plugins, num_options, monkeypatch):
    options = []
    libc = types.SimpleNamespace(mallopt=lambda option, value: options.append((option, value)))
    config = types.SimpleNamespace(values={"jax_platforms": platforms})
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: libc)
    monkeypatch.setattr(memory.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(memory, "jax", types.SimpleNamespace(config=config))
    monkeypatch.setattr(memory.importlib.metadata, "entry_points", lambda group: plugins)
    for name in [n for n in os.environ if n.startswith(("MALLOC_", "GLIBC_"))]:
        monkeypatch.delenv(name)
    memory.keep_freed_memory(2**20)
    assert len(options) == num_options


# Counts pages that are mapped anew while a thread takes and frees blocks that no arena but the first keeps.
COUNT_FAULTS = """
import ctypes, resource, threading
from d3pm_jax.cpu.malloc import keep_freed_memory
from d3pm_jax.program.machine.signals import end_on_signals
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
SIZE = 80 * 2**20
def work():
    for _ in range(5):
        block = libc.malloc(SIZE)
        libc.memset(block, 1, SIZE)
        libc.free(block)
with end_on_signals(print):
    keep_freed_memory(2**20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults * resource.getpagesize() / SIZE)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc of glibc alone is told something")
def test_the_thread_that_waits_for_signals_leaves_large_blocks_in_the_first_arena():
    set_names = {name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_"))}
    environment = {name: value for name, value in os.environ.items() if name not in set_names}
    environment["JAX_PLATFORMS"] = "cpu"
    command = [sys.executable, "-c", COUNT_FAULTS]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    # In blocks: once for each of two threads at most, and not five times for one of them.
    assert float(printed.split()[-1]) < 2.5
