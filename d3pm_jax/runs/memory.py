"""Tells malloc of glibc to keep freed memory, before a training of a large network on CPUs."""

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterator

import jax

# Numbers of malloc.h. Memory of any arena but the first is mapped if it is large, whatever M_MMAP_MAX says.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_LARGE = 2**20  # features


@contextlib.contextmanager
def keep_freed_memory(features: int) -> Iterator[None]:
    """Tells malloc of glibc not to return memory to the system, for steps of large networks on CPUs.

    XLA allocates all temporaries of a step at once and frees them after it. Large blocks are mapped anew by
    default, so that the system zeroes every page in every step: a tenth of the time of a large step and more.
    Small steps lose more by sharing one arena of malloc than they gain. It is set for the whole process, and
    leaves alone what the user has set.

    No JAX computation may come before it. Threads of a backend take their arenas when it starts, so there is
    one when the context begins; at its end it is known whether the backend is a CPU. With an accelerator the
    host has its arenas again.

    Args:
        features: numbers in a layer of the network for one batch; below 2^20 nothing is done.
    """
    own = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if features < _LARGE or platform.libc_ver()[0] != "glibc" or own:
        yield
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_ARENA_MAX, 1)
    yield
    if jax.default_backend() == "cpu":
        mallopt(_M_TRIM_THRESHOLD, -1)
        mallopt(_M_MMAP_MAX, 0)
    else:
        mallopt(_M_ARENA_MAX, 0)  # as many as malloc sees fit
