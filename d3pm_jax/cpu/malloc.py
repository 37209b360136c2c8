"""Tells malloc of glibc to keep freed memory, before a training of a network that is not tiny."""

import contextlib
import ctypes
import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Iterator

import jax

# Numbers of malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8
# Never give the end of the heap back, and map no block. One arena for all threads, as large memory of any
# arena but the first is mapped whatever M_MMAP_MAX says.
_MALLOPT = ((_M_TRIM_THRESHOLD, -1), (_M_MMAP_MAX, 0), (_M_ARENA_MAX, 1))
_LARGE = 2**17  # features


def keep_freed_memory(features: int) -> None:
    """Tells malloc of glibc not to return memory to the system, for steps of networks on CPUs.

    XLA allocates all temporaries of a step at once and frees them after it. Large blocks are mapped anew by
    default, so that the system zeroes every page in every step: a tenth of the time of a step. Smaller steps
    may lose more by sharing one arena of malloc than they gain. It is set for the whole process, must come
    before the first JAX computation, and leaves alone what the user has set.

    Threads of a backend take their arenas when it starts, and keep them: so this cannot wait for it. Where an
    accelerator could be used, nothing is done.

    Args:
        features: numbers in a layer of the network for one batch; below 2^17 nothing is done.
    """
    if features < _LARGE or not _may_be_told() or _may_have_accelerators():
        return
    for option, value in _MALLOPT:
        ctypes.CDLL(None).mallopt(option, value)


@contextlib.contextmanager
def in_first_arena() -> Iterator[None]:
    """Has threads that first take memory in the block take it from the arena of the main thread.

    A thread keeps its arena. One that had an arena of its own before `keep_freed_memory` would leave it to
    the threads that come after, and large memory of any arena but the first is mapped anew each time.
    """
    if not _may_be_told():
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_ARENA_MAX, 1)
    try:
        yield
    finally:
        libc.mallopt(_M_ARENA_MAX, 0)  # as many as there are by default


def _may_be_told() -> bool:
    """Says whether this is malloc of glibc, and the user has told it nothing."""
    set_by_user = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    return platform.libc_ver()[0] == "glibc" and not set_by_user


def _may_have_accelerators() -> bool:
    """Tells whether JAX may find more than CPUs, by `jax_platforms`, or by what is installed."""
    # Asking JAX for its devices would start the backend, whose threads would take their arenas.
    platforms = jax.config.values["jax_platforms"]
    if platforms:
        return platforms != "cpu"
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return bool(plugins) or importlib.util.find_spec("libtpu") is not None
