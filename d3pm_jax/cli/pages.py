"""Large pages for the memory of a training step."""

import os
import platform
import sys
from pathlib import Path

_TUNABLES = "GLIBC_TUNABLES"
_MODE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_STARTED = "d3pm_huge_pages"  # an option of the second start


def use_huge_pages() -> None:
    """Starts this program anew with malloc asking for huge pages, where Linux gives them to those who ask.

    XLA maps the temporaries of a step anew in every step, and the system zeroes them page by page: with pages
    of 4 KiB a tenth of a training step and more. Malloc of glibc, from 2.35 on, reads this setting once,
    before a program begins. Nothing happens where huge pages are always on, are off or cannot be asked for,
    nor where the user has set GLIBC_TUNABLES.
    """
    if _TUNABLES in os.environ or _STARTED in sys._xoptions or not (_can_ask() and sys.executable):
        return
    os.environ[_TUNABLES] = "glibc.malloc.hugetlb=1"
    try:
        os.execv(sys.executable, [sys.executable, "-X", _STARTED, *sys.orig_argv[1:]])
    except OSError:  # then as it is
        del os.environ[_TUNABLES]


def _can_ask() -> bool:
    name, version = platform.libc_ver()
    if name != "glibc" or [int(x) for x in version.split(".")[:2]] < [2, 35]:
        return False
    try:
        return "[madvise]" in _MODE.read_text()
    except OSError:
        return False
