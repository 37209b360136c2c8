"""Keeps compiled programs for the next process."""

import contextlib
import hashlib
import os
import platform
import warnings
from pathlib import Path
from typing import Any

from d3pm_jax.extras import require

require("d3pm_jax.program.machine", "filelock", "platformdirs")

import filelock
import jax
import platformdirs

LARGEST = 2 * 10**9  # bytes, of one kind of machine
# Settings of JAX, where the user has not set them in the environment.
SETTINGS = {
    "jax_compilation_cache_max_size": LARGEST,
    "jax_persistent_cache_min_compile_time_secs": 0.1,
}
# A program that JAX keeps is the file NAME-cache, and when it was last used is in NAME-atime.
PROGRAM = "-cache"
TIME_OF_USE = "-atime"
# Lines of /proc/cpuinfo that say what code a processor runs.
CPU_FIELDS = (
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
    folder = Path(platformdirs.user_cache_dir("d3pm_jax", False)) / "programs" / _name_machine()
    for name, value in SETTINGS.items():
        if name.upper() not in os.environ:
            config.update(name, value)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Without a largest size, -1, JAX writes no times of use, and every program would look unfinished.
        if config.jax_compilation_cache_max_size != -1:
            # The lock is JAX's own, by its name, so that no process is writing a program meanwhile.
            with filelock.FileLock(folder / ".lockfile", timeout=5):
                _delete_unfinished(folder)
    except (OSError, filelock.Timeout):
        return
    config.update("jax_compilation_cache_dir", str(folder))
    # A program that cannot be read or written is compiled again: slower, and nothing to warn of.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")


def _delete_unfinished(folder: Path) -> None:
    """Deletes programs without a time of use, and times of use without a program.

    JAX writes the time last. So a process that was killed while it wrote has left a program without one,
    which JAX would neither read nor replace. What was kept without a largest size looks the same, and goes
    too.
    """
    programs = {path.name.removesuffix(PROGRAM) for path in folder.glob(f"*{PROGRAM}")}
    times = {path.name.removesuffix(TIME_OF_USE) for path in folder.glob(f"*{TIME_OF_USE}")}
    for name in programs ^ times:
        (folder / f"{name}{PROGRAM}").unlink(missing_ok=True)
        (folder / f"{name}{TIME_OF_USE}").unlink(missing_ok=True)


def _name_machine() -> str:
    """Returns a name for the kind of this machine's processor.

    Programs that were compiled on another kind may not run here, or round otherwise.
    """
    fields = ""
    with contextlib.suppress(OSError):
        first_cpu = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
        fields = "\n".join(
            line for line in first_cpu.splitlines() if line.split("\t")[0].strip() in CPU_FIELDS
        )
    description = f"{platform.system()} {platform.machine()} {platform.processor()}\n{fields}"
    return hashlib.sha256(description.encode()).hexdigest()[:16]
