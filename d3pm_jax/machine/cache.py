"""Keeps compiled programs for the next process."""

import contextlib
import hashlib
import os
import platform
import warnings
from pathlib import Path
from typing import Any

from d3pm_jax.extras import require

require("d3pm_jax.machine", "filelock", "platformdirs")

import filelock
import jax
import platformdirs

LARGEST = 2 * 10**9  # bytes, of one kind of machine
SETTINGS = {  # but what the user has set
    "jax_compilation_cache_max_size": LARGEST,
    "jax_persistent_cache_min_compile_time_secs": 0.1,
}
OF_A_CPU = (
    "vendor_id",
    "cpu family",
    "model",
    "model name",
    "flags",
    "CPU implementer",
    "CPU part",
    "Features",
)


def keep_programs() -> None:
    """Has JAX keep compiled programs in the user's cache folder, and take them from there.

    Nothing is done where the user has named another folder (JAX_COMPILATION_CACHE_DIR) or wants none
    (JAX_ENABLE_COMPILATION_CACHE=false), or where the folder cannot be written to. What was not used for the
    longest time is deleted first; processes take turns by a lock.
    """
    config: Any = jax.config
    if config.jax_compilation_cache_dir is not None or not config.jax_enable_compilation_cache:
        return
    folder = Path(platformdirs.user_cache_dir("d3pm_jax", False)) / "programs" / _machine()
    for name, value in SETTINGS.items():
        if name.upper() not in os.environ:
            config.update(name, value)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if config.jax_compilation_cache_max_size != -1:  # with -1 JAX writes no times of use
            # A process that was killed while it wrote left what JAX would neither read nor replace: it goes.
            # What was kept without a largest size looks the same, and goes too.
            with filelock.FileLock(folder / ".lockfile", timeout=5):  # JAX's own
                kept, used = (
                    {x.name.removesuffix(end) for x in folder.glob(f"*{end}")} for end in ("-cache", "-atime")
                )
                for name in kept ^ used:  # the time of use is written last
                    for end in ("-cache", "-atime"):
                        (folder / f"{name}{end}").unlink(missing_ok=True)
    except (OSError, filelock.Timeout):
        return
    config.update("jax_compilation_cache_dir", str(folder))
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")  # it is slower


def _machine() -> str:
    """Names the kind of this machine's processor: code for another may not run here, or round otherwise."""
    lines = ""
    with contextlib.suppress(OSError):
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
        lines = "\n".join(line for line in first.splitlines() if line.split("\t")[0].strip() in OF_A_CPU)
    about = f"{platform.system()} {platform.machine()} {platform.processor()}\n{lines}"
    return hashlib.sha256(about.encode()).hexdigest()[:16]
