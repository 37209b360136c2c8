"""Large pages for the memory of a training step."""

import os
import platform
import sys
from pathlib import Path

TUNABLES = "GLIBC_TUNABLES"
_MODE = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def use_huge_pages() -> None:
    """Starts this program anew with malloc asking for huge pages, where Linux gives them to those who ask.

    XLA maps the temporaries of a step anew in every step, and the system zeroes them page by page: with pages
    of 4 KiB a tenth of a training step and more. Malloc of glibc reads this setting once, before a program
    begins. Nothing happens where huge pages are always on, are off or cannot be asked for, nor where the user
    has set GLIBC_TUNABLES.
    """
    asking = _MODE.exists() and "[madvise]" in _MODE.read_text() and platform.libc_ver()[0] == "glibc"
    if asking and TUNABLES not in os.environ:
        os.environ[TUNABLES] = "glibc.malloc.hugetlb=1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
