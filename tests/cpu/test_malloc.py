"""What malloc is told."""

import os
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
